"""The calibrated form of a scenario (ours, in no paper): what the target models say, with the point's difficulty taken
out, in the spirit of Watson et al. 2022 (On the importance of difficulty calibration in membership inference attacks).

For each target model: the logit-scaled confidence, the sorted log-posteriors, the mean confidence of reference models
that did not train on the point, and the difference of the two; between models, the difference to the first. A
gradient-boosted classifier is fitted on the shadows. NR gives it one model, SR two, MR all.

Of one model, other features alike, a higher confidence never makes a point less of a member, nor a higher one of the
references more: trees that must obey that do not chase the few rows at the far end, where few false alarms are decided.
Of several models, the less leaky may tell how hard the point was for the other, and nothing is known of the sign.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from attacks.arrays import (
    Result,
    Signals,
    audit_rows,
    confidence,
    log_posterior,
    out_of_fold,
    outside,
    reference_moments,
)
from attacks.sr import check_same_points


def features(models: Sequence[Signals], rows) -> np.ndarray:
    """(n, K (C + 3) + K - 1) for K models."""
    columns, first = [], None
    for model in models:
        own = confidence(model.logits, model.labels)  # (R, N)
        reference = reference_moments(outside(model), own).mean[rows]
        own = own[rows]
        columns += [own[:, None], reference[:, None], (own - reference)[:, None]]
        columns.append(np.sort(log_posterior(model.logits[rows]), axis=-1))
        if first is None:
            first = own
        else:
            columns.append((own - first)[:, None])
    return np.hstack(columns)


def signs(models: Sequence[Signals]) -> list[int] | None:
    """Of each feature of one model: 1 where the odds of membership may only rise with it, -1 only fall, 0 both."""
    return [1, -1, 1] + [0] * models[0].logits.shape[-1] if len(models) == 1 else None


def trees(seed: int, monotonic: list[int] | None = None) -> HistGradientBoostingClassifier:
    """Boosted trees, not fitted yet; monotonic: as of `signs`."""
    return HistGradientBoostingClassifier(
        learning_rate=0.1, max_iter=75, max_leaf_nodes=15, min_samples_leaf=50, random_state=seed,
        early_stopping=False, monotonic_cst=monotonic,
    )  # fmt: skip


def calibrated(models: Sequence[Signals], *, seed: int) -> Result:
    """Log-odds of membership of the victim's audit points, (A,). models[0] is the original where it is available.

    Raises ValueError without a reference (fewer than two rows).
    """
    check_same_points(models)
    shadow, victim = audit_rows(models[0])
    both = tuple(np.concatenate(pair) for pair in zip(shadow, victim, strict=True))
    fitted_on, applied_to = np.split(features(models, both), [len(shadow[0])])

    def fit(features, member):
        return trees(seed, signs(models)).fit(features, member).decision_function

    return out_of_fold(fit, fitted_on, models[0].member[shadow], shadow, applied_to)
