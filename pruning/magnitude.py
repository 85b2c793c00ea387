"""Unstructured magnitude pruning: per layer, the weights of smallest L1 norm are zero and stay zero.

Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks" (arXiv:1506.02626), §3: train,
prune the small weights, fine-tune the others. The threshold is each layer's own, its sparsity the same for all.
"""

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compleak.layers import assert_equal_outputs, load_exactly, take, unchanged_tensors, weighted_layers


class Mask(nn.Module):
    """weight -> weight with zeros where the boolean mask is False, so pruned weights get no gradient either."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def prepare(model: nn.Module, sparsity: float) -> nn.Module:
    """A copy whose every conv and linear weight has floor(sparsity * numel) zeros that fine-tuning leaves zero.

    Raises ValueError unless sparsity is a number between 0 and 1 (both excluded).
    """
    if not isinstance(sparsity, float) or not 0 < sparsity < 1:
        raise ValueError(f"sparsity must be a number between 0 and 1, not {sparsity!r}")
    model = copy.deepcopy(model)
    for layer in weighted_layers(model).values():
        mask = magnitude_mask(layer.weight.detach(), sparsity)
        parametrize.register_parametrization(layer, "weight", Mask(mask))
    return model


def magnitude_mask(weight: Tensor, sparsity: float) -> Tensor:
    """Boolean mask, False on exactly floor(sparsity * numel) weights of smallest magnitude; of equals, the first go."""
    # a threshold would take all of a tie or none of it; the stable order takes as many as are wanted
    order = weight.abs().flatten().argsort(stable=True)
    mask = torch.ones(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[order[: pruned_count(weight.numel(), sparsity)]] = False
    return mask.view(weight.shape)


def pruned_count(numel: int, sparsity: float) -> int:
    return math.floor(sparsity * numel)


def pack(prepared: nn.Module) -> dict[str, Tensor]:
    """Per layer `<name>.mask`, eight weights a byte, and `<name>.kept`, the others in order; the rest as it is."""
    tensors = unchanged_tensors(prepared)
    for name, layer in weighted_layers(prepared).items():
        mask = layer.parametrizations.weight[0].mask
        tensors[f"{name}.mask"] = torch.from_numpy(np.packbits(mask.cpu().numpy()))
        tensors[f"{name}.kept"] = layer.weight.detach()[mask].cpu()
    return tensors


def unpack(skeleton: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """The pruned model, in eval mode: a copy of the float network `skeleton` filled from `pack`'s tensors.

    Raises ValueError naming the first tensor that does not fit.
    """
    state = dict(tensors)
    for name, layer in weighted_layers(skeleton).items():
        shape, numel = layer.weight.shape, layer.weight.numel()
        packed = take(state, f"{name}.mask", torch.uint8, (math.ceil(numel / 8),))
        mask = torch.from_numpy(np.unpackbits(packed.numpy(), count=numel)).bool().view(shape)
        kept = take(state, f"{name}.kept", layer.weight.dtype, (int(mask.sum()),))
        state[f"{name}.weight"] = torch.zeros(shape, dtype=kept.dtype).masked_scatter(mask, kept)
    return load_exactly(copy.deepcopy(skeleton), state).eval()


def verify(prepared: nn.Module, restored: nn.Module, sparsity: float, images: Tensor) -> str:
    """Assert the stated property and equal outputs for images (N, 3, 32, 32); returns one line that says so."""
    layers = weighted_layers(restored)
    pruned = total = 0
    for name, source in weighted_layers(prepared).items():
        removed = ~source.parametrizations.weight[0].mask.cpu()
        weight = layers[name].weight.detach().cpu()
        count = int(removed.sum())
        assert count == pruned_count(weight.numel(), sparsity), f"{name}: {count} of {weight.numel()} weights pruned"
        assert (weight[removed] == 0).all(), f"{name}: pruned weights are not zero"
        assert torch.equal(weight, source.weight.detach().cpu()), f"{name}: the restored weights differ"
        pruned, total = pruned + count, total + weight.numel()
    assert_equal_outputs(prepared, restored, images)
    return (
        f"pruning {sparsity:g}: exactly floor({sparsity:g} n) of n weights are zero in each of {len(layers)} layers "
        f"({pruned:,} of {total:,}); restored outputs equal on {len(images)} images"
    )
