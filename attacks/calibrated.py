"""The calibrated form of a scenario (ours, in no paper), in the spirit of Watson et al. 2022, On the importance of
difficulty calibration in membership inference attacks: each answer is compared with the answers of models that never
saw the point, so that a hard point is not mistaken for a non-member.

A gradient-boosted classifier is fitted on the shadows. For each model its features are the logit-scaled confidence, the
mean confidence of the reference models, the difference of the two, and the sorted log-posteriors; from the second model
on, also the difference to the first model's confidence. NR gives it one model, SR two, MR all.

For one model two directions are known: with the other features equal, a higher confidence never makes a point less of a
member, and a higher confidence of the references never makes it more of one. Trees that must obey this do not follow
the few rows at the far end, where low false alarm rates are decided. For several models no direction is known, because
the model that leaks less may tell how hard the point is for the other.
"""

from collections.abc import Sequence

import numpy as np

from attacks.common.classifiers import boosted_trees
from attacks.common.folds import score_out_of_fold
from attacks.common.references import known_outsiders, reference_moments
from attacks.common.signals import Result, Signals, audit_rows, check_same_points, stack_rows
from attacks.common.statistics import confidence, log_posterior
from attacks.common.thresholds import decide


def features(models: Sequence[Signals], rows) -> np.ndarray:
    """(n, K (C + 3) + K - 1) for K models."""
    columns, first = [], None
    for model in models:
        confidences = confidence(model.logits, model.labels)  # (R, N)
        reference = reference_moments(known_outsiders(model), confidences).mean[rows]
        answer = confidences[rows]
        columns += [answer[:, None], reference[:, None], (answer - reference)[:, None]]
        columns.append(np.sort(log_posterior(model.logits[rows]), axis=-1))
        if first is None:
            first = answer
        else:
            columns.append((answer - first)[:, None])
    return np.hstack(columns)


def monotonic_signs(models: Sequence[Signals]) -> list[int] | None:
    """The direction of each feature, as `boosted_trees` takes it; None, no constraint, for several models."""
    if len(models) > 1:
        return None
    return [1, -1, 1] + [0] * models[0].logits.shape[-1]


def calibrated(models: Sequence[Signals], *, seed: int) -> Result:
    """Log-odds of membership of the victim's audit points, (A,). models[0] is the original where it is available.

    Raises Unusable where there is no shadow model.
    """
    check_same_points(models)
    shadow, victim = audit_rows(models[0])
    member = models[0].member[shadow]
    fitted_on, applied_to = np.split(features(models, stack_rows(shadow, victim)), [len(member)])

    def fit(features, member):
        return boosted_trees(seed, monotonic_signs(models)).fit(features, member).decision_function

    shadow_scores, scores = score_out_of_fold(fit, fitted_on, member, shadow, applied_to)
    return decide(shadow_scores, member, scores)
