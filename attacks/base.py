"""Lassila, Östman, Ngo, Graell i Amat 2025, Practical Bayes-optimal membership inference attacks (NeurIPS): BASE.

The Bayes-optimal score is the point's log-likelihood under the target minus the log of its mean likelihood under models
drawn from the posterior without the point (Sablayrolles et al. 2019, section 4). Here the references stand for those:

    score(x) = log p(x | target) - log mean_k p(x | reference k)

RMIA with a = 1 and gamma = 1 ranks points in the same order.
"""

from attacks.common.references import checked_outsiders, reference_log_p
from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.statistics import cross_entropy
from attacks.common.thresholds import decide


def base(target: Signals, *, seed: int = 0) -> Result:
    """Scores of the victim's audit points, (A,). `seed` is unused. Raises Unusable where a point has no reference."""
    shadow, victim = audit_rows(target)
    log_p = -cross_entropy(target.logits, target.labels)  # (R, N)
    scores = log_p - reference_log_p(log_p, checked_outsiders(target, "base"))
    return decide(scores[shadow], target.member[shadow], scores[victim])
