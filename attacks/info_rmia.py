"""Tao & Shokri 2025, (Token-level) InfoRMIA (arXiv:2510.05582; ICLR 2026): RMIA as a continuous score, in nats.

RMIA counts the population points z that a point x dominates. InfoRMIA takes the mean, over all z, of how far x is above
z: how much likelier x is under the target than under models without x, compared with the same for z. With the
likelihood ratio LR(x) = p(x | target) / p(x),

    score(x) = log LR(x) - mean over z of log LR(z)

in which minus the mean over z is the Kullback-Leibler divergence of p(z | target) from p(z). It is one number for each
model, so it does not change the order of a model's points, only how models compare. A population of any size gives a
score without ties, and there is no gamma to choose.

p(x) is as in `rmia`: ((1 + a) p_out(x) + (1 - a)) / 2 with the mean p_out over references that did not train on x
(Zarifzadeh et al. 2024, appendix B.2.2). The population of a model are the points that it is known not to have trained
on, or its audited points where the victim has too few of those. a and the temperature of the softmax are chosen on the
shadows, each row's without its shadow and its point. Of the paper only summaries were at hand, so no equation is named
here, and its own values of a and temperature are not known to us. Its form for single tokens is for language models and
is not here.
"""

import numpy as np

from attacks.common.references import checked_outsiders, reference_log_p
from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.statistics import cross_entropy
from attacks.common.thresholds import choose_and_decide
from attacks.rmia import log_ratios, populations

OFFLINE_A = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
TEMPERATURES = (1.0, 2.0, 4.0)


def information(log_ratio, inside) -> np.ndarray:
    """log LR minus its mean over each model's population, (R, N) and (R, N) bool -> (R, N).

    A model without a population keeps log LR as it is.
    """
    count = inside.sum(axis=1, keepdims=True)
    total = np.where(inside, log_ratio, 0.0).sum(axis=1, keepdims=True)
    return log_ratio - total / np.maximum(count, 1)


def candidates(target: Signals):
    """(what is chosen, scores (R, N)) for each temperature and a, in the order of TEMPERATURES, then OFFLINE_A."""
    outsiders = checked_outsiders(target, "info_rmia")
    inside = populations(target, outsiders)
    for temperature in TEMPERATURES:
        log_p = -cross_entropy(target.logits / temperature, target.labels)
        reference = reference_log_p(log_p, outsiders)
        for a in OFFLINE_A:
            yield f"temperature {temperature:g}, a {a:g}", information(log_ratios(log_p, reference, a), inside)


def info_rmia(target: Signals, *, seed: int = 0) -> Result:
    """Scores of the victim's audit points, (A,), in nats. `seed` is unused.

    Raises Unusable where a point has no reference.
    """
    shadow, victim = audit_rows(target)
    names, of_shadows, of_victim = [], [], []
    for name, scores in candidates(target):
        names.append(name)
        of_shadows.append(scores[shadow])
        of_victim.append(scores[victim])
    return choose_and_decide(names, of_shadows, target.member[shadow], shadow, of_victim.__getitem__)
