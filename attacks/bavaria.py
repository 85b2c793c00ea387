"""Brännvall 2026, Exponential-family membership inference: from LiRA and RMIA to BaVarIA (arXiv:2603.11799).

LiRA with a variance for each point needs many references; with one variance for all it ignores that points differ. A
normal-inverse-gamma prior stands between the two: it predicts the confidence of a model that never saw the point as
Student-t. In the offline form the score is minus the log of the tail beyond the target's confidence.

With n references of mean u and variance s^2, prior mean m, and pseudo-counts k (of the mean) and v (of the variance),

    centre = (n u + k m) / (n + k),    scale^2 = (1 + 1 / (n + k)) (v w + (n - 1) s^2) / (v + n - 1)

v and w follow from the spread of log s^2 over all points (Smyth 2004, section 6.2), k from the spread of u.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln, digamma, polygamma
from scipy.stats import t

from attacks.common.references import Moments, checked_outsiders, reference_moments
from attacks.common.signals import Result, Signals, Unusable, audit_rows
from attacks.common.statistics import confidence
from attacks.common.thresholds import decide

FEWEST_DEGREES = 2e-3  # degrees of freedom of the prior where variances differ without bound
MOST_DEGREES = 100.0  # where variances are alike: nearly a Gaussian
SMALLEST_VARIANCE = 1e-300  # of the prior, whose logarithm may lie lower where variances differ without bound


def variance_prior(variance, degrees) -> tuple[float, float]:
    """(v, w) of a scaled inverse chi-squared prior, from sample variances and their degrees of freedom, (n,) each."""
    shifted = np.log(variance) - digamma(degrees / 2) + np.log(degrees / 2)
    excess = shifted.var(ddof=1) - polygamma(1, degrees / 2).mean()
    if excess <= polygamma(1, MOST_DEGREES / 2):  # no more spread than chance makes of a single variance
        half = MOST_DEGREES / 2
    else:
        excess = min(excess, polygamma(1, FEWEST_DEGREES / 2))
        half = brentq(lambda x: polygamma(1, x) - excess, FEWEST_DEGREES / 2, MOST_DEGREES / 2)
    w = float(np.exp(shifted.mean() + digamma(half) - np.log(half)))
    return 2 * half, max(w, SMALLEST_VARIANCE)


def tail(confidences, references: Moments, known) -> np.ndarray:
    """-log P(a non-member's confidence >= this one), (R, N) -> (R, N).

    known: (R, N) bool, the entries that have a reference; the priors come from these.
    """
    count, mean, variance = references
    several = known & (np.nan_to_num(variance) > 0)
    if several.sum() < 2:
        raise Unusable("bavaria needs points with two reference models that are known not to have trained on them")
    v, w = variance_prior(variance[several], count[several] - 1)
    m = mean[known].mean()
    between = max(mean[known].var() - w * (1 / count[known]).mean(), 1e-6 * w)
    k = w / between
    centre = (count * mean + k * m) / (count + k)
    degrees = v + np.maximum(count - 1, 0)
    square = (v * w + np.maximum(count - 1, 0) * np.nan_to_num(variance)) / degrees * (1 + 1 / (count + k))
    return -log_survival((confidences - centre) / np.sqrt(square), degrees)


def log_survival(z, degrees) -> np.ndarray:
    """log P(T > z) of Student's t with these degrees of freedom, elementwise; NaN where z is.

    Where P underflows, the first term of its series stands for it: (d / z^2)^(d / 2) / (d B(d / 2, 1/2)), d degrees.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = t.logsf(z, degrees)
        power = degrees / 2 * (np.log(degrees) - 2 * np.log(np.abs(z)))
        return np.where(np.isneginf(exact), power - np.log(degrees) - betaln(degrees / 2, 0.5), exact)


def bavaria(target: Signals, *, seed: int = 0) -> Result:
    """Scores of the victim's audit points, (A,). `seed` is unused.

    Raises Unusable where a point has no reference, or where fewer than two points have a second one.
    """
    shadow, victim = audit_rows(target)
    confidences = confidence(target.logits, target.labels)
    references = reference_moments(checked_outsiders(target, "bavaria"), confidences)
    scores = tail(confidences, references, references.count > 0)
    return decide(scores[shadow], target.member[shadow], scores[victim])
