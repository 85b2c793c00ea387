"""Brännvall 2026, Exponential-family membership inference: from LiRA and RMIA to BaVarIA (arXiv:2603.11799).

LiRA with as many variances as points needs many references; with one variance it ignores that points differ. Between
the two stands a normal-inverse-gamma prior: the confidence of a model that never saw the point is then predicted to be
Student-t. Offline form: the score is minus the log of the tail beyond the target's own confidence.

With n references of mean u and variance s^2, prior mean m, and pseudo-counts k (of the mean) and v (of the variance),

    centre = (n u + k m) / (n + k),    scale^2 = (1 + 1 / (n + k)) (v w + (n - 1) s^2) / (v + n - 1)

v and w follow from the spread of log s^2 over all points (Smyth 2004, section 6.2), k from that of u.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma
from scipy.stats import t

from attacks.arrays import (
    Moments,
    Result,
    Signals,
    Unusable,
    audit_rows,
    confidence,
    decide,
    reference_moments,
    references_of,
)

LEAST = 2e-3  # degrees of freedom of the prior: variances that differ without bound
MOST = 100.0  # degrees of freedom of the prior: nearly a Gaussian, and its tail does not underflow


def variance_prior(variance, degrees) -> tuple[float, float]:
    """(v, w) of a scaled inverse chi-squared prior, from sample variances and their degrees of freedom, (n,) each."""
    shifted = np.log(variance) - digamma(degrees / 2) + np.log(degrees / 2)
    excess = shifted.var(ddof=1) - polygamma(1, degrees / 2).mean()
    alike = excess <= polygamma(1, MOST / 2)  # no more spread than chance makes of a single variance
    excess = min(excess, polygamma(1, LEAST / 2))
    half = MOST / 2 if alike else brentq(lambda x: polygamma(1, x) - excess, LEAST / 2, MOST / 2)
    return 2 * half, float(np.exp(shifted.mean() + digamma(half) - np.log(half)))


def tail(own, references: Moments, known) -> np.ndarray:
    """-log P(a non-member's confidence >= own), (R, N); the priors from the entries that `known` marks, (R, N) bool."""
    count, mean, variance = references
    several = known & (np.nan_to_num(variance) > 0)
    if several.sum() < 2:
        raise Unusable("bavaria needs points with two reference models that are known not to have trained on them")
    v, w = variance_prior(variance[several], count[several] - 1)
    centre = mean[known].mean()
    between = max(mean[known].var() - w * (1 / count[known]).mean(), 1e-6 * w)
    k = w / between
    located = (count * mean + k * centre) / (count + k)
    degrees = v + np.maximum(count - 1, 0)
    square = (v * w + np.maximum(count - 1, 0) * np.nan_to_num(variance)) / degrees * (1 + 1 / (count + k))
    return -t.logsf((own - located) / np.sqrt(square), degrees)


def bavaria(target: Signals, *, seed: int = 0) -> Result:
    """Scores of the victim's audit points, (A,). `seed` is unused.

    Raises ValueError where there is no reference, or nowhere a second one.
    """
    shadow, victim = audit_rows(target)
    own = confidence(target.logits, target.labels)
    references = reference_moments(references_of(target, "bavaria"), own)
    scores = tail(own, references, references.count > 0)
    return decide(scores[shadow], target.member[shadow], scores[victim])
