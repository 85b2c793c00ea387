"""A synthetic world whose leak is known: signals of models that were never trained."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from attacks import Signals


class World(NamedTuple):
    variants: list[Signals]  # the original, then its compressed variants, all about the same points
    truth: np.ndarray  # (A,) bool: the victim's membership on its audit points in file order, withheld from the attacks
    best_auc: float = float("nan")  # the highest AUC any attack on all variants together can reach, where it is known


def withheld(member, audit) -> np.ndarray:
    """The membership (R, N) that an attacker gets: -1 for the victim on its audit points."""
    known = member.astype(np.int8)
    known[0, audit[0]] = -1
    return known


def write_signals(file: Path, signals: Signals, truth) -> None:
    """Write a signals file that includes the victim's membership, `truth` (A,)."""
    member = signals.member.copy()
    member[0, signals.audit[0]] = truth
    np.savez(
        file,
        logits=signals.logits,
        labels=signals.labels,
        member=member.astype(bool),
        audit=signals.audit,
        **signals.probes,
    )


def draw_roles(rng, models: int, points: int):
    """(R, N) int8 membership, the victim's too, and (R, N) bool audit sets, in the protocol's proportions."""
    half = points // 5
    victim, pool = np.split(rng.permutation(points), [2 * half])
    member = np.zeros((models, points), np.int8)
    audit = np.zeros((models, points), bool)
    member[0, victim[:half]] = 1
    audit[0, victim] = True
    for shadow in range(1, models):
        others, members = np.split(rng.permutation(pool), [half])
        member[shadow, members] = 1
        audit[shadow, np.r_[members[:half], others]] = True
    return member, audit


def draw_half_roles(rng, models: int, points: int):
    """The same in the layout of LiRA's authors: each model is trained on half of all points and audited on all.

    `models` must be odd. The shadow models then form pairs: each pair's members are the two halves of the points.
    """
    member = np.zeros((models, points), np.int8)
    member[0, rng.permutation(points)[: points // 2]] = 1
    for shadow in range(1, models, 2):
        one, other = np.split(rng.permutation(points), [points // 2])
        member[shadow, one] = 1
        member[shadow + 1, other] = 1
    return member, np.ones((models, points), bool)


def draw_sensitivity(rng, logits, audit) -> np.ndarray:
    """(R, N, C) float32: about p (1 - p), NaN outside the audit sets."""
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    sensitivity = p * (1 - p) * np.exp(rng.normal(scale=0.3, size=p.shape))
    sensitivity[~audit] = np.nan
    return sensitivity.astype(np.float32)


def draw_looks(ease, seed) -> np.ndarray:
    """(N, 2) float32: the ease (N,) of each point with as much noise, and noise alone; of a generator of its own."""
    noise = np.random.default_rng([seed, 1]).normal(size=(2, len(ease)))
    return np.stack([ease + ease.std() * noise[0], noise[1]], axis=1).astype(np.float32)


def draw_label_probes(rng, logits, labels, audit) -> dict[str, np.ndarray]:
    """What labels alone tell: `correct` and `noise` of answers with more noise, and `boundary`, the label's lead."""
    shaken = logits[:, :, None] + rng.normal(scale=1.5, size=(*logits.shape[:2], 6, logits.shape[2]))
    correct = (shaken.argmax(axis=-1) == labels[:, None]) & audit[..., None]
    noise = np.where(audit[..., None], shaken.argmax(axis=-1) == labels[:, None], np.nan)
    shares = noise.reshape(*audit.shape, 2, 3).mean(axis=-1)
    is_label = np.arange(logits.shape[2]) == labels[:, None]
    lead = np.where(is_label, logits, -np.inf).max(axis=-1) - np.where(is_label, -np.inf, logits).max(axis=-1)
    distance = np.where(audit, np.maximum(lead, 0), np.nan)
    return {"correct": correct, "noise": shares.astype(np.float32), "boundary": np.stack([distance] * 2, axis=-1)}


def planted_signals(
    models=2, points=2000, classes=10, *, leak=1.5, difficulty=1.5, noise=0.5, variants=1, seed=0, roles=draw_roles
) -> World:
    """Every model gives a point's true class a logit of 2 + the point's difficulty + leak, if it is a member, + noise.

    `models` counts the victim. As in the protocol, the victim's audit set is 0.4 N, the pool 0.6 N, two thirds of the
    pool are a shadow's members, and audit sets are balanced. Points are in random order. leak=0 plants nothing: the
    signals are then independent of membership. Compressed variants add noise of their own to the original's logits.
    `roles` draws another layout. Two columns say what points look like: the first how easy they are, roughly.
    """
    rng = np.random.default_rng(seed)
    member, audit = roles(rng, models, points)
    labels = rng.integers(classes, size=points)
    logits = rng.normal(size=(points, classes)) + rng.normal(scale=noise, size=(models, points, classes))
    ease = rng.normal(scale=difficulty, size=points)
    logits[:, np.arange(points), labels] += 2 + ease + leak * member
    columns = draw_looks(ease, seed)
    signals = []
    for variant in range(variants):
        answers = (logits + rng.normal(scale=0.7 * (variant > 0), size=logits.shape)).astype(np.float32)
        probes = {"sensitivity": draw_sensitivity(rng, answers, audit)}
        probes |= draw_label_probes(np.random.default_rng([seed, variant]), answers, labels, audit)
        signals.append(Signals(answers, labels, withheld(member, audit), audit, probes, columns))
    return World(signals, member[0, audit[0]].astype(bool))


def gaussian_signals(models, points, leaks, *, difficulty=2.0, seed=0) -> World:
    """Two classes; the confidences of K = len(leaks) variants are exactly Gaussian, so the best attack is known.

    Confidence = the point's difficulty ~ N(0, difficulty^2) + leaks * member + noise, whose covariance S between
    variants has correlations of 0.6. From n = models - 1 references of a victim's point the best prediction of its
    difficulty errs by C = T - T (T + S / n)^-1 T, T = difficulty^2 in all entries, so that members and others are
    Gaussians of covariance C + S that differ by `leaks`: AUC = Phi(sqrt(leaks (C + S)^-1 leaks / 2)).
    """
    rng = np.random.default_rng(seed)
    member, audit = draw_roles(rng, models, points)
    leaks = np.asarray(leaks, dtype=float)
    count = len(leaks)
    deviations = np.linspace(1, 1.5, count)
    noise = np.outer(deviations, deviations) * (0.6 + 0.4 * np.eye(count))
    confidences = rng.normal(scale=difficulty, size=points)[:, None] + member[..., None] * leaks
    confidences = confidences + rng.multivariate_normal(np.zeros(count), noise, size=member.shape)  # (R, N, K)

    prior = np.full((count, count), difficulty**2)
    error = prior - prior @ np.linalg.inv(prior + noise / (models - 1)) @ prior
    best = norm.cdf(np.sqrt(leaks @ np.linalg.solve(error + noise, leaks) / 2))
    logits = np.stack([confidences / 2, -confidences / 2], axis=-1).astype(np.float32)
    labels = np.zeros(points, dtype=np.int64)
    known = withheld(member, audit)
    variants = [Signals(logits[:, :, k], labels, known, audit) for k in range(count)]
    return World(variants, member[0, audit[0]].astype(bool), float(best))
