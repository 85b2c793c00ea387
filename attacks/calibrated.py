"""The calibrated form of a scenario (ours, in no paper): what the target models say, with the point's difficulty taken
out, in the spirit of Watson et al. 2022 (On the importance of difficulty calibration in membership inference attacks).

For each target model: the logit-scaled confidence, the sorted log-posteriors, the mean confidence of reference models
that did not train on the point, and the difference of the two; between models, the difference to the first. A
gradient-boosted classifier is fitted on the shadows. NR gives it one model, SR two, MR all.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import GroupKFold

from attacks.arrays import Result, Signals, audit_rows, confidence, decide, log_posterior, reference_mask
from attacks.sr import check_same_points


def reference_confidence(target: Signals, values) -> np.ndarray:
    """Mean of `values` over the models known not to have trained on the point, other than the row's own.

    values (R, N) -> (R, N), NaN where there is no such model.
    """
    rows = []
    for model in range(len(values)):
        mask = reference_mask(target, model)
        total, count = np.where(mask, values, 0).sum(axis=0), mask.sum(axis=0)
        rows.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return np.stack(rows)


def features(models: Sequence[Signals], rows) -> np.ndarray:
    """(n, K (C + 3) + K - 1) for K models."""
    columns, first = [], None
    for model in models:
        own = confidence(model.logits, model.labels)  # (R, N)
        reference = reference_confidence(model, own)[rows]
        own = own[rows]
        columns += [own[:, None], reference[:, None], (own - reference)[:, None]]
        columns.append(np.sort(log_posterior(model.logits[rows]), axis=-1))
        if first is None:
            first = own
        else:
            columns.append((own - first)[:, None])
    return np.hstack(columns)


def boosted(features, member, points, victim_features, *, seed: int) -> Result:
    """Gradient boosting fitted on the shadows' rows; its threshold from out-of-fold scores, folds by point."""

    def fit(rows):
        model = HistGradientBoostingClassifier(
            learning_rate=0.05, max_iter=150, max_leaf_nodes=15, min_samples_leaf=50, random_state=seed,
            early_stopping=False,
        )  # fmt: skip
        return model.fit(features[rows], member[rows])

    shadow_scores = np.empty(len(features))
    for seen, unseen in GroupKFold(3).split(features, groups=points):
        shadow_scores[unseen] = fit(seen).decision_function(features[unseen])
    return decide(shadow_scores, member, fit(slice(None)).decision_function(victim_features))


def calibrated(models: Sequence[Signals], *, seed: int) -> Result:
    """Log-odds of membership of the victim's audit points, (A,). models[0] is the original where it is available.

    Raises ValueError without a reference (fewer than two rows).
    """
    check_same_points(models)
    shadow, victim = audit_rows(models[0])
    fitted_on, applied_to = (features(models, rows) for rows in (shadow, victim))
    return boosted(fitted_on, models[0].member[shadow], shadow[1], applied_to, seed=seed)
