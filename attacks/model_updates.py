"""Jagielski et al. 2023, How to combine membership-inference attacks on multiple updated models (PoPETs): ScoreDiff.

The attacker holds two related models and looks at what changed between them (section 4.2), here a point's loss on the
compressed model minus its loss on the original. Members forget what compression takes away, but they are also what
fine-tuning trains on, so their loss may rise or fall. Which of the two it does is chosen on the shadows, by the AUC: a
mean would follow the few losses that move a hundredfold.
"""

from attacks.common.signals import Result, Signals, audit_rows, check_same_points
from attacks.common.statistics import cross_entropy
from attacks.common.thresholds import choose_and_decide

SIGNS = {"members' loss rises": 1, "members' loss falls": -1}


def model_updates(original: Signals, compressed: Signals, *, seed: int = 0) -> Result:
    """Scores of the victim's audit points, (A,), in nats. `seed` is unused.

    Raises Unusable where there is no shadow model.
    """
    check_same_points([original, compressed])
    shadow, victim = audit_rows(original)
    rise = cross_entropy(compressed.logits, compressed.labels) - cross_entropy(original.logits, original.labels)
    options = [sign * rise for sign in SIGNS.values()]
    of_shadow = [scores[shadow] for scores in options]
    return choose_and_decide([*SIGNS], of_shadow, original.member[shadow], shadow, lambda sign: options[sign][victim])
