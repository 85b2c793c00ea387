"""A synthetic world whose leak is known: signals of models that were never trained."""

from typing import NamedTuple

import numpy as np

from attacks.arrays import Signals


def withheld(member, audit) -> np.ndarray:
    """What an attacker is given: `member` (R, N) with -1 for the victim on its audit points."""
    known = member.astype(np.int8)
    known[0, audit[0]] = -1
    return known


class World(NamedTuple):
    variants: list[Signals]  # the original, then its compressed variants, all about the same points
    truth: np.ndarray  # (A,) bool: the victim's membership on its audit points in file order, withheld from the attacks


def planted_signals(
    models=2, points=2000, classes=10, *, leak=1.5, difficulty=1.5, noise=0.5, variants=1, seed=0
) -> World:
    """Every model gives a point's own class a logit of 2 + the point's difficulty + leak, if it is a member, + noise.

    `models` counts the victim. As in the protocol, the victim's audit set is 0.4 N, the pool 0.6 N, two thirds of the
    pool are a shadow's members, and audit sets are balanced. Points are in random order. leak=0 plants nothing: the
    signals are then independent of membership. Compressed variants add noise of their own to the original's logits.
    """
    rng = np.random.default_rng(seed)
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
