"""Chen, Yu, Fritz 2022, RelaxLoss: defending membership inference attacks without losing utility (ICLR).

Members give themselves away by a small loss. Training therefore keeps the mean loss of a batch near a level alpha
instead of driving it to zero (algorithm 1). With L the batch's mean cross-entropy:

    L above alpha                       gradient descent on L, as usual
    L at most alpha, epochs 0, 2, ...   gradient ascent on L
    L at most alpha, epochs 1, 3, ...   posterior flattening: gradient descent on the cross-entropy with soft labels

A soft label gives its point's class the probability that the model gives it now, and shares out the rest equally among
the other classes. Flattening therefore leaves the probability of the class alone and takes away what the other
probabilities say of the point. Epochs are counted from 0, in fine-tuning anew.

The authors' code differs. Where L is at most alpha in odd epochs, it ascends on the loss of all points, and adds
flattening for those that are predicted wrongly: it minimises the mean of (1 - correct) * flattening - loss over the
points. It also bounds the soft label's probability of the class. Neither is done here. The paper itself was not at hand
when this was written: what stands above follows summaries of it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.procedure import Procedure


def soft_labels(posteriors: Tensor, labels: Tensor) -> Tensor:
    """Posteriors (B, C) with everything but the label's probability shared out equally; labels (B,) -> (B, C)."""
    of_class = posteriors.gather(1, labels[:, None])
    of_others = (1 - of_class) / (posteriors.shape[1] - 1)
    return of_others.expand_as(posteriors).scatter(1, labels[:, None], of_class)


class RelaxLoss(Procedure):
    """`level` is alpha, the target loss; the authors use 1 for a ResNet-20 on CIFAR-10 and 0.8 for Purchase100."""

    def __init__(self, level: float, *, num_cls: int, seed: int) -> None:
        super().__init__()
        self.level = level
        self.epochs_begun = 0

    def begin_epoch(self, generator):
        self.epochs_begun += 1

    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = logits.float()
        loss = F.cross_entropy(logits, labels)
        epoch = self.epochs_begun - 1
        if epoch % 2 == 0:
            return (loss - self.level).abs()  # its gradient is that of the loss, with the sign turned below the level
        flattened = F.cross_entropy(logits, soft_labels(logits.detach().softmax(dim=1), labels))
        return torch.where(loss > self.level, loss, flattened)

    def state_dict(self) -> dict:
        return {"epochs_begun": self.epochs_begun}

    def load_state_dict(self, state: dict) -> None:
        self.epochs_begun = state["epochs_begun"]
