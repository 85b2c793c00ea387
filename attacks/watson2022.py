"""Watson, Guo, Cormode, Sablayrolles 2022, On the importance of difficulty calibration in membership inference attacks
(ICLR): the calibrated score.

An answer of the target minus the mean answer of models that did not train on the point (section 3, equation 3), so that
an easy point is not mistaken for a member. The paper takes several answers: minus the loss, log p, and the confidence,
p. Which of them is chosen on the shadows. With log p / (1 - p) it would be `lira` with one variance for all points.
"""

import numpy as np

from attacks.common.references import checked_outsiders, reference_moments
from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.statistics import cross_entropy
from attacks.common.thresholds import choose_and_decide


def watson2022(target: Signals, *, seed: int = 0) -> Result:
    """Scores of the victim's audit points, (A,). `seed` is unused. Raises Unusable where a point has no reference."""
    shadow, victim = audit_rows(target)
    outsiders = checked_outsiders(target, "watson2022")
    log_p = -cross_entropy(target.logits, target.labels)  # (R, N)
    answers = {"loss": log_p, "confidence": np.exp(log_p)}
    options = [answer - reference_moments(outsiders, answer).mean for answer in answers.values()]
    of_shadows = [scores[shadow] for scores in options]
    return choose_and_decide(
        [*answers], of_shadows, target.member[shadow], shadow, lambda answer: options[answer][victim]
    )
