"""Leakage of each variant, alone and together with the original; that of all models together runs across."""

from collections.abc import Sequence

import pandas as pd

from compleak.audits.metrics import TPR
from compleak.findings.rows import TOGETHER, rows_of_target
from compleak.reports.figures.style import (
    BLACK,
    MEDIUM,
    SCENARIO_COLOURS,
    SMALL,
    draw_intervals,
    name_variants,
    new_figure,
)

PANELS = {"auc": "AUC, %", TPR: "TPR at 0.1 % FPR, %"}
MARKERS = {"NR": "o", "SR": "s"}
MODELS = {"NR": "alone", "SR": "with the original", "MR": "all models"}
OFFSETS = (-0.24, -0.08, 0.08, 0.24)  # of the markers above one variant


def degrees_figure(leading: pd.DataFrame, variants: Sequence[str], subtitle: str):
    """AUC and TPR at 0.1 % FPR of every variant.

    leading: a row for each scenario, variant and one or two forms, with auc and TPR and their _lo and _hi. The first
    form has hollow markers and dotted lines, the second full ones.
    """
    forms = list(leading["form"].unique())
    title = "Leakage of a model alone (NR), with the original (SR), and of all models together (MR)"
    figure, panels = new_figure(title, subtitle, 6.2, nrows=2, sharex=True)
    for axes, (key, label) in zip(panels, PANELS.items(), strict=True):
        _draw_variants(axes, leading, variants, forms, key)
        _draw_all_models(axes, leading, forms, key)
        axes.set_ylabel(label, fontsize=MEDIUM)
    panels[0].axhline(50, color=BLACK, linewidth=0.8)
    panels[1].set_ylim(bottom=-0.04 * panels[1].get_ylim()[1])  # whole markers at zero
    name_variants(panels, variants)
    _add_legend(figure, panels[0], forms)
    return figure


def _draw_variants(axes, leading: pd.DataFrame, variants: Sequence[str], forms: Sequence[str], key: str) -> None:
    styles = [(scenario, form) for scenario in MARKERS for form in forms]
    for offset, (scenario, form) in zip(OFFSETS, styles, strict=False):
        rows = leading[(leading["scenario"] == scenario) & (leading["form"] == form)]
        rows = rows[rows["variant"].isin(variants)]
        places = [list(variants).index(variant) + offset for variant in rows["variant"]]
        colour = SCENARIO_COLOURS[scenario]
        style = {"fmt": MARKERS[scenario], "color": colour, "markerfacecolor": _face(form, forms, colour)}
        draw_intervals(axes, places, rows, key, label=_name(scenario, form), **style)


def _draw_all_models(axes, leading: pd.DataFrame, forms: Sequence[str], key: str) -> None:
    colour = SCENARIO_COLOURS["MR"]
    rows = rows_of_target(leading, *TOGETHER)
    for _, row in rows.iterrows():
        line = "-" if _is_full(row["form"], forms) else ":"
        axes.axhline(100 * row[key], color=colour, linestyle=line, linewidth=1.2, label=_name("MR", row["form"]))
        axes.axhspan(100 * row[f"{key}_lo"], 100 * row[f"{key}_hi"], color=colour, alpha=0.12, linewidth=0)


def _add_legend(figure, axes, forms: Sequence[str]) -> None:
    """A column for each scenario."""
    handles, labels = axes.get_legend_handles_labels()
    by_name = dict(zip(labels, handles, strict=True))
    names = [name for scenario in MODELS for form in forms if (name := _name(scenario, form)) in by_name]
    handles = [by_name[name] for name in names]
    figure.legend(handles, names, fontsize=SMALL, loc="outside lower left", ncols=3, frameon=False)


def _face(form: str, forms: Sequence[str], colour: str) -> str:
    return colour if _is_full(form, forms) else "white"


def _is_full(form: str, forms: Sequence[str]) -> bool:
    return form == forms[-1]


def _name(scenario: str, form: str) -> str:
    return f"{MODELS[scenario]} ({scenario}), {form}"
