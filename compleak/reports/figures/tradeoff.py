"""Accuracy against leakage of defences: the further down and to the right, the better."""

import pandas as pd

from compleak.findings.defences import PLAIN, TRAINED_WITH
from compleak.findings.rows import ALONE, STRONGEST, TOGETHER, rows_of_target
from compleak.reports.cells import DEFENCE_NAMES, defence_name
from compleak.reports.figures.labels import Label, label_points
from compleak.reports.figures.style import (
    BLACK,
    GREY,
    GRID,
    INDIGO,
    MEDIUM,
    OLIVE,
    PALETTE,
    SMALL,
    WINE,
    new_figure,
)

PANELS = {ALONE: "attacker with the original alone (NR)", TOGETHER: "attacker with all models (MR)"}
UNDEFENDED_MARKERS = "*XP"  # one for each network
COLOURS = (*PALETTE, WINE, INDIGO, OLIVE)
ACCURACY = "accuracy of the original, % (further right: more useful)"
LEAKAGE = "AUC of the strongest attack, % (lower: more private)"


def tradeoff_figure(spread: pd.DataFrame, subtitle: str):
    """Test accuracy against AUC of the strongest attack: a curve a defence over its argument, for NR and for MR.

    spread: `defences.spread_over_seeds`. Bars are standard deviations over seeds.
    """
    title = "What defences cost in accuracy, and what they leave to the strongest attack"
    figure, panels = new_figure(title, subtitle, 5.2, ncols=2, sharex=True, sharey=True)
    rows = spread[spread["form"] == STRONGEST]
    for axes, (target, panel_title) in zip(panels, PANELS.items(), strict=True):
        shown = rows_of_target(rows, *target)
        if target == ALONE:
            shown = shown[shown["fine_tuning"] != PLAIN]  # an original is not fine-tuned
        draw_panel(axes, shown)
        axes.set_title(panel_title, fontsize=MEDIUM, loc="left")
        axes.set_xlabel(ACCURACY, fontsize=MEDIUM)
    panels[0].set_ylabel(LEAKAGE, fontsize=MEDIUM)
    _add_legend(figure, has_plain=(rows["fine_tuning"] == PLAIN).any())
    for axes, target in zip(panels, PANELS, strict=True):
        own = rows_of_target(rows, *target)
        label_points(figure, axes, labels_of(own[own["fine_tuning"] != PLAIN]))
    return figure


def colour_of(defence: str) -> str:
    """The same in all pictures; undefended models are black."""
    if not defence:
        return BLACK
    return dict(zip(filter(None, DEFENCE_NAMES), COLOURS, strict=False)).get(defence, GREY)


def draw_panel(axes, rows: pd.DataFrame) -> None:
    """One target's points: curves of the adaptive attacker, and beside them what else was measured."""
    axes.axhline(50, color=BLACK, linewidth=0.8)
    axes.annotate("a guess", (1, 50), xycoords=axes.get_yaxis_transform(), fontsize=SMALL, ha="right", va="bottom")
    axes.grid(axis="x", **GRID)
    axes.margins(x=0.24, y=0.12)
    defended = rows[rows["defence"] != ""]
    curves = defended.groupby(["defence", "recipe", "attacker", "fine_tuning"])
    for (defence, _, attacker, fine_tuning), own in curves:
        _draw_defence(axes, defence, own.sort_values("argument"), attacker != "non-adaptive", fine_tuning == PLAIN)
    undefended = rows[rows["defence"] == ""]
    for place, (_, own) in enumerate(undefended.groupby("network")):
        marker = UNDEFENDED_MARKERS[place % len(UNDEFENDED_MARKERS)]
        draw_points(axes, own, color=BLACK, fmt=marker, markersize=9)


def _draw_defence(axes, defence: str, own: pd.DataFrame, adaptive: bool, plain: bool) -> None:
    colour = colour_of(defence)
    line = "-" if adaptive and not plain else ""
    face = colour if adaptive else "white"
    draw_points(axes, own, color=colour, fmt=("^" if plain else "o") + line, markerfacecolor=face, linewidth=1)


def draw_points(axes, own: pd.DataFrame, **style) -> None:
    """Accuracy against AUC, with a bar of the standard deviation over seeds."""
    deviation = 100 * own["auc_sd"].fillna(0)
    axes.errorbar(100 * own["accuracy_mean"], 100 * own["auc_mean"], deviation, **{"markersize": 5, **style})


def _add_legend(figure, has_plain: bool) -> None:
    from matplotlib.lines import Line2D

    points = {"color": GREY, "linestyle": ""}
    handles = [
        Line2D([], [], color=BLACK, marker="*", markersize=9, linestyle="", label="no defence"),
        Line2D([], [], marker="o", label="defended; the attacker knows it (adaptive)", **points),
        Line2D([], [], marker="o", markerfacecolor="white", label="hollow: the attacker does not know it", **points),
    ]
    if has_plain:
        plain = "the same, but compressed versions fine-tuned without it"
        handles.insert(2, Line2D([], [], marker="^", label=plain, **points))
    figure.legend(handles=handles, fontsize=SMALL, loc="outside lower left", ncols=2, frameon=False)


def labels_of(rows: pd.DataFrame) -> list[Label]:
    """Defences with their argument, once for both attackers; undefended models with their network, if it matters.

    Of several arguments the least accurate model's stands behind the defence's name, the others stand alone.
    """
    labels = []
    networks = rows["network"].nunique()
    recipes = rows.groupby("defence")["recipe"].nunique()
    ordered = rows.drop_duplicates(TRAINED_WITH, keep="last").sort_values("accuracy_mean", kind="stable")
    is_named = ~ordered.duplicated(["defence", "recipe", "network"])
    for (_, row), named in zip(ordered.iterrows(), is_named, strict=True):
        recipe = row["recipe"] if recipes[row["defence"]] > 1 else ""
        text = defence_name(row["defence"], row["argument"], recipe) if named else f"{row['argument']:g}"
        if not row["defence"]:
            text = "no defence" + (f",\n{row['network']}" if networks > 1 else "")
        labels.append(Label(100 * row["accuracy_mean"], 100 * row["auc_mean"], text, colour_of(row["defence"])))
    return labels
