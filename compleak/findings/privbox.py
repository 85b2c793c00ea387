"""What PrivBox's attacks come to, in numbers: accuracy, precision and recall as it reports them, and what they mean.

PrivBox counts all points, however many more members than others there are. A guess that every point is a member is
then right as often as points are members: 83 % of the time among 50,000 members and 10,000 others. Balanced accuracy,
AUC and TPR at a fixed FPR do not depend on the balance, so they stand beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from compleak.audits import metrics
from compleak.audits.intervals import clopper_pearson

FPR = metrics.WIDER_FPR  # of the TPR that stands beside PrivBox's numbers
LEVELS = ((0.55, "LOW"), (0.8, "MIDDLE"))  # PrivBox's rule: the level of an accuracy below each number
HIGHEST = "HIGH"
WORST_FIRST = ("HIGH", "MIDDLE", "LOW")


@dataclass(frozen=True)
class Model:
    """A model that was asked, with its accuracy on the members and the others of its task."""

    name: str
    role: str  # "target" or "shadow"
    members: str  # the data set of its members
    folder: str
    member_accuracy: float
    other_accuracy: float
    sha256: dict[str, str]  # of each file that it was made from


@dataclass(frozen=True)
class Dataset:
    name: str
    is_member: bool
    points: int
    folder: str
    fingerprint: str  # sha256 of its points
    of: str  # the model whose members or others they are


@dataclass(frozen=True)
class Attack:
    """One attack's row: `numbers` from `measure`, and how it came about."""

    name: str  # PrivBox's: BASELINE, ML-LEAK, LABEL-ONLY
    target: str
    questions: int  # that each point is asked about
    numbers: dict[str, float]
    settings: dict[str, object] = field(default_factory=dict)  # the task's keys, without folders
    shadow_data: str = ""  # what the shadow model was trained on; "" where there is none
    shared_data: Sequence[str] = ()  # data sets that are the target's as well as the shadow model's

    @property
    def level(self) -> str:
        """By PrivBox's rule, on the accuracy over all points."""
        return level(self.numbers["accuracy"])

    @property
    def balanced_level(self) -> str:
        """By the same rule, on the balanced accuracy."""
        return level(self.numbers["balanced_accuracy"])

    @property
    def guess(self) -> float:
        """The accuracy of calling every point a member, or no point, whichever is right more often."""
        members = self.numbers["n_member"]
        others = self.numbers["n_nonmember"]
        return max(members, others) / (members + others)


@dataclass(frozen=True)
class PrivBoxFindings:
    task_file: str
    seed: int
    models: Sequence[Model]
    datasets: Sequence[Dataset]
    attacks: Sequence[Attack]


def level(accuracy: float) -> str:
    """PrivBox's word for an accuracy, whatever its interval: LOW below 0.55, MIDDLE below 0.8, else HIGH."""
    return next((word for limit, word in LEVELS if accuracy < limit), HIGHEST)


def measure(scores, decision, member, *, seed: int) -> dict[str, float]:
    """All numbers of an attack, each with its 95 % interval under `_lo` and `_hi`.

    scores: (n,), larger = more likely a member; decision: (n,) bool; member: (n,) of 0/1. Accuracy, precision and
    recall are over all points, as in PrivBox; their intervals are Clopper and Pearson's. Precision is NaN where no
    point is called a member. Raises ValueError as `compleak.audits.metrics` does.
    """
    decision = np.asarray(decision, dtype=bool)
    member = np.asarray(member).astype(bool)
    hits = int((decision & member).sum())
    columns = {
        "accuracy": share(int((decision == member).sum()), len(member)),
        "precision": share(hits, int(decision.sum())),
        "recall": share(hits, int(member.sum())),
        "balanced_accuracy": (
            metrics.balanced_accuracy(decision, member),
            *metrics.accuracy_interval(decision, member, seed=seed),
        ),
        "auc": (metrics.auc(scores, member), *metrics.auc_interval(scores, member, seed=seed)),
        f"tpr_at_fpr_{FPR}": (
            metrics.tpr_at_fpr(scores, member, FPR),
            *metrics.tpr_interval(scores, member, FPR),
        ),
    }
    counts = {"n_member": int(member.sum()), "n_nonmember": int((~member).sum())}
    return {**metrics.interval_columns(columns), **counts}


def share(successes: int, trials: int) -> tuple[float, float, float]:
    """(share, low, high); NaN and the whole range where there are no trials."""
    if trials == 0:
        return float("nan"), 0.0, 1.0
    return successes / trials, *clopper_pearson(successes, trials)


def is_unbalanced(attack: Attack) -> bool:
    """Whether members and others are not equally many, so that accuracy depends on the balance."""
    return attack.numbers["n_member"] != attack.numbers["n_nonmember"]
