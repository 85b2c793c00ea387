"""What each target leaks by the three measures of the levels, and where a measure reads LOW, MIDDLE or HIGH."""

from collections.abc import Sequence

import pandas as pd

from compleak.findings.levels import HIGH, LIMITS, LOW, MIDDLE, Limit
from compleak.reports.figures.style import (
    BLACK,
    GREEN,
    GRID,
    MEDIUM,
    ORANGE,
    SCENARIO_COLOURS,
    SMALL,
    YELLOW,
    new_figure,
)

LEFT_END = {"auc": 48.0}  # percent; other measures begin at 0
ZONES = {LOW: GREEN, MIDDLE: YELLOW, HIGH: ORANGE}
FAINT = 0.16  # of a zone's colour


def levels_figure(headlines: pd.DataFrame, names: Sequence[str], subtitle: str):
    """A panel for each measure, a line for each headline, with its interval.

    headlines: `shipped.AuditFindings.headlines`; names: what the attacker of each holds.
    """
    height = 2.1 + 0.3 * len(headlines)
    figure, panels = new_figure("What each attacker finds", subtitle, height, ncols=len(LIMITS), sharey=True)
    for axes, limit in zip(panels, LIMITS, strict=True):
        _draw_measure(axes, headlines, limit)
    panels[0].set_yticks(range(len(names)), names, fontsize=SMALL)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    handles = [_patch(level, colour) for level, colour in ZONES.items()]
    figure.legend(handles=handles, fontsize=SMALL, loc="outside lower right", ncols=len(ZONES), frameon=False)
    return figure


def _draw_measure(axes, headlines: pd.DataFrame, limit: Limit) -> None:
    values, low, high = (100 * headlines[limit.measure + end].to_numpy(float) for end in ("", "_lo", "_hi"))
    left = min(LEFT_END.get(limit.measure, -1.0), low.min() - 1)
    right = max(high.max() + 1.5, 120 * limit.middle if limit.middle < 0.5 else 85)
    _draw_zones(axes, limit, left, right)
    for place, row_scenario in enumerate(headlines["scenario"]):
        ends = [[max(values[place] - low[place], 0)], [max(high[place] - values[place], 0)]]
        style = {"fmt": "o", "color": SCENARIO_COLOURS[row_scenario], "markersize": 5, "elinewidth": 1.4, "capsize": 2}
        axes.errorbar([values[place]], [place], xerr=ends, **style)
    if limit.measure == "auc":
        axes.axvline(50, color=BLACK, linewidth=0.8)
    axes.set_xlim(left, right)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", **GRID)
    axes.set_xlabel(f"{limit.title}, %".replace(" false", "\nfalse"), fontsize=MEDIUM)


def _draw_zones(axes, limit: Limit, left: float, right: float) -> None:
    """Colour each level's part of the axis, in percent; an AUC below one half counts as one minus it."""
    edges = [left, 100 * limit.low, 100 * limit.middle, right]
    colours = list(ZONES.values())
    if limit.measure == "auc":
        edges[:1] = [min(left, 0), 100 - edges[2], 100 - edges[1]]
        colours = [*colours[:0:-1], *colours]
    for start, end, colour in zip(edges, edges[1:], colours, strict=False):
        axes.axvspan(start, end, color=colour, alpha=FAINT, linewidth=0)


def _patch(level: str, colour: str):
    from matplotlib.patches import Patch

    return Patch(color=colour, alpha=2 * FAINT, label=level, linewidth=0)
