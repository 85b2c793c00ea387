"""What compression costs the victim in accuracy, and what it saves on disk."""

import numpy as np
import pandas as pd

from compleak.reports.figures.style import BLUE, GREY, MEDIUM, ORANGE, SMALL, name_variants, new_figure

SIDES = {  # name, colour, marker, and whether the name stands above the first marker (1) or below it (-1)
    "train_accuracy": ("members", ORANGE, "s", 1),
    "test_accuracy": ("others", BLUE, "o", -1),
}


def cost_figure(victim: pd.DataFrame, subtitle: str):
    """Accuracy on members and on others, and size, of every variant of the victim.

    victim: a row for each variant with train_accuracy, test_accuracy and bytes.
    """
    title = "What compression costs in accuracy, and saves on disk"
    figure, panels = new_figure(title, subtitle, 5.0, nrows=2, sharex=True, height_ratios=(3, 2))
    places = np.arange(len(victim))
    _draw_accuracy(panels[0], places, victim)
    _draw_size(panels[1], places, victim["bytes"] / 1e6)
    name_variants(panels, list(victim["variant"]))
    return figure


def _draw_accuracy(axes, places: np.ndarray, victim: pd.DataFrame) -> None:
    ends = [100 * victim[key] for key in SIDES]
    axes.vlines(places, *ends, color=GREY, linewidth=1.5)
    for key, (label, colour, marker, side) in SIDES.items():
        values = 100 * victim[key]
        axes.plot(places, values, marker, color=colour, markersize=6)
        style = {"ha": "center", "va": "center", "color": colour, "fontsize": MEDIUM}
        axes.annotate(label, (0, values.iloc[0]), xytext=(0, 11 * side), textcoords="offset points", **style)
    axes.set_ylim(0, 114)
    axes.set_ylabel("accuracy, %", fontsize=MEDIUM)


def _draw_size(axes, places: np.ndarray, megabytes: pd.Series) -> None:
    bars = axes.bar(places, megabytes, width=0.55, color=GREY)
    axes.bar_label(bars, [f"{value:.2g}" for value in megabytes], fontsize=SMALL, padding=2)
    axes.grid(visible=False, axis="y")
    axes.margins(y=0.15)
    axes.set_ylabel("MB on disk", fontsize=MEDIUM)
