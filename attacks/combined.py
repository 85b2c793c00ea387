"""The weighted sum of the log-odds of `joint`, `calibrated` and `neural` (ours).

`joint` has the right shape where confidences are Gaussian or Student-t, and needs few rows; `calibrated` and `neural`
assume no shape, read more, and need many. They err on different points, and their sum is seldom worse than the best of
them. The weights are chosen on the shadows, so that a part that fails does not spoil the others. The first weights stay
unless others are better by about a standard error.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from attacks.calibrated import calibrated
from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.thresholds import choose_and_decide
from attacks.joint import joint
from attacks.neural import neural

LEAD = 0.25  # over the root of the number of rows: about a standard error of the difference of two such AUCs
PARTS = ("joint", "calibrated", "neural")
WEIGHTS = ((1, 0, 2), (1, 1, 2), (1, 1, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))  # of the parts


def combined(
    models: Sequence[Signals], *, seed: int, device="cpu", earlier: Mapping[str, Result] | None = None
) -> Result:
    """Weighted log-odds of membership of the victim's audit points, (A,).

    earlier: results of the parts on the same models, by name, where they are known. Raises Unusable where those do.
    """
    parts = parts_of(models, seed, device, earlier or {})
    names = ["weights " + ", ".join(map("{} {}".format, PARTS, weights)) for weights in WEIGHTS]
    options = [weighted([part.shadow_scores for part in parts], weights) for weights in WEIGHTS]

    def score_victim(option: int) -> np.ndarray:
        return weighted([part.scores for part in parts], WEIGHTS[option])

    shadow, _ = audit_rows(models[0])
    lead = LEAD / np.sqrt(len(shadow[0]))
    return choose_and_decide(names, options, models[0].member[shadow], shadow, score_victim, lead)


def parts_of(models: Sequence[Signals], seed: int, device, earlier: Mapping[str, Result]) -> list[Result]:
    return [
        earlier.get("joint") or joint(models, seed=seed),
        earlier.get("calibrated") or calibrated(models, seed=seed),
        earlier.get("neural") or neural(models, seed=seed, device=device),
    ]


def weighted(scores: Sequence[np.ndarray], weights: Sequence[int]) -> np.ndarray:
    """The weighted sum of the parts' scores, (n,) each."""
    return np.sum([weight * values for weight, values in zip(weights, scores, strict=True)], axis=0)
