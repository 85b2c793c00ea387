"""Pruning as data: a boolean mask for some parameters of a network, False where they are zero and stay zero.

The four pruners differ in the masks they choose; how masks act, are stored, restored and checked is the same for all.
"""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.tools import assert_equal_outputs, cost, load_exactly, take, unchanged_tensors
from pruning import magnitude, slim, structured


class Pruner(NamedTuple):
    """`choose` (model, sparsity) gives masks by parameter; `held` (model, masks, sparsity) asserts and states them."""

    choose: Callable[[nn.Module, float], dict[str, Tensor]]
    held: Callable[[nn.Module, dict[str, Tensor], float], str]


DEFAULT = "l1unstructure"
PRUNERS = {
    DEFAULT: Pruner(magnitude.choose, magnitude.held),
    "l1structure": Pruner(partial(structured.choose, order=1), structured.held),
    "l2structure": Pruner(partial(structured.choose, order=2), structured.held),
    "slim": Pruner(slim.choose, slim.held),
}


class Pruning(NamedTuple):
    """A degree of pruning: `0.6` in the names of folders where the pruner is the default, else `slim_0.6`."""

    pruner: str
    sparsity: float

    def __str__(self) -> str:
        return f"{'' if self.pruner == DEFAULT else self.pruner + '_'}{self.sparsity:g}"

    def command(self) -> str:
        """The script and the flags that prune so."""
        pruner = "" if self.pruner == DEFAULT else f"--pruner_name {self.pruner} "
        return f"pruning/prune.py {pruner}--prune_sparsity {self.sparsity:g}"


def parse(text: str) -> Pruning:
    """`0.6`, or `slim_0.6`; ValueError where it is neither, or where its name would not say all digits of it."""
    pruner, _, sparsity = text.rpartition("_")
    value = float(sparsity)
    if float(f"{value:g}") != value:
        raise ValueError(f"sparsity must have at most six digits, not {sparsity}")
    return _checked(Pruning(pruner or DEFAULT, value))


def _checked(degree: Pruning) -> Pruning:
    if not isinstance(degree, Pruning) or degree.pruner not in PRUNERS:
        raise ValueError(f"the degree of a pruning is one of {', '.join(PRUNERS)} with a sparsity, not {degree!r}")
    if not isinstance(degree.sparsity, float) or not 0 < degree.sparsity < 1:
        raise ValueError(f"sparsity must be a number between 0 and 1, not {degree.sparsity!r}")
    return degree


class Mask(nn.Module):
    """parameter -> parameter with zeros where the mask is False, so what is pruned gets no gradient either."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, parameter: Tensor) -> Tensor:
        return parameter * self.mask


def prepare(model: nn.Module, degree: Pruning) -> nn.Module:
    """A copy in which the pruner's masks hold, and go on to hold while it is fine-tuned.

    Raises ValueError for a bad degree, UserError where the pruner can do nothing with this network.
    """
    pruner, sparsity = _checked(degree)
    model = copy.deepcopy(model)
    for name, mask in PRUNERS[pruner].choose(model, sparsity).items():
        module, _, parameter = name.rpartition(".")
        parametrize.register_parametrization(model.get_submodule(module), parameter, Mask(mask))
    return model


def masks_of(prepared: nn.Module) -> dict[str, Tensor]:
    """The masks of a prepared model by parameter, on the CPU."""
    return {
        f"{name}.{parameter}".lstrip("."): parametrizations[0].mask.cpu()
        for name, module in prepared.named_modules()
        if parametrize.is_parametrized(module)
        for parameter, parametrizations in module.parametrizations.items()
    }


def _masked(prepared: nn.Module, name: str) -> Tensor:
    """A parameter with its mask applied, on the CPU."""
    module, _, parameter = name.rpartition(".")
    return getattr(prepared.get_submodule(module), parameter).detach().cpu()


def pack(prepared: nn.Module) -> dict[str, Tensor]:
    """Per masked parameter `<name>.mask`, eight to a byte, and `<name>.kept`, the rest in order; others as they are."""
    tensors = unchanged_tensors(prepared)
    for name, mask in masks_of(prepared).items():
        tensors[f"{name}.mask"] = torch.from_numpy(np.packbits(mask.numpy()))
        tensors[f"{name}.kept"] = _masked(prepared, name)[mask]
    return tensors


def unpack(skeleton: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """The pruned model, in eval mode: a copy of the float network `skeleton` filled from `pack`'s tensors.

    Raises ValueError naming the first tensor that does not fit.
    """
    state = dict(tensors)
    masked = {name: p for name, p in skeleton.named_parameters() if {f"{name}.mask", f"{name}.kept"} & state.keys()}
    if not masked:
        raise ValueError("none of the tensors is a mask for this network")
    for name, parameter in masked.items():
        shape, numel = parameter.shape, parameter.numel()
        packed = take(state, f"{name}.mask", torch.uint8, (math.ceil(numel / 8),))
        mask = torch.from_numpy(np.unpackbits(packed.numpy(), count=numel)).bool().view(shape)
        kept = take(state, f"{name}.kept", parameter.dtype, (int(mask.sum()),))
        state[name] = torch.zeros(shape, dtype=kept.dtype).masked_scatter(mask, kept)
    return load_exactly(copy.deepcopy(skeleton), state).eval()


def verify(prepared: nn.Module, restored: nn.Module, degree: Pruning, images: Tensor) -> str:
    """Assert what the pruner states and equal outputs for images (N, ...); returns one line that says so."""
    masks = masks_of(prepared)
    stated = PRUNERS[degree.pruner].held(restored, masks, degree.sparsity)
    for name, mask in masks.items():
        parameter = restored.get_parameter(name).detach().cpu()
        assert (parameter[~mask] == 0).all(), f"{name}: what was pruned is not zero"
        assert torch.equal(parameter, _masked(prepared, name)), f"{name}: the restored values differ"
    assert_equal_outputs(prepared, restored, images)
    before, after = (cost(restored, images, zeros=zeros) for zeros in (True, False))
    return (
        f"pruning {degree}: {stated}; parameters {before.parameters:,} -> {after.parameters:,}, multiply-adds "
        f"{before.multiply_adds:,} -> {after.multiply_adds:,}; restored outputs equal on {len(images)} images"
    )
