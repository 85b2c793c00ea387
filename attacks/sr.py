"""CompLeak-SR: the original and one compressed model, each the reference of the other.

Features are the original's posterior, sorted in descending order, and the compressed model's posterior in the order of
the ORIGINAL, so that each column compares the same class in both models (SR1). SR2 adds the one-hot label in that
order. A classifier is trained on the shadows' pairs.
"""

import numpy as np

from attacks.common.classifiers import classify
from attacks.common.signals import Result, Signals, audit_rows, check_same_points
from attacks.common.statistics import descending_order, posterior


def features(original: Signals, compressed: Signals, rows, *, label: bool) -> np.ndarray:
    """(n, 2C), with the label (n, 3C), all in the original's order."""
    order = descending_order(original.logits[rows])
    columns = [np.take_along_axis(posterior(model.logits[rows]), order, axis=-1) for model in (original, compressed)]
    if label:
        columns.append(order == original.labels[rows[1]][:, None])
    return np.hstack(columns)


def sr(original: Signals, compressed: Signals, *, seed: int, label: bool, classifier: str = "random_forest") -> Result:
    """Scores of the victim's audit points, (A,). label: False is SR1, True is SR2.

    Raises Unusable where there is no shadow model or too few points to hold some out.
    """
    check_same_points([original, compressed])
    shadow, victim = audit_rows(original)
    fitted_on = features(original, compressed, shadow, label=label)
    applied_to = features(original, compressed, victim, label=label)
    return classify(classifier, fitted_on, original.member[shadow], shadow, applied_to, seed=seed)
