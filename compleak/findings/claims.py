"""The paper's claims C1 to C3, each decided by paired intervals on the same points, whichever way it falls.

Every comparison is a difference of AUC between two attacks on the same audit points, resampled together. Each claim is
decided three times: `headline` compares the attacks that the shadow models chose and takes the baseline that they
prefer; `published` compares the strongest attacks of the literature, and `without references` the strongest of those
that use no reference models, as the paper's own do not. The strongest are picked by their AUC on the victim, from more
candidates for NR than for SR and from more for SR than for MR. That favours the claims' baselines, and the intervals do
not account for it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from compleak.audits import metrics
from compleak.findings.rows import (
    HEADLINE,
    ORIGINAL,
    PUBLISHED,
    TOGETHER,
    WITHOUT_REFERENCES,
    attack_rows,
    name_of,
    scenario_row,
    variants_of_scenario,
)

MARGIN = 0.02  # of AUC: "about as much" means the whole interval lies within it
LIGHT = ("pruning_0.6", "quantization_int8", "clustering_16")
HEAVY = "pruning_0.9"
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
NAMES = ("C1", "C2", "C3")
CLAIM_FORMS = (PUBLISHED, WITHOUT_REFERENCES, HEADLINE)  # the attacks that decide a claim: see `rows.rows_of_form`
COLUMNS = ["claim", "form", "key", "what", "difference", "low", "high", "verdict"]

# A row of the attack table -> (A,) its scores over the victim's audit points, NaN on points that it left out.
Scores = Callable[[pd.Series], np.ndarray]


class Comparison(NamedTuple):
    """Two rows of an attack table whose AUCs a claim compares."""

    claim: str
    form: str  # of CLAIM_FORMS
    key: str  # names the comparison in runs of all seeds, whichever attacks it is between
    row: pd.Series
    baseline: pd.Series


def compare(table: pd.DataFrame, scores: Scores, truth: np.ndarray, seed: int) -> pd.DataFrame:
    """Every comparison that the claims rest on, with COLUMNS; few or none after `--attacks`, which leaves rows out.

    truth: (A,) bool membership of the audit points. difference, low, high: of AUC, with its 95 % interval.
    """
    return pd.DataFrame([_measure(pair, scores, truth, seed) for pair in comparisons(table)], columns=COLUMNS)


def comparisons(table: pd.DataFrame) -> Iterator[Comparison]:
    """The comparisons whose two rows the table has."""
    for form in CLAIM_FORMS:
        yield from _compressed_with_original(table, form)
        yield from _pairs_with_single_models(table, form)
        yield from _all_with_pairs(table, form)


def overview(claims: pd.DataFrame) -> pd.DataFrame:
    """One row for each claim and form: the verdict, how many comparisons there are, how many hold and how many fail."""
    lines = []
    for claim in NAMES:
        for form in CLAIM_FORMS:
            verdicts = claims.loc[(claims["claim"] == claim) & (claims["form"] == form), "verdict"]
            line = {"claim": claim, "form": form, "verdict": overall(verdicts), "comparisons": len(verdicts)}
            lines.append({**line, "hold": int((verdicts == HOLDS).sum()), "fail": int((verdicts == FAILS).sum())})
    return pd.DataFrame(lines)


def overall(verdicts: Iterable[str]) -> str:
    """A claim holds where every comparison holds, and fails where any fails; without comparisons it is undecided."""
    distinct = set(verdicts)
    if FAILS in distinct:
        return FAILS
    return HOLDS if distinct == {HOLDS} else UNDECIDED


def judge(key: str, low: float, high: float) -> str:
    """The verdict on a comparison, from its key and the interval of its difference."""
    if key in {_c1_key(variant) for variant in LIGHT}:
        return _judge_small(low, high)
    if key == _c1_key(HEAVY):
        return _judge_positive(-high, -low)
    return _judge_positive(low, high)


def _c1_key(variant: str) -> str:
    return f"{variant} - {ORIGINAL}"


def _judge_positive(low: float, high: float) -> str:
    if low > 0:
        return HOLDS
    return FAILS if high <= 0 else UNDECIDED


def _judge_small(low: float, high: float) -> str:
    if low >= -MARGIN and high <= MARGIN:
        return HOLDS
    return FAILS if high < -MARGIN or low > MARGIN else UNDECIDED


def _compressed_with_original(table: pd.DataFrame, form: str) -> Iterator[Comparison]:
    """C1: heavy compression leaks less than the original, light compression about as much; the same attack on both."""
    baseline = scenario_row(table, "NR", ORIGINAL, form)
    if baseline is None:
        return
    rows = attack_rows(table[table["scenario"] == "NR"])
    same_attack = (rows["attack"] == baseline["attack"]) & (rows["classifier"] == baseline["classifier"])
    for variant in (HEAVY, *LIGHT):
        for _, row in rows[same_attack & (rows["variant"] == variant)].iterrows():
            yield Comparison("C1", form, _c1_key(variant), row, baseline)


def _pairs_with_single_models(table: pd.DataFrame, form: str) -> Iterator[Comparison]:
    """C2: original and compressed model together leak more than either alone."""
    for variant in variants_of_scenario(table, "SR"):
        pair = scenario_row(table, "SR", variant, form)
        baseline = _best([scenario_row(table, "NR", single, form) for single in (ORIGINAL, variant)], form)
        if pair is not None and baseline is not None:
            yield Comparison("C2", form, f"SR {variant} - best NR", pair, baseline)


def _all_with_pairs(table: pd.DataFrame, form: str) -> Iterator[Comparison]:
    """C3: all compressed models together leak more than the best pair."""
    together = scenario_row(table, *TOGETHER, form)
    pairs = [scenario_row(table, "SR", variant, form) for variant in variants_of_scenario(table, "SR")]
    baseline = _best(pairs, form)
    if together is not None and baseline is not None:
        yield Comparison("C3", form, "MR - best SR", together, baseline)


def _best(rows: Iterable[pd.Series | None], form: str) -> pd.Series | None:
    """The row that leaks most: on the shadow models for headlines, on the victim for published attacks."""
    measure = "shadow_log_auc" if form == HEADLINE else "auc"
    present = [row for row in rows if row is not None]
    worth = pd.to_numeric(pd.Series([row[measure] for row in present], dtype=object))
    return present[int(worth.argmax())] if worth.notna().any() else None


def _measure(pair: Comparison, scores: Scores, truth: np.ndarray, seed: int) -> dict:
    difference, low, high = metrics.paired_difference(scores(pair.row), scores(pair.baseline), truth, seed=seed)
    return {
        "claim": pair.claim,
        "form": pair.form,
        "key": pair.key,
        "what": f"{name_of(pair.row)} - {name_of(pair.baseline)}",
        "difference": difference,
        "low": low,
        "high": high,
        "verdict": judge(pair.key, low, high),
    }
