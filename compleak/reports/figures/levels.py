"""What each target leaks by the three measures of the levels, with the limits of LOW and HIGH."""

from collections.abc import Sequence

import pandas as pd

from compleak.findings.levels import LIMITS, Limit
from compleak.reports.figures.style import GRID, MEDIUM, ORANGE, SCENARIO_COLOURS, SKY, SMALL, new_figure

CHANCE = {"auc": 0.5}  # what guessing gives; elsewhere it is too close to zero to be drawn


def levels_figure(headlines: pd.DataFrame, names: Sequence[str], subtitle: str):
    """A panel for each measure, a line for each headline, with its interval.

    headlines: `shipped.AuditFindings.headlines`; names: what the attacker of each holds.
    """
    height = 1.9 + 0.3 * len(headlines)
    figure, panels = new_figure("What each attacker finds", subtitle, height, ncols=len(LIMITS), sharey=True)
    for axes, limit in zip(panels, LIMITS, strict=True):
        _draw_measure(axes, headlines, limit)
    panels[0].set_yticks(range(len(names)), names, fontsize=SMALL)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    return figure


def _draw_measure(axes, headlines: pd.DataFrame, limit: Limit) -> None:
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", **GRID)
    for place, (_, row) in enumerate(headlines.iterrows()):
        value, low, high = (100 * row[limit.measure + end] for end in ("", "_lo", "_hi"))
        ends = [[max(value - low, 0)], [max(high - value, 0)]]
        colour = SCENARIO_COLOURS[row["scenario"]]
        axes.errorbar([value], [place], xerr=ends, fmt="o", color=colour, markersize=5, elinewidth=1.4, capsize=2)
    least = 100 * CHANCE.get(limit.measure, 0)
    right = max(axes.get_xlim()[1], 110 * limit.middle)
    axes.set_xlim(min(axes.get_xlim()[0], least - 2), min(right, 102))
    axes.axvline(100 * limit.low, color=SKY, linewidth=1.2, linestyle="--")
    axes.axvline(100 * limit.middle, color=ORANGE, linewidth=1.2, linestyle="--")
    axes.set_xlabel(f"{limit.title}, %", fontsize=MEDIUM)
