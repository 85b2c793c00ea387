"""What each variant gives away for its size and for its accuracy."""

import pandas as pd

from compleak.reports.figures.labels import Label, label_points
from compleak.reports.figures.style import BLACK, MEDIUM, PALETTE, draw_intervals, new_figure, split_variant

MARKERS = "osD^vP"


def family_figure(family: pd.DataFrame, subtitle: str):
    """AUC of the headline on each variant alone, against its size on disk and against its accuracy.

    family: `ablation.family_table`; variants without a headline are not shown. Both panels have the same height, so
    that the names on the left do for the right, where points lie too close for names.
    """
    family = family.dropna(subset=["alone"])
    title = "What each model gives away, against its size and its accuracy"
    figure, panels = new_figure(title, subtitle, 4.2, ncols=2, sharey=True)
    horizontals = {"MB on disk": family["bytes"] / 1e6, "accuracy on others, %": 100 * family["accuracy"]}
    for axes, (name, values) in zip(panels, horizontals.items(), strict=True):
        axes.set_xlabel(name, fontsize=MEDIUM)
        axes.axhline(50, color=BLACK, linewidth=0.8)
        axes.margins(x=0.22, y=0.12)
        _draw_techniques(axes, family, values)
    _use_logarithm(panels[0])
    panels[0].set_ylabel("AUC of the headline attack, %", fontsize=MEDIUM)
    label_points(figure, panels[0], _labels(family, family["bytes"] / 1e6))
    return figure


def _colours(family: pd.DataFrame) -> dict[str, str]:
    """The original is black, each technique has a colour."""
    techniques = [technique for technique in family["technique"].unique() if technique != "original"]
    return {"original": BLACK, **dict(zip(techniques, PALETTE, strict=False))}


def _draw_techniques(axes, family: pd.DataFrame, values: pd.Series) -> None:
    markers = iter(MARKERS)
    for technique, own in family.groupby("technique", sort=False):
        colour = _colours(family)[technique]
        axes.plot(values[own.index], 100 * own["alone"], color=colour, linewidth=0.8, alpha=0.6)
        draw_intervals(axes, values[own.index], own, "alone", color=colour, fmt=next(markers))


def _use_logarithm(axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _labels(family: pd.DataFrame, values: pd.Series) -> list[Label]:
    """The first variant of a technique is named in full, the others by their degree."""
    colours = _colours(family)
    first = ~family["technique"].duplicated()
    labels = []
    for place, row in family.iterrows():
        technique, degree = split_variant(row["variant"])
        text = f"{technique} {degree}".strip() if first[place] else degree
        labels.append(Label(values[place], 100 * row["alone"], text, colours[row["technique"]]))
    return labels
