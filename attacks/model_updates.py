"""Jagielski et al. 2023, How to combine membership-inference attacks on multiple updated models (PoPETs): ScoreDiff.

The attacker holds two related models and looks at what changed between them (section 4.2): here a point's loss on the
compressed model minus its loss on the original. Which way it moves for members, who forget what compression takes away
but are also what fine-tuning trains on, is read off the shadows: by the AUC, since some losses move a hundredfold.
"""

from sklearn.metrics import roc_auc_score

from attacks.arrays import Result, Signals, audit_rows, cross_entropy, decide
from attacks.sr import check_same_points


def model_updates(original: Signals, compressed: Signals, *, seed: int = 0) -> Result:
    """Scores of the victim's audit points, (A,). `seed` is unused."""
    check_same_points([original, compressed])
    shadow, victim = audit_rows(original)
    moved = cross_entropy(compressed.logits, compressed.labels) - cross_entropy(original.logits, original.labels)
    member = original.member[shadow].astype(bool)
    score = moved if roc_auc_score(member, moved[shadow]) >= 0.5 else -moved
    return decide(score[shadow], member, score[victim])
