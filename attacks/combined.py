"""The weighted sum of the log-odds of `joint` and `calibrated` (ours).

`joint` has the right shape where confidences are Gaussian or Student-t; `calibrated` assumes no shape and is coarse in
the tails. The two err on different points, and their sum is seldom worse than the better of the two. The weights are
chosen on the shadows, so that one of the two that fails does not spoil the other. Equal ones stay unless others are
better by about a standard error.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from attacks.calibrated import calibrated
from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.thresholds import choose_and_decide
from attacks.joint import joint

LEAD = 0.25  # over the root of the number of rows: about a standard error of the difference of two such AUCs
WEIGHTS = ((1, 1), (3, 1), (1, 3), (1, 0), (0, 1))  # of `joint` and of `calibrated`


def combined(models: Sequence[Signals], *, seed: int, earlier: Mapping[str, Result] | None = None) -> Result:
    """Weighted log-odds of membership of the victim's audit points, (A,).

    earlier: results of `joint` and `calibrated` on the same models, by name, where they are known. Raises Unusable
    where those do.
    """
    earlier = earlier or {}
    by_joint = earlier.get("joint") or joint(models, seed=seed)
    by_calibrated = earlier.get("calibrated") or calibrated(models, seed=seed)
    shadow, _ = audit_rows(models[0])
    names = [f"weights joint {first}, calibrated {second}" for first, second in WEIGHTS]
    options = [first * by_joint.shadow_scores + second * by_calibrated.shadow_scores for first, second in WEIGHTS]

    def score_victim(option: int):
        first, second = WEIGHTS[option]
        return first * by_joint.scores + second * by_calibrated.scores

    lead = LEAD / np.sqrt(len(shadow[0]))
    return choose_and_decide(names, options, models[0].member[shadow], shadow, score_victim, lead)
