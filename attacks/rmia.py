"""Zarifzadeh, Liu, Shokri 2024, Low-cost high-power membership inference attacks (ICML): offline RMIA.

A point is called a member if the target likes it better than it likes the population, relative to models that did not
train on the point (section 3). With the likelihood ratio LR(x) = p(x | target) / p(x),

    score(x) = share of population points z with LR(x) / LR(z) >= gamma                           (equations 2 and 3)
    p(x) = ((1 + a) p_out(x) + (1 - a)) / 2, p_out(x) the mean over models not trained on x       (appendix B.2.2)

p_out comes from the references: the shadows for the victim's points; the victim and the other shadows for a shadow's
points. The population of a model are the points it is known not to have trained on, with p(z) from the same kind of
reference and the same a. A non-member x and a z are then the same kind of thing, and the score of a non-member is
uniform at gamma = 1. No point is compared with itself.

Where all points are audited, as LiRA's authors have it, there is no point that the victim is known not to have trained
on. The population of each model are then its audited points, members and non-members alike. This holds for the shadows
as well, so that a threshold chosen on them means the same for the victim. The order of scores does not depend on the
population, apart from ties.

a and gamma are chosen on the shadows. The score is a non-decreasing function of LR(x), so a decides the ranks; gamma
only decides which points tie, and its choice hardly moves the AUC.
"""

import numpy as np
from sklearn.metrics import roc_auc_score

from attacks.common.references import checked_outsiders, reference_log_p
from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.statistics import cross_entropy
from attacks.common.thresholds import decide

OFFLINE_A = tuple(np.arange(11) / 10)
GAMMA = (1.0, 1.25, 1.5, 2.0, 4.0)
FEWEST_OUTSIDERS = 0.25  # per audited point; a score is a share of the population, and coarse if that is small


@np.errstate(invalid="ignore")  # NaN where there is no reference
def log_ratios(log_p, reference, a: float) -> np.ndarray:
    """log LR = log p(x | target) - log p(x), elementwise; `reference` is log p_out."""
    constant = np.log((1 - a) / 2) if a < 1 else -np.inf  # with a = 1 the second term of p(x) is 0
    return log_p - np.logaddexp(np.log((1 + a) / 2) + reference, constant)


def dominated_share(log_ratio, population, inside, gamma: float) -> np.ndarray:
    """Share of the population other than x with LR(x) / LR(z) >= gamma, by sort and search.

    log_ratio (n,); population (Z,), sorted; inside (n,) bool: x itself is in the population -> (n,).
    """
    count = np.searchsorted(population, log_ratio - np.log(gamma), side="right")
    itself = inside & (gamma == 1)  # LR(x) / LR(x) = 1
    return (count - itself) / (len(population) - inside)


def populations(target: Signals, reference) -> np.ndarray:
    """(R, N) bool: the population points of each model. reference: (R, N) log p_out, NaN where there is none.

    They are the model's known non-members or, where the victim has too few of those, the model's audited points.
    """
    comparable = np.isfinite(reference)
    outsiders = (target.member == 0) & comparable
    if outsiders[0].sum() < FEWEST_OUTSIDERS * target.audit[0].sum():
        return target.audit & comparable
    return outsiders


def score(log_p, reference, population, rows, a: float, gammas) -> list[np.ndarray]:
    """RMIA scores of the (model, point) rows, (n,), one array for each gamma. log_p, reference, population: (R, N)."""
    models, points = rows
    scores = [np.empty(len(points)) for _ in gammas]
    for model in np.unique(models):
        of_model = models == model
        x = points[of_model]
        ratio = log_ratios(log_p[model], reference[model], a)
        inside = population[model]
        ratios = np.sort(ratio[inside])
        for gamma, column in zip(gammas, scores, strict=True):
            column[of_model] = dominated_share(ratio[x], ratios, inside[x], gamma)
    return scores


def tune(log_p, reference, population, rows, member):
    """The a and gamma with the best AUC on the shadows' rows, and the scores (M,) they give there. member: (M,).

    The first of equally good pairs counts.
    """
    best_auc, best = -1.0, None
    for a in OFFLINE_A:
        for gamma, scores in zip(GAMMA, score(log_p, reference, population, rows, a, GAMMA), strict=True):
            auc = roc_auc_score(member, scores)
            if auc > best_auc:
                best_auc = auc
                best = (a, gamma, scores)
    return best


def rmia(target: Signals, *, seed: int = 0) -> Result:
    """RMIA scores of the victim's audit points, (A,). `seed` is unused.

    Raises Unusable where a point has no reference.
    """
    shadow, victim = audit_rows(target)
    log_p = -cross_entropy(target.logits, target.labels)  # (R, N)
    reference = reference_log_p(log_p, checked_outsiders(target, "rmia"))
    population = populations(target, reference)
    member = target.member[shadow]
    a, gamma, shadow_scores = tune(log_p, reference, population, shadow, member)
    (scores,) = score(log_p, reference, population, victim, a, (gamma,))
    return decide(shadow_scores, member, scores)
