"""Tang et al. 2022, Mitigating membership inference attacks by self-distillation through a novel ensemble architecture
(USENIX Security, SELENA): the adaptive attack on their own defence.

The attacker knows half of the points, trains a Split-AI of his own on half of the members (`defenses.selena`), and
compares its answers q with the model's answers p. The student was trained on the defender's Split-AI's answers about
the members, so there p may lie nearer to q. The signals hold q as `split_ai`: of the Split-AI that was trained on the
half that a point is in, for the known points, and of the one trained on the other half, for the judged points. Neither
answer comes from a sub-model that was trained on the point.

- `cross_entropy`: -sum q log p, with a threshold; whether members lie below or above it is chosen on the known points
- `squared_difference`: sum (p - q)^2, in the same way
- `network_on_difference`: the network of `dsq` on p - q and the label
- `network_on_both`: the same on p, q and the label
"""

import numpy as np

from attacks.common.queries import checked_probe
from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.statistics import posterior
from attacks.common.thresholds import choose_and_decide
from attacks.dsq import by_two_views

THRESHOLDS = ("cross_entropy", "squared_difference")
NETWORKS = ("network_on_difference", "network_on_both")
SAME_HALF, OTHER_HALF = 0, 1  # places in `split_ai`, (R, N, 2, C)
SMALLEST = 1e-30  # posterior whose logarithm is taken


def answers(target: Signals, rows, half: int) -> tuple[np.ndarray, np.ndarray]:
    """p and q, (n, C) float64 each, at these (model, point) pairs."""
    return posterior(target.logits[rows]), checked_probe(target, "split_ai")[rows][:, half].astype(np.float64)


def distance(name: str, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(n,): how far the model's answers lie from the attacker's."""
    if name == "cross_entropy":
        return -(q * np.log(np.maximum(p, SMALLEST))).sum(axis=-1)
    if name == "squared_difference":
        return ((p - q) ** 2).sum(axis=-1)
    raise ValueError(f"unknown distance {name!r}: use {' or '.join(map(repr, THRESHOLDS))}")


def selena_adaptive(
    target: Signals, *, classifier: str, seed: int, recipe: str = "fast", device="cpu", progress=None
) -> Result:
    """Scores of the victim's audit points, (A,). classifier: one of THRESHOLDS or NETWORKS.

    Raises Unusable without known points, or without the probe "split_ai".
    """
    known, judged = audit_rows(target)
    of_known, of_judged = answers(target, known, SAME_HALF), answers(target, judged, OTHER_HALF)
    if classifier in NETWORKS:
        features = [
            p - q if classifier == "network_on_difference" else np.hstack([p, q]) for p, q in (of_known, of_judged)
        ]
        return by_two_views(target, *features, seed=seed, recipe=recipe, device=device, progress=progress)
    near, near_judged = -distance(classifier, *of_known), -distance(classifier, *of_judged)
    names = ("members are nearer", "members are farther")
    return choose_and_decide(
        names, np.stack([near, -near]), target.member[known], known, lambda option: (near_judged, -near_judged)[option]
    )
