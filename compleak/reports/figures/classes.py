"""Which classes are exposed most."""

import pandas as pd

from compleak.reports.figures.style import BLACK, BLUE, GRID, MEDIUM, SMALL, new_figure

MOST = 25  # classes that a picture has room for


def classes_figure(classes: pd.DataFrame, subtitle: str):
    """AUC of each class with its interval: the first MOST of `shipped.AuditFindings.classes`."""
    shown = classes.head(MOST)
    title = "AUC of each class" if len(shown) == len(classes) else f"AUC of the {MOST} most exposed classes"
    figure, axes = new_figure(title, subtitle, 1.5 + 0.24 * len(shown))
    values, low, high = (100 * shown["auc" + end].to_numpy(dtype=float) for end in ("", "_lo", "_hi"))
    places = range(len(shown))
    axes.errorbar(values, places, xerr=[values - low, high - values], fmt="o", color=BLUE, markersize=5, capsize=2)
    axes.axvline(50, color=BLACK, linewidth=0.8)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", **GRID)
    axes.set_yticks(places, list(shown["name"]), fontsize=SMALL)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("AUC, %", fontsize=MEDIUM)
    return figure
