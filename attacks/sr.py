"""CompLeak-SR: the original and one compressed model, one as the reference of the other.

Features are the original's posterior, sorted in descending order, and the compressed model's posterior permuted by the
order of the ORIGINAL, so that each column still compares the same class in both (SR1); SR2 adds the one-hot label in
that order. A classifier is trained on the shadows' pairs.
"""

import numpy as np

from attacks.arrays import Result, Signals, audit_rows, classify, descending_order, posterior


def features(original: Signals, compressed: Signals, rows, *, label: bool) -> np.ndarray:
    """(n, 2C), with the label (n, 3C): the original's order throughout."""
    order = descending_order(original.logits[rows])
    columns = [np.take_along_axis(posterior(model.logits[rows]), order, axis=-1) for model in (original, compressed)]
    return np.hstack([*columns, order == original.labels[rows[1]][:, None]] if label else columns)


def check_same_points(models) -> None:
    """Raises ValueError unless all models are about the same points, labels, membership and audit sets."""
    for field in ("labels", "member", "audit"):
        if not all(np.array_equal(getattr(models[0], field), getattr(model, field)) for model in models[1:]):
            raise ValueError(f"the models' signals differ in {field!r}: they are not from one run and cannot be joined")


def sr(original: Signals, compressed: Signals, *, seed: int, label: bool, classifier: str = "random_forest") -> Result:
    """Scores of the victim's audit points, (A,). label: False is SR1, True SR2."""
    check_same_points([original, compressed])
    shadow, victim = audit_rows(original)
    fitted_on, applied_to = (features(original, compressed, rows, label=label) for rows in (shadow, victim))
    return classify(classifier, fitted_on, original.member[shadow], shadow, applied_to, seed=seed)
