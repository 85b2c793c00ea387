"""The smaller dense network that a pruned one amounts to: channels that are zero for every input are taken out.

Torch-Pruning finds out which layers share a channel (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning",
arXiv:2301.12900). A channel of a residual stream belongs to all convolutions that write it and to all that read it; a
channel before a depthwise convolution belongs to that convolution as well.

This module decides which channels may go: those that arrive as zero at every layer that reads them. A channel that is
zero in only some writers of a residual stream stays. A channel that is zero before a depthwise convolution also stays
where the batch norm after that convolution makes a constant of it.
"""

import copy
import importlib.util
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from core.errors import UserError
from core.files import write_atomically
from models.tools import weighted_layers
from pruning.masks import DEFAULT

# Tolerances for float32 outputs, relative to each output and to the largest one. Float64 is held to a millionth.
RTOL = 1e-4
ATOL = 1e-5
FLOAT64_STRICTNESS = 1e-6


def refuse_what_cannot_shrink(pruner: str, model: nn.Module) -> None:
    """UserError where no whole channels can be taken out, or the library that does it is not installed.

    Group normalisation rules it out: a channel that is zero still counts in the mean of its group.
    """
    if pruner == DEFAULT:
        raise UserError(
            f"--shrink takes out whole filters, and {DEFAULT} removes single weights: "
            "use --pruner_name l1structure, l2structure or slim"
        )
    if any(isinstance(module, nn.GroupNorm) for module in model.modules()):
        raise UserError(
            "--shrink cannot take channels out of group normalisation: use another network, or leave it out"
        )
    if importlib.util.find_spec("torch_pruning") is None:
        raise UserError("--shrink needs torch-pruning: pip install -r requirements.txt")


def shrink(model: nn.Module, images: Tensor) -> nn.Module:
    """A copy in eval mode without the channels that are zero for every input. images: network inputs (N, ...).

    Raises AssertionError where the copy's outputs for the images are not the model's.
    """
    import torch_pruning

    dense = copy.deepcopy(model).eval().requires_grad_(True)  # Torch-Pruning follows autograd's graph
    graph = torch_pruning.DependencyGraph().build_dependency(dense, example_inputs=images[:1])
    for layer, dead in list(_removable(graph, silent_inputs(dense, images))):
        graph.get_pruning_group(layer, torch_pruning.prune_conv_out_channels, dead).prune()
    dense.zero_grad(set_to_none=True)
    expected, outputs = (_float64_outputs(network, images) for network in (model, dense))
    assert_close(expected, outputs, FLOAT64_STRICTNESS)
    return dense


@torch.no_grad()
def _float64_outputs(model: nn.Module, images: Tensor) -> Tensor:
    return copy.deepcopy(model).double().eval()(images.double())


def silent_inputs(model: nn.Module, images: Tensor) -> dict[nn.Module, Tensor]:
    """For each conv and linear layer, which of its input channels are zero whatever the image: (inputs,) bool.

    The question is put to a copy in which every parameter that is not zero is positive, and so is the image. There
    nothing cancels out and no ReLU is dead: what arrives as zero has no path of non-zero parameters to come from.
    """
    positive = _make_positive(model)
    silent = {}
    for name, layer in weighted_layers(positive).items():
        layer.register_forward_pre_hook(partial(_note_silent_inputs, silent, model.get_submodule(name)))
    with torch.no_grad():
        positive(images[:1].double().abs() + 1)
    return silent


def _make_positive(model: nn.Module) -> nn.Module:
    """A float64 copy in eval mode whose parameters are positive where the model's are not zero.

    A weight is the reciprocal of its layer's inputs, so that each layer takes a mean and deep networks do not overflow.
    """
    positive = copy.deepcopy(model).double().eval()
    for module in positive.modules():
        for name, parameter in module.named_parameters(recurse=False):
            inputs = parameter[0].numel() if name == "weight" else 1
            parameter.data = (parameter != 0).double() / inputs
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            module.running_mean.zero_()
            module.running_var.fill_(1)
    return positive


def _note_silent_inputs(silent: dict[nn.Module, Tensor], key: nn.Module, layer: nn.Module, inputs: tuple) -> None:
    """Note in `silent`, under `key`, which input channels of the layer are zero in this call and all calls before."""
    x = inputs[0]
    axis = 1 if isinstance(layer, nn.Conv2d) else x.dim() - 1
    other_axes = [dim for dim in range(x.dim()) if dim != axis]
    zero = ~(x != 0).any(dim=other_axes)
    silent[key] = zero & silent.get(key, zero)


def _removable(graph, silent: dict[nn.Module, Tensor]) -> Iterator[tuple[nn.Module, list[int]]]:
    """The first convolution of each of the graph's groups, with the output channels that can be taken out with it."""
    for group in graph.get_all_groups(root_module_types=[nn.Conv2d]):
        root = group[0].dep.target.module
        dead, has_reader = _dead_channels(graph, group, root.out_channels, silent)
        if dead.all():
            dead[0] = False  # a layer without channels is none
        if has_reader and dead.any():
            yield root, dead.nonzero().flatten().tolist()


def _dead_channels(graph, group, channels: int, silent: dict[nn.Module, Tensor]) -> tuple[Tensor, bool]:
    """Which channels of a group arrive as zero wherever they are read, (channels,) bool, and whether a layer reads any.

    A depthwise convolution passes channels on and reads none. Of another grouped convolution no channel can go, because
    its groups would have to lose equally many.
    """
    dead = torch.ones(channels, dtype=torch.bool)
    has_reader = False
    for item in group:
        layer = item.dep.target.module
        groups = getattr(layer, "groups", 1)
        if groups > 1 and not groups == layer.in_channels == layer.out_channels:
            dead[:] = False
        is_reader = isinstance(layer, nn.Conv2d | nn.Linear) and groups == 1
        if is_reader and graph.is_in_channel_pruning_fn(item.dep.handler):
            has_reader = True
            dead[torch.tensor(item.root_idxs)[~silent[layer].cpu()[item.idxs]]] = False
    return dead, has_reader


def export(dense: nn.Module, images: Tensor, file: Path) -> None:
    """Write a network with torch.export, for batches of any size, and assert that the file gives the same outputs."""
    any_size = {0: torch.export.Dim("batch")}
    with torch.no_grad():
        program = torch.export.export(copy.deepcopy(dense).eval(), (images[:2],), dynamic_shapes=(any_size,))

    def write(part: Path) -> None:
        torch.export.save(program, part)
        restored = torch.export.load(part).module()
        with torch.no_grad():
            for batch in (images, images[:1]):
                assert_close(dense(batch), restored(batch))

    write_atomically(file, write)


def assert_close(expected: Tensor, outputs: Tensor, strictness: float = 1.0) -> None:
    """Assert logits (N, C) that are equal but for the order of summation, and the same class first in every row.

    The tolerances are multiplied by `strictness`.
    """
    rtol = RTOL * strictness
    atol = ATOL * strictness * float(expected.abs().max())
    worst = float((expected - outputs).abs().max())
    close = torch.allclose(expected, outputs, rtol=rtol, atol=atol)
    assert close, f"the shrunk network's outputs differ by up to {worst:.3g}"
    assert torch.equal(expected.argmax(1), outputs.argmax(1)), "the shrunk network names other classes"
