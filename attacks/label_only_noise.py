"""Random noise and labels alone: Choquette-Choo et al. 2021 (section 4.3); Tang et al. 2022 (SELENA) for bits.

Each point is asked about in many noisy copies: bits are flipped, or Gaussian noise is added. The score is the share of
copies that the model still names rightly. It grows with the distance to the decision boundary, and members lie further
from it. How much noise tells members best is chosen on the shadows; SELENA's code takes the best on the points that it
evaluates on.

With several versions of a model, the shares of all of them are averaged: ours, in no paper.
"""

from collections.abc import Sequence

import numpy as np

from attacks.common.queries import checked_probe
from attacks.common.signals import Result, Signals, audit_rows, check_same_points, stack_rows
from attacks.common.thresholds import choose_and_decide


def label_only_noise(models: Sequence[Signals], *, seed: int = 0) -> Result:
    """The victim's audit points' shares of right answers, (A,), at the strength that is best. `seed` is unused.

    Each shadow's row is scored at the strength that is best on rows of other shadows and points. Raises Unusable where
    there is no shadow model, or without the probe "noise".
    """
    check_same_points(models)
    shadow, victim = audit_rows(models[0])
    rows = stack_rows(shadow, victim)
    by_model = [checked_probe(model, "noise")[rows] for model in models]
    shares = np.mean(by_model, axis=0, dtype=np.float64).T  # (L, n)
    member = models[0].member[shadow]
    of_shadows, of_victim = np.split(shares, [len(member)], axis=1)
    names = [f"strength {number + 1} of {len(shares)}" for number in range(len(shares))]
    return choose_and_decide(names, of_shadows, member, shadow, of_victim.__getitem__)
