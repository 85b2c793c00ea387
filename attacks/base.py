"""Lassila, Östman, Ngo, Graell i Amat 2025, Practical Bayes-optimal membership inference attacks (NeurIPS): BASE.

The Bayes-optimal score is the point's log-likelihood under the target minus the log of its mean likelihood under models
drawn from the posterior without the point (Sablayrolles et al. 2019, section 4). The references stand for those:

    score(x) = log p(x | target) - log mean_k p(x | reference k)

With a = 1 and gamma = 1 RMIA ranks points in the same order.
"""

from attacks.arrays import Result, Signals, audit_rows, cross_entropy, decide, references_of
from attacks.rmia import log_ratios, references


def base(target: Signals, *, seed: int = 0) -> Result:
    """Scores of the victim's audit points, (A,). `seed` is unused. Raises ValueError where there is no reference."""
    shadow, victim = audit_rows(target)
    log_p = -cross_entropy(target.logits, target.labels)  # (R, N)
    score = log_ratios(log_p, references(log_p, references_of(target, "base")), 1.0)
    return decide(score[shadow], target.member[shadow], score[victim])
