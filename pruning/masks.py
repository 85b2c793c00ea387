"""Pruning as data: boolean masks for parameters of a network, False where a parameter is zero and stays zero.

The four pruners differ in the masks that they choose. How masks act and how they are stored, restored and checked is
the same for all.
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

from models.tools import assert_equal_outputs, cost, load_exactly, pop_checked, unchanged_tensors
from pruning import magnitude, slim, structured


class Pruner(NamedTuple):
    """What one pruner decides."""

    choose_masks: Callable[[nn.Module, float], dict[str, Tensor]]  # (model, sparsity) -> masks by parameter
    check_pruned: Callable[[nn.Module, dict[str, Tensor], float], str]  # asserts that the masks are right and says so


DEFAULT = "l1unstructure"
PRUNERS = {
    DEFAULT: Pruner(magnitude.choose_masks, magnitude.check_pruned),
    "l1structure": Pruner(partial(structured.choose_masks, order=1), structured.check_pruned),
    "l2structure": Pruner(partial(structured.choose_masks, order=2), structured.check_pruned),
    "slim": Pruner(slim.choose_masks, slim.check_pruned),
}


class Pruning(NamedTuple):
    """A degree of pruning. As text it is `0.6` for the default pruner and `slim_0.6`, for example, for another one."""

    pruner: str
    sparsity: float

    def __str__(self) -> str:
        sparsity = f"{self.sparsity:g}"
        return sparsity if self.pruner == DEFAULT else f"{self.pruner}_{sparsity}"


EXPECTED_DEGREE = f"a sparsity between 0 and 1 of at most six digits, or slim_0.7 for another pruner than {DEFAULT}"


def parse_degree(text: str) -> Pruning:
    """The degree written as `0.6` or `slim_0.6`.

    Raises ValueError where the text is neither, or has more digits than the name of a folder would show.
    """
    pruner, _, sparsity = text.rpartition("_")
    value = float(sparsity)
    if float(f"{value:g}") != value:
        raise ValueError(f"sparsity must have at most six digits, not {sparsity}")
    return _check_degree(Pruning(pruner or DEFAULT, value))


def command(degree: Pruning) -> str:
    """The script and the flags that prune to this degree."""
    pruner = "" if degree.pruner == DEFAULT else f"--pruner_name {degree.pruner} "
    return f"pruning/prune.py {pruner}--prune_sparsity {degree.sparsity:g}"


def _check_degree(degree: Pruning) -> Pruning:
    if not isinstance(degree, Pruning) or degree.pruner not in PRUNERS:
        raise ValueError(f"the degree of a pruning is one of {', '.join(PRUNERS)} with a sparsity, not {degree!r}")
    if not isinstance(degree.sparsity, float) or not 0 < degree.sparsity < 1:
        raise ValueError(f"sparsity must be a number between 0 and 1, not {degree.sparsity!r}")
    return degree


class Mask(nn.Module):
    """A parametrisation: zeros where the mask is False, so that what is pruned gets no gradient either."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, parameter: Tensor) -> Tensor:
        return parameter * self.mask


def prepare(model: nn.Module, degree: Pruning) -> nn.Module:
    """A copy in which the pruner's masks act, and go on to act while it is fine-tuned.

    Raises ValueError for a bad degree, UserError where the pruner can do nothing with this network.
    """
    pruner, sparsity = _check_degree(degree)
    model = copy.deepcopy(model)
    for name, mask in PRUNERS[pruner].choose_masks(model, sparsity).items():
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
    """Per masked parameter `<name>.mask`, eight values to a byte, and `<name>.kept`, its unmasked values in order.

    All other tensors are packed as they are.
    """
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
        state[name] = _unpack_parameter(state, name, parameter)
    return load_exactly(copy.deepcopy(skeleton), state).eval()


def _unpack_parameter(tensors: dict[str, Tensor], name: str, parameter: Tensor) -> Tensor:
    """A masked parameter of the shape and type of `parameter`; its two tensors are removed from `tensors`."""
    numel = parameter.numel()
    packed = pop_checked(tensors, f"{name}.mask", torch.uint8, (math.ceil(numel / 8),))
    mask = torch.from_numpy(np.unpackbits(packed.numpy(), count=numel)).bool().view(parameter.shape)
    kept = pop_checked(tensors, f"{name}.kept", parameter.dtype, (int(mask.sum()),))
    return torch.zeros(parameter.shape, dtype=kept.dtype).masked_scatter(mask, kept)


def verify(prepared: nn.Module, restored: nn.Module, degree: Pruning, inputs: Tensor) -> str:
    """Assert that the pruner's masks are right and act, and equal outputs for network inputs (N, ...).

    Returns one line that says so. `restored` is what `unpack` made of the tensors of `prepared`.
    """
    masks = masks_of(prepared)
    pruned = PRUNERS[degree.pruner].check_pruned(restored, masks, degree.sparsity)
    for name, mask in masks.items():
        parameter = restored.get_parameter(name).detach().cpu()
        assert (parameter[~mask] == 0).all(), f"{name}: what was pruned is not zero"
        assert torch.equal(parameter, _masked(prepared, name)), f"{name}: the restored values differ"
    assert_equal_outputs(prepared, restored, inputs)
    before, after = (cost(restored, inputs, zeros=zeros) for zeros in (True, False))
    return (
        f"pruning {degree}: {pruned}; parameters {before.parameters:,} -> {after.parameters:,}, multiply-adds "
        f"{before.multiply_adds:,} -> {after.multiply_adds:,}; restored outputs equal on {len(inputs)} points"
    )
