"""The sum of the log-odds of `joint` and `calibrated` (ours).

`joint` has the right shape where confidences are Gaussian; `calibrated` assumes no shape and is coarse in the tails.
The two err on different points, and their sum is seldom worse than the better of the two.
"""

from collections.abc import Mapping, Sequence

from attacks.calibrated import calibrated
from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.thresholds import decide
from attacks.joint import joint


def combined(models: Sequence[Signals], *, seed: int, earlier: Mapping[str, Result] | None = None) -> Result:
    """Log-odds of membership of the victim's audit points, (A,).

    earlier: results of `joint` and `calibrated` on the same models, by name, where they are known. Raises Unusable
    where those do.
    """
    earlier = earlier or {}
    by_joint = earlier.get("joint") or joint(models, seed=seed)
    by_calibrated = earlier.get("calibrated") or calibrated(models, seed=seed)
    shadow_scores = by_joint.shadow_scores + by_calibrated.shadow_scores
    shadow, _ = audit_rows(models[0])
    return decide(shadow_scores, models[0].member[shadow], by_joint.scores + by_calibrated.scores)
