"""Tables and figures that people read: percent, intervals, and a picture where a picture says it sooner."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import attacks
from compleak import metrics, paths
from compleak.metrics import TPR
from core import console
from core.files import write_atomically

CONTROLS = ("null", "blind")
FORMS = ("published", "headline")  # the literature's strongest on the victim; the one that the shadows chose
OURS = {attack.name for attack in (*attacks.NR, *attacks.SR, *attacks.MR) if not attack.published}
COLOURS = {"NR": "#4477aa", "SR": "#ccbb44", "MR": "#ee6677", "control": "#999999"}


def show(table: pd.DataFrame) -> None:
    """Print a scenario's table in percent."""
    console.say(percent(table).to_string(index=False))


def percent(table: pd.DataFrame) -> pd.DataFrame:
    """The columns people read, as `71.2 [70.5, 71.9]` in percent."""
    named = table[["scenario", "variant", "attack", "classifier", "artifact_row"]].copy()
    for key, title in (("acc", "ACC"), ("auc", "AUC"), (TPR, "TPR at 0.1% FPR")):
        named[title] = intervals(table, key)
    named["headline"] = ["*" if chosen else "" for chosen in table["headline"]]
    return named.rename(columns={"artifact_row": "artifact row"})


def intervals(table: pd.DataFrame, key: str) -> list[str]:
    """A column with its _lo and _hi as `71.2 [70.5, 71.9]` in percent; empty where there is no value."""
    columns = (pd.to_numeric(table[key + end]) for end in ("", "_lo", "_hi"))
    return ["" if np.isnan(value) else interval(value, *ends) for value, *ends in zip(*columns, strict=True)]


def cell(row: pd.Series, key: str) -> str:
    """A measurement of one row with its interval."""
    return interval(*(row[key + end] for end in ("", "_lo", "_hi")))


def interval(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def markdown(table: pd.DataFrame) -> str:
    """A GitHub table."""
    lines = [table.columns, ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def attack_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The table without its controls."""
    return table[~table["attack"].isin(CONTROLS)]


def published_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The attacks of the literature: all but the controls and ours."""
    return attack_rows(table)[~attack_rows(table)["attack"].isin(OURS)]


def strongest(rows: pd.DataFrame) -> pd.Series:
    """The row of largest AUC."""
    return rows.loc[rows["auc"].idxmax()]


def key_of(row: pd.Series) -> str:
    """The name of a row's scores in `<scenario>_scores.npz`."""
    return f"{row['attack']}/{row['classifier']}" if row["classifier"] else row["attack"]


def figure(width: float, height: float, panels: int = 1, rows: int = 1):
    """A figure with as many panels side by side, in each of `rows`, drawn without a display."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    return made, made.subplots(rows, panels)


def save(made, path: Path) -> None:
    write_atomically(path, lambda part: made.savefig(part, dpi=150))


def roc_figure(curves: Sequence[tuple[str, np.ndarray, np.ndarray, str]], title: str):
    """Log-log ROC of (label, scores, member, scenario): the low false-positive rates, where points are named."""
    made, axes = figure(6, 6.5)
    least = 1.0
    shades: dict[str, int] = {}
    for label, scores, member, scenario in curves:
        fpr, tpr = metrics.roc_curve(scores, member)
        style = ("-", "--", ":", "-.")[shades.setdefault(scenario, 0) % 4]
        shades[scenario] += 1
        axes.step(fpr, tpr, where="post", label=label, color=COLOURS[scenario], linestyle=style)
        least = min(least, 1 / (~np.asarray(member, dtype=bool)).sum())
    axes.plot([least, 1], [least, 1], color="black", linewidth=0.8, label="guessing")
    axes.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1.05), title=title)
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
    axes.axvline(metrics.FPR, color="black", linewidth=0.5, linestyle=":")
    made.legend(fontsize=8, loc="outside lower center", ncols=1)
    return made


def degrees_figure(pick: Callable, variants: Sequence[str], title: str):
    """AUC and TPR at 0.1 % FPR of each variant: NR and SR, published and headline, with MR's level across.

    pick(scenario, variant, form): the row to draw, with auc and TPR and their _lo and _hi; None where there is none.
    """
    made, panels = figure(12, 4.2, 2)
    for axes, (key, name) in zip(panels, (("auc", "AUC"), (TPR, "TPR at 0.1% FPR")), strict=True):
        shift = -0.24
        for scenario in ("NR", "SR"):
            for form, marker in zip(FORMS, "oD", strict=True):
                rows = [pick(scenario, variant, form) for variant in variants]
                at = [i + shift for i, row in enumerate(rows) if row is not None]
                rows = [row for row in rows if row is not None]
                shift += 0.16
                if rows:
                    draw_intervals(axes, at, rows, key, COLOURS[scenario], marker, f"{scenario} {form}")
        for form, line in zip(FORMS, ":-", strict=True):
            row = pick("MR", "all", form)
            if row is not None:
                axes.axhline(row[key], color=COLOURS["MR"], linestyle=line, linewidth=1, label=f"MR {form}, all eight")
                axes.axhspan(row[f"{key}_lo"], row[f"{key}_hi"], color=COLOURS["MR"], alpha=0.12, linewidth=0)
        if key == "auc":
            axes.axhline(0.5, color="black", linewidth=0.8)
        name_ticks(axes, variants)
        axes.set(ylabel=name)
    made.legend(*panels[0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=6)
    made.suptitle(title)
    return made


def name_ticks(axes, variants: Sequence[str]) -> None:
    """Variants along the x axis, technique above degree."""
    axes.set_xticks(range(len(variants)), [v.replace("_", "\n").replace("quantization", "quantized") for v in variants])
    axes.tick_params(axis="x", labelsize=7)


def draw_intervals(axes, at, rows, key: str, colour: str, marker: str, label: str) -> None:
    values = np.array([[row[key], row[f"{key}_lo"], row[f"{key}_hi"]] for row in rows])
    below, above = np.maximum(values[:, 0] - values[:, 1], 0), np.maximum(values[:, 2] - values[:, 0], 0)
    axes.errorbar(at, values[:, 0], [below, above], fmt=marker, color=colour, markersize=4, capsize=2, label=label)


def scenario_row(table: pd.DataFrame, scenario: str, variant: str, form: str) -> pd.Series | None:
    """The strongest published attack, or the headline, of a scenario on a variant; None where there is none."""
    rows = table[(table["scenario"] == scenario) & (table["variant"] == variant)]
    rows = rows[rows["headline"]] if form == "headline" else published_rows(rows)
    return strongest(rows) if len(rows) else None


def cost_figure(models: pd.DataFrame, title: str):
    """Accuracy on members and on others, and bytes on disk, against the degree of compression (victim)."""
    made, panels = figure(12, 3.8, 2)
    victim = models[models["role"] == paths.VICTIM]
    at = np.arange(len(victim))
    panels[0].plot(at, victim["train_accuracy"], "o-", color=COLOURS["MR"], label="members")
    panels[0].plot(at, victim["test_accuracy"], "o-", color=COLOURS["NR"], label="others")
    panels[0].set(ylabel="accuracy", ylim=(0, 1.02))
    panels[0].legend(fontsize=8)
    panels[1].bar(at, victim["bytes"] / 1e6, color=COLOURS["NR"])
    panels[1].set(ylabel="MB on disk")
    for axes in panels:
        name_ticks(axes, victim["variant"])
    made.suptitle(title)
    return made
