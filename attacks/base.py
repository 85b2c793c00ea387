"""Lassila, Östman, Ngo, Graell i Amat 2025, Practical Bayes-optimal membership inference attacks (NeurIPS,
arXiv:2505.24089): BASE.

The Bayes-optimal score is the point's log-likelihood under the target minus the log of its mean likelihood under models
drawn from the posterior (Sablayrolles et al. 2019, section 4). The shadow models stand for those. Offline, none of them
trained on the point, which makes the second term too small, and the offline form scales it (in LeakPro, the authors'
library, `offline_scale_factor`):

    score(x) = log p_T(x | target) - scale log mean_k p_T(x | reference k)

p_T is the softmax at temperature T. The scale and T are left to be tuned: they are chosen on the shadows. With scale 1
and T = 1, RMIA with a = 1 and gamma = 1 ranks points in the same order. The paper's online form, with scale 1, takes
the mean over all shadow models, half of which trained on the point. Here no reference trained on it, because an
attacker from outside does not train on the victim's points; the auditor's form is in `attacks.upper_bound`.
"""

from collections.abc import Iterator

import numpy as np

from attacks.common.references import checked_outsiders, reference_log_p
from attacks.common.signals import Result, Signals
from attacks.common.statistics import log_sigmoid, tempered_confidence
from attacks.common.thresholds import choose_among

TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 4.0)
SCALES = (1.0, 0.75, 0.5, 0.33, 0.2, 0.1, 0.05, 0.02, 0.01, 0.003)


def base(target: Signals, *, seed: int = 0) -> Result:
    """Scores of the victim's audit points, (A,). `seed` is unused. Raises Unusable where a point has no reference."""
    outsiders = checked_outsiders(target, "base")
    return choose_among(target, ratios(target, lambda log_p: reference_log_p(log_p, outsiders)))


def ratios(target: Signals, mean_of_references) -> Iterator[tuple[str, np.ndarray]]:
    """The score, (R, N), of every scale and temperature, each with its name.

    mean_of_references: from the models' log p, (R, N), to the log of the mean p of each model's references, (R, N).
    """
    odds = tempered_confidence(target.logits, target.labels, TEMPERATURES)
    for temperature, log_p in zip(TEMPERATURES, map(log_sigmoid, odds), strict=True):
        reference = mean_of_references(log_p)
        for scale in SCALES:
            yield f"scale {scale:g}, temperature {temperature:g}", log_p - scale * reference
