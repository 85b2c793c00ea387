"""The sum of two log-odds of membership of the same scenario (ours): `joint`, which has the shape of the distributions
right when they are Gaussian, and `calibrated`, which assumes nothing of it and is coarse in the tails. Their errors are
different ones, and the sum is seldom worse than the better of the two.
"""

from collections.abc import Mapping, Sequence

from attacks.arrays import Result, Signals, audit_rows, decide
from attacks.calibrated import calibrated
from attacks.joint import joint


def combined(models: Sequence[Signals], *, seed: int, earlier: Mapping[str, Result] | None = None) -> Result:
    """Log-odds of membership of the victim's audit points, (A,). earlier: results of `joint` and `calibrated` if known.

    Raises ValueError where those do.
    """
    parts = [(earlier or {}).get(attack.__name__) or attack(models, seed=seed) for attack in (joint, calibrated)]
    shadow_scores, scores = (sum(part) for part in zip(*((p.shadow_scores, p.scores) for p in parts), strict=True))
    return decide(shadow_scores, models[0].member[audit_rows(models[0])[0]], scores)
