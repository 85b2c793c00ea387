"""The strongest attacks of each scenario at low false-positive rates, where an accusation is worth something."""

from collections.abc import Iterator

import pandas as pd

from compleak.audits.metrics import FPR
from compleak.reports.figures.style import BLACK, GREY, GRID, MEDIUM, SCENARIO_COLOURS, SMALL, new_figure

LINES = {"published": "--", "headline": "-", "null": ":"}


def roc_figure(curves: pd.DataFrame, subtitle: str):
    """ROC curves on logarithmic axes. curves: `roc.roc_curves`."""
    figure, axes = new_figure("The strongest attacks of each scenario", subtitle, 5.2)
    lowest = curves["one_nonmember"].min()
    for _, curve in _each(curves):
        first = curve.iloc[0]
        colour = GREY if first["form"] == "null" else SCENARIO_COLOURS[first["scenario"]]
        style = {"color": colour, "linestyle": LINES[first["form"]], "linewidth": 1.5}
        axes.step(curve["fpr"], curve["tpr"], where="post", label=_name(first), **style)
    axes.plot([lowest, 1], [lowest, 1], color=BLACK, linewidth=0.8, label="guessing")
    if lowest < FPR:
        axes.axvline(FPR, color=BLACK, linewidth=0.6, linestyle=":")
        axes.annotate("0.1 %", (FPR, 1), xytext=(3, -3), textcoords="offset points", va="top", fontsize=SMALL)
    axes.set(xscale="log", yscale="log", xlim=(lowest, 1), ylim=(lowest, 1.05), box_aspect=1)
    axes.xaxis.set_major_formatter(_percent)
    axes.yaxis.set_major_formatter(_percent)
    axes.grid(axis="x", **GRID)
    axes.set_xlabel("false-positive rate, %", fontsize=MEDIUM)
    axes.set_ylabel("true-positive rate, %", fontsize=MEDIUM)
    figure.legend(fontsize=SMALL, loc="outside right center", frameon=False, labelspacing=1.1, handlelength=2.6)
    return figure


def _each(curves: pd.DataFrame) -> Iterator[tuple[tuple, pd.DataFrame]]:
    return iter(curves.groupby(["scenario", "form"], sort=False))


def _name(first: pd.Series) -> str:
    what = "null control" if first["form"] == "null" else first["form"]
    attack = "headline" if first["form"] == "null" else first["attack"]
    models = "all models" if first["variant"] == "all" else first["variant"]
    return f"{first['scenario']} {what}, AUC {100 * first['auc']:.1f} %\n{attack} on {models}"


def _percent(value: float, _) -> str:
    return f"{100 * value:g}"
