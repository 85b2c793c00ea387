"""Carlini et al. 2022, Membership inference attacks from first principles (IEEE S&P): offline LiRA.

Of each point the references give the confidences a model has that never saw it. The score is how far above those the
target's own lies, in their standard deviations (section VI.B, equation 4: 1 - Pr[Z > own], which has the same order):

    score(x) = (own(x) - mean_out(x)) / deviation(x)

The deviation is the point's own, or one for all points, which is better with few references (section VI.C). Here the
latter is as good as known: it cancels in the order, and the score is the plain difference.
"""

import numpy as np

from attacks.arrays import (
    Result,
    Signals,
    Unusable,
    audit_rows,
    confidence,
    decide,
    reference_moments,
    references_of,
)

FORMS = ("global_variance", "per_point_variance")


def lira(target: Signals, *, seed: int = 0, classifier: str = "global_variance") -> Result:
    """Scores of the victim's audit points, (A,). `seed` is unused.

    A point with a single reference has no variance of its own and takes the mean of all. Raises ValueError for another
    form, or where there is no reference.
    """
    if classifier not in FORMS:
        raise ValueError(f"unknown form {classifier!r}: use {' or '.join(FORMS)}")
    shadow, victim = audit_rows(target)
    own = confidence(target.logits, target.labels)
    count, mean, variance = reference_moments(references_of(target, "lira"), own)
    score = own - mean
    if classifier == "per_point_variance":
        common = np.nanmean(variance) if (count > 1).any() else 1.0
        if not common > 0:
            raise Unusable("lira needs references that do not all answer alike")
        score = score / np.sqrt(np.where(np.nan_to_num(variance) > 0, variance, common))
    return decide(score[shadow], target.member[shadow], score[victim])
