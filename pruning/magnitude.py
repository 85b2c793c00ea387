"""`l1unstructure`: in every layer the weights of smallest magnitude are zero.

Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks" (arXiv:1506.02626), §3: train,
prune the small weights, fine-tune the others. Every layer has a threshold of its own and the same sparsity.
"""

import math
from fractions import Fraction

import torch
from torch import Tensor, nn

from models.tools import weighted_layers


def choose_masks(model: nn.Module, sparsity: float) -> dict[str, Tensor]:
    """For every layer's weight, by name, a mask that is False on its floor(sparsity * numel) smallest values."""
    layers = weighted_layers(model)
    return {f"{name}.weight": keep_largest(layer.weight.detach(), sparsity) for name, layer in layers.items()}


def keep_largest(values: Tensor, sparsity: float) -> Tensor:
    """Boolean mask, False on exactly floor(sparsity * numel) values of smallest magnitude; of equals, the first go."""
    # a threshold would take all of several equal values or none; the stable order takes exactly as many as wanted
    order = values.abs().flatten().argsort(stable=True)
    mask = torch.ones(values.numel(), dtype=torch.bool, device=values.device)
    mask[order[: pruned_count(values.numel(), sparsity)]] = False
    return mask.view(values.shape)


def pruned_count(number: int, sparsity: float) -> int:
    """How many of so many values, filters or channels are pruned.

    floor(sparsity * number), computed with the decimal number that was typed: as a float 0.7 is slightly less than 0.7.
    """
    return math.floor(Fraction(str(sparsity)) * number)


def check_pruned(model: nn.Module, masks: dict[str, Tensor], sparsity: float) -> str:
    """Assert that the masks prune the right number of weights in every layer, and say how many.

    Weights that the masks keep may be zero as well, in the original or after fine-tuning: they are counted apart.
    """
    assert masks.keys() == {f"{name}.weight" for name in weighted_layers(model)}, "not every layer is pruned"
    pruned = 0
    total = 0
    kept_zeros = 0
    for name, mask in masks.items():
        count = int((~mask).sum())
        assert count == pruned_count(mask.numel(), sparsity), f"{name}: {count} of {mask.numel()} weights pruned"
        pruned += count
        total += mask.numel()
        kept_zeros += int((model.get_parameter(name).detach().cpu()[mask] == 0).sum())
    further = f"; {kept_zeros:,} of the others are zero as well" if kept_zeros else ""
    return (
        f"exactly floor({sparsity:g} n) of n weights are pruned to zero in each of {len(masks)} layers "
        f"({pruned:,} of {total:,}{further})"
    )
