"""What each compressed model adds: alone, beside the original, and in the order in which an attacker would add it."""

import contextlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from attacks import Result, Signals, Unusable, audit_rows
from attacks.joint import joint
from compleak.audits import metrics
from compleak.findings.claims import Scores
from compleak.findings.outputs import victim_models
from compleak.findings.rows import ORIGINAL, scenario_row
from compleak.runs.variants import parse_variant
from core import console

AUC = ["auc", "auc_lo", "auc_hi"]
TPR = [metrics.TPR, f"{metrics.TPR}_lo", f"{metrics.TPR}_hi"]
GREEDY_COLUMNS = ["models", "added", *AUC, *TPR, "gain", "gain_lo", "gain_hi"]


def family_table(
    table: pd.DataFrame, models: pd.DataFrame, scores: Scores, truth: np.ndarray, seed: int
) -> pd.DataFrame:
    """A row for each variant: accuracy, bytes, AUC of the headline on it alone and together with the original.

    `adds` is the AUC of the pair's headline (SR) minus that of the original's (NR), paired on the same points.
    truth: (A,) bool membership of the audit points.
    """
    original = scenario_row(table, "NR", ORIGINAL, "headline")
    rows = []
    for _, model in victim_models(models).iterrows():
        alone = scenario_row(table, "NR", model["variant"], "headline")
        pair = scenario_row(table, "SR", model["variant"], "headline")
        row = _model_columns(model) | _headline_columns("alone", alone) | _headline_columns("with_original", pair)
        if pair is not None and original is not None:
            adds = metrics.paired_difference(scores(pair), scores(original), truth, seed=seed)
            row |= metrics.interval_columns({"adds": adds})
        rows.append(row)
    return pd.DataFrame(rows)


def _model_columns(model: pd.Series) -> dict:
    technique = parse_variant(model["variant"]).technique
    size = int(model["bytes"])
    return {"variant": model["variant"], "technique": technique, "accuracy": model["test_accuracy"], "bytes": size}


def _headline_columns(name: str, headline: pd.Series | None) -> dict:
    if headline is None:
        return {}
    return metrics.interval_columns({name: headline[AUC]}) | {f"{name}_tpr": headline[metrics.TPR]}


def greedy_order(views: dict[str, Signals], truth: np.ndarray, seed: int) -> pd.DataFrame:
    """The order in which an attacker who chooses by the shadow models adds models to the joint likelihood ratio.

    views: every variant's signals; truth: (A,) bool. Each step adds the model with which the area under the ROC curve
    over log FPR becomes largest on the shadow models. `gain` is the victim's AUC minus that of the step before, paired.
    There are no steps where the joint attack cannot be fitted, on very few points.
    """
    rows, added, scores_before = [], [], None
    with (
        contextlib.suppress(Unusable),
        console.progress(None, "models added greedily", total=len(views) * (len(views) + 1) // 2) as bar,
    ):
        while len(added) < len(views):
            results = _results_with_each(views, added, seed, bar)
            best = _best_on_shadows(results, next(iter(views.values())))
            added.append(best)
            rows.append(_step(added, results[best], scores_before, truth, seed))
            scores_before = results[best].scores
    return pd.DataFrame(rows, columns=GREEDY_COLUMNS)


def _results_with_each(views: dict[str, Signals], added: Sequence[str], seed: int, bar) -> dict[str, Result]:
    """The joint attack on the models added so far and one more, for each that is left."""
    results = {}
    for variant in sorted(views.keys() - set(added)):
        results[variant] = joint([views[name] for name in (*added, variant)], seed=seed)
        bar.update()
    return results


def _best_on_shadows(results: dict[str, Result], view: Signals) -> str:
    member = view.member[audit_rows(view)[0]]
    return max(results, key=lambda variant: metrics.log_auc(results[variant].shadow_scores, member))


def _step(added: Sequence[str], result: Result, scores_before: np.ndarray | None, truth: np.ndarray, seed: int) -> dict:
    measured = metrics.evaluate(result.scores, result.decision, truth, seed=seed)
    row = {"models": len(added), "added": added[-1]}
    row |= {key: measured[key] for key in metrics.COLUMNS if key.startswith(("auc", "tpr"))}
    if scores_before is not None:
        gain = metrics.paired_difference(result.scores, scores_before, truth, seed=seed)
        row |= metrics.interval_columns({"gain": gain})
    return row
