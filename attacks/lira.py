"""Carlini et al. 2022, Membership inference attacks from first principles (IEEE S&P): offline LiRA.

The references of a point show the confidences of models that never saw it. The score is how far the target's confidence
lies above those, in their standard deviations (section IV.C, equation 4: 1 - Pr[Z > confidence], in the same order):

    score(x) = (confidence(x) - mean_out(x)) / deviation(x)

The deviation is each point's own, or one for all points, which is better with few references (section VI.B). A single
deviation does not change the order of scores, so it is left out, and the score is the plain difference.

Two things are left to be tuned and are chosen on the shadows: the confidence, log p / (1 - p) (section IV.C) or the
distance of the label's logit from the largest other logit (the hinge of section VI.A and of the authors' code); and the
middle of the references' answers, their mean or, as the authors' code has it, their median.
"""

import numpy as np

from attacks.common.references import checked_outsiders, reference_moments
from attacks.common.signals import Result, Signals, Unusable, audit_rows, stack_rows
from attacks.common.statistics import confidence, hinge
from attacks.common.thresholds import choose_and_decide

FORMS = ("global_variance", "per_point_variance")
CONFIDENCES = {"log-odds": confidence, "hinge": hinge}


def lira(target: Signals, *, seed: int = 0, classifier: str = "global_variance") -> Result:
    """Scores of the victim's audit points, (A,). classifier: one of FORMS. `seed` is unused.

    A point with a single reference has no variance of its own and takes the mean of all points' variances. Raises
    Unusable where a point has no reference or all references answer alike, ValueError for another form.
    """
    if classifier not in FORMS:
        raise ValueError(f"unknown form {classifier!r}: use {' or '.join(FORMS)}")
    shadow, victim = audit_rows(target)
    rows = stack_rows(shadow, victim)
    outsiders = checked_outsiders(target, "lira")
    options = {}
    for name, statistic in CONFIDENCES.items():
        answers = statistic(target.logits, target.labels)  # (R, N)
        moments = reference_moments(outsiders, answers)
        for middle, centre in (("mean", moments.mean[rows]), ("median", reference_median(outsiders, answers, rows))):
            scores = answers[rows] - centre
            if classifier == "per_point_variance":
                scores = scores / np.sqrt(fill_variance(moments.variance, moments.count)[rows])
            options[f"{name}, {middle} of the references"] = np.split(scores, [len(shadow[0])])
    of_shadows, of_victim = zip(*options.values(), strict=True)
    return choose_and_decide([*options], of_shadows, target.member[shadow], shadow, of_victim.__getitem__)


def reference_median(mask, values, rows) -> np.ndarray:
    """Median over the models in `mask` other than the row's model, (R, N) both, for the (model, point) rows -> (n,)."""
    models, points = rows
    others = np.arange(len(values))[:, None] != models
    return np.nanmedian(np.where(mask[:, points] & others, values[:, points], np.nan), axis=0)


def fill_variance(variance, count) -> np.ndarray:
    """The variances, (R, N), with the mean of all in place of those that are unknown or zero."""
    common = np.nanmean(variance) if (count > 1).any() else 1.0
    if not common > 0:
        raise Unusable("it needs references that do not all answer alike")
    return np.where(np.nan_to_num(variance) > 0, variance, common)
