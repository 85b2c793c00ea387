"""The ROC curves that a run's figure shows: the strongest attacks of each scenario, and a null control."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from compleak.audits import metrics
from compleak.findings.claims import Scores
from compleak.findings.rows import LEADING_FORMS, key_of, leading_rows


def roc_curves(table: pd.DataFrame, scores: Scores, truth: np.ndarray) -> pd.DataFrame:
    """A row for each corner of each curve: scenario, form, variant, attack, auc, least (one non-member), fpr, tpr.

    A curve is a (scenario, form). Each scenario has the attack of largest AUC among its published ones and among its
    headlines, over all variants. The form of the null control's curve is `null`: the last scenario's, whose first half
    of non-members stands for members. truth: (A,) bool membership of the audit points.
    """
    curves = [_curve(row, row["form"], scores(row), truth) for row in _strongest_of_each(table)]
    null = _null_row(table)
    first_half = np.arange((~truth).sum()) < (~truth).sum() // 2
    curves.append(_curve(null, "null", scores(null)[~truth], first_half))
    return pd.concat(curves, ignore_index=True)


def _strongest_of_each(table: pd.DataFrame) -> Iterator[pd.Series]:
    leading = leading_rows(table)
    for scenario in ("NR", "SR", "MR"):
        for form in LEADING_FORMS:
            rows = leading[(leading["scenario"] == scenario) & (leading["form"] == form)]
            if len(rows):
                yield rows.loc[rows["auc"].idxmax()]


def _null_row(table: pd.DataFrame) -> pd.Series:
    nulls = table[table["attack"] == "null"]
    return nulls[nulls["scenario"] == nulls["scenario"].iloc[-1]].iloc[0]


def _curve(row: pd.Series, form: str, scores: np.ndarray, member: np.ndarray) -> pd.DataFrame:
    fpr, tpr = metrics.roc_curve(scores, member)
    curve = {"scenario": row["scenario"], "form": form, "variant": row["variant"], "attack": key_of(row)}
    return pd.DataFrame({**curve, "auc": row["auc"], "least": 1 / (~member).sum(), "fpr": fpr, "tpr": tpr})
