"""Signals of models that were never trained, with the leak of a memorised network: what attacks are timed on."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

MARGIN = 2.0  # mean logit of a point's own class above the others
DIFFICULTY = 1.6  # standard deviation of that margin over points; all models share it
LEAK = 2.1  # added to the margin of a model's own members; gives a loss threshold an AUC of 0.8
CONFUSION = 1.0  # of a point's other logits, shared by all models
NOISE = 0.6  # of one model's answers
COMPRESSION = 0.5  # of a compressed model's answers around its original's


class World(NamedTuple):
    """Who was trained on what, and what all variants of the models share."""

    labels: np.ndarray  # (N,) int64
    member: np.ndarray  # (R, N) bool, row 0 the victim
    audit: np.ndarray  # (R, N) bool
    logits: np.ndarray  # (R, N, C) float64, of the original models


def world(audited: int, *, models: int = 2, classes: int = 10, leak: float = LEAK, seed: int = 0) -> World:
    """Models with `audited` members and as many non-members audited each, in the protocol's proportions.

    N = 5 `audited`: two fifths are the victim's audit set, three the attacker's pool, two thirds of which are a
    shadow's members. A point's own logit is MARGIN + its difficulty + leak for a model's members + the model's noise.
    """
    rng = np.random.default_rng(seed)
    n = 5 * audited
    member, audit = roles(rng, audited, models)
    labels = rng.integers(classes, size=n)
    shared = rng.normal(scale=CONFUSION, size=(n, classes))
    shared[np.arange(n), labels] = MARGIN + rng.normal(scale=DIFFICULTY, size=n)
    logits = shared + rng.normal(scale=NOISE, size=(models, n, classes))
    logits[:, np.arange(n), labels] += leak * member
    return World(labels, member, audit, logits)


def roles(rng: np.random.Generator, audited: int, models: int) -> tuple[np.ndarray, np.ndarray]:
    """Members and balanced audit sets, (R, N) bool each, with the points in random order."""
    member, audit = np.zeros((2, models, 5 * audited), dtype=bool)
    order = rng.permutation(5 * audited)
    victim, pool = np.split(order, [2 * audited])
    member[0, victim[:audited]], audit[0, victim] = True, True
    for shadow in range(1, models):
        others, members = np.split(rng.permutation(pool), [audited])
        member[shadow, members] = True
        audit[shadow, np.concatenate([others, members[:audited]])] = True
    return member, audit


def variant(base: World, number: int, sensitivity: bool = True) -> dict[str, np.ndarray]:
    """The arrays of a signals file (README): the original for number 0, else a compressed variant of it."""
    rng = np.random.default_rng([1, number])
    noise = rng.normal(scale=COMPRESSION, size=base.logits.shape) if number else 0.0
    logits = (base.logits + noise).astype(np.float32)
    arrays = {"logits": logits, "labels": base.labels, "member": base.member, "audit": base.audit}
    if not sensitivity:
        return arrays
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    # to first order in the noise on the input, a probability moves by p (1 - p) times how far its logit does
    shaken = p * (1 - p) * rng.lognormal(sigma=0.5, size=p.shape)
    shaken[~base.audit] = np.nan
    return {**arrays, "sensitivity": shaken.astype(np.float32)}


def write(folder: Path, names: list[str], audited: int, sensitivity: bool = True) -> list[Path]:
    """A signals file for each name, the original first, compressed as the project's own are."""
    base, files = world(audited), [folder / f"{name}.npz" for name in names]
    for number, file in enumerate(files):
        np.savez_compressed(file, **variant(base, number, sensitivity))
    return files
