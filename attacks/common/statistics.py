"""Numbers read off a prediction, exact where a probability is 0 or 1 up to rounding."""

from collections.abc import Iterator, Sequence

import numpy as np

# Larger numbers than this count as this, so that sums of their fourth powers stay finite. A float32 never reaches it.
LARGEST = 1e60


@np.errstate(invalid="ignore")  # NaN stays NaN: the model was never asked about the point
def log_odds(logits) -> np.ndarray:
    """log p_c / (1 - p_c) of every class, (..., C) -> (..., C) float64, computed without p.

    It is z_c minus the log-sum-exp of the other logits (the logit-scaled confidence of Carlini et al. 2022, section
    IV.C, for every c at once). Only the largest class needs a sum of its own. For the others, the sum over all classes
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


def hinge(logits, labels) -> np.ndarray:
    """The true class's logit minus the largest other logit, (..., N, C) and (N,) -> (..., N) float64."""
    logits = np.clip(np.asarray(logits, dtype=np.float64), -LARGEST, LARGEST)
    is_label = np.arange(logits.shape[-1]) == np.asarray(labels)[:, None]  # (N, C)
    return of_label(logits, labels) - np.where(is_label, -np.inf, logits).max(axis=-1)


@np.errstate(invalid="ignore")
def tempered_confidence(logits, labels, temperatures: Sequence[float]) -> Iterator[np.ndarray]:
    """`confidence` of softmax(logits / T) for each temperature T in turn, (..., N, C) and (N,) -> (..., N) float64."""
    logits = np.clip(np.asarray(logits, dtype=np.float64), -LARGEST, LARGEST)
    is_label = np.arange(logits.shape[-1]) == np.asarray(labels)[:, None]  # (N, C)
    others = np.where(is_label, -np.inf, logits)
    second = others.max(axis=-1, keepdims=True)
    lead = of_label(logits, labels) - second[..., 0]
    others -= second
    for temperature in temperatures:
        yield lead / temperature - np.log(np.exp(others / temperature).sum(axis=-1))


@np.errstate(invalid="ignore")
def log_sigmoid(odds) -> np.ndarray:
    """log p of log-odds log p / (1 - p), elementwise."""
    return -np.logaddexp(0, -odds)


@np.errstate(invalid="ignore")
def taylor_log_p(logits, labels, temperature: float, margin: float = 0.0) -> np.ndarray:
    """log p of the true class by a softmax with t(z) = 1 + z + z^2/2 + z^3/6 + z^4/24 in place of exp.

    z = logits / temperature; that of the true class is reduced by the margin. Zarifzadeh et al. 2024, appendix B.2.1.
    An even degree keeps t above 0 for every z. (..., N, C) and (N,) -> (..., N) float64.
    """
    scaled = np.clip(np.asarray(logits, dtype=np.float64), -LARGEST, LARGEST) / temperature
    is_label = np.arange(scaled.shape[-1]) == np.asarray(labels)[:, None]  # (N, C)
    others = np.where(is_label, 0.0, taylor_exp(scaled)).sum(axis=-1)
    return -np.log1p(others / taylor_exp(of_label(scaled, labels) - margin))


def taylor_exp(z) -> np.ndarray:
    """The Taylor polynomial of exp of degree 4, elementwise; at least 0.27."""
    return 1 + z * (1 + z / 2 * (1 + z / 3 * (1 + z / 4)))


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
