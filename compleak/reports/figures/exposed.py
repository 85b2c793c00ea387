"""The members that are found first, as pictures."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from compleak.reports.figures.style import SMALL, new_figure

COLUMNS, ROWS = 8, 3


def exposed_figure(points: pd.DataFrame, images: np.ndarray, classes: Sequence[str], subtitle: str):
    """The most exposed members, each with its class and its place in the data set.

    points: `exposure.points_table`; images: (n, S, S, 3) uint8, the whole data set.
    """
    members = points[points["member"] == 1].head(ROWS * COLUMNS)
    figure, grid = new_figure(_title(members), subtitle, 4.4, nrows=ROWS, ncols=COLUMNS)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (_, row) in zip(grid.flat, members.iterrows(), strict=False):
        axes.imshow(images[int(row["point"])])
        axes.set_title(f"{classes[int(row['label'])]}\n#{int(row['point'])}", fontsize=SMALL, pad=3)
    return figure


def _title(members: pd.DataFrame) -> str:
    rate = 100 * members["exposure"].max()
    return f"The {len(members)} members that are found first: while at most {rate:.2g} % of the non-members are accused"
