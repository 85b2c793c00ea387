"""Yuan & Zhang 2022, Membership inference attacks and defenses in neural network pruning (USENIX Security): PPB.

Pair-based posterior balancing (section 7): attacks use the shape of the posterior, which differs between points that
the model has memorised and points that it has not. Training therefore draws the posteriors of any two samples, each
sorted in descending order, together:

    loss = cross-entropy + lambda * mean over pairs of KL(sorted p(x_i) || sorted p(x_j))

Batches are in random order, so sample i of a batch's first half is paired with sample i of its second half. The last
sample of an odd batch has no partner.
"""

import torch.nn.functional as F
from torch import Tensor

from defenses.procedure import Procedure


def divergence(logits: Tensor) -> Tensor:
    """Mean KL divergence between the sorted posteriors of a batch's pairs, (B, C) logits -> (); 0 without a pair."""
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
