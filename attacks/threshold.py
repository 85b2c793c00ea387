"""Four statistics of a prediction, each with thresholds per class chosen on the shadows (Song & Mittal 2021, section 4;
as a set in Yuan & Zhang 2022, Membership inference attacks and defenses in neural network pruning).

A member is a point whose

- `conf`: confidence in the true class, p_y, is large (Yeom et al. 2018; Song & Mittal 2021)
- `xent`: cross-entropy -log p_y is small; per class it decides as `conf` does, of which it is a falling function
- `mentr`: modified entropy (Song & Mittal 2021, equation 8) is small; decides as `song2021` does
- `top1_conf`: largest posterior, whichever class it is of, is large (Salem et al. 2019, section V); its thresholds are
  those of the predicted class, so that nothing in it knows the label

Compared are numbers that order points as the statistic does and do not saturate where p is nearly 0 or 1: log p/(1-p)
for the two confidences, the log for cross-entropy and modified entropy. A score is its distance from the class's
threshold, on that scale: for sure predictions all four are about log-odds, once or twice.
"""

import numpy as np

from attacks.arrays import Result, Signals, confidence, cross_entropy, decide_per_class, log_odds
from attacks.song2021 import modified_entropy

STATISTICS = ("conf", "xent", "mentr", "top1_conf")


def statistic(name: str, logits, labels) -> np.ndarray:
    """What is compared, larger for members: (..., N, C) and (N,) -> (..., N) float64."""
    if name == "conf":
        return confidence(logits, labels)
    if name == "xent":
        return -log(cross_entropy(logits, labels))
    if name == "mentr":
        return -log(modified_entropy(logits, labels))
    if name == "top1_conf":
        return log_odds(logits).max(axis=-1)
    raise ValueError(f"unknown statistic {name!r}: use {', '.join(map(repr, STATISTICS))}")


def log(values) -> np.ndarray:
    """Finite at 0, to which cross-entropy underflows at log-odds of 745, and modified entropy at half of that."""
    return np.log(np.maximum(values, np.finfo(np.float64).smallest_subnormal))


def threshold(target: Signals, *, seed: int = 0, classifier: str = "conf") -> Result:
    """Distances from the class's threshold, (A,); a member where not negative. `seed` is unused.

    classifier: "conf", "xent", "mentr" or "top1_conf". Raises ValueError for another.
    """
    values = statistic(classifier, target.logits, target.labels)  # (R, N)
    return decide_per_class(target, values, target.logits.argmax(axis=-1) if classifier == "top1_conf" else None)
