"""Szegedy et al. 2016, Rethinking the Inception architecture for computer vision (CVPR), section 7: label smoothing.

A plain control, made to generalise better and not to hide anybody: the label's probability is 1 - epsilon + epsilon / C
in place of 1, and epsilon / C for each of the other classes. Kaya & Dumitras (2021, ICML) found that it can raise
leakage, because members are pulled towards one and the same posterior.
"""

import torch.nn.functional as F
from torch import Tensor

from defenses.procedure import Procedure


class LabelSmoothing(Procedure):
    """`share` is epsilon, the part of the label that is spread over all classes."""

    def __init__(self, share: float, *, num_cls: int, seed: int) -> None:
        super().__init__()
        self.share = share

    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.share)
