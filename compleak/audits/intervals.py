"""95 % intervals of the metrics. Members and non-members come as two arrays, m and n long, already checked."""

import functools
from typing import NamedTuple

import numpy as np
from scipy.stats import beta

CONFIDENCE = 0.95
REPLICATES = 1000


def clopper_pearson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact interval of a binomial proportion (Clopper & Pearson 1934)."""
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, successes, trials - successes + 1) if successes > 0 else 0.0
    high = beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


class Resamples(NamedTuple):
    """How often each replicate of the bootstrap draws each point. Read-only: all rows of a table share them."""

    members: np.ndarray  # (replicates, m) uint16
    others: np.ndarray  # (replicates, n) uint16


@functools.lru_cache(maxsize=4)
def draw_resamples(n_member: int, n_other: int, seed: int, replicates: int) -> Resamples:
    """Draw members from members and non-members from non-members, with replacement."""
    rng = np.random.default_rng(seed)
    resamples = Resamples(
        np.empty((replicates, n_member), dtype=np.uint16),
        np.empty((replicates, n_other), dtype=np.uint16),
    )
    for row in range(replicates):
        for counts in resamples:
            points = counts.shape[1]
            counts[row] = np.bincount(rng.integers(points, size=points), minlength=points)
    for counts in resamples:
        counts.setflags(write=False)
    return resamples


def resampled_accuracy(member_decisions, other_decisions, resamples: Resamples) -> np.ndarray:
    """Balanced accuracy of each replicate, (replicates,). Decisions are bool, (m,) and (n,)."""
    hits = resamples.members[:, member_decisions].sum(axis=1, dtype=np.int64) / len(member_decisions)
    alarms = resamples.others[:, other_decisions].sum(axis=1, dtype=np.int64) / len(other_decisions)
    return (hits + 1 - alarms) / 2


def resampled_auc(member_scores, other_scores, resamples: Resamples) -> np.ndarray:
    """AUC of each replicate, (replicates,), exact: ranks are computed once and weighted by the draws' counts."""
    order = np.argsort(other_scores, kind="stable")
    ranked = other_scores[order]
    below = np.searchsorted(ranked, member_scores, side="left")
    up_to = np.searchsorted(ranked, member_scores, side="right")
    tied = bool((below != up_to).any())
    values = np.empty(len(resamples.members))
    for row, (member_counts, other_counts) in enumerate(zip(*resamples, strict=True)):
        passed = _counts_up_to_rank(other_counts[order])
        twice = passed[below] + passed[up_to] if tied else 2 * passed[below]
        # int64, because a product of uint16 overflows.
        values[row] = member_counts.astype(np.int64) @ twice / (2 * len(ranked))
    return values / len(member_scores)


def resampled_tpr(member_scores, other_scores, resamples: Resamples, fpr: float) -> np.ndarray:
    """TPR at this FPR of each replicate, (replicates,); the threshold is read off the replicate's own non-members."""
    order = np.argsort(other_scores, kind="stable")
    ranked = other_scores[order]
    n = len(ranked)
    allowed_alarms = int((np.arange(n) / n <= fpr).sum()) - 1
    values = np.empty(len(resamples.members))
    for row, (member_counts, other_counts) in enumerate(zip(*resamples, strict=True)):
        passed = _counts_up_to_rank(other_counts[order])
        highest_spared = np.searchsorted(passed, n - allowed_alarms) - 1
        values[row] = member_counts.astype(np.int64) @ (member_scores > ranked[highest_spared])
    return values / len(member_scores)


def _counts_up_to_rank(counts) -> np.ndarray:
    """(n + 1,) int64: how many draws lie below each rank. counts: (n,), in the order of the scores."""
    return np.concatenate([[0], counts.cumsum(dtype=np.int64)])


def percentile_interval(values) -> tuple[float, float]:
    """The bootstrap's percentile interval from its replicates (Efron 1979)."""
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
