"""Likelihood ratio over all the models an attacker holds (ours; LiRA of Carlini et al. 2022, section VI, made joint).

A point's confidences on K related models go up and down together, so that K single verdicts, added up, count the same
evidence K times. Here the K confidences are one Gaussian vector.

1. What a model that never saw the point would say is predicted from the references: their mean, drawn towards the mean
   of all points as far as few references cannot be trusted (the best linear prediction of a random-effects model, whose
   covariances within and between points are estimated from all of them).
2. Given that prediction e, the vector of a member and that of another are Gaussians with means a + B e and covariances
   of their own, fitted on the shadows' members and non-members, covariances shrunk (Ledoit & Wolf 2004).
3. The score is the log of the ratio of the two densities.

A prediction from fewer references is less certain, and the victim's points have more of them than a shadow's: the
covariances are corrected for that difference.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.covariance import ledoit_wolf

from attacks.arrays import (
    Result,
    Signals,
    Unusable,
    audit_rows,
    check_references,
    confidence,
    out_of_fold,
    outside,
    reference_moments,
)
from attacks.sr import check_same_points

FLOOR = 1e-6  # least eigenvalue of a covariance, of the mean one; least singular value of a design, of the largest


class Prediction(NamedTuple):
    """What the references say a model that never saw the point would answer."""

    mean: np.ndarray  # (n, K)
    uncertainty: np.ndarray  # (counts, K, K): covariance of the error of the mean, by number of references
    count: np.ndarray  # (n,) index into `uncertainty`


class Conditional(NamedTuple):
    """Gaussian of K answers given their prediction."""

    coefficients: np.ndarray  # (1 + K, K): intercept, then slopes
    covariance: np.ndarray  # (K, K) at the mean uncertainty of the rows it was fitted on
    uncertainty: np.ndarray  # (K, K): that mean


def predict(own, mask, rows) -> Prediction:
    """Step 1 for the (model, point) rows. own: (R, N, K) answers, mask: (R, N) the models outside of each point."""
    counts = mask.sum(axis=0)
    several = counts > 1
    if not several.any():
        raise Unusable("joint needs points that two models are known not to have trained on")
    kept = np.where(mask[..., None], own, 0.0)
    means = kept.sum(axis=0) / np.maximum(counts, 1)[:, None]  # (N, K)
    scale = np.sqrt(counts / np.maximum(counts - 1, 1))
    residuals = ((own - means) * scale[:, None])[mask & several]
    within = positive(ledoit_wolf(residuals, assume_centered=True)[0])
    asked = counts > 0
    between = positive(np.cov(means[asked], rowvar=False).reshape(within.shape) - within * (1 / counts[asked]).mean())
    centre = means[asked].mean(axis=0)

    moments = [reference_moments(mask, own[..., k]) for k in range(own.shape[-1])]
    available = moments[0].count[rows]
    mean = np.stack([moment.mean[rows] for moment in moments], axis=1)
    numbers, index = np.unique(available, return_inverse=True)
    gains = [between @ np.linalg.inv(between + within / number) for number in numbers]
    shrunk = centre + np.einsum("nij,nj->ni", np.stack(gains)[index], mean - centre)
    return Prediction(shrunk, np.stack([between - gain @ between for gain in gains]), index)


def positive(covariance) -> np.ndarray:
    """The nearest covariance matrix whose eigenvalues are not below a floor."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return (vectors * np.maximum(values, FLOOR * max(values.mean(), FLOOR))) @ vectors.T


def conditional(answers, predicted: Prediction) -> Conditional:
    """Step 2 for one class of rows."""
    design = np.hstack([np.ones((len(answers), 1)), predicted.mean])
    coefficients = np.linalg.lstsq(design, answers, rcond=FLOOR)[0]  # predictions that hardly vary have no slopes
    residuals = answers - design @ coefficients
    covariance = ledoit_wolf(residuals, assume_centered=True)[0]
    return Conditional(coefficients, covariance, predicted.uncertainty[predicted.count].mean(axis=0))


def log_density(answers, predicted: Prediction, given: Conditional) -> np.ndarray:
    """(n,) log densities, up to a constant."""
    slopes = given.coefficients[1:].T
    residuals = answers - given.coefficients[0] - predicted.mean @ slopes.T
    found = np.empty(len(answers))
    for number, uncertainty in enumerate(predicted.uncertainty):
        rows = predicted.count == number
        covariance = positive(given.covariance + slopes @ (uncertainty - given.uncertainty) @ slopes.T)
        square = np.einsum("ni,ni->n", residuals[rows], np.linalg.solve(covariance, residuals[rows].T).T)
        found[rows] = -0.5 * (square + np.linalg.slogdet(covariance)[1])
    return found


def joint(models: Sequence[Signals], *, seed: int = 0) -> Result:
    """Log-likelihood ratios of the victim's audit points, (A,), from K models of the same points. `seed` is unused.

    Raises ValueError where a point has no reference, or no point has two.
    """
    check_same_points(models)
    shadow, victim = audit_rows(models[0])
    own = np.stack([confidence(model.logits, model.labels) for model in models], axis=-1)  # (R, N, K)
    mask = np.all([outside(model) for model in models], axis=0)
    check_references(mask, models[0], "joint")

    both = tuple(np.concatenate(pair) for pair in zip(shadow, victim, strict=True))
    answers, (mean, uncertainty, count) = own[both], predict(own, mask, both)

    def fit(seen, member):
        classes = [conditional(answers[part], chosen(part)) for part in (seen[member == 1], seen[member == 0])]
        return lambda asked: np.subtract(*(log_density(answers[asked], chosen(asked), given) for given in classes))

    def chosen(part):
        return Prediction(mean[part], uncertainty, count[part])

    place = np.arange(len(answers))
    return out_of_fold(fit, place[: len(shadow[0])], models[0].member[shadow], shadow, place[len(shadow[0]) :])
