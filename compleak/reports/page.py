"""A page is a list of blocks. `to_markdown` turns it into a text as GitHub shows it.

Line breaks within a text are spaces. A text may hold `code`, *emphasis* and [links](target) in Markdown's spelling, and
no other markup.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2  # 1 is the page's title


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """A command to copy."""

    text: str


@dataclass(frozen=True)
class Table:
    """A frame whose cells are shown as they are; `reports.cells` makes them."""

    frame: pd.DataFrame


@dataclass(frozen=True)
class Figure:
    file: str  # beside the page
    caption: str


Block = Heading | Text | Bullets | Code | Table | Figure


def to_markdown(blocks: Sequence[Block]) -> str:
    """The page as GitHub's Markdown."""
    return "\n\n".join(_RENDERERS[type(block)](block) for block in blocks) + "\n"


def markdown_table(frame: pd.DataFrame) -> str:
    """A GitHub table."""
    lines = [frame.columns, ["---"] * len(frame.columns), *frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())


_RENDERERS = {
    Heading: lambda heading: f"{'#' * heading.level} {heading.text}",
    Text: lambda text: _one_line(text.text),
    Bullets: lambda bullets: "\n".join(f"- {_one_line(item)}" for item in bullets.items),
    Code: lambda code: f"```bash\n{code.text}\n```",
    Table: lambda table: markdown_table(table.frame),
    Figure: lambda figure: f"![{figure.caption}]({figure.file})",
}
