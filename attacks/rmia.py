"""Zarifzadeh, Liu, Shokri 2024, Low-cost high-power membership inference attacks (ICML): offline RMIA.

A point is a member if the target likes it better than it likes the population, relative to models that did not train on
it (section 3). With likelihood ratio LR(x) = p(x | target) / p(x),

    score(x) = share of population points z with LR(x) / LR(z) >= gamma                           (equations 2 and 3)
    p(x) = ((1 + a) p_out(x) + (1 - a)) / 2, p_out(x) the mean over models not trained on x       (appendix B.2.2)

p_out is known for every x from models that the attacker knows to be outside of it: for the victim's points the shadows,
for a shadow's points the victim and the other shadows. The population of a model are the points it is known not to have
trained on, with p(z) from the same kind of reference and the same a: a non-member x and a z are then the same kind of
thing, and the score of a non-member is uniform at gamma = 1. No point is compared with itself.

a and gamma are chosen on the shadows. The score being a non-decreasing function of LR(x), a decides the ranks; gamma
only decides which points tie, so its choice hardly moves the AUC.
"""

import numpy as np
from sklearn.metrics import roc_auc_score

from attacks.arrays import Result, Signals, audit_rows, cross_entropy, decide, references_of

OFFLINE_A = tuple(np.arange(11) / 10)
GAMMA = (1.0, 1.25, 1.5, 2.0, 4.0)


@np.errstate(invalid="ignore")
def log_p_out(log_p, mask) -> np.ndarray:
    """log of the mean of p over the models in `mask`, (R, N) and (R, N) bool -> (N,); NaN where there is none."""
    count = mask.sum(axis=0)
    total = np.logaddexp.reduce(np.where(mask, log_p, -np.inf), axis=0)
    return np.where(count > 0, total - np.log(np.maximum(count, 1)), np.nan)


def references(log_p, mask) -> np.ndarray:
    """`log_p_out` of every model's points, its own answer left out, (R, N) and (R, N) bool -> (R, N)."""
    own = np.eye(len(log_p), dtype=bool)
    return np.stack([log_p_out(log_p, mask & ~itself[:, None]) for itself in own])


@np.errstate(invalid="ignore")  # NaN where there is no reference
def log_ratios(log_p, reference, a: float) -> np.ndarray:
    """log LR = log p(x | target) - log p(x), elementwise; `reference` is log p_out."""
    # With a = 1 the second term is log 0 and drops out.
    constant = np.log((1 - a) / 2) if a < 1 else -np.inf
    return log_p - np.logaddexp(np.log((1 + a) / 2) + reference, constant)


def dominated_share(log_ratio, population, inside, gamma: float) -> np.ndarray:
    """Share of the population other than x with LR(x) / LR(z) >= gamma, by sort and search.

    log_ratio (n,), population (Z,) sorted, inside (n,) bool: x is itself in the population -> (n,).
    """
    count = np.searchsorted(population, log_ratio - np.log(gamma), side="right")
    itself = inside & (gamma == 1)  # LR(x) / LR(x) = 1
    return (count - itself) / (len(population) - inside)


def score(target: Signals, log_p, reference, models, points, a: float, gammas) -> list[np.ndarray]:
    """RMIA scores of the (model, point) rows, (n,), one array for each gamma. log_p, reference: (R, N)."""
    scores = [np.empty(len(points)) for _ in gammas]
    for model in np.unique(models):
        rows = models == model
        ratio = log_ratios(log_p[model], reference[model], a)
        inside = (target.member[model] == 0) & np.isfinite(ratio)
        population, x = np.sort(ratio[inside]), points[rows]
        for gamma, column in zip(gammas, scores, strict=True):
            column[rows] = dominated_share(ratio[x], population, inside[x], gamma)
    return scores


def rmia(target: Signals, *, seed: int = 0) -> Result:
    """RMIA scores of the victim's audit points, (A,). Raises ValueError where there is no reference. `seed` is unused.

    Between equally good pairs of a and gamma (by AUC on the shadows) the first of the grid is taken.
    """
    shadow, victim = audit_rows(target)
    log_p = -cross_entropy(target.logits, target.labels)  # (R, N)
    reference = references(log_p, references_of(target, "rmia"))
    member, best = target.member[shadow], (-1.0,)
    for a in OFFLINE_A:
        for gamma, scores in zip(GAMMA, score(target, log_p, reference, *shadow, a, GAMMA), strict=True):
            if (auc := roc_auc_score(member, scores)) > best[0]:
                best = (auc, a, gamma, scores)
    _, a, gamma, shadow_scores = best
    return decide(shadow_scores, member, score(target, log_p, reference, *victim, a, (gamma,))[0])
