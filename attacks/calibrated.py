"""The calibrated form of a scenario (ours, in no paper): what the target models say, with the point's difficulty taken
out, in the spirit of Watson et al. 2022 (On the importance of difficulty calibration in membership inference attacks).

For each target model: the logit-scaled confidence, the sorted log-posteriors, the mean confidence of reference models
that did not train on the point, and the difference of the two; between models, the difference to the first. A
gradient-boosted classifier is fitted on the shadows. NR gives it one model, SR two, MR all.
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


def boosted(features, member, rows, victim_features, *, seed: int) -> Result:
    """Gradient boosting fitted on the shadows' rows."""

    def fit(features, member):
        model = HistGradientBoostingClassifier(
            learning_rate=0.05, max_iter=150, max_leaf_nodes=15, min_samples_leaf=50, random_state=seed,
            early_stopping=False,
        )  # fmt: skip
        return model.fit(features, member).decision_function

    return out_of_fold(fit, features, member, rows, victim_features)


def calibrated(models: Sequence[Signals], *, seed: int) -> Result:
    """Log-odds of membership of the victim's audit points, (A,). models[0] is the original where it is available.

    Raises ValueError without a reference (fewer than two rows).
    """
    check_same_points(models)
    shadow, victim = audit_rows(models[0])
    fitted_on, applied_to = (features(models, rows) for rows in (shadow, victim))
    return boosted(fitted_on, models[0].member[shadow], shadow, applied_to, seed=seed)
