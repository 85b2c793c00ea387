"""Which points are exposed: an average over the audit set says nothing to the one person who stands out."""

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd

from compleak.findings.claims import Scores
from compleak.findings.rows import ORIGINAL, attack_rows, name_of, scenario_row

DETAILED = (("NR", ORIGINAL), ("MR", "all"))  # every attack on these targets is listed; of the others the headline


def points_table(
    table: pd.DataFrame, scores: Scores, truth: np.ndarray, points: np.ndarray, labels: np.ndarray
) -> pd.DataFrame:
    """A row for each audit point, the most exposed first.

    truth, points, labels: (A,) membership, place in the data set and class. For each listed attack there are
    `score:<name>` and `rank:<name>`; rank 1 is the most likely member. `exposure` is the false-positive rate at which
    MR's headline would first accuse the point, or NR's of the original where there is no MR. `agreement` is the share
    of all headlines that have the point among their first hundredth.
    """
    columns = {"point": points, "label": labels, "member": truth.astype(int)}
    columns["exposure"] = first_false_positive_rate(scores(_leading_headline(table)), truth)
    first_hundredth = []
    for row in _listed_rows(table):
        values = scores(row)
        rank = pd.Series(-values).rank(method="min").astype(int).to_numpy()
        columns |= {f"score:{name_of(row)}": values, f"rank:{name_of(row)}": rank}
        if row["headline"]:
            first_hundredth.append(rank <= max(1, len(values) // 100))
    frame = pd.DataFrame(columns)
    frame.insert(4, "agreement", np.mean(first_hundredth, axis=0))
    return frame.sort_values(["exposure", "agreement"], ascending=[True, False], kind="stable")


def _leading_headline(table: pd.DataFrame) -> pd.Series:
    headlines = [scenario_row(table, *target, "headline") for target in DETAILED]
    return [row for row in headlines if row is not None][-1]


def _listed_rows(table: pd.DataFrame) -> Iterator[pd.Series]:
    for _, row in attack_rows(table).iterrows():
        if row["headline"] or (row["scenario"], row["variant"]) in DETAILED:
            yield row


def first_false_positive_rate(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(A,): the share of non-members that score at least as high as the point; a member counts as one more: never 0."""
    others = np.sort(scores[~truth])
    accused = len(others) - np.searchsorted(others, scores, side="left")
    return (accused + truth) / (len(others) + truth)


def agreement(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """How far runs agree on who is exposed, a row for each pair of runs.

    tables: a `points_table` by the name of its run. Spearman's rank correlation of exposure over the points that are
    members in both runs, where there are more than 3, with a 95 % interval by Fisher's transformation (Bonett & Wright
    2000).
    """
    rows = []
    for (name, one), (other_name, other) in itertools.combinations(tables.items(), 2):
        members = [frame.loc[frame["member"] == 1, ["point", "exposure"]] for frame in (one, other)]
        both = pd.merge(*members, on="point")
        correlation = _correlation(both) if len(both) > 3 else {}
        rows.append({"run": name, "other": other_name, "members of both": len(both), **correlation})
    return pd.DataFrame(rows)


def _correlation(both: pd.DataFrame) -> dict[str, float]:
    r = both["exposure_x"].corr(both["exposure_y"], method="spearman")
    spread = 1.96 * np.sqrt((1 + r**2 / 2) / (len(both) - 3))
    low, high = np.tanh(np.arctanh(np.clip(r, -0.999999, 0.999999)) + np.array([-spread, spread]))
    return {"correlation": r, "correlation_lo": low, "correlation_hi": high}
