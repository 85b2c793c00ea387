"""`slim`: the channels of smallest batch-norm scale, over the whole network, are zero.

Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming" (arXiv:1708.06519), §3: one
threshold over all |gamma|. Gamma and beta of the channels below it are zero and, being the channels' incoming
connections, so are the filters right before them. Moving averages and linear layers are left alone.

Each layer keeps the channel of its largest |gamma|: without it nothing, or nothing but a shortcut, would pass. Where
the threshold would have taken all, the next smallest channel elsewhere goes instead, so that the count is exact.
"""

import math

import torch
from torch import Tensor, nn

from core.errors import UserError
from models.tools import norm_after
from pruning.magnitude import keep_largest, pruned_count
from pruning.structured import Channels, channel_masks, kept_channels


def norms(model: nn.Module) -> list[Channels]:
    """Every batch norm that has a gamma, with the convolution right before it, if there is one."""
    before = {
        norm: name for name, norm in norm_after(model).items() if isinstance(model.get_submodule(name), nn.Conv2d)
    }
    found = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d) and module.affine]
    return [Channels(before.get(name), name) for name in found]


def choose(model: nn.Module, sparsity: float) -> dict[str, Tensor]:
    """Masks that are False on the floor(sparsity * channels) channels of smallest |gamma|; of equals, the first go.

    Raises UserError where the model has no batch norm, or fewer channels to spare than that.
    """
    layers = norms(model)
    if not layers:
        convolution = any(isinstance(module, nn.Conv2d) for module in model.modules())
        other = "l1structure" if convolution else "l1unstructure"
        raise UserError(f"slim prunes by batch norm's gamma, and this network has none: use --pruner_name {other}")
    kept = keep_channels([model.get_submodule(layer.norm).weight.detach() for layer in layers], sparsity)
    spread = [channel_masks(model, layer, own) for layer, own in zip(layers, kept, strict=True)]
    return {name: mask for found in spread for name, mask in found.items()}


def keep_channels(gammas: list[Tensor], sparsity: float) -> list[Tensor]:
    """For each layer's gamma (C,) the mask of channels kept: a global threshold that leaves each layer its largest."""
    total = sum(map(len, gammas))
    count, spare = pruned_count(total, sparsity), total - len(gammas)
    if count > spare:
        raise UserError(
            f"slim {sparsity:g} would take {count} of {total} channels, but one stays in each of {len(gammas)} layers: "
            f"at most {spare} can go, choose a lower --prune_sparsity"
        )
    spared = [gamma.abs().index_fill(0, gamma.abs().argsort(stable=True)[-1], math.inf) for gamma in gammas]
    return list(keep_largest(torch.cat(spared), sparsity).split([len(gamma) for gamma in gammas]))


def held(model: nn.Module, masks: dict[str, Tensor], sparsity: float) -> str:
    """Assert that the masks take as many channels as they should, whole and not all of any layer, and say how many."""
    layers = norms(model)
    assert masks.keys() == {name for layer in layers for name in layer.parameters(model)}, "not every layer is pruned"
    kept = [kept_channels(model, masks, layer) for layer in layers]
    total, left = sum(map(len, kept)), [int(own.sum()) for own in kept]
    assert total - sum(left) == pruned_count(total, sparsity), f"{total - sum(left)} of {total} channels pruned"
    assert min(left) > 0, f"{layers[left.index(0)].norm}: no channel is left"
    return (
        f"exactly floor({sparsity:g} n) of all n = {total:,} channels are zero ({total - sum(left):,}), gamma, beta "
        f"and filter, in {len(layers)} layers together; {left.count(1)} of these are left with one channel"
    )
