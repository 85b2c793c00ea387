"""Zarifzadeh, Liu, Shokri 2024, Low-cost high-power membership inference attacks (ICML): offline RMIA.

A point is called a member if the target likes it better than it likes the population, relative to models that did not
train on the point (section 3). With the likelihood ratio LR(x) = p(x | target) / p(x),

    score(x) = share of population points z with LR(x) / LR(z) >= gamma                           (equations 2 and 3)
    p(x) = ((1 + a) p_out(x) + (1 - a)) / 2, p_out(x) the mean over models not trained on x       (appendix B.2.2)

The likelihood is the softmax at a temperature or one of three variants of it (appendix B.2.1): with a Taylor polynomial
in place of exp, with a margin taken off the true class, or with both. The research code's polynomial ends one degree
earlier than the paper's, at an odd one, where it can be negative; this is the paper's.

p_out comes from the references: the shadows for the victim's points; the victim and the other shadows for a shadow's
points. The population of a model are the points it is known not to have trained on; p(z) comes from references that did
not train on z, with the same a. The authors' research code does the same in its offline form, and privacy_meter takes a
population that no model trained on. Code that follows algorithm 1 of the paper line by line takes p(z), in line 17, as
the mean over all references, without a; the algorithm itself was not at hand. If some of these references trained on z,
those references give such z a higher p(z), so LR(z) is too small and even a non-member x beats most such z. That would
change the scores, but not the order of the victim's points: the score is a non-decreasing function of LR(x), and only
other points would tie. No point is compared with itself. The authors' code counts z with a ratio above gamma, here a
ratio equal to gamma counts too.

Where x has as many references as z, a non-member x and a z are the same kind of thing, and the score of a non-member is
uniform at gamma = 1. That is so for the points of the shadows. The victim's points have more references: all shadows,
where a z has those that did not train on it. Their LR varies less, so that with eight shadows hardly a non-member of
the victim scores above 0.999. The threshold for 0.1 % false alarms, chosen on the shadows (`strict_*` in a table), then
accuses fewer than 0.1 % and may accuse nobody. Thinning the references of x to the number of z's would mend this and
cost AUC. The order of the scores, and so AUC and TPR, are not affected.

Where all points are audited, as LiRA's authors have it, there is no point that the victim is known not to have trained
on. The population of each model are then its audited points, members and non-members alike. This holds for the shadows
as well, so that a threshold chosen on them means the same for the victim. The order of scores does not depend on the
population, apart from ties.

Likelihood, temperature, a and gamma are chosen on the shadows: first the others with gamma = 1, then gamma, which only
decides which points tie and hardly moves the AUC.
"""

import numpy as np

from attacks.common.folds import choose_out_of_fold
from attacks.common.references import checked_outsiders, known_outsiders, reference_count, reference_log_p
from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.statistics import log_sigmoid, taylor_log_p, tempered_confidence
from attacks.common.thresholds import choose_and_decide

OFFLINE_A = tuple(np.arange(11) / 10)
GAMMA = (1.0, 1.25, 1.5, 2.0, 4.0)
MARGIN = 0.6  # taken off the true class: the paper's value
# The likelihoods and their temperatures. The softmax with a margin m has the log-odds of the softmax minus m.
SOFTMAX_TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 4.0)
VARIANT_TEMPERATURES = (1.0, 2.0, 4.0)
FEWEST_OUTSIDERS = 0.25  # per audited point; a score is a share of the population, and coarse if that is small


def likelihoods(target: Signals):
    """Name and log p(x | model), (R, N), of each likelihood to choose from, softmax at temperature 1 first."""
    answers = target.logits, target.labels
    odds = tempered_confidence(*answers, SOFTMAX_TEMPERATURES)
    for temperature, of_temperature in zip(SOFTMAX_TEMPERATURES, odds, strict=True):
        yield f"softmax, temperature {temperature:g}", log_sigmoid(of_temperature)
        if temperature in VARIANT_TEMPERATURES:
            yield f"sm-softmax, temperature {temperature:g}", log_sigmoid(of_temperature - MARGIN)
    for temperature in VARIANT_TEMPERATURES:
        yield f"taylor-softmax, temperature {temperature:g}", taylor_log_p(*answers, temperature)
        yield f"sm-taylor-softmax, temperature {temperature:g}", taylor_log_p(*answers, temperature, MARGIN)


@np.errstate(invalid="ignore")  # NaN where there is no reference
def log_ratios(log_p, reference, a: float) -> np.ndarray:
    """log LR = log p(x | target) - log p(x), elementwise; `reference` is log p_out."""
    if a == 1:  # p(x) is p_out alone, whose exponential may underflow
        return log_p - reference
    return log_p - np.log((1 + a) / 2 * np.exp(reference) + (1 - a) / 2)


def dominated_share(log_ratio, population, inside, gamma: float) -> np.ndarray:
    """Share of the population other than x with LR(x) / LR(z) >= gamma, by sort and search.

    log_ratio (n,); population (Z,), sorted; inside (n,) bool: x itself is in the population -> (n,).
    """
    count = np.searchsorted(population, log_ratio - np.log(gamma), side="right")
    itself = inside & (gamma == 1)  # LR(x) / LR(x) = 1
    return (count - itself) / (len(population) - inside)


def populations(target: Signals, outsiders) -> np.ndarray:
    """(R, N) bool: the population points of each model. outsiders: (R, N) bool, the models that are references.

    They are the points that the model is known not to have trained on and was asked about or, where the victim has too
    few of those, the model's audited points; in either case points that have a reference.
    """
    comparable = reference_count(outsiders) > 0
    known = known_outsiders(target) & comparable
    if known[0].sum() < FEWEST_OUTSIDERS * target.audit[0].sum():
        return target.audit & comparable
    return known


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


def rmia(target: Signals, *, seed: int = 0) -> Result:
    """RMIA scores of the victim's audit points, (A,). `seed` is unused.

    Raises Unusable where a point has no reference.
    """
    shadow, victim = audit_rows(target)
    outsiders = checked_outsiders(target, "rmia")
    population = populations(target, outsiders)
    member = target.member[shadow]
    settings, scores = [], []
    for name, log_p in likelihoods(target):
        reference = reference_log_p(log_p, outsiders)
        for a in OFFLINE_A:
            settings.append((name, log_p, reference, a))
            scores += score(log_p, reference, population, shadow, a, GAMMA[:1])
    best = [settings[option] for option in choose_out_of_fold(scores, member, shadow).options]

    pairs = [(setting, gamma) for setting in best for gamma in GAMMA]
    scores = [of_gamma for _, *known, a in best for of_gamma in score(*known, population, shadow, a, GAMMA)]
    names = [f"{name}, a {a:g}, gamma {gamma:g}" for (name, _, _, a), gamma in pairs]

    def score_victim(option: int) -> np.ndarray:
        (_, log_p, reference, a), gamma = pairs[option]
        return score(log_p, reference, population, victim, a, (gamma,))[0]

    return choose_and_decide(names, scores, member, shadow, score_victim)
