"""The paper's claims across data sets and networks: every comparison with its interval, a row a setting."""

import pandas as pd

from compleak.findings.claims import FAILS, HEAVY, HOLDS, MARGIN, NAMES
from compleak.reports.figures.style import BLACK, BLUE, GREEN, MEDIUM, ORANGE, SKY, SMALL, new_figure, split_variant

TITLES = {"C1": "C1: compressed - original", "C2": "C2: SR - best NR", "C3": "C3: MR - best SR"}
COLOURS = {  # what a comparison is about, with the colour of its marker
    "90 % pruned": SKY,
    "pruned otherwise": BLUE,
    "quantized": ORANGE,
    "clustered": GREEN,
    "all models": BLACK,
}
KINDS = {"pruning": "pruned otherwise", "quantization": "quantized", "clustering": "clustered", "MR": "all models"}
BAND = {"color": BLACK, "alpha": 0.08, "linewidth": 0}
ROW = 0.62  # inches a setting
REST = 1.7  # inches for titles, axis and legend
SPREAD = 0.72  # of a row's height, over which its comparisons lie


def across_figure(claims: pd.DataFrame, subtitle: str):
    """Differences of AUC in points with 95 % intervals: a panel a claim, a row a setting, comparisons top to bottom.

    claims: `across.AcrossFindings.claims` of one form. A marker is full where the comparison holds,
    empty where it is undecided, and a cross where it does not hold.
    """
    settings = list(dict.fromkeys(zip(claims["data"], claims["network"], strict=True)))
    title = "The paper's claims across data sets and networks: differences of AUC, in points"
    figure, panels = new_figure(title, subtitle, REST + ROW * len(settings), ncols=3, sharey=True)
    for axes, claim in zip(panels, NAMES, strict=True):
        axes.set_title(TITLES[claim], fontsize=MEDIUM, loc="left")
        axes.axvline(0, color=BLACK, linewidth=0.8)
        axes.margins(x=0.06)
        for place, (data, network) in enumerate(settings):
            rows = claims[(claims["data"] == data) & (claims["network"] == network) & (claims["claim"] == claim)]
            _draw_row(axes, rows, place)
    panels[0].axvspan(-100 * MARGIN, 100 * MARGIN, **BAND)
    _name_settings(panels, settings)
    _add_legend(figure)
    return figure


def _draw_row(axes, rows: pd.DataFrame, place: int) -> None:
    """One setting's comparisons of one claim, spread over the height of its row."""
    step = SPREAD / max(1, len(rows) - 1)
    top = place - (SPREAD / 2 if len(rows) > 1 else 0)
    for number, row in enumerate(rows.itertuples()):
        colour = COLOURS[_kind(row.key)]
        value, low, high = (100 * number for number in (row.difference, row.low, row.high))
        face = colour if row.verdict == HOLDS else "white"
        bars = [[max(0, value - low)], [max(0, high - value)]]
        shape = "x" if row.verdict == FAILS else "o"
        style = {"fmt": shape, "markersize": 4, "elinewidth": 1.1, "color": colour, "markerfacecolor": face}
        axes.errorbar([value], [top + step * number], xerr=bars, **style)


def _kind(key: str) -> str:
    """What a comparison's key, such as `SR pruning_0.6 - best NR`, is about."""
    variant = key.removeprefix("SR ").partition(" - ")[0]
    return "90 % pruned" if variant == HEAVY else KINDS[split_variant(variant)[0]]


def _name_settings(panels, settings: list[tuple[str, str]]) -> None:
    panels[0].set_yticks(range(len(settings)), [f"{data}\n{network}" for data, network in settings], fontsize=SMALL)
    panels[0].set_ylim(len(settings) - 0.5, -0.5)
    for axes in panels:
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        for edge in range(1, len(settings)):
            axes.axhline(edge - 0.5, color="#DDDDDD", linewidth=0.6)


def _add_legend(figure) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [Line2D([], [], color=colour, marker="o", label=name) for name, colour in COLOURS.items()]
    marks = {"color": BLACK, "marker": "o", "linestyle": ""}
    handles += [
        Line2D([], [], label="holds", **marks),
        Line2D([], [], label="undecided", markerfacecolor="white", **marks),
        Line2D([], [], label="does not hold", **(marks | {"marker": "x"})),
        Patch(label=f"about as much: within {100 * MARGIN:g} points", **BAND),
    ]
    figure.legend(handles=handles, fontsize=SMALL, loc="outside lower left", ncols=4, frameon=False)
