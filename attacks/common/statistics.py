"""Numbers read off a prediction, exact where a probability is 0 or 1 up to rounding."""

import numpy as np

# Larger numbers than this count as this, so that sums of their fourth powers stay finite. A float32 never reaches it.
LARGEST = 1e60


@np.errstate(invalid="ignore")  # NaN stays NaN: the model was never asked about the point
def log_odds(logits) -> np.ndarray:
    """log p_c / (1 - p_c) of every class, (..., C) -> (..., C) float64, computed without p.

    It is z_c minus the log-sum-exp of the other logits (the logit-scaled confidence of Carlini et al. 2022, section
    VI.B, for every c at once). Only the largest class needs a sum of its own. For the others, the sum over all classes
    minus their own term loses nothing: the sum is at least twice as large as the term.
    """
    shifted = np.clip(np.asarray(logits, dtype=np.float64), -LARGEST, LARGEST)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    largest = np.arange(shifted.shape[-1]) == shifted.argmax(axis=-1)[..., None]
    weights = np.exp(shifted)
    others = np.log(np.where(largest, 1.0, weights.sum(axis=-1, keepdims=True) - weights))
    rest = np.where(largest, -np.inf, shifted)
    second = rest.max(axis=-1, keepdims=True)
    of_rest = second + np.log(np.exp(rest - second).sum(axis=-1, keepdims=True))
    return shifted - np.where(largest, of_rest, others)


@np.errstate(invalid="ignore")
def log_posterior(logits) -> np.ndarray:
    """log softmax, (..., C) -> (..., C) float64."""
    return -np.logaddexp(0, -log_odds(logits))


def posterior(logits) -> np.ndarray:
    """softmax, (..., C) -> (..., C) float64."""
    return np.exp(log_posterior(logits))


def descending_order(logits) -> np.ndarray:
    """Classes from the most to the least likely, (n, C) -> (n, C) int64; equally likely ones by number."""
    return np.argsort(-logits, axis=-1, kind="stable")


def of_label(values, labels) -> np.ndarray:
    """The entry of each point's true class: values (..., N, C), labels (N,) -> (..., N)."""
    index = np.broadcast_to(labels, values.shape[:-1])[..., None]
    return np.take_along_axis(values, index, axis=-1)[..., 0]


def confidence(logits, labels) -> np.ndarray:
    """Logit-scaled confidence in the true class, log p_y / (1 - p_y), (..., N, C) and (N,) -> (..., N) float64."""
    return of_label(log_odds(logits), labels)


@np.errstate(invalid="ignore")
def cross_entropy(logits, labels) -> np.ndarray:
    """Per-sample loss -log p_y, (..., N, C) and (N,) -> (..., N) float64, positive down to the smallest float64."""
    return np.logaddexp(0, -confidence(logits, labels))


def modified_entropy(logits, labels) -> np.ndarray:
    """Mentr of Song & Mittal 2021, section 4.2, equation 8: (..., N, C) and (N,) -> (..., N) float64."""
    odds = log_odds(logits)
    log_p, log_not_p = -np.logaddexp(0, -odds), -np.logaddexp(0, odds)
    is_label = np.arange(odds.shape[-1]) == labels[:, None]  # (N, C)
    return -np.where(is_label, np.exp(log_not_p) * log_p, np.exp(log_p) * log_not_p).sum(axis=-1)
