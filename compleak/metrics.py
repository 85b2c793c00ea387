"""Metrics of a membership inference attack, each with its 95 % interval. Arrays in, numbers out, as fractions.

Everywhere: `scores` (n,) float64, larger = more likely a member; `decision` (n,) bool; `member` (n,) of 0/1, the truth.
Points with equal scores cannot be told apart, so they enter every count together.
"""

import functools

import numpy as np
from scipy.stats import beta, norm

FPR = 0.001
TPR = f"tpr_at_fpr_{FPR}"
PRIORS = (0.01, 0.1, 0.5)  # of membership, for the precision of an accusation
CONFIDENCE = 0.95
REPLICATES = 1000
# A table's columns in their order; `evaluate` gives these and a few more.
COLUMNS = (
    *(name + end for name in ("acc", "auc", TPR) for end in ("", "_lo", "_hi")),
    *("n_member", "n_nonmember"),
)


def balanced_accuracy(decision, member) -> float:
    """Mean of the true positive and the true negative rate."""
    decision, member = _checked(np.asarray(decision, dtype=bool), member)
    return float(decision[member].mean() + 1 - decision[~member].mean()) / 2


def roc_curve(scores, member) -> tuple[np.ndarray, np.ndarray]:
    """(fpr, tpr), each (k + 1,) for k distinct scores, from (0, 0) to (1, 1): one point per block of equal scores."""
    scores, member = _checked(scores, member)
    values, block = np.unique(-scores, return_inverse=True)
    tpr, fpr = (np.bincount(block[kind], minlength=len(values)).cumsum() / kind.sum() for kind in (member, ~member))
    return np.r_[0, fpr], np.r_[0, tpr]


def auc(scores, member) -> float:
    """Chance that a random member scores above a random non-member, an equal score counting half (Mann-Whitney)."""
    scores, member = _checked(scores, member)
    blocks, members, others = _blocks(scores, member)
    return _auc(np.bincount(members, minlength=blocks), np.bincount(others, minlength=blocks))


def chance_of(value: float, n_member: int, n_other: int) -> float:
    """Two-sided p-value of an AUC where there is nothing to find (Mann & Whitney 1947), for scores without ties."""
    deviation = np.sqrt((n_member + n_other + 1) / (12 * n_member * n_other))
    return float(2 * norm.sf(abs(value - 0.5) / deviation))


def tpr_at_fpr(scores, member, fpr: float = FPR) -> float:
    """The largest TPR of a threshold whose empirical FPR does not exceed `fpr`; no interpolation."""
    rates, tpr = roc_curve(scores, member)
    return float(tpr[rates <= fpr].max())


def log_auc(scores, member, least: float = FPR) -> float:
    """Area under the ROC curve over log FPR from `least` to 1, as a fraction; no interpolation.

    Half of it, at the default, is about rates below 3 %: one number for an attack's whole and for its sharp end.
    """
    rates, tpr = roc_curve(scores, member)
    edges = np.log(np.clip(np.r_[rates, 1], least, 1))
    return float(np.diff(edges) @ tpr / -np.log(least))


def strict_threshold(scores, member, fpr: float = FPR) -> float:
    """The smallest score at which at most `fpr` of the non-members are accused; inf where each one accuses more."""
    scores, member = _checked(scores, member)
    values, block = np.unique(scores, return_inverse=True)
    at_least = np.bincount(block[~member], minlength=len(values))[::-1].cumsum()[::-1]
    return float(np.append(values, np.inf)[(at_least > fpr * (~member).sum()).sum()])


def precision(tpr: float, fpr: float, prior: float) -> float:
    """Positive predictive value: how many of the accused are members where `prior` of all are; NaN where none is."""
    right, wrong = tpr * prior, fpr * (1 - prior)
    return right / (right + wrong) if right + wrong else float("nan")


def accusations(decision, member) -> dict[str, float]:
    """What a threshold fixed in advance does: strict_tpr, strict_fpr and ppv_<prior>, each with _lo and _hi.

    The rates' intervals are Clopper-Pearson's, the precision's takes the worst and the best of both.
    """
    decision, member = _checked(np.asarray(decision, dtype=bool), member)
    hits, alarms = (int(decision[kind].sum()) for kind in (member, ~member))
    tpr, fpr = hits / member.sum(), alarms / (~member).sum()
    (tpr_lo, tpr_hi), (fpr_lo, fpr_hi) = clopper_pearson(hits, member.sum()), clopper_pearson(alarms, (~member).sum())
    columns = {"strict_tpr": (tpr, tpr_lo, tpr_hi), "strict_fpr": (fpr, fpr_lo, fpr_hi)}
    for prior in PRIORS:
        corners = ((tpr, fpr), (tpr_lo, fpr_hi), (tpr_hi, fpr_lo))
        columns[f"ppv_{prior}"] = tuple(precision(*rates, prior) for rates in corners)
    return named(columns)


def clopper_pearson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact interval of a binomial proportion (Clopper & Pearson 1934)."""
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, successes, trials - successes + 1) if successes > 0 else 0.0
    high = beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


def bootstrap(scores, decision, member, *, seed: int, replicates: int = REPLICATES):
    """Percentile intervals (low, high) of balanced accuracy, AUC and TPR at FPR.

    Members and non-members are resampled separately.
    """
    scores, member = _checked(scores, member)
    decision = np.asarray(decision, dtype=bool)
    members, others = _resamples(int(member.sum()), int((~member).sum()), seed, replicates)
    hits = members[:, decision[member]].sum(axis=1, dtype=np.int64) / member.sum()
    alarms = others[:, decision[~member]].sum(axis=1, dtype=np.int64) / (~member).sum()
    return tuple(map(_percentiles, ((hits + 1 - alarms) / 2, *_resampled(scores, member, members, others))))


def paired_difference(scores_a, scores_b, member, *, seed: int, replicates: int = REPLICATES):
    """(AUC of a - AUC of b, low, high): both attacks on the same resamples of the same points."""
    checked = [_checked(scores, member) for scores in (scores_a, scores_b)]
    member = checked[0][1]
    drawn = _resamples(int(member.sum()), int((~member).sum()), seed, replicates)
    a, b = (_resampled(scores, member, *drawn)[0] for scores, _ in checked)
    return auc(scores_a, member) - auc(scores_b, member), *_percentiles(a - b)


def evaluate(scores, decision, member, *, seed: int, replicates: int = REPLICATES) -> dict[str, float]:
    """A table's row: COLUMNS, and the deployed threshold's fpr_at_threshold with its _lo and _hi.

    The rate of a threshold that was fixed beforehand has Clopper and Pearson's interval, ACC and AUC the bootstrap's.
    TPR at FPR, whose threshold is one of the sample's own highest non-members, has what both span: Clopper and
    Pearson's alone holds the truth a quarter of the time, the bootstrap's is empty where no member is found.
    Raises ValueError for arrays of different lengths, NaN scores, or an audit set without both members and non-members.
    """
    scores, member = _checked(scores, member)
    decision, _ = _checked(np.asarray(decision, dtype=bool), member)
    acc_interval, auc_interval, tpr_interval = bootstrap(scores, decision, member, seed=seed, replicates=replicates)
    tpr, n_member, n_other = tpr_at_fpr(scores, member), int(member.sum()), int((~member).sum())
    spanned = zip(tpr_interval, clopper_pearson(round(tpr * n_member), n_member), strict=True)
    alarms = int(decision[~member].sum())
    columns = {
        "acc": (balanced_accuracy(decision, member), *acc_interval),
        "auc": (auc(scores, member), *auc_interval),
        TPR: (tpr, *(end(pair) for end, pair in zip((min, max), spanned, strict=True))),
        "fpr_at_threshold": (alarms / n_other, *clopper_pearson(alarms, n_other)),
    }
    return {**named(columns), "n_member": n_member, "n_nonmember": n_other}


def named(columns: dict[str, tuple]) -> dict[str, float]:
    """(value, low, high) of each name under `name`, `name_lo` and `name_hi`."""
    return {
        name + end: v for name, values in columns.items() for end, v in zip(("", "_lo", "_hi"), values, strict=True)
    }


def _checked(values, member):
    values, member = np.asarray(values), np.asarray(member).astype(bool)
    if values.shape != member.shape or values.ndim != 1:
        raise ValueError(f"one value and one membership per point wanted, got shapes {values.shape} and {member.shape}")
    if np.isnan(values).any():
        raise ValueError(f"{np.isnan(values).sum()} of {len(values)} scores are NaN")
    if member.all() or not member.any():
        raise ValueError("both members and non-members are needed")
    return values, member


def _blocks(scores, member):
    """How many distinct scores there are, and the rank of each member's and each non-member's among them."""
    values, block = np.unique(scores, return_inverse=True)
    return len(values), block[member], block[~member]


def _auc(members, others) -> float:
    """AUC from counts per distinct score, in ascending order: (k,) ints. Twice the rank sum is an exact integer."""
    twice = members @ (2 * others.cumsum() - others)
    return float(twice / (2 * members.sum() * others.sum()))


@functools.lru_cache(maxsize=4)
def _resamples(n_member: int, n_other: int, seed: int, replicates: int):
    """How often each member (replicates, n_member) and non-member (replicates, n_other) is drawn, with replacement.

    Kept, since all rows of a table are resampled alike; read-only for that reason.
    """
    rng = np.random.default_rng(seed)
    drawn = [np.empty((replicates, n), dtype=np.uint16) for n in (n_member, n_other)]
    for row in range(replicates):
        for counts in drawn:
            n = counts.shape[1]
            counts[row] = np.bincount(rng.integers(n, size=n), minlength=n)
    for counts in drawn:
        counts.setflags(write=False)
    return tuple(drawn)


def _resampled(scores, member, members, others) -> tuple[np.ndarray, np.ndarray]:
    """AUC and TPR at FPR of each replicate, from how often it drew each member and non-member: exact, from counts."""
    order = np.argsort(scores[~member], kind="stable")
    ranked, own = scores[~member][order], scores[member]
    below, upto = (np.searchsorted(ranked, own, side=side) for side in ("left", "right"))
    tied = bool((below != upto).any())
    allowed = int((np.arange(len(ranked)) / len(ranked) <= FPR).sum()) - 1  # false alarms
    values = np.empty((2, len(members)))
    for row, (drawn, against) in enumerate(zip(members, others, strict=True)):
        drawn = drawn.astype(np.int64)  # a product of uint16 wraps round
        passed = np.concatenate([[0], against[order].cumsum(dtype=np.int64)])  # non-members up to each rank
        twice = passed[below] + passed[upto] if tied else 2 * passed[below]
        first = np.searchsorted(passed, len(ranked) - allowed) - 1  # rank of the highest that may not be accused
        values[:, row] = drawn @ twice / (2 * len(ranked)), drawn @ (own > ranked[first])
    return tuple(values / len(own))


def _percentiles(values) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
