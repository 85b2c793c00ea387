"""Nasr, Shokri, Houmansadr 2018, Machine learning with membership privacy using adversarial regularization (CCS).

The inference model h(x, y, f(x)) of section 3.2 sees the true label beside the posterior. Here it is a classifier on
the sorted posterior and the one-hot label in the same order, which says at which rank the true class stands.
"""

import numpy as np

from attacks.common.classifiers import classify
from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.statistics import descending_order, posterior


def features(target: Signals, rows) -> np.ndarray:
    """Sorted posterior, then the one-hot label in its order, (n, 2C)."""
    order = descending_order(target.logits[rows])
    label = order == target.labels[rows[1]][:, None]
    return np.hstack([np.take_along_axis(posterior(target.logits[rows]), order, axis=-1), label])


def nasr2018(target: Signals, *, seed: int, classifier: str = "random_forest") -> Result:
    """Scores of the victim's audit points, (A,). classifier: "logistic_regression" or "random_forest".

    Raises Unusable where there is no shadow model or too few points to hold some out, ValueError for another
    classifier.
    """
    shadow, victim = audit_rows(target)
    fitted_on, applied_to = features(target, shadow), features(target, victim)
    return classify(classifier, fitted_on, target.member[shadow], shadow, applied_to, seed=seed)
