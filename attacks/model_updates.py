"""Jagielski et al. 2023, How to combine membership-inference attacks on multiple updated models (PoPETs): ScoreDiff.

The attacker holds two related models and looks at what changed between them (section 4.2), here a point's loss on the
compressed model minus its loss on the original. Members forget what compression takes away, but they are also what
fine-tuning trains on, so their loss may rise or fall. Which of the two it does is read off the shadows, by the AUC: a
mean would follow the few losses that move a hundredfold.
"""

from sklearn.metrics import roc_auc_score

from attacks.common.signals import Result, Signals, audit_rows, check_same_points
from attacks.common.statistics import cross_entropy
from attacks.common.thresholds import decide


def model_updates(original: Signals, compressed: Signals, *, seed: int = 0) -> Result:
    """Scores of the victim's audit points, (A,). `seed` is unused."""
    check_same_points([original, compressed])
    shadow, victim = audit_rows(original)
    rise = cross_entropy(compressed.logits, compressed.labels) - cross_entropy(original.logits, original.labels)
    member = original.member[shadow].astype(bool)
    scores = rise if roc_auc_score(member, rise[shadow]) >= 0.5 else -rise
    return decide(scores[shadow], member, scores[victim])
