"""One step of training, and what a defence may change of it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core import devices


class Procedure:
    """Plain training: every member once an epoch, cross-entropy, one optimizer step a batch.

    `penalty` is Network Slimming's weight of the L1 norm of all batch-norm gammas (Liu et al. 2017, eq. 1).
    """

    needs_reserve = False  # whether model and original are trained without the points of `data.splits.make_reserve`
    steps_on_reserve = False  # whether each step gets points of the reserve beside its batch
    stops_early = False  # whether it is plain training that ends before the recipe does

    def __init__(self, penalty: float = 0.0) -> None:
        self.penalty = penalty

    @staticmethod
    def check(model: nn.Module) -> None:
        """UserError where this network cannot be trained like this."""

    @staticmethod
    def check_recipe(argument: float, optimizer: str, weight_decay: float) -> None:
        """UserError where the defence with this argument does not go with the optimizer and its usual weight decay."""

    def start(self, model: nn.Module, optimizer, examples: int, batch_size: int, reserve: Tensor | None):
        """Get ready for a training on `examples` points; returns the optimizer to use.

        reserve: network inputs (n, ...) of the reserve, None where the training has none.
        """
        return optimizer

    def epochs(self, planned: int) -> int:
        """After how many of the recipe's epochs training ends."""
        return planned

    def begin_epoch(self, generator: torch.Generator) -> None:
        """Draw the randomness that the epoch needs beside its batches."""

    def batches(self, order: Tensor, batch_size: int, generator: torch.Generator) -> list[Tensor]:
        """The batches of one epoch, an index tensor for each. order: (n,) a permutation of the members."""
        return list(order.tensor_split(math.ceil(len(order) / batch_size)))

    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What a step minimises: (B, C) logits and (B,) labels, or (B, C) posteriors in their place -> ()."""
        return F.cross_entropy(logits, labels)

    def step(self, model, optimizer, inputs: Tensor, labels: Tensor, reserve: tuple[Tensor, Tensor] | None) -> Tensor:
        """One step on a batch; returns the objective before the step, a detached 0-d tensor.

        reserve: inputs and labels of as many points of the reserve, where `steps_on_reserve`.
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
        """What a whole training like this adds to the facts in a model's meta.json.

        earlier: the privacy that was spent before (`defenses.dp.epsilon`'s history), None where training had no noise.
        """
        return {}

    def state_dict(self) -> dict:
        """What a stopped training needs of the procedure, beside model and optimizer, to go on."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Take up what `state_dict` returned."""


def gammas(model: nn.Module) -> list[Tensor]:
    """The scales of all batch normalisations."""
    return [module.weight for module in model.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)]
