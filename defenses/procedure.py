"""One step of training, and what a defence may change of it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core import devices


class Procedure:
    """Plain training: every point once an epoch, cross-entropy, one optimizer step a batch.

    `penalty` is Network Slimming's weight of the L1 norm of all batch-norm gammas (Liu et al. 2017, eq. 1).
    """

    needs_reserve = False  # whether model and original leave out points for it (`data.splits.make_reserve`)
    steps_on_reserve = False  # whether each step sees points of the reserve

    def __init__(self, penalty: float = 0.0) -> None:
        self.penalty = penalty

    @staticmethod
    def check(model: nn.Module) -> None:
        """UserError where this network cannot be trained like this."""

    def start(self, model: nn.Module, optimizer, examples: int, batch_size: int, reserve: Tensor | None):
        """Get ready for a training of `examples` points; returns the optimizer to use.

        reserve: network inputs (n, ...) of the reserve, where the training has one.
        """
        return optimizer

    def begin_epoch(self, generator: torch.Generator) -> None:
        """Draw what the epoch needs of randomness beside its batches."""

    def batches(self, order: Tensor, batch_size: int, generator: torch.Generator) -> list[Tensor]:
        """The steps of one epoch as index tensors. order: (n,) a permutation of the members."""
        return list(order.tensor_split(math.ceil(len(order) / batch_size)))

    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What a step minimises, of (B, C) logits and (B,) labels."""
        return F.cross_entropy(logits, labels)

    def step(self, model, optimizer, inputs: Tensor, labels: Tensor, reserve: tuple[Tensor, Tensor] | None) -> Tensor:
        """One step on a batch; returns the objective before it, a detached 0-d tensor.

        reserve: inputs and labels of as many points of the reserve, where the procedure steps on it.
        """
        optimizer.zero_grad(set_to_none=True)
        with devices.training_autocast(inputs.device):
            loss = self.objective(model(inputs), labels)
            if self.penalty:
                loss = loss + self.penalty * sum(gamma.abs().sum() for gamma in gammas(model))
        loss.backward()
        optimizer.step()
        return loss.detach()

    def account(self, examples: int, batch_size: int, epochs: int, earlier: list | None) -> dict:
        """What a whole training of this kind adds to a model's facts; `earlier` is the privacy spent before it."""
        return {}

    def state_dict(self) -> dict:
        """What a stopped training needs of the procedure to go on, beside model and optimizer."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass


def gammas(model: nn.Module) -> list[Tensor]:
    """The scales of all batch normalisations."""
    return [module.weight for module in model.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)]
