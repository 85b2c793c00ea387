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
attacker from outside does not train on the victim's points.
"""

from attacks.common.references import checked_outsiders, reference_log_p
from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.statistics import log_sigmoid, tempered_confidence
from attacks.common.thresholds import choose_and_decide

TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 4.0)
SCALES = (1.0, 0.75, 0.5, 0.33, 0.2, 0.1, 0.05, 0.02, 0.01, 0.003)


def base(target: Signals, *, seed: int = 0) -> Result:
    """Scores of the victim's audit points, (A,). `seed` is unused. Raises Unusable where a point has no reference."""
    shadow, victim = audit_rows(target)
    outsiders = checked_outsiders(target, "base")
    names, options, victim_options = [], [], []
    odds = tempered_confidence(target.logits, target.labels, TEMPERATURES)
    for temperature, log_p in zip(TEMPERATURES, map(log_sigmoid, odds), strict=True):
        reference = reference_log_p(log_p, outsiders)
        for scale in SCALES:
            names.append(f"scale {scale:g}, temperature {temperature:g}")
            options.append(log_p[shadow] - scale * reference[shadow])
            victim_options.append(log_p[victim] - scale * reference[victim])
    return choose_and_decide(names, options, target.member[shadow], shadow, victim_options.__getitem__)
