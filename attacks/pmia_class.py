"""Du et al. 2026, Cascading and proxy membership inference attacks (NDSS; arXiv:2507.21412): PMIA with class proxies.

LiRA compares two worlds: how models answer that trained on the point, and how models answer that did not. An attacker
who trained his models before he saw the point has only the second. PMIA takes the first from proxies, points that his
models did train on. In the class form the proxies of a point are all his members of the point's class:

    score(x) = log N(confidence(x); in_c, s_c) - log N(confidence(x); out_x, s_x)

with the median and deviation of the class's members on the models that trained on them (in_c, s_c), and of the point
itself on its references (out_x, s_x). Medians and deviations are as in the authors' code; the paper's own equations
were not at hand and are not numbered here. The deviation of a handful of answers is mostly noise. So below
ENOUGH_REFERENCES every point takes the root mean of all points' variances, as Carlini et al. 2022 do (section VI.B);
where that turns to the point's own is ours. The paper's other two kinds of proxies, all members and the most similar
pictures, are not here.
"""

import numpy as np
from scipy.stats import norm

from attacks.common.folds import score_out_of_fold
from attacks.common.references import checked_outsiders, reference_moments
from attacks.common.signals import Result, Signals, Unusable, audit_rows
from attacks.common.statistics import confidence
from attacks.common.thresholds import decide

ENOUGH_REFERENCES = 16  # of a point, from which its own deviation is used
FEWEST_PROXIES = 5  # a class with fewer members takes those of all classes


def outside(target: Signals, confidences) -> tuple[np.ndarray, np.ndarray]:
    """Median and deviation of each audited point's references, (R, N) each; a model is no reference of its points."""
    mask = checked_outsiders(target, "pmia_class")
    count, _, variance = reference_moments(mask, confidences)
    return reference_medians(confidences, mask, target.audit), np.sqrt(out_variance(variance, count))


def reference_medians(values, mask, wanted) -> np.ndarray:
    """The median over the models in `mask` other than the row's model; all (R, N), NaN where not `wanted`.

    Every wanted point has such a model.
    """
    known = np.where(mask, values, np.nan)
    medians = np.full(values.shape, np.nan)
    for model, points in enumerate(wanted):
        others = np.sort(np.delete(known[:, points], model, axis=0), axis=0)  # NaN comes last
        count = np.isfinite(others).sum(axis=0)
        middle = np.stack([(count - 1) // 2, count // 2])
        medians[model, points] = np.take_along_axis(others, middle, axis=0).mean(axis=0)
    return medians


def out_variance(variance, count) -> np.ndarray:
    """Each point's own variance where its references are enough, else the mean of all variances; 1 where none is known.

    variance, count: (R, N) of `reference_moments`.
    """
    common = np.nanmean(variance) if (count > 1).any() else 1.0
    if not common > 0:
        raise Unusable("pmia_class needs references that do not all answer alike")
    return np.where((count >= ENOUGH_REFERENCES) & (np.nan_to_num(variance) > 0), variance, common)


def class_proxies(confidences, classes, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Median and deviation of the members of each class, (C,) each. confidences, classes: (M,) of members alone.

    A class with fewer than FEWEST_PROXIES members, or whose members all answer alike, takes those of all classes.
    """
    if not confidences.std() > 0:
        raise Unusable("pmia_class needs members that do not all answer alike")
    medians = np.full(num_classes, np.median(confidences))
    deviations = np.full(num_classes, confidences.std())
    for c in range(num_classes):
        of_class = confidences[classes == c]
        if len(of_class) >= FEWEST_PROXIES and of_class.std() > 0:
            medians[c], deviations[c] = np.median(of_class), of_class.std()
    return medians, deviations


def pmia_class(target: Signals, *, seed: int = 0) -> Result:
    """Log-likelihood ratios of the victim's audit points, (A,). `seed` is unused.

    Raises Unusable where a point has no reference, or answers do not vary.
    """
    shadow, victim = audit_rows(target)
    confidences = confidence(target.logits, target.labels)
    median, deviation = outside(target, confidences)
    classes = np.broadcast_to(target.labels, confidences.shape)
    num_classes = target.logits.shape[-1]
    fitted_on, applied_to = (
        np.stack([values[rows] for values in (confidences, median, deviation, classes)], axis=1)
        for rows in (shadow, victim)
    )

    def fit(features, member):
        proxies = features[member == 1]
        medians, deviations = class_proxies(proxies[:, 0], proxies[:, 3].astype(int), num_classes)

        def score(features) -> np.ndarray:
            value, out_median, out_deviation, of_class = features.T
            of_class = of_class.astype(int)
            inside = norm.logpdf(value, medians[of_class], deviations[of_class])
            return inside - norm.logpdf(value, out_median, out_deviation)

        return score

    member = target.member[shadow]
    shadow_scores, scores = score_out_of_fold(fit, fitted_on, member, shadow, applied_to)
    return decide(shadow_scores, member, scores)
