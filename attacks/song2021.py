"""Song & Mittal 2021, Systematic evaluation of privacy risks of machine learning models (USENIX Security).

Modified entropy (section 4.2, equation 8)

    Mentr(x, y) = -(1 - p_y) log p_y - sum over i != y of p_i log(1 - p_i)

is small when the prediction is both confident and right. A point is called a member when it does not exceed its class's
threshold, chosen on the shadows' points of that class.
"""

from attacks.common.signals import Result, Signals
from attacks.common.statistics import modified_entropy
from attacks.common.thresholds import decide_per_class


def song2021(target: Signals, *, seed: int = 0) -> Result:
    """The class's threshold minus the point's Mentr, (A,), in nats; a member where this is not negative.

    `seed` is unused. Raises Unusable where there is no shadow model or too few points to hold some out.
    """
    return decide_per_class(target, -modified_entropy(target.logits, target.labels))
