"""Four statistics of a prediction, each with thresholds per class chosen on the shadows (Song & Mittal 2021, section 4;
as a set in Yuan & Zhang 2022, Membership inference attacks and defenses in neural network pruning).

A point is called a member when

- `conf`: the confidence in the true class, p_y, is large (Yeom et al. 2018; Song & Mittal 2021)
- `xent`: the cross-entropy -log p_y is small; it is a falling function of p_y, so it decides as `conf` does
- `mentr`: the modified entropy (Song & Mittal 2021, equation 8) is small; it decides as `song2021` does
- `top1_conf`: the largest posterior, of whichever class, is large (Salem et al. 2019, section V); its thresholds are
  those of the predicted class, so that it needs no label

Each statistic is compared on a scale that keeps its order and does not saturate where p is nearly 0 or 1: log p/(1-p)
for the two confidences, the log for cross-entropy and modified entropy. A score is the distance from the class's
threshold on that scale. For sure predictions all four scales are about the log-odds, or twice the log-odds.
"""

import numpy as np

from attacks.common.signals import Result, Signals
from attacks.common.statistics import confidence, cross_entropy, log_odds, modified_entropy
from attacks.common.thresholds import decide_per_class

STATISTICS = ("conf", "xent", "mentr", "top1_conf")


def statistic(name: str, logits, labels) -> np.ndarray:
    """The numbers that are compared, larger for members: (..., N, C) and (N,) -> (..., N) float64."""
    if name == "conf":
        return confidence(logits, labels)
    if name == "xent":
        return -finite_log(cross_entropy(logits, labels))
    if name == "mentr":
        return -finite_log(modified_entropy(logits, labels))
    if name == "top1_conf":
        return log_odds(logits).max(axis=-1)
    raise ValueError(f"unknown statistic {name!r}: use {', '.join(map(repr, STATISTICS))}")


def finite_log(values) -> np.ndarray:
    """log, finite at 0: cross-entropy underflows to 0 at log-odds of 745, modified entropy at half of that."""
    return np.log(np.maximum(values, np.finfo(np.float64).smallest_subnormal))


def threshold(target: Signals, *, seed: int = 0, classifier: str = "conf") -> Result:
    """Distances from the class's threshold, (A,); a member where not negative. `seed` is unused.

    classifier: "conf", "xent", "mentr" or "top1_conf". Raises ValueError for another, Unusable where there is no
    shadow model or too few points to hold some out.
    """
    values = statistic(classifier, target.logits, target.labels)  # (R, N)
    classes = target.logits.argmax(axis=-1) if classifier == "top1_conf" else None
    return decide_per_class(target, values, classes)
