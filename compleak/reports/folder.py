"""Writing a report: nothing is written before all of it is there."""

import functools
from pathlib import Path

import pandas as pd

from compleak.reports.figures.style import save_png
from core.files import write_atomically, write_text


def write_report(folder: Path, frames: dict[str, pd.DataFrame], figures: dict, page: str) -> None:
    """Write `<name>.csv` for each frame, `<name>.png` for each figure, and last the page as `summary.md`."""
    for name, frame in frames.items():
        write_atomically(folder / f"{name}.csv", functools.partial(frame.to_csv, index=False))
    for name, figure in figures.items():
        write_atomically(folder / f"{name}.png", functools.partial(save_png, figure))
    write_text(folder / "summary.md", page)
