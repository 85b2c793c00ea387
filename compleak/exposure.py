"""Which points are exposed: an average over the audit set says nothing to the one person who stands out."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from compleak import report
from compleak.paths import ORIGINAL
from compleak.verdicts import Scores

SHOWN = 40  # images on the contact sheet
DETAILED = (("NR", ORIGINAL), ("MR", "all"))  # tables of which every attack is listed; of the others the headline


def points_table(table: pd.DataFrame, scores: Scores, truth: np.ndarray, points, labels) -> pd.DataFrame:
    """One row an audit point, the most exposed first.

    points, labels: (A,) place in the data set and class. For each listed attack `score:<name>` and `rank:<name>` (1 is
    the most likely member). `exposure` is the false-positive rate at which MR's headline would first accuse the point,
    or NR's of the original where there is no MR; `agreement` the share of all headlines that have it among their first
    hundredth.
    """
    leading = [report.scenario_row(table, *place, "headline") for place in DETAILED]
    rows = {"point": points, "label": labels, "member": truth.astype(int)}
    rows["exposure"] = false_alarms(scores([row for row in leading if row is not None][-1]), truth)
    high = []
    for _, row in report.attack_rows(table).iterrows():
        detailed = (row["scenario"], row["variant"]) in DETAILED
        if not (detailed or row["headline"]):
            continue
        found, name = scores(row), f"{row['scenario']} {row['variant']} {report.key_of(row)}"
        rank = pd.Series(-found).rank(method="min").astype(int).to_numpy()
        rows |= {f"score:{name}": found, f"rank:{name}": rank}
        if row["headline"]:
            high.append(rank <= max(1, len(found) // 100))
    made = pd.DataFrame(rows)
    made.insert(4, "agreement", np.mean(high, axis=0))
    return made.sort_values(["exposure", "agreement"], ascending=[True, False], kind="stable")


def false_alarms(scores, truth) -> np.ndarray:
    """(A,): the share of non-members accused where the point is, a member counted among them: never 0."""
    others = np.sort(scores[~truth])
    accused = len(others) - np.searchsorted(others, scores, side="left")
    return (accused + truth) / (len(others) + truth)


def contact_sheet(points: pd.DataFrame, images: np.ndarray, classes: Sequence[str], title: str):
    """The most exposed members as pictures, each with its class and the false-positive rate it is found at.

    points: of `points_table`; images: (n, 32, 32, 3) uint8, the whole data set.
    """
    members = points[points["member"] == 1].head(SHOWN)
    made, grid = report.figure(11, 8.4, 8, rows=5)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (_, row) in zip(grid.flat, members.iterrows(), strict=False):
        axes.imshow(images[int(row["point"])])
        text = f"{classes[int(row['label'])]}\n#{int(row['point'])}, FPR ≤ {100 * row['exposure']:.2g} %"
        axes.set_title(text, fontsize=7)
    made.suptitle(title)
    return made


def agreement(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """How far runs agree on who is exposed: Spearman's rank correlation of exposure, for each pair of runs.

    tables: of `points_table`, each with its name in `.attrs["run"]`. Only points that are members in both; with a 95 %
    interval by Fisher's transformation (Bonett & Wright 2000).
    """
    rows = []
    for i, one in enumerate(tables):
        for other in tables[i + 1 :]:
            both = pd.merge(*(t[t["member"] == 1][["point", "exposure"]] for t in (one, other)), on="point")
            rows.append({"run": one.attrs["run"], "other": other.attrs["run"], "members of both": len(both)})
            if len(both) > 3:
                r = both["exposure_x"].corr(both["exposure_y"], method="spearman")
                spread = 1.96 * np.sqrt((1 + r**2 / 2) / (len(both) - 3))
                low, high = np.tanh(np.arctanh(np.clip(r, -0.999999, 0.999999)) + np.array([-spread, spread]))
                rows[-1] |= {"correlation": r, "correlation_lo": low, "correlation_hi": high}
    return pd.DataFrame(rows)
