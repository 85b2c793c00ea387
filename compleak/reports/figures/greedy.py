"""What an attacker gains with each further model."""

import numpy as np
import pandas as pd

from compleak.reports.figures.style import GREEN, GRID, MEDIUM, SMALL, new_figure


def greedy_figure(steps: pd.DataFrame, subtitle: str):
    """AUC of the joint attack on all models so far; the models in the order in which the attacker adds them.

    steps: `ablation.greedy_order`.
    """
    title = "What each further model adds for an attacker who adds the best one first"
    figure, axes = new_figure(title, subtitle, 1.4 + 0.28 * len(steps))
    values, low, high = (100 * steps[key].to_numpy() for key in ("auc", "auc_lo", "auc_hi"))
    places = np.arange(len(steps))
    axes.errorbar(values, places, xerr=[values - low, high - values], fmt="o", color=GREEN, markersize=5)
    for place, value in zip(places, values, strict=True):
        axes.annotate(
            f"{value:.1f}", (value, place), xytext=(0, 4), textcoords="offset points", ha="center", size=SMALL
        )
    axes.set_yticks(places, [name.replace("_", " ") for name in _names(steps)], fontsize=SMALL)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", **GRID)
    axes.set_xlabel("AUC of the joint attack on this model and those above it, %", fontsize=MEDIUM)
    return figure


def _names(steps: pd.DataFrame) -> list[str]:
    first, *others = steps["added"]
    return [first, *(f"+ {name}" for name in others)]
