"""The ROC curves that a run's figure shows: the strongest attacks of each scenario, and a null control."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from compleak.audits import metrics
from compleak.findings.claims import Scores
from compleak.findings.rows import LEADING_FORMS, key_of, leading_rows

COLUMNS = ["scenario", "form", "variant", "attack", "auc", "one_nonmember", "fpr", "tpr"]


def roc_curves(table: pd.DataFrame, scores: Scores, truth: np.ndarray) -> pd.DataFrame:
    """A row for each point of each curve, with COLUMNS.

    `one_nonmember` is the FPR at which one non-member is accused, `attack` the row's key. A curve is a (scenario,
    form). Each scenario has up to two, of the published attack and of the headline of largest AUC over all variants.
    One more, of form `null`, is the null control of the last scenario in the table: of its non-members alone, the first
    half stands for members. truth: (A,) bool membership of the audit points.
    """
    curves = [curve_of(row, row["form"], scores(row), truth) for row in _strongest_of_each(table)]
    null = null_row(table)
    curves.append(null_curve(null, scores(null), truth))
    return pd.concat(curves, ignore_index=True)


def _strongest_of_each(table: pd.DataFrame) -> Iterator[pd.Series]:
    leading = leading_rows(table)
    for scenario in ("NR", "SR", "MR"):
        for form in LEADING_FORMS:
            rows = leading[(leading["scenario"] == scenario) & (leading["form"] == form)]
            if len(rows):
                yield rows.loc[rows["auc"].idxmax()]


def null_row(table: pd.DataFrame) -> pd.Series:
    """The first null control of the last scenario in the table, which must have one."""
    nulls = table[table["attack"] == "null"]
    return nulls[nulls["scenario"] == nulls["scenario"].iloc[-1]].iloc[0]


def curve_of(row: pd.Series, form: str, scores: np.ndarray, member: np.ndarray) -> pd.DataFrame:
    """The curve of one row of a table, with COLUMNS, on the points whose scores are not NaN.

    scores: (n,); member: (n,) bool.
    """
    is_scored = ~np.isnan(scores)
    scores, member = scores[is_scored], member[is_scored]
    fpr, tpr = metrics.roc_curve(scores, member)
    curve = {"scenario": row["scenario"], "form": form, "variant": row["variant"], "attack": key_of(row)}
    curve |= {"auc": metrics.auc(scores, member), "one_nonmember": 1 / (~member).sum()}
    return pd.DataFrame({**curve, "fpr": fpr, "tpr": tpr})[COLUMNS]


def null_curve(row: pd.Series, scores: np.ndarray, member: np.ndarray) -> pd.DataFrame:
    """The curve of a null control: the first half of the non-members that have a score stand for members."""
    others = scores[~member & ~np.isnan(scores)]
    return curve_of(row, "null", others, np.arange(len(others)) < len(others) // 2)
