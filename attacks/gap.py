"""The gap attack (Yeom et al. 2018, section 3.2; named by Choquette-Choo et al. 2021): a member is what the model gets
right. Needs nothing but the predicted label, and is as good as the model's gap between members and others.
"""

import numpy as np

from attacks.arrays import Result, Signals, audit_rows


def gap(target: Signals, *, seed: int = 0) -> Result:
    """1 where the prediction is right, else 0; (A,). `seed` is unused. There is no threshold to choose."""
    shadow, victim = audit_rows(target)
    of_shadows, of_victim = (
        (target.logits[rows].argmax(axis=-1) == target.labels[rows[1]]).astype(np.float64) for rows in (shadow, victim)
    )
    return Result(of_victim, of_victim > 0, of_shadows)
