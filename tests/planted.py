"""A synthetic world whose leak is known: signals of models that were never trained."""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from attacks.arrays import Signals


def withheld(member, audit) -> np.ndarray:
    """What an attacker is given: `member` (R, N) with -1 for the victim on its audit points."""
    known = member.astype(np.int8)
    known[0, audit[0]] = -1
    return known


class World(NamedTuple):
    variants: list[Signals]  # the original, then its compressed variants, all about the same points
    truth: np.ndarray  # (A,) bool: the victim's membership on its audit points in file order, withheld from the attacks
    best_auc: float = float("nan")  # of any attack on all variants together, where it is known


def _split(rng, models: int, points: int):
    """(R, N) int8 membership, the victim's too, and (R, N) bool audit sets, in the protocol's proportions."""
    half = points // 5
    order = rng.permutation(points)
    victim, pool = order[: 2 * half], order[2 * half :]
    member, audit = np.zeros((models, points), np.int8), np.zeros((models, points), bool)
    member[0, victim[:half]], audit[0, victim] = 1, True
    for shadow in range(1, models):
        shuffled = rng.permutation(pool)
        members, others = shuffled[half:], shuffled[:half]
        member[shadow, members] = 1
        audit[shadow, np.r_[members[:half], others]] = True
    return member, audit


def planted_signals(
    models=2, points=2000, classes=10, *, leak=1.5, difficulty=1.5, noise=0.5, variants=1, seed=0
) -> World:
    """Every model gives a point's own class a logit of 2 + the point's difficulty + leak, if it is a member, + noise.

    `models` counts the victim. As in the protocol, the victim's audit set is 0.4 N, the pool 0.6 N, two thirds of the
    pool are a shadow's members, and audit sets are balanced. Points are in random order. leak=0 plants nothing: the
    signals are then independent of membership. Compressed variants add noise of their own to the original's logits.
    """
    rng = np.random.default_rng(seed)
    member, audit = _split(rng, models, points)
    labels = rng.integers(classes, size=points)
    logits = rng.normal(size=(points, classes)) + rng.normal(scale=noise, size=(models, points, classes))
    own = 2 + rng.normal(scale=difficulty, size=points) + leak * member
    logits[:, np.arange(points), labels] += own
    truth = member[0, audit[0]].astype(bool)

    def signals(extra):
        values = (logits + extra).astype(np.float32)
        p = np.exp(values - values.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        sensitivity = p * (1 - p) * np.exp(rng.normal(scale=0.3, size=p.shape))
        sensitivity[~audit] = np.nan
        return Signals(values, labels, withheld(member, audit), audit, sensitivity.astype(np.float32))

    return World([signals(rng.normal(scale=0.7 * (v > 0), size=logits.shape)) for v in range(variants)], truth)


def gaussian_signals(models, points, leaks, *, difficulty=2.0, seed=0) -> World:
    """Two classes; the confidences of K = len(leaks) variants are exactly Gaussian, and so is the best attack known.

    Confidence = the point's difficulty ~ N(0, difficulty^2) + leaks * member + noise, whose covariance S between
    variants has correlations of 0.6. From n = models - 1 references of a victim's point the best prediction of its
    difficulty errs by C = T - T (T + S / n)^-1 T, T = difficulty^2 in all entries, so that members and others are
    Gaussians of covariance C + S that differ by `leaks`: AUC = Phi(sqrt(leaks (C + S)^-1 leaks / 2)).
    """
    rng = np.random.default_rng(seed)
    member, audit = _split(rng, models, points)
    leaks, count = np.asarray(leaks, dtype=float), len(leaks)
    deviations = np.linspace(1, 1.5, count)
    noise = np.outer(deviations, deviations) * (0.6 + 0.4 * np.eye(count))
    own = rng.normal(scale=difficulty, size=points)[:, None] + member[..., None] * leaks
    own = own + rng.multivariate_normal(np.zeros(count), noise, size=member.shape)  # (R, N, K)

    prior = np.full((count, count), difficulty**2)
    error = prior - prior @ np.linalg.inv(prior + noise / (models - 1)) @ prior
    best = norm.cdf(np.sqrt(leaks @ np.linalg.solve(error + noise, leaks) / 2))
    logits = np.stack([own / 2, -own / 2], axis=-1).astype(np.float32)
    labels, known = np.zeros(points, dtype=np.int64), withheld(member, audit)
    variants = [Signals(logits[:, :, k], labels, known, audit) for k in range(count)]
    return World(variants, member[0, audit[0]].astype(bool), float(best))
