"""The gap attack (Yeom et al. 2018, section 3.2; named by Choquette-Choo et al. 2021).

A point is called a member if the model predicts its label. The attack needs the predicted class alone, and is as good
as the gap between the model's accuracy on members and on non-members is wide.
"""

import numpy as np

from attacks.common.signals import Result, Signals, audit_rows


def is_right(target: Signals, rows) -> np.ndarray:
    """1 where the prediction is the label, else 0, (n,) float64."""
    return (target.logits[rows].argmax(axis=-1) == target.labels[rows[1]]).astype(np.float64)


def gap(target: Signals, *, seed: int = 0) -> Result:
    """1 where the prediction is right, else 0; (A,). There is no threshold to choose. `seed` is unused.

    Raises Unusable where there is no shadow model.
    """
    shadow, victim = audit_rows(target)
    scores = is_right(target, victim)
    return Result(scores, scores > 0, is_right(target, shadow))
