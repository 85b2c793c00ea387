"""`l1structure` and `l2structure`: in every convolution the filters of smallest norm are zero.

L1: Li et al. 2017, "Pruning Filters for Efficient ConvNets" (arXiv:1608.08710), §3.1, with one sparsity for all layers.
L2: the norm of He et al. 2018, "Soft Filter Pruning" (arXiv:1808.06866), §3.2, but the filters stay zero, as Li's do.
The bias of a filter and the gamma and beta of its normalisation become zero with it, so that its channel is zero for
every input. Depthwise filters are pruned like others. Linear layers and moving averages of batch norm are left alone.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from core.errors import UserError
from models.tools import norm_after
from pruning.magnitude import keep_largest, pruned_count


class Channels(NamedTuple):
    """The names of a convolution and of the normalisation right after it: they make and scale the same channels."""

    convolution: str | None
    norm: str | None

    def parameters(self, model: nn.Module) -> list[str]:
        """Names of all parameters whose first dimension is these channels."""
        modules = {name: model.get_submodule(name) for name in self if name is not None}
        return [
            f"{name}.{kind}"
            for name, module in modules.items()
            for kind in ("weight", "bias")
            if getattr(module, kind) is not None
        ]


def convolutions(model: nn.Module) -> list[Channels]:
    """Every convolution, with the normalisation right after it, if there is one."""
    pairs = norm_after(model, (nn.BatchNorm2d, nn.GroupNorm)).items()
    return [Channels(name, norm) for name, norm in pairs if isinstance(model.get_submodule(name), nn.Conv2d)]


def choose_masks(model: nn.Module, sparsity: float, order: int) -> dict[str, Tensor]:
    """Masks that are False on the floor(sparsity * filters) filters of smallest L1 or L2 norm of each convolution.

    Raises UserError where the model has no convolution.
    """
    masks = {}
    for channels in convolutions(model):
        filters = model.get_submodule(channels.convolution).weight.detach()
        kept = keep_largest(torch.linalg.vector_norm(filters.flatten(1), order, dim=1), sparsity)
        masks |= channel_masks(model, channels, kept)
    if not masks:
        raise UserError(
            f"l{order}structure prunes filters, and this network has no convolution: use --pruner_name l1unstructure"
        )
    return masks


def channel_masks(model: nn.Module, channels: Channels, kept: Tensor) -> dict[str, Tensor]:
    """For each parameter of these channels a mask of its shape, False where `kept` (C,) is False for the channel."""
    parameters = {name: model.get_parameter(name) for name in channels.parameters(model)}
    return {
        name: kept.view(-1, *[1] * (parameter.dim() - 1)).expand_as(parameter).clone()
        for name, parameter in parameters.items()
    }


def kept_channels(model: nn.Module, masks: dict[str, Tensor], channels: Channels) -> Tensor:
    """Which channels are kept, (C,) bool, read from the masks; asserts that all masks agree on it."""
    first = channels.parameters(model)[0]
    kept = masks[first].flatten(1).any(dim=1) if masks[first].dim() > 1 else masks[first]
    for name, mask in channel_masks(model, channels, kept).items():
        assert torch.equal(masks[name], mask), f"{name}: the mask does not follow the channels of {first}"
    return kept


def check_pruned(model: nn.Module, masks: dict[str, Tensor], sparsity: float) -> str:
    """Assert that the masks prune the right number of whole filters in every convolution, and say how many."""
    layers = convolutions(model)
    pruned = 0
    total = 0
    assert masks.keys() == {name for layer in layers for name in layer.parameters(model)}, "not every layer is pruned"
    for layer in layers:
        kept = kept_channels(model, masks, layer)
        count = int((~kept).sum())
        assert count == pruned_count(len(kept), sparsity), f"{layer.convolution}: {count} of {len(kept)} filters pruned"
        pruned += count
        total += len(kept)
    return (
        f"exactly floor({sparsity:g} n) of n filters are pruned to zero in each of {len(layers)} convolutions "
        f"({pruned:,} of {total:,}), with their bias and normalisation"
    )
