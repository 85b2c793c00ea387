"""Yuan & Zhang 2022, Membership inference attacks and defenses in neural network pruning (USENIX Security): PPB.

Pair-based posterior balancing (section 7): attacks live on the shape of the posterior, which differs between points
that are memorised and points that are not. So the posteriors of any two samples, each sorted in descending order, are
drawn together:

    loss = cross-entropy + lambda * mean over pairs of KL(sorted p(x_i) || sorted p(x_j))

A batch in random order is its own pairing: sample i of the first half with sample i of the second; of an odd batch the
last one has no partner.
"""

import torch.nn.functional as F
from torch import Tensor

from defenses.procedure import Procedure


def divergence(logits: Tensor) -> Tensor:
    """Mean KL divergence between the sorted posteriors of a batch's pairs, (B, C) -> (); 0 where there is no pair."""
    half = len(logits) // 2
    if half == 0:
        return logits.sum() * 0
    ranked = logits.float().log_softmax(dim=1).sort(dim=1, descending=True).values
    first, second = ranked[:half], ranked[half : 2 * half]
    return (first.exp() * (first - second)).sum(dim=1).mean()


class PosteriorBalancing(Procedure):
    """`weight` is lambda; the paper uses 4 for CIFAR-10."""

    def __init__(self, weight: float, *, num_cls: int, seed: int) -> None:
        super().__init__()
        self.weight = weight

    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels) + self.weight * divergence(logits)
