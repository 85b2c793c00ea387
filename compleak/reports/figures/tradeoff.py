"""Accuracy against leakage of defences: the further down and to the right, the better."""

import pandas as pd

from compleak.findings.defences import ALL, ALONE, FORMS
from compleak.findings.rows import rows_of_target
from compleak.reports.cells import defence_name
from compleak.reports.figures.labels import Label, label_points
from compleak.reports.figures.style import BLACK, GREY, GRID, MEDIUM, PALETTE, SMALL, new_figure

PANELS = {ALONE: "attacker with the original alone (NR)", ALL: "attacker with all models (MR)"}
NETWORK_MARKERS = "*sDP"  # of undefended models


def tradeoff_figure(spread: pd.DataFrame, subtitle: str):
    """Test accuracy against AUC of the strongest attack: a curve a defence over its argument, for NR and for MR.

    spread: `defences.spread_over_seeds`. Bars are standard deviations over seeds.
    """
    title = "What defences cost in accuracy, and what they leave to the strongest attack"
    figure, panels = new_figure(title, subtitle, 4.6, ncols=2, sharex=True, sharey=True)
    rows = spread[spread["form"] == FORMS[0]]
    colours = _colours(rows)
    for axes, (target, panel_title) in zip(panels, PANELS.items(), strict=True):
        _draw_panel(axes, rows_of_target(rows, *target), colours)
        axes.set_title(panel_title, fontsize=MEDIUM, loc="left")
    panels[0].set_ylabel("AUC of the strongest attack, %", fontsize=MEDIUM)
    _add_legend(figure)
    for axes, target in zip(panels, PANELS, strict=True):
        label_points(figure, axes, _labels(rows_of_target(rows, *target), colours))
    return figure


def _colours(rows: pd.DataFrame) -> dict[str, str]:
    """Undefended models are black, each defence has a colour."""
    defences = [name for name in rows["defence"].unique() if name]
    return {"": BLACK, **dict(zip(defences, PALETTE, strict=False))}


def _draw_panel(axes, rows: pd.DataFrame, colours: dict[str, str]) -> None:
    axes.axhline(50, color=BLACK, linewidth=0.8)
    axes.grid(axis="x", **GRID)
    axes.margins(x=0.24, y=0.16)
    axes.set_xlabel("test accuracy of the original, %", fontsize=MEDIUM)
    defended = rows[rows["defence"] != ""]
    for (defence, attacker), own in defended.groupby(["defence", "attacker"]):
        _draw_curve(axes, own.sort_values("argument"), colours[defence], attacker == "adaptive")
    undefended = rows[rows["defence"] == ""]
    for place, (_, own) in enumerate(undefended.groupby("network")):
        _draw_points(axes, own, color=BLACK, fmt=NETWORK_MARKERS[place % len(NETWORK_MARKERS)], markersize=7)


def _draw_curve(axes, own: pd.DataFrame, colour: str, adaptive: bool) -> None:
    face = colour if adaptive else "white"
    _draw_points(axes, own, color=colour, fmt="o-" if adaptive else "o--", markerfacecolor=face, linewidth=1)


def _draw_points(axes, own: pd.DataFrame, **style) -> None:
    deviation = 100 * own["auc_sd"].fillna(0)
    axes.errorbar(100 * own["accuracy_mean"], 100 * own["auc_mean"], deviation, **{"markersize": 5, **style})


def _add_legend(figure) -> None:
    from matplotlib.lines import Line2D

    adaptive = Line2D([], [], color=GREY, marker="o", label="attacker who knows the defence (adaptive)")
    unaware = Line2D([], [], color=GREY, marker="o", linestyle="--", markerfacecolor="white")
    unaware.set_label("attacker who does not (non-adaptive)")
    figure.legend(handles=[adaptive, unaware], fontsize=SMALL, loc="outside lower left", ncols=2, frameon=False)


def _labels(rows: pd.DataFrame, colours: dict[str, str]) -> list[Label]:
    """Defences with their argument, once for both attackers; undefended models with their network."""
    labels = []
    for _, row in rows.drop_duplicates(["defence", "argument", "network"], keep="last").iterrows():
        network = "" if row["defence"] else f",\n{row['network']}"
        text = defence_name(row["defence"], row["argument"]) + network
        labels.append(Label(100 * row["accuracy_mean"], 100 * row["auc_mean"], text, colours[row["defence"]]))
    return labels
