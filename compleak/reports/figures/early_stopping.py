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
    points = 100 * own[["accuracy_mean", "auc_mean"]].to_numpy()
    labels = [Label(*point, text, BLACK) for point, text in zip(points, _names_of(own["epochs"]), strict=True)]
    label_points(figure, axes, [*labels, *(labels_of(others) if len(others) else [])])
    return figure


def _names_of(epochs: pd.Series) -> list[str]:
    """What stands beside each snapshot: its epochs, as a number alone between the first and the last."""
    numbers = list(map(str, epochs))
    numbers[0] = f"{numbers[0]} epoch{'s' if epochs.iloc[0] > 1 else ''}"
    return [*numbers[:-1], f"all {epochs.iloc[-1]}"]
