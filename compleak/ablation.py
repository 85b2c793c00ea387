"""What each compressed model adds to what is known: alone, beside the original, and in the order that pays most."""

import numpy as np
import pandas as pd

from attacks.arrays import Result, Signals, audit_rows
from attacks.joint import joint
from compleak import metrics, paths, report
from compleak.verdicts import Scores
from core import console


def added(table: pd.DataFrame, models: pd.DataFrame, scores: Scores, truth: np.ndarray, seed: int) -> pd.DataFrame:
    """One row a variant: accuracy, bytes, AUC of the headline alone and with the original, and what the pair adds.

    `adds` is the AUC of the pair's headline (SR) minus that of the original's (NR), paired on the same points.
    """
    victim = models[models["role"] == paths.VICTIM].set_index("variant")
    original = report.scenario_row(table, "NR", paths.ORIGINAL, "headline")
    rows = []
    for variant in victim.index:
        row = {"variant": variant, "technique": variant.split("_")[0]}
        row |= {"accuracy": victim.loc[variant, "test_accuracy"], "bytes": int(victim.loc[variant, "bytes"])}
        alone, pair = (report.scenario_row(table, scenario, variant, "headline") for scenario in ("NR", "SR"))
        row |= metrics.named({"alone": alone[["auc", "auc_lo", "auc_hi"]]})
        row |= {"alone_tpr": alone[metrics.TPR]}
        if pair is not None:
            row |= metrics.named({"with_original": pair[["auc", "auc_lo", "auc_hi"]]})
            row |= {"with_original_tpr": pair[metrics.TPR]}
            row |= metrics.named({"adds": metrics.paired_difference(scores(pair), scores(original), truth, seed=seed)})
        rows.append(row)
    return pd.DataFrame(rows)


def greedy(views: dict[str, Signals], truth: np.ndarray, seed: int) -> pd.DataFrame:
    """The order in which an attacker who chooses by his shadows takes the models, by the joint likelihood ratio.

    views: every variant's signals. Each row adds to those above it the model with which the area under the ROC curve
    over log FPR is largest on the shadows; `gain` is the victim's AUC minus that of the row above, paired.
    """
    known = next(iter(views.values()))
    member = known.member[audit_rows(known)[0]]
    taken, rows, last = [], [], None
    with console.progress(None, "models added greedily", total=len(views) * (len(views) + 1) // 2) as bar:
        while len(taken) < len(views):
            found: dict[str, Result] = {}
            for variant in views.keys() - set(taken):
                found[variant] = joint([views[name] for name in (*taken, variant)], seed=seed)
                bar.update()
            best = max(sorted(found), key=lambda variant: metrics.log_auc(found[variant].shadow_scores, member))
            taken.append(best)
            scores = found[best].scores
            measured = metrics.evaluate(scores, found[best].decision, truth, seed=seed)
            row = {"models": len(taken), "added": best}
            row |= {key: measured[key] for key in metrics.COLUMNS if key.startswith(("auc", "tpr"))}
            if last is not None:
                row |= metrics.named({"gain": metrics.paired_difference(scores, last, truth, seed=seed)})
            rows.append(row)
            last = scores
    return pd.DataFrame(rows)


def family_figure(family: pd.DataFrame, steps: pd.DataFrame, title: str):
    """Size, leakage and accuracy of every variant in one panel; the AUC as models are added in the other."""
    from matplotlib.ticker import LogLocator, NullFormatter

    made, (left, right) = report.figure(12, 4.6, 2)
    shades = left.scatter(family["bytes"] / 1e6, family["alone"], c=100 * family["accuracy"], s=60, zorder=3)
    for _, row in family.iterrows():
        place = row["bytes"] / 1e6
        left.plot([place, place], [row["alone_lo"], row["alone_hi"]], color="grey", linewidth=1)
        left.annotate(row["variant"], (place, row["alone"]), xytext=(5, 4), textcoords="offset points", fontsize=7)
    left.set(xscale="log", xlabel="MB on disk", ylabel="AUC of the headline attack on it alone")
    left.margins(x=0.25)
    left.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.xaxis.set_major_formatter("{x:g}")
    left.xaxis.set_minor_formatter(NullFormatter())
    made.colorbar(shades, ax=left, label="accuracy on others, %")
    at = np.arange(len(steps))
    report.draw_intervals(right, at, [row for _, row in steps.iterrows()], "auc", report.COLOURS["MR"], "o", "joint")
    right.set_xticks(at, [f"+ {name}" if i else name for i, name in enumerate(steps["added"])], rotation=30, ha="right")
    right.tick_params(axis="x", labelsize=7)
    right.set(ylabel="AUC of the joint attack on all models so far")
    made.suptitle(title)
    return made
