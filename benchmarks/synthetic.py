"""Made-up signals that leak as much as those of a network that memorised its data: attacks are timed on them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

MARGIN = 2.0  # how far the logit of a point's own class lies above the others on average
DIFFICULTY = 1.6  # standard deviation of that margin over points; all models share it
LEAK = 2.1  # added to the margin of a model's own members; gives a loss threshold an AUC of 0.8
CONFUSION = 1.0  # standard deviation of a point's other logits; all models share it
NOISE = 0.6  # standard deviation of a model's logits around the shared ones
COMPRESSION = 0.5  # standard deviation of a compressed model's logits around its original's


class World(NamedTuple):
    """Which points each model was trained on, and the original models' logits."""

    labels: np.ndarray  # (N,) int64
    member: np.ndarray  # (R, N) bool, row 0 the victim
    audit: np.ndarray  # (R, N) bool
    logits: np.ndarray  # (R, N, C) float64, of the original models


def make_world(audited: int, *, models: int = 2, classes: int = 10, leak: float = LEAK, seed: int = 0) -> World:
    """Models whose audit sets have `audited` members and as many non-members, in the protocol's proportions.

    N is 5 times `audited`. Two fifths of the points are the victim's audit set, three fifths the attacker's pool; a
    shadow model's members are two thirds of the pool. The logit of a point's own class is MARGIN + the point's
    difficulty + `leak`, if the model was trained on the point, + the model's noise.
    """
    rng = np.random.default_rng(seed)
    n = 5 * audited
    member, audit = draw_roles(rng, audited, models)
    labels = rng.integers(classes, size=n)
    shared = rng.normal(scale=CONFUSION, size=(n, classes))
    shared[np.arange(n), labels] = MARGIN + rng.normal(scale=DIFFICULTY, size=n)
    logits = shared + rng.normal(scale=NOISE, size=(models, n, classes))
    logits[:, np.arange(n), labels] += leak * member
    return World(labels, member, audit, logits)


def draw_roles(rng: np.random.Generator, audited: int, models: int) -> tuple[np.ndarray, np.ndarray]:
    """Members and balanced audit sets, (R, N) bool each, drawn at random."""
    member, audit = np.zeros((2, models, 5 * audited), dtype=bool)
    order = rng.permutation(5 * audited)
    victim, pool = np.split(order, [2 * audited])
    member[0, victim[:audited]] = True
    audit[0, victim] = True
    for shadow in range(1, models):
        others, members = np.split(rng.permutation(pool), [audited])
        member[shadow, members] = True
        audit[shadow, np.concatenate([others, members[:audited]])] = True
    return member, audit


def signals_of(world: World, number: int, with_sensitivity: bool = True) -> dict[str, np.ndarray]:
    """The arrays of a signals file: those of the original for number 0, else those of a compressed variant."""
    rng = np.random.default_rng([1, number])
    noise = rng.normal(scale=COMPRESSION, size=world.logits.shape) if number else 0.0
    logits = (world.logits + noise).astype(np.float32)
    arrays = {"logits": logits, "labels": world.labels, "member": world.member, "audit": world.audit}
    if with_sensitivity:
        arrays["sensitivity"] = draw_sensitivity(rng, logits, world.audit)
    return arrays


def draw_sensitivity(rng: np.random.Generator, logits: np.ndarray, audit: np.ndarray) -> np.ndarray:
    """(R, N, C) float32: how far noise on the input moves each probability; NaN outside the audit sets."""
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    # to first order, a probability p moves p (1 - p) times as far as its logit
    sensitivity = p * (1 - p) * rng.lognormal(sigma=0.5, size=p.shape)
    sensitivity[~audit] = np.nan
    return sensitivity.astype(np.float32)


def write(folder: Path, names: list[str], audited: int, with_sensitivity: bool = True) -> list[Path]:
    """Write a signals file for each name, the original's first, compressed as the project compresses them."""
    world = make_world(audited)
    files = [folder / f"{name}.npz" for name in names]
    for number, file in enumerate(files):
        np.savez_compressed(file, **signals_of(world, number, with_sensitivity))
    return files
