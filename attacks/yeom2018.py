"""Yeom et al. 2018, Privacy risk in machine learning: analyzing the connection to overfitting (IEEE CSF).

A point with a small loss is called a member (section 3.3, adversary 2); the threshold is the one that separates the
shadows' members best. `entropy` is the variant without the label: the entropy of the prediction (Salem et al. 2019,
section V). Neither draws random numbers; `seed` is there so that all attacks are called alike.
"""

import numpy as np

from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.statistics import cross_entropy, log_posterior
from attacks.common.thresholds import decide


def yeom2018(target: Signals, *, seed: int = 0) -> Result:
    """Minus the cross-entropy of the victim's audit points, (A,), in nats.

    Raises Unusable where there is no shadow model.
    """
    shadow, victim = audit_rows(target)
    scores = -cross_entropy(target.logits, target.labels)  # (R, N)
    return decide(scores[shadow], target.member[shadow], scores[victim])


def entropy(target: Signals, *, seed: int = 0) -> Result:
    """Minus the prediction entropy of the victim's audit points, (A,), in nats.

    Raises Unusable where there is no shadow model.
    """
    shadow, victim = audit_rows(target)
    log_p = log_posterior(target.logits)
    scores = (np.exp(log_p) * log_p).sum(axis=-1)  # (R, N)
    return decide(scores[shadow], target.member[shadow], scores[victim])
