"""Carlini et al. 2022, Membership inference attacks from first principles (IEEE S&P): offline LiRA.

The references of a point show the confidences of models that never saw it. The score is how far the target's confidence
lies above those, in their standard deviations (section VI.B, equation 4: 1 - Pr[Z > confidence], in the same order):

    score(x) = (confidence(x) - mean_out(x)) / deviation(x)

The deviation is each point's own, or one for all points, which is better with few references (section VI.C). A single
deviation does not change the order of scores, so it is left out, and the score is the plain difference.
"""

import numpy as np

from attacks.common.references import checked_outsiders, reference_moments
from attacks.common.signals import Result, Signals, Unusable, audit_rows
from attacks.common.statistics import confidence
from attacks.common.thresholds import decide

FORMS = ("global_variance", "per_point_variance")


def lira(target: Signals, *, seed: int = 0, classifier: str = "global_variance") -> Result:
    """Scores of the victim's audit points, (A,). classifier: one of FORMS. `seed` is unused.

    A point with a single reference has no variance of its own and takes the mean of all points' variances. Raises
    Unusable where a point has no reference or all references answer alike, ValueError for another form.
    """
    if classifier not in FORMS:
        raise ValueError(f"unknown form {classifier!r}: use {' or '.join(FORMS)}")
    shadow, victim = audit_rows(target)
    confidences = confidence(target.logits, target.labels)
    count, mean, variance = reference_moments(checked_outsiders(target, "lira"), confidences)
    scores = confidences - mean
    if classifier == "per_point_variance":
        scores = scores / np.sqrt(fill_variance(variance, count))
    return decide(scores[shadow], target.member[shadow], scores[victim])


def fill_variance(variance, count) -> np.ndarray:
    """The variances, (R, N), with the mean of all in place of those that are unknown or zero."""
    common = np.nanmean(variance) if (count > 1).any() else 1.0
    if not common > 0:
        raise Unusable("lira needs references that do not all answer alike")
    return np.where(np.nan_to_num(variance) > 0, variance, common)
