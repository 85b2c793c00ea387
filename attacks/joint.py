"""Likelihood ratio over all the models an attacker holds (ours; LiRA of Carlini et al. 2022, section IV, made joint).

A point's confidences on K related models rise and fall together, so that the sum of K single verdicts would count the
same evidence K times. Here the K confidences are one vector with a joint density.

1. The references predict what a model that never saw the point would say: it is their mean, drawn towards the mean of
   all points. The fewer the references, the further it is drawn (the best linear prediction of a random-effects model,
   whose covariances within and between points are estimated from all points).
2. Given that prediction e, the vector of a member and the vector of a non-member have means a + B e and a covariance
   each, fitted on the shadows' members and non-members; covariances are shrunk (Ledoit & Wolf 2004). The densities are
   Gaussian or Student-t (Lange, Little, Taylor 1989), of which a few answers far off the others do not decide the fit.
3. The score is the log of the ratio of the two densities.

The degrees of freedom are chosen on the shadows. So is, for several models, whether all confidences count, their mean,
or that of the first model alone: with few references, adding models can add more noise than information.

For step 1 an answer counts as no farther than three interquartile ranges from the median of all answers. Gaussian
answers do not lie so far out, but of heavy tails the moments would follow a few answers.

A prediction from fewer references is less certain, and the victim's points have more references than a shadow's points:
the covariances are corrected for that difference.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from attacks.common.folds import score_out_of_fold
from attacks.common.references import check_references, known_outsiders, reference_moments
from attacks.common.signals import Result, Signals, Unusable, audit_rows, check_same_points, stack_rows
from attacks.common.statistics import confidence
from attacks.common.thresholds import choose_and_decide

DEGREES = (np.inf, 6.0, 2.0, 1.0)  # of freedom to choose from; infinite ones are a Gaussian's
STEPS = 4  # of the fit of a Student-t, from that of a Gaussian
FARTHEST = 3  # interquartile ranges from the median, at most, of an answer that a prediction follows
FLOOR = 1e-6  # smallest eigenvalue of a covariance, relative to their mean; smallest singular value of a design
SINGULAR = 1e-12  # smallest eigenvalue relative to the largest, where large negative ones leave no mean to speak of


class Spread(NamedTuple):
    """How answers of models that never saw a point vary."""

    centre: np.ndarray  # (K,) mean over points
    between: np.ndarray  # (K, K) covariance of the points' expected answers
    within: np.ndarray  # (K, K) covariance of the models' answers about one point


class Prediction(NamedTuple):
    """What a model that never saw the point would answer, according to the references."""

    mean: np.ndarray  # (n, K)
    uncertainty: np.ndarray  # (counts, K, K): covariance of the error of the mean, by number of references
    count: np.ndarray  # (n,) index into `uncertainty`

    def of(self, rows) -> "Prediction":
        """The prediction of these rows alone, indices or a mask."""
        return Prediction(self.mean[rows], self.uncertainty, self.count[rows])


class Conditional(NamedTuple):
    """Student-t or Gaussian of K answers given their prediction."""

    coefficients: np.ndarray  # (1 + K, K): intercept, then slopes
    covariance: np.ndarray  # (K, K) at the mean uncertainty of the rows it was fitted on; a Student-t's scale matrix
    uncertainty: np.ndarray  # (K, K): that mean
    degrees: float  # of freedom, infinite for a Gaussian


def estimate_spread(answers, mask) -> Spread:
    """From answers (R, N, K) of the models outside of each point, mask (R, N)."""
    counts = mask.sum(axis=0)
    several = counts > 1
    if not several.any():
        raise Unusable("joint needs points that two models are known not to have trained on")
    of_outsiders = np.where(mask[..., None], answers, 0.0)
    means = of_outsiders.sum(axis=0) / np.maximum(counts, 1)[:, None]  # (N, K)
    scale = np.sqrt(counts / np.maximum(counts - 1, 1))
    residuals = ((answers - means) * scale[:, None])[mask & several]
    within = positive(shrunk_covariance(residuals))
    asked = counts > 0
    observed = np.cov(means[asked], rowvar=False).reshape(within.shape)
    between = positive(observed - within * (1 / counts[asked]).mean())
    return Spread(means[asked].mean(axis=0), between, within)


def predict(answers, mask, rows) -> Prediction:
    """Step 1 for the (model, point) rows. answers: (R, N, K); mask: (R, N), the models outside of each point."""
    centre, between, within = estimate_spread(answers, mask)
    moments = [reference_moments(mask, answers[..., k]) for k in range(answers.shape[-1])]
    mean = np.stack([moment.mean[rows] for moment in moments], axis=1)
    numbers, index = np.unique(moments[0].count[rows], return_inverse=True)
    gains = np.stack([between @ np.linalg.inv(between + within / number) for number in numbers])
    shrunk = centre + np.einsum("nij,nj->ni", gains[index], mean - centre)
    return Prediction(shrunk, np.stack([between - gain @ between for gain in gains]), index)


def shrunk_covariance(residuals) -> np.ndarray:
    """Covariance (K, K) of residuals (n, K) around zero, drawn towards equal variances (Ledoit & Wolf 2004).

    scikit-learn's function gives the same and takes twenty times as long for the few rows of a small audit.
    """
    count, dimension = residuals.shape
    covariance = residuals.T @ residuals / count
    target = np.trace(covariance) / dimension * np.eye(dimension)
    distance = ((covariance - target) ** 2).sum()
    error = (((residuals**2).sum(axis=1) ** 2).sum() / count - (covariance**2).sum()) / count
    share = min(error / distance, 1.0) if distance > 0 else 0.0
    return share * target + (1 - share) * covariance


def positive(covariance) -> np.ndarray:
    """The nearest covariance matrix whose eigenvalues are not below a floor."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    floor = max(FLOOR * max(values.mean(), FLOOR), SINGULAR * np.abs(values).max())
    return (vectors * np.maximum(values, floor)) @ vectors.T


def clip_far(answers) -> np.ndarray:
    """Answers (R, N, K), NaN where not asked, drawn in to FARTHEST interquartile ranges from the median of each k.

    Where half of all answers are equal, there is no range to go by, and they stay as they are.
    """
    asked = answers[np.isfinite(answers).all(axis=-1)]
    low, middle, high = np.percentile(asked, (25, 50, 75), axis=0)
    reach = np.where(high > low, FARTHEST * (high - low), np.inf)
    return np.clip(answers, middle - reach, middle + reach)


def fit_conditional(answers, predicted: Prediction, degrees: float) -> Conditional:
    """Step 2 for members alone or for non-members alone. answers: (n, K)."""
    design = np.hstack([np.ones((len(answers), 1)), predicted.mean])
    coefficients, covariance, square = fit_weighted(design, answers, np.ones(len(answers)))
    for _ in range(STEPS if np.isfinite(degrees) else 0):
        weights = (degrees + answers.shape[1]) / (degrees + square)
        coefficients, covariance, square = fit_weighted(design, answers, weights)
    return Conditional(coefficients, covariance, predicted.uncertainty[predicted.count].mean(axis=0), degrees)


def fit_weighted(design, answers, weights):
    """Weighted regression: coefficients (1 + K, K), covariance (K, K) of residuals, and their squares in it (n,)."""
    root = np.sqrt(weights)[:, None]
    # Predictions that hardly vary have no slopes.
    coefficients = np.linalg.lstsq(root * design, root * answers, rcond=FLOOR)[0]
    residuals = answers - design @ coefficients
    covariance = shrunk_covariance(root * residuals)
    return coefficients, covariance, squares(residuals, positive(covariance))


def squares(residuals, covariance) -> np.ndarray:
    """Squared Mahalanobis distances, (n, K) -> (n,)."""
    return np.einsum("ni,ni->n", residuals, np.linalg.solve(covariance, residuals.T).T)


def log_t(square, covariance, degrees: float) -> np.ndarray:
    """Log densities, (n,), of a K-variate Student-t, or of a Gaussian, at these squared distances.

    Up to a constant that K and the degrees of freedom decide.
    """
    volume = np.linalg.slogdet(covariance)[1] / 2
    if np.isinf(degrees):
        return -square / 2 - volume
    return -(degrees + len(covariance)) / 2 * np.log1p(square / degrees) - volume


def log_density(answers, predicted: Prediction, given: Conditional) -> np.ndarray:
    """(n,) log densities of answers (n, K), up to a constant."""
    slopes = given.coefficients[1:].T
    residuals = answers - given.coefficients[0] - predicted.mean @ slopes.T
    densities = np.empty(len(answers))
    for number, uncertainty in enumerate(predicted.uncertainty):
        rows = predicted.count == number
        covariance = positive(given.covariance + slopes @ (uncertainty - given.uncertainty) @ slopes.T)
        densities[rows] = log_t(squares(residuals[rows], covariance), covariance, given.degrees)
    return densities


def joint(models: Sequence[Signals], *, seed: int = 0) -> Result:
    """Log-likelihood ratios of the victim's audit points, (A,), from K models of the same points. `seed` is unused.

    Raises Unusable where an audit point has no reference, or where two models are outside of no point.
    """
    check_same_points(models)
    shadow, victim = audit_rows(models[0])
    mask = np.all([known_outsiders(model) for model in models], axis=0)
    check_references(mask, models[0], "joint")
    confidences = np.stack([confidence(model.logits, model.labels) for model in models], axis=-1)  # (R, N, K)
    member = models[0].member[shadow]
    rows = stack_rows(shadow, victim)
    names, of_shadows, of_victim = [], [], []
    for name, answers in readings(confidences).items():
        predicted = predict(clip_far(answers), mask, rows)
        for degrees in DEGREES:
            shadow_scores, scores = score_rows(answers[rows], predicted, member, shadow, degrees)
            names.append(name + (f"Student-t of {degrees:g} degrees" if np.isfinite(degrees) else "Gaussian"))
            of_shadows.append(shadow_scores)
            of_victim.append(scores)
    return choose_and_decide(names, of_shadows, member, shadow, of_victim.__getitem__)


def readings(confidences) -> dict[str, np.ndarray]:
    """What may stand for the confidences (R, N, K) of K models: (R, N, k) by a name for the table."""
    if confidences.shape[-1] == 1:
        return {"": confidences}
    mean = confidences.mean(axis=-1, keepdims=True)
    return {"all models, ": confidences, "mean of the models, ": mean, "first model, ": confidences[..., :1]}


def score_rows(answers, predicted: Prediction, member, shadow, degrees: float):
    """Steps 2 and 3: log-likelihood ratios of the shadows' rows, (M,), out of fold, and of the victim's, (A,).

    answers: (M + A, K), the shadows' first; member (M,) and `shadow`, the rows themselves, are the shadows'.
    """

    def fit(places, member):
        members, others = places[member == 1], places[member == 0]
        of_members = fit_conditional(answers[members], predicted.of(members), degrees)
        of_others = fit_conditional(answers[others], predicted.of(others), degrees)
        return lambda places: log_ratio(answers[places], predicted.of(places), of_members, of_others)

    fitted_on, applied_to = np.split(np.arange(len(answers)), [len(member)])
    return score_out_of_fold(fit, fitted_on, member, shadow, applied_to)


def log_ratio(answers, predicted: Prediction, of_members: Conditional, of_others: Conditional) -> np.ndarray:
    """Step 3: (n,) log-likelihood ratios of answers (n, K)."""
    return log_density(answers, predicted, of_members) - log_density(answers, predicted, of_others)
