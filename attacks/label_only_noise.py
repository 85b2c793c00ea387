"""Random noise and labels alone: Choquette-Choo et al. 2021 (section 4.3); Tang et al. 2022 (SELENA) for bits.

Each point is asked about in many noisy copies: bits are flipped, or Gaussian noise is added. The score is the share of
copies that the model still names rightly. It grows with the distance to the decision boundary, and members lie further
from it. How much noise tells members best is chosen on the shadows; SELENA's code takes the best on the points that it
evaluates on.

With several versions of a model, the shares of all of them are averaged: ours, in no paper.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

from attacks.common.folds import score_out_of_fold
from attacks.common.signals import Result, Signals, audit_rows, check_same_points, stack_rows
from attacks.common.thresholds import decide


def label_only_noise(models: Sequence[Signals], *, seed: int = 0) -> Result:
    """The victim's audit points' shares of right answers, (A,), at the strength that is best. `seed` is unused.

    Each shadow's row is scored at the strength that is best on rows of other shadows and points. Raises Unusable where
    there is no shadow model.
    """
    check_same_points(models)
    shadow, victim = audit_rows(models[0])
    rows = stack_rows(shadow, victim)
    shares = np.mean([model.probes["noise"][rows] for model in models], axis=0, dtype=np.float64)  # (n, L)
    member = models[0].member[shadow]
    fitted_on, applied_to = np.split(shares, [len(member)])
    shadow_scores, scores = score_out_of_fold(fit, fitted_on, member, shadow, applied_to)
    number = best_strength(fitted_on, member)
    return decide(shadow_scores, member, scores)._replace(chosen=f"strength {number + 1} of {shares.shape[1]}")


def fit(shares, member):
    """A function from shares (n, L) to those at the strength with the best AUC on these rows, (n,)."""
    best = best_strength(shares, member)
    return lambda shares: shares[:, best]


def best_strength(shares, member) -> int:
    """Which column of (n, L) has the best AUC; the first of equally good ones."""
    return int(np.argmax([roc_auc_score(member, column) for column in shares.T]))
