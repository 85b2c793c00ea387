"""Do the controls of a run or of an audit sit at an AUC of 0.5, as they must?"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from compleak.audits import metrics
from compleak.findings.rows import CONTROLS

LEVEL = 0.05  # of the test that the controls do not differ from 0.5
LEVEL_OF_AUDIT = 0.01  # of the same test in an audit of shipped models, where a failed control takes a level away


class ControlTest(NamedTuple):
    """All control rows of a run, or those of one kind, tested together."""

    count: int
    smallest: float  # p-value of the row that is furthest from 0.5 (Mann-Whitney)
    corrected: float  # by Bonferroni, for the number of rows

    @property
    def passed(self) -> bool:
        return self.corrected > LEVEL


def control_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The control rows without repetitions: `blind` is the same in all tables of the same points, and `references` in
    all tables that begin with the same model.
    """
    controls = table[table["attack"].isin(CONTROLS)]
    return controls.drop_duplicates(["attack", "auc", "auc_lo", "auc_hi"])


def p_values_of(rows: pd.DataFrame) -> np.ndarray:
    """(n,) of n rows of a table: the p-value of each row's AUC if there is nothing to find (Mann-Whitney)."""
    columns = [pd.to_numeric(rows[key]) for key in ("auc", "n_member", "n_nonmember")]
    return np.array([metrics.auc_p_value(*row) for row in zip(*columns, strict=True)], dtype=float)


def check_controls(controls: pd.DataFrame) -> ControlTest:
    """Whether the control rows, taken together, differ from 0.5 by more than chance."""
    smallest = float(p_values_of(controls).min())
    return ControlTest(len(controls), smallest, min(1.0, smallest * len(controls)))


def failed_controls(table: pd.DataFrame, level: float = LEVEL_OF_AUDIT) -> pd.DataFrame:
    """The control rows of a table that differ from 0.5 by more than chance, tested together at `level` (Bonferroni)."""
    rows = table[table["attack"].isin(CONTROLS)]
    return rows[p_values_of(rows) * len(control_rows(table)) <= level]


def count_at_chance(rows: pd.DataFrame, key: str = "auc") -> int:
    """How many rows have 0.5 within the interval of an AUC."""
    low = pd.to_numeric(rows[f"{key}_lo"])
    high = pd.to_numeric(rows[f"{key}_hi"])
    return int(((low <= 0.5) & (high >= 0.5)).sum())
