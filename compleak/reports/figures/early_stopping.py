"""Accuracy against leakage of one training at several of its epochs, with defences as points beside it."""

import pandas as pd

from compleak.findings.rows import STRONGEST
from compleak.reports.figures.labels import Label, label_points
from compleak.reports.figures.style import BLACK, MEDIUM, new_figure
from compleak.reports.figures.tradeoff import ACCURACY, LEAKAGE, draw_panel, draw_points, labels_of


def early_stopping_figure(curve: pd.DataFrame, others: pd.DataFrame, subtitle: str):
    """The curve over epochs, NR on the original, of the attacker who does better.

    curve: the spread of `early_stopping.snapshots`; others: `early_stopping.beside_defences`, which may be empty.
    """
    title = "Stopping training earlier: what it costs in accuracy, and what it leaves to the attacker"
    figure, axes = new_figure(title, subtitle, 5.4)
    own = curve[curve["form"] == STRONGEST]
    draw_panel(axes, others if len(others) else own.head(0))
    draw_points(axes, own, color=BLACK, fmt="o-", markersize=4)
    axes.margins(x=0.12, y=0.12)
    axes.set_xlabel(ACCURACY, fontsize=MEDIUM)
    axes.set_ylabel(LEAKAGE, fontsize=MEDIUM)
    labels = [
        Label(100 * row["accuracy_mean"], 100 * row["auc_mean"], _epochs(row), BLACK) for _, row in own.iterrows()
    ]
    label_points(figure, axes, [*labels, *(labels_of(others) if len(others) else [])])
    return figure


def _epochs(row: pd.Series) -> str:
    return f"{row['epochs']} epoch{'s' if row['epochs'] > 1 else ''}" + (", all" if row["share"] == 1 else "")
