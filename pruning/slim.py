"""`slim`: the channels of smallest batch-norm scale, over the whole network, are zero.

Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming" (arXiv:1708.06519), §3: one
threshold over all |gamma|. Gamma and beta of the channels below it are zero, and so are the filters that compute these
channels. Moving averages and linear layers are left alone.

Each layer keeps the channel of its largest |gamma|: without it nothing, or nothing but a shortcut, would pass. Where
the threshold would take all channels of a layer, the next smallest channel of another layer goes instead, so that the
count is exact.
"""

import math

import torch
from torch import Tensor, nn

from core.errors import UserError
from models.tools import norm_after
from pruning.magnitude import keep_largest, pruned_count
from pruning.structured import Channels, channel_masks, kept_channels


def batch_norms(model: nn.Module) -> list[Channels]:
    """Every batch norm that has a gamma, with the convolution right before it, if there is one."""
    before = {
        norm: name for name, norm in norm_after(model).items() if isinstance(model.get_submodule(name), nn.Conv2d)
    }
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d) and module.affine]
    return [Channels(before.get(name), name) for name in norms]


def choose_masks(model: nn.Module, sparsity: float) -> dict[str, Tensor]:
    """Masks that are False on the floor(sparsity * channels) channels of smallest |gamma|; of equals, the first go.

    Raises UserError where the model has no batch norm, or fewer channels to spare than that.
    """
    layers = batch_norms(model)
    if not layers:
        has_convolution = any(isinstance(module, nn.Conv2d) for module in model.modules())
        other = "l1structure" if has_convolution else "l1unstructure"
        raise UserError(f"slim prunes by batch norm's gamma, and this network has none: use --pruner_name {other}")
    masks = {}
    gammas = [model.get_submodule(layer.norm).weight.detach() for layer in layers]
    for layer, kept in zip(layers, keep_channels(gammas, sparsity), strict=True):
        masks |= channel_masks(model, layer, kept)
    return masks


def keep_channels(gammas: list[Tensor], sparsity: float) -> list[Tensor]:
    """For each layer's gamma (C,) a mask (C,), False on the channels that go.

    One threshold for all layers decides, but leaves each layer its largest. Raises UserError where that is not enough.
    """
    total = sum(map(len, gammas))
    count = pruned_count(total, sparsity)
    spare = total - len(gammas)
    if count > spare:
        raise UserError(
            f"slim {sparsity:g} would take {count} of {total} channels, but one stays in each of {len(gammas)} layers: "
            f"at most {spare} can go, choose a lower --prune_sparsity"
        )
    sizes = [_make_largest_infinite(gamma.abs()) for gamma in gammas]
    return list(keep_largest(torch.cat(sizes), sparsity).split([len(gamma) for gamma in gammas]))


def _make_largest_infinite(sizes: Tensor) -> Tensor:
    """A copy of sizes (C,) whose largest value is infinite; of equals, the last."""
    return sizes.index_fill(0, sizes.argsort(stable=True)[-1], math.inf)


def check_pruned(model: nn.Module, masks: dict[str, Tensor], sparsity: float) -> str:
    """Assert that the masks prune the right number of whole channels and no whole layer, and say how many."""
    layers = batch_norms(model)
    assert masks.keys() == {name for layer in layers for name in layer.parameters(model)}, "not every layer is pruned"
    kept = [kept_channels(model, masks, layer) for layer in layers]
    left = [int(mask.sum()) for mask in kept]
    total = sum(map(len, kept))
    pruned = total - sum(left)
    assert pruned == pruned_count(total, sparsity), f"{pruned} of {total} channels pruned"
    assert min(left) > 0, f"{layers[left.index(0)].norm}: no channel is left"
    return (
        f"exactly floor({sparsity:g} n) of all n = {total:,} channels are pruned to zero ({pruned:,}), gamma, beta "
        f"and filter, in {len(layers)} layers together; {left.count(1)} of these are left with one channel"
    )
