"""Metrics of a membership inference attack, each with its 95 % interval. Arrays in, numbers out, as fractions.

Everywhere: `scores` (n,) float64, larger = more likely a member; `decision` (n,) bool; `member` (n,) of 0/1, the truth.
Points with equal scores cannot be told apart, so they enter every count together. Every function raises ValueError for
arrays of different lengths, for NaN scores (but `paired_difference`), and unless there are both members and
non-members.
"""

import numpy as np
from scipy.stats import norm

from compleak.audits import intervals
from compleak.audits.intervals import REPLICATES

FPR = 0.001
TPR = f"tpr_at_fpr_{FPR}"
FEW_REPLICATES = 50  # enough for a standard error; an interval takes more
WIDER_FPR = 0.01  # which a small audit set can bound where it cannot bound the rate at FPR
WIDER_TPR = f"tpr_at_fpr_{WIDER_FPR}"
PRIORS = (0.001, 0.01, 0.1, 0.5)  # of membership, for the precision of an accusation
EXACT_PAIRS = 400  # of a member and a non-member, up to which a p-value is exact
INTERVAL_ENDS = ("", "_lo", "_hi")
# The columns of a table in their order; `evaluate` gives these and a few more.
COLUMNS = (
    *(name + end for name in ("acc", "auc", TPR) for end in INTERVAL_ENDS),
    *("n_member", "n_nonmember"),
)


def balanced_accuracy(decision, member) -> float:
    """Mean of the true positive and the true negative rate."""
    hits, alarms = _split_decisions(decision, member)
    return float(hits.mean() + 1 - alarms.mean()) / 2


def roc_curve(scores, member) -> tuple[np.ndarray, np.ndarray]:
    """(fpr, tpr), each (k + 1,) for k distinct scores, from (0, 0) to (1, 1): one point per block of equal scores."""
    members, others = _counts_per_score(scores, member)
    tpr = members[::-1].cumsum() / members.sum()
    fpr = others[::-1].cumsum() / others.sum()
    return np.r_[0, fpr], np.r_[0, tpr]


def auc(scores, member) -> float:
    """Chance that a random member scores above a random non-member, an equal score counting half (Mann-Whitney)."""
    members, others = _counts_per_score(scores, member)
    twice = members @ (2 * others.cumsum() - others)  # twice the rank sum is an exact integer
    return float(twice / (2 * members.sum() * others.sum()))


def auc_p_value(value: float, n_member: int, n_other: int) -> float:
    """Two-sided p-value of an AUC if there is nothing to find (Mann & Whitney 1947), for scores without ties.

    Exact for few points, where the normal approximation finds too much: 3 members above 3 non-members have a p-value
    of 0.1, not of 0.0495. Ties make the exact one larger than it need be.
    """
    if n_member * n_other <= EXACT_PAIRS:
        return _exact_auc_p_value(value, int(n_member), int(n_other))
    deviation = np.sqrt((n_member + n_other + 1) / (12 * n_member * n_other))
    return float(2 * norm.sf(abs(value - 0.5) / deviation))


def _exact_auc_p_value(value: float, n_member: int, n_other: int) -> float:
    """From the number of orders of all points in which members win so many pairs, or so few."""
    pairs = n_member * n_other
    orders = np.zeros((n_member + 1, pairs + 1))  # by how many members are placed and how many pairs they win
    orders[0, 0] = 1
    for others_below in range(n_other + 1):
        for members in range(1, n_member + 1):
            orders[members, others_below:] += orders[members - 1, : pairs + 1 - others_below]
    won = round(2 * value * pairs) // 2
    lost = round(2 * (1 - value) * pairs) // 2
    extreme = orders[n_member, max(won, lost) :].sum()
    return float(min(1, 2 * extreme / orders[n_member].sum()))


def tpr_at_fpr(scores, member, fpr: float = FPR) -> float:
    """The largest TPR of a threshold whose empirical FPR does not exceed `fpr`; no interpolation."""
    rates, tpr = roc_curve(scores, member)
    return float(tpr[rates <= fpr].max())


def log_auc(scores, member, least: float = FPR) -> float:
    """Area under the ROC curve over log FPR from `least` to 1, as a fraction; no interpolation.

    Half of it, at the default, is about rates below 3 %: one number for the whole of an attack and for its sharp end.
    """
    rates, tpr = roc_curve(scores, member)
    edges = np.log(np.clip(np.r_[rates, 1], least, 1))
    return float(np.diff(edges) @ tpr / -np.log(least))


def log_auc_difference_error(scores_a, scores_b, member, *, seed: int, replicates: int = FEW_REPLICATES) -> float:
    """The standard error of the difference of two attacks' `log_auc` on the same points, by paired bootstrap."""
    scores_a, member = _checked(scores_a, member)
    scores_b, _ = _checked(scores_b, member)
    rng = np.random.default_rng(seed)
    members, others = np.flatnonzero(member), np.flatnonzero(~member)
    differences = []
    for _ in range(replicates):
        drawn = np.r_[rng.choice(members, len(members)), rng.choice(others, len(others))]
        differences.append(log_auc(scores_a[drawn], member[drawn]) - log_auc(scores_b[drawn], member[drawn]))
    return float(np.std(differences, ddof=1))


def strict_threshold(scores, member, fpr: float = FPR) -> float:
    """The smallest score at which at most `fpr` of the non-members are accused; inf if every score accuses more."""
    scores, member = _checked(scores, member)
    values, block = np.unique(scores, return_inverse=True)
    others = np.bincount(block[~member], minlength=len(values))
    at_least = others[::-1].cumsum()[::-1]
    too_many = (at_least > fpr * others.sum()).sum()
    return float(np.append(values, np.inf)[too_many])


def precision(tpr: float, fpr: float, prior: float) -> float:
    """Share of members among the accused if `prior` of all points are members; NaN if nobody is accused."""
    right = tpr * prior
    wrong = fpr * (1 - prior)
    return right / (right + wrong) if right + wrong else float("nan")


def accusations(decision, member) -> dict[str, float]:
    """What a threshold fixed in advance does: strict_tpr, strict_fpr and ppv_<prior>, each with _lo and _hi.

    The intervals of both rates are Clopper and Pearson's; that of the precision takes the worst and the best of both.
    """
    hits, alarms = _split_decisions(decision, member)
    tpr, tpr_low, tpr_high = _rate_with_interval(hits)
    fpr, fpr_low, fpr_high = _rate_with_interval(alarms)
    columns = {"strict_tpr": (tpr, tpr_low, tpr_high), "strict_fpr": (fpr, fpr_low, fpr_high)}
    for prior in PRIORS:
        columns[f"ppv_{prior}"] = (
            precision(tpr, fpr, prior),
            precision(tpr_low, fpr_high, prior),
            precision(tpr_high, fpr_low, prior),
        )
    return interval_columns(columns)


def paired_difference(
    scores_a, scores_b, member, *, seed: int, replicates: int = REPLICATES, scored_by=None
) -> tuple[float, float, float]:
    """(AUC of a - AUC of b, low, high): both attacks on the same resamples of the same points.

    The points are those that both attacks scored; NaN is the score of a point that an attack left out. The interval
    spans the bootstrap's and `intervals.difference_interval_of_any_size`. scored_by: (n,) where the scores are of
    several fits; see `_interval_over_fits`.
    """
    scores_a, member = _as_long_as(scores_a, member)
    scores_b, _ = _as_long_as(scores_b, member)
    both = ~(np.isnan(scores_a) | np.isnan(scores_b))
    scores, member = np.c_[scores_a, scores_b][both], member[both]
    fits = None if scored_by is None else np.asarray(scored_by)[both]
    difference = auc(scores[:, 0], member) - auc(scores[:, 1], member)

    def interval(scores, member) -> tuple[float, float]:
        return _difference_interval(*np.transpose(scores), member, seed, replicates)

    return difference, *_interval_over_fits(interval, scores, member, fits, difference)


def _difference_interval(scores_a, scores_b, member, seed: int, replicates: int) -> tuple[float, float]:
    resampled = []
    placed = []
    for scores in (scores_a, scores_b):
        members, others = _split(scores, member)
        resamples = intervals.draw_resamples(len(members), len(others), seed, replicates)
        resampled.append(intervals.resampled_auc(members, others, resamples))
        placed.append(intervals.placements(members, others))
    bootstrap = intervals.percentile_interval(resampled[0] - resampled[1])
    return intervals.hull(bootstrap, intervals.difference_interval_of_any_size(*placed))


def accuracy_interval(
    decision, member, *, seed: int, replicates: int = REPLICATES, scored_by=None
) -> tuple[float, float]:
    """(low, high) of the balanced accuracy, which is the AUC of the decisions: the interval is that of an AUC.

    scored_by: (n,) where the decisions are of several fits; see `_interval_over_fits`.
    """

    def interval(decision, member) -> tuple[float, float]:
        hits, alarms = _split_decisions(decision, member)
        resamples = intervals.draw_resamples(len(hits), len(alarms), seed, replicates)
        bootstrap = intervals.percentile_interval(intervals.resampled_accuracy(hits, alarms, resamples))
        return intervals.hull(bootstrap, intervals.auc_interval_of_any_size(intervals.placements(hits, alarms)))

    return _interval_over_fits(interval, decision, member, scored_by, balanced_accuracy(decision, member))


def auc_interval(scores, member, *, seed: int, replicates: int = REPLICATES, scored_by=None) -> tuple[float, float]:
    """(low, high) of the AUC: it spans the bootstrap's interval and `intervals.auc_interval_of_any_size`.

    scored_by: (n,) where the scores are of several fits; see `_interval_over_fits`.
    """

    def interval(scores, member) -> tuple[float, float]:
        members, others = _split(scores, member)
        resamples = intervals.draw_resamples(len(members), len(others), seed, replicates)
        bootstrap = intervals.percentile_interval(intervals.resampled_auc(members, others, resamples))
        return intervals.hull(bootstrap, intervals.auc_interval_of_any_size(intervals.placements(members, others)))

    return _interval_over_fits(interval, scores, member, scored_by, auc(scores, member))


def _interval_over_fits(interval, values, member, fits, value: float) -> tuple[float, float]:
    """interval(values, member) or, for values of several fits, the mean of each fit's interval, spanned with `value`.

    fits: (n,), the fit that gave each value, or None. If a fit on half A is judged on half B and the other way round,
    the two err together: each learns by chance what the other then finds by chance. An interval over all points held
    an AUC of 0.5 in 84 % of worlds without a leak, with a linear fit of 20 features on 1,000 + 1,000 points. The mean
    of two intervals is as wide as one half's own, and holds the truth even if both err by the same amount: in 96 to
    100 % of worlds, with 20, 200 and 1,000 points a side, 1 to 20 features and AUCs of 0.5 to 0.86.
    """
    if fits is None:
        return interval(values, member)
    fits, values, member = np.asarray(fits), np.asarray(values), np.asarray(member)
    ends = [interval(values[fits == fit], member[fits == fit]) for fit in np.unique(fits)]
    low, high = np.mean(ends, axis=0)
    return min(float(low), value), max(float(high), value)


def tpr_interval(scores, member, fpr: float = FPR) -> tuple[float, float]:
    """(low, high) of `tpr_at_fpr`, by `intervals.tpr_interval`: the threshold's own uncertainty is part of it."""
    return intervals.tpr_interval(*_split(scores, member), fpr)


def evaluate(scores, decision, member, *, seed: int, replicates: int = REPLICATES, scored_by=None) -> dict[str, float]:
    """A table's row: COLUMNS, then the deployed threshold's fpr_at_threshold and WIDER_TPR, each with its _lo and _hi.

    The rate of a threshold that was fixed beforehand has Clopper and Pearson's interval. scored_by: (n,), the
    fit behind each score and decision, where there are several; the intervals of AUC and ACC allow for it. Those of
    rates need not: as they are, they held the truth in 93 to 100 % of the same worlds.
    """
    hits, alarms = _split_decisions(decision, member)
    options = {"seed": seed, "replicates": replicates}
    columns = {
        "acc": (
            balanced_accuracy(decision, member),
            *accuracy_interval(decision, member, scored_by=scored_by, **options),
        ),
        "auc": (auc(scores, member), *auc_interval(scores, member, scored_by=scored_by, **options)),
        TPR: (tpr_at_fpr(scores, member), *tpr_interval(scores, member)),
        "fpr_at_threshold": _rate_with_interval(alarms),
        WIDER_TPR: (tpr_at_fpr(scores, member, WIDER_FPR), *tpr_interval(scores, member, WIDER_FPR)),
    }
    return {**interval_columns(columns), "n_member": len(hits), "n_nonmember": len(alarms)}


def interval_columns(columns: dict[str, tuple]) -> dict[str, float]:
    """(value, low, high) of each name under `name`, `name_lo` and `name_hi`."""
    table_row = {}
    for name, values in columns.items():
        for end, value in zip(INTERVAL_ENDS, values, strict=True):
            table_row[name + end] = value
    return table_row


def _rate_with_interval(decisions) -> tuple[float, float, float]:
    """(rate, low, high) of the accused among these points: (n,) bool."""
    accused = int(decisions.sum())
    return accused / len(decisions), *intervals.clopper_pearson(accused, len(decisions))


def _counts_per_score(scores, member) -> tuple[np.ndarray, np.ndarray]:
    """How many members and how many non-members have each distinct score, (k,) ints each, in ascending order."""
    scores, member = _checked(scores, member)
    values, block = np.unique(scores, return_inverse=True)
    members = np.bincount(block[member], minlength=len(values))
    others = np.bincount(block[~member], minlength=len(values))
    return members, others


def _split_decisions(decision, member) -> tuple[np.ndarray, np.ndarray]:
    """The decisions on members and on non-members, bool."""
    return _split(np.asarray(decision, dtype=bool), member)


def _split(values, member) -> tuple[np.ndarray, np.ndarray]:
    """The values of members and those of non-members, in file order."""
    values, member = _checked(values, member)
    return values[member], values[~member]


def _checked(values, member) -> tuple[np.ndarray, np.ndarray]:
    values, member = _as_long_as(values, member)
    if np.isnan(values).any():
        raise ValueError(f"{np.isnan(values).sum()} of {len(values)} scores are NaN")
    if member.all() or not member.any():
        raise ValueError("both members and non-members are needed")
    return values, member


def _as_long_as(values, member) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(values)
    member = np.asarray(member).astype(bool)
    if values.shape != member.shape or values.ndim != 1:
        raise ValueError(f"one value and one membership per point wanted, got shapes {values.shape} and {member.shape}")
    return values, member
