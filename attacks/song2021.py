"""Song & Mittal 2021, Systematic evaluation of privacy risks of machine learning models (USENIX Security).

Modified entropy (section 4.2, equation 8)

    Mentr(x, y) = -(1 - p_y) log p_y - sum over i != y of p_i log(1 - p_i)

is small when the prediction is both confident and right. A point is called a member when it does not exceed its class's
threshold, chosen on the shadows' points of that class.
"""

import numpy as np

from attacks.arrays import Result, Signals, decide_per_class, log_odds


def modified_entropy(logits, labels) -> np.ndarray:
    """Mentr of equation 8, (..., N, C) and (N,) -> (..., N) float64."""
    odds = log_odds(logits)
    log_p, log_not_p = -np.logaddexp(0, -odds), -np.logaddexp(0, odds)
    own = np.arange(odds.shape[-1]) == labels[:, None]  # (N, C)
    return -np.where(own, np.exp(log_not_p) * log_p, np.exp(log_p) * log_not_p).sum(axis=-1)


def song2021(target: Signals, *, seed: int = 0) -> Result:
    """The class's threshold minus the point's Mentr, (A,); a member where this is not negative. `seed` is unused."""
    return decide_per_class(target, -modified_entropy(target.logits, target.labels))
