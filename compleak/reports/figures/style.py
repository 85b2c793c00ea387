"""What all pictures share: size, colours, axes, and the names of variants along an axis.

A README shows a picture about 800 pixels wide, which is 100 pixels an inch here: a text of 8 points stays readable.
Colours are those of Okabe & Ito (2008), which people with any kind of colour vision can tell apart.
"""

import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

WIDTH = 8.0  # inches
DPI = 150
SMALL, MEDIUM, LARGE = 8, 9, 11  # points
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
YELLOW, SKY, GREY, BLACK = "#E69F00", "#56B4E9", "#8C8C8C", "#222222"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY)
WINE, INDIGO, OLIVE = "#882255", "#332288", "#999933"  # of Tol's muted scheme, where six colours are too few
SCENARIO_COLOURS = {"NR": BLUE, "SR": ORANGE, "MR": GREEN}
GRID = {"color": "#DDDDDD", "linewidth": 0.6}


def new_figure(title: str, subtitle: str, height: float, **subplots):
    """A figure that is drawn without a display, with what it shows above it, and its axes.

    subtitle: where the numbers come from; broken where it is longer than the picture is wide.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
    lines = [*textwrap.wrap(title, 90), *textwrap.wrap(subtitle, 90)]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=LARGE - 1)
    axes = figure.subplots(**subplots)
    for panel in np.atleast_1d(axes).flat:
        style_axes(panel)
    return figure, axes


def style_axes(axes) -> None:
    """No frame but the two axes, and faint lines to read values from."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)
    axes.grid(axis="y", **GRID)
    axes.set_axisbelow(True)


def save_png(figure, path: Path) -> None:
    figure.savefig(path, dpi=DPI)


def split_variant(variant: str) -> tuple[str, str]:
    """(technique, degree); the original's degree is empty."""
    technique, _, degree = variant.partition("_")
    return technique, degree


def name_variants(panels, variants: Sequence[str]) -> None:
    """Degrees along the x axis that these panels share, below the lowest, and under those of one technique its name."""
    parts = [split_variant(variant) for variant in variants]
    lowest = panels[-1]
    lowest.set_xticks(range(len(parts)), [degree for _, degree in parts], fontsize=SMALL)
    lowest.set_xlim(-0.6, len(parts) - 0.4)
    for technique, group in itertools.groupby(range(len(parts)), key=lambda place: parts[place][0]):
        places = list(group)
        _write_below(lowest, technique, float(np.mean(places)))
        for axes in panels:
            axes.axvline(places[0] - 0.5, **GRID)
    for axes in panels:
        axes.tick_params(axis="x", length=0)


def _write_below(axes, technique: str, place: float) -> None:
    across = axes.get_xaxis_transform()  # x in data, y in fractions of the axes' height
    style = {"ha": "center", "va": "top", "fontsize": MEDIUM}
    axes.annotate(technique, (place, 0), xycoords=across, xytext=(0, -19), textcoords="offset points", **style)


def draw_intervals(axes, places, rows: pd.DataFrame, key: str, **style) -> None:
    """Values of `rows` in percent with bars to their _lo and _hi, above these places of the x axis."""
    values, low, high = (100 * rows[key + end].to_numpy(dtype=float) for end in ("", "_lo", "_hi"))
    below = np.maximum(values - low, 0)
    above = np.maximum(high - values, 0)
    axes.errorbar(places, values, [below, above], **{"fmt": "o", "markersize": 5, "elinewidth": 1.2, **style})
