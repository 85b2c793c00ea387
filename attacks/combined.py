"""The weighted sum of `joint`, `neural` and the `rmia` of each model (the sum is ours).

`joint` has the right shape where confidences are Gaussian or Student-t, and needs few rows; `neural` assumes no shape,
reads more, and needs many; `rmia` (Zarifzadeh et al. 2024) fits next to nothing, and so loses least where members and
others hardly differ. They err on different points, and their sum is seldom worse than the best of them.

Each part's scores are measured in standard deviations of the shadows' scores. The weights are those of a logistic
regression of membership on the shadows' scores, and none is negative, so that a part that fails there hardly counts.
The shadows' rows are scored out of fold (`folds.split_folds`), in the parts and in the sum.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.optimize import minimize

from attacks.common.folds import score_out_of_fold
from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.thresholds import decide
from attacks.joint import joint
from attacks.neural import neural
from attacks.rmia import rmia

FARTHEST = 8  # deviations from the mean, at most, of a score
PENALTY = 1.0  # of half the sum of the squared weights


def combined(
    models: Sequence[Signals], *, seed: int, device="cpu", earlier: Mapping[str, Result] | None = None
) -> Result:
    """Weighted sums of the parts' scores of the victim's audit points, (A,).

    earlier: results of the parts on the same models, by name, where they are known. Raises Unusable where a part does.
    """
    parts = parts_of(models, seed, device, earlier or {})
    shadow, _ = audit_rows(models[0])
    member = models[0].member[shadow]
    of_shadows = np.stack([part.shadow_scores for part in parts.values()], axis=1)  # (M, K)
    of_victim = np.stack([part.scores for part in parts.values()], axis=1)  # (A, K)
    scale = of_shadows.mean(axis=0), of_shadows.std(axis=0)
    fitted_on, applied_to = in_deviations(of_shadows, *scale), in_deviations(of_victim, *scale)

    def fit(rows, member):
        weights = fit_weights(rows, member)
        return lambda rows: rows @ weights

    shadow_scores, scores = score_out_of_fold(fit, fitted_on, member, shadow, applied_to)
    return decide(shadow_scores, member, scores, in_words(parts, fit_weights(fitted_on, member)))


def parts_of(models: Sequence[Signals], seed: int, device, earlier: Mapping[str, Result]) -> dict[str, Result]:
    """The result of each part, by its name."""
    parts = {
        "joint": earlier.get("joint") or joint(models, seed=seed),
        "neural": earlier.get("neural") or neural(models, seed=seed, device=device),
    }
    if len(models) == 1:
        return parts | {"rmia": earlier.get("rmia") or rmia(models[0])}
    return parts | {f"rmia of model {number}": rmia(model) for number, model in enumerate(models)}


def in_deviations(scores: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Scores (n, K) of K parts in deviations from their centre (K,); 0 where the shadows' scores are all equal."""
    distance = np.divide(scores - centre, spread, out=np.zeros(scores.shape), where=spread > 0)
    return np.clip(distance, -FARTHEST, FARTHEST)


def in_words(names: Iterable[str], weights: np.ndarray) -> str:
    """The parts that count, each with its weight."""
    return "weights " + ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, weights, strict=True) if weight)


def fit_weights(rows: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Non-negative weights (K,) of a logistic regression of membership (n,) on rows (n, K).

    All ones where no part tells members from others, so that the scores still differ.
    """
    sign = np.where(np.asarray(member) == 1, 1.0, -1.0)

    def loss(values):
        intercept, weights = values[0], values[1:]
        margin = sign * (rows @ weights + intercept)
        slope = -sign * np.exp(-np.logaddexp(0, margin))
        gradient = np.concatenate([[slope.sum()], rows.T @ slope + PENALTY * weights])
        return np.logaddexp(0, -margin).sum() + PENALTY / 2 * weights @ weights, gradient

    start = np.concatenate([[0.0], np.full(rows.shape[1], 0.1)])
    bounds = [(None, None)] + [(0, None)] * rows.shape[1]
    weights = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x[1:]
    return weights if weights.any() else np.ones(rows.shape[1])
