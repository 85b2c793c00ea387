"""The paper's claims C1 to C3, each decided by paired intervals on the same points, whichever way it falls.

A difference is of AUC, between two attacks on the same audit points, resampled together. Each claim is decided twice:
`headline` compares attacks and, as the baseline, models that the shadows chose; `published` the strongest attacks of
the literature. The latter are picked by AUC on the victim, from more candidates for NR than for SR than for MR, which
favours the claims' baselines and is not part of the interval.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from compleak import metrics, report
from compleak.paths import ORIGINAL

MARGIN = 0.02  # of AUC: "about as much" means the whole interval lies within it
LIGHT = ("pruning_0.6", "quantization_int8", "clustering_16")
HEAVY = "pruning_0.9"
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"


class Difference(NamedTuple):
    """One comparison and what it says of its claim."""

    claim: str
    form: str  # published or headline
    key: str  # names the comparison whichever attacks it is between: the same in runs of other seeds
    what: str
    difference: float
    low: float
    high: float
    verdict: str


Scores = Callable[[pd.Series], np.ndarray]  # a row of the table -> its scores over the victim's audit points


def verdicts(table: pd.DataFrame, scores: Scores, truth: np.ndarray, seed: int) -> list[Difference]:
    """Every comparison the claims rest on and whose rows the table has, which after `--attacks` may be few or none.

    `truth`: (A,) bool membership of the audit points.
    """
    found = []
    for form in report.FORMS:
        found += [*_c1(table, form, scores, truth, seed), *_c2(table, form, scores, truth, seed)]
        found += _c3(table, form, scores, truth, seed)
    return found


def overall(differences: list[Difference]) -> str:
    """A claim holds where every comparison does, and falls with any that does not."""
    said = {difference.verdict for difference in differences}
    return FAILS if FAILS in said else UNDECIDED if UNDECIDED in said or not said else HOLDS


def _c1(table, form, scores, truth, seed):
    """C1: heavy compression leaks less than the original, light compression about as much; the same attack on both."""
    base = report.scenario_row(table, "NR", ORIGINAL, form)
    if base is None:
        return
    rows = report.attack_rows(table)
    same = rows[
        (rows["scenario"] == "NR") & (rows["attack"] == base["attack"]) & (rows["classifier"] == base["classifier"])
    ]
    for variant in (HEAVY, *LIGHT):
        for _, row in same[same["variant"] == variant].iterrows():
            yield _compare("C1", form, f"{variant} - original", row, base, scores, truth, seed)


def _c2(table, form, scores, truth, seed):
    """C2: original and compressed model together leak more than either alone."""
    for variant in table.loc[table["scenario"] == "SR", "variant"].unique():
        pair = report.scenario_row(table, "SR", variant, form)
        alone = [report.scenario_row(table, "NR", single, form) for single in (ORIGINAL, variant)]
        best = _best(alone, form)
        if pair is not None and best is not None:
            yield _compare("C2", form, f"SR {variant} - best NR", pair, best, scores, truth, seed)


def _c3(table, form, scores, truth, seed):
    """C3: all compressed models together leak more than the best pair."""
    together = report.scenario_row(table, "MR", "all", form)
    pairs = [
        report.scenario_row(table, "SR", v, form) for v in table.loc[table["scenario"] == "SR", "variant"].unique()
    ]
    best = _best(pairs, form)
    if together is not None and best is not None:
        yield _compare("C3", form, "MR - best SR", together, best, scores, truth, seed)


def _best(rows, form) -> pd.Series | None:
    """The row with the most to it: on the victim or, of headlines, on the shadows."""
    by = "shadow_log_auc" if form == "headline" else "auc"
    return max((row for row in rows if row is not None), key=lambda row: float(row[by]), default=None)


def _compare(claim, form, key, row, base, scores, truth, seed) -> Difference:
    difference, low, high = metrics.paired_difference(scores(row), scores(base), truth, seed=seed)
    what = f"{_name(row)} - {_name(base)}"
    return Difference(claim, form, key, what, difference, low, high, judge(key, low, high))


def judge(key: str, low: float, high: float) -> str:
    """The verdict on a comparison, by its key and an interval of the difference."""
    light = key in {f"{variant} - original" for variant in LIGHT}
    return (_within if light else _below if key == f"{HEAVY} - original" else _above)(low, high)


def _name(row: pd.Series) -> str:
    return f"{row['scenario']} {row['variant']} {report.key_of(row)}"


def _above(low: float, high: float) -> str:
    return HOLDS if low > 0 else FAILS if high <= 0 else UNDECIDED


def _below(low: float, high: float) -> str:
    return _above(-high, -low)


def _within(low: float, high: float) -> str:
    inside, outside = low >= -MARGIN and high <= MARGIN, high < -MARGIN or low > MARGIN
    return HOLDS if inside else FAILS if outside else UNDECIDED
