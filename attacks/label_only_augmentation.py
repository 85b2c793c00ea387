"""Choquette-Choo, Tramèr, Carlini, Papernot 2021, Label-only membership inference attacks (ICML), section 4.2.

The attacker sees predicted labels alone. A model that was trained on a picture, perhaps augmented, still names it when
it is shifted or mirrored. So each picture is asked about in Q fixed views, and the Q bits that say whether the label
was right go to a classifier that is fitted on the shadows:

    mean                 the share of right answers, as Tang et al. 2022 (SELENA) score their 81 crops x flip
    logistic_regression  a weight for each view, the simplest of the classifiers on bits (h(x) in section 4.2)

With several versions of a model, the bits of all of them are read together: ours, in no paper.
`label_only` is the same idea with rotations and a network, as PrivBox runs it.
"""

from collections.abc import Sequence

import numpy as np

from attacks.common.classifiers import classify
from attacks.common.queries import correct_bits
from attacks.common.signals import Result, Signals, audit_rows, check_same_points, stack_rows
from attacks.common.thresholds import decide

FORMS = ("mean", "logistic_regression")


def label_only_augmentation(models: Sequence[Signals], *, seed: int, classifier: str = "mean") -> Result:
    """Scores of the victim's audit points, (A,): shares of right answers, or log-odds of membership.

    classifier: one of FORMS, ValueError for another. Raises Unusable where there is no shadow model, or
    without the probe "correct" and the probe "augmented".
    """
    if classifier not in FORMS:
        raise ValueError(f"unknown form {classifier!r}: use {' or '.join(FORMS)}")
    check_same_points(models)
    shadow, victim = audit_rows(models[0])
    rows = stack_rows(shadow, victim)
    bits = np.hstack([correct_bits(model, rows) for model in models]).astype(np.float64)  # (n, K Q)
    member = models[0].member[shadow]
    fitted_on, applied_to = np.split(bits, [len(member)])
    if classifier == "mean":
        return decide(fitted_on.mean(axis=1), member, applied_to.mean(axis=1))
    return classify("logistic_regression", fitted_on, member, shadow, applied_to, seed=seed)
