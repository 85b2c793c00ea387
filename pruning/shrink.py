"""The smaller dense network that a pruned one amounts to: the channels that are zero for every input are taken out.

Which layers share a channel is Torch-Pruning's to say (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning",
arXiv:2301.12900): a channel of a residual stream belongs to all convolutions that write it and all that read it, one
before a depthwise convolution to that as well. Which channels may go is said here: those that arrive as zero at every
layer that reads them. So one that is zero in some writers of a residual stream only stays, and so does one that is zero
before a depthwise convolution whose batch norm then makes a constant of it.
"""

import copy
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from core.errors import UserError
from core.files import write_atomically
from models.tools import weighted_layers
from pruning.masks import DEFAULT

RTOL, ATOL = 1e-4, 1e-5  # of float32 outputs, the latter of the largest; in float64 a millionth of these


def refuse_what_cannot_shrink(pruner: str, model: nn.Module) -> None:
    """UserError where no whole channels can be taken out, or the library that does it is not there.

    Out of group normalisation none can: a channel that is zero counts in its group's mean.
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
    """A copy in eval mode without the channels that are zero for every input; equal outputs for `images` are asserted.

    Raises AssertionError where taking them out would change the outputs.
    """
    import torch_pruning

    dense = copy.deepcopy(model).eval().requires_grad_(True)  # Torch-Pruning follows autograd's graph
    graph = torch_pruning.DependencyGraph().build_dependency(dense, example_inputs=images[:1])
    for layer, dead in list(_removable(graph, silent_inputs(dense, images))):
        graph.get_pruning_group(layer, torch_pruning.prune_conv_out_channels, dead).prune()
    dense.zero_grad(set_to_none=True)
    double = images.double()
    with torch.no_grad():
        expected, got = (copy.deepcopy(network).double().eval()(double) for network in (model, dense))
    assert_close(expected, got, 1e-6)
    return dense


def silent_inputs(model: nn.Module, images: Tensor) -> dict[nn.Module, Tensor]:
    """For each conv and linear layer, which of its input channels are zero whatever the image: (inputs,) bool.

    Asked of a copy in which every parameter that is not zero is positive, and the image too: nothing cancels there and
    no ReLU is dead, so that what arrives as zero has no path of non-zero parameters to come from.
    """
    positive = copy.deepcopy(model).double().eval()
    for module in positive.modules():
        for name, parameter in module.named_parameters(recurse=False):
            share = parameter[0].numel() if name == "weight" else 1  # a mean over inputs: deep networks do not overflow
            parameter.data = (parameter != 0).double() / share
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            module.running_mean.zero_(), module.running_var.fill_(1)
    silent, names = {}, {layer: name for name, layer in weighted_layers(positive).items()}

    def look(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        (x,), own = inputs, model.get_submodule(names[layer])
        axis = 1 if isinstance(layer, nn.Conv2d) else x.dim() - 1
        zero = ~(x != 0).any(dim=[dim for dim in range(x.dim()) if dim != axis])
        silent[own] = zero & silent.get(own, zero)  # a layer may be called more than once

    for layer in names:
        layer.register_forward_pre_hook(look)
    with torch.no_grad():
        positive(images[:1].double().abs() + 1)
    return silent


def _removable(graph, silent: dict[nn.Module, Tensor]) -> Iterator[tuple[nn.Module, list[int]]]:
    """Each group's first convolution with the output channels that arrive as zero wherever they are read."""
    for group in graph.get_all_groups(root_module_types=[nn.Conv2d]):
        root, readers = group[0].dep.target.module, 0
        dead = torch.ones(root.out_channels, dtype=torch.bool)
        for item in group:
            layer = item.dep.target.module
            groups = getattr(layer, "groups", 1)
            if groups > 1 and not groups == layer.in_channels == layer.out_channels:
                dead[:] = False  # its groups would have to lose equally many
            # a depthwise convolution only passes channels on
            reads = isinstance(layer, nn.Conv2d | nn.Linear) and groups == 1
            if reads and graph.is_in_channel_pruning_fn(item.dep.handler):
                readers += 1
                dead[torch.tensor(item.root_idxs)[~silent[layer].cpu()[item.idxs]]] = False
        if dead.all():
            dead[0] = False  # a layer without channels is none
        if readers and dead.any():
            yield root, dead.nonzero().flatten().tolist()


def export(dense: nn.Module, images: Tensor, file: Path) -> None:
    """Write a network with torch.export, for batches of any size, and assert what is read again from the file."""
    batch = {0: torch.export.Dim("batch")}
    with torch.no_grad():
        program = torch.export.export(copy.deepcopy(dense).eval(), (images[:2],), dynamic_shapes=(batch,))

    def write(part: Path) -> None:
        torch.export.save(program, part)
        restored = torch.export.load(part).module()
        with torch.no_grad():
            for some in (images, images[:1]):
                assert_close(dense(some), restored(some))

    write_atomically(file, write)


def assert_close(expected: Tensor, got: Tensor, strictness: float = 1.0) -> None:
    """Equal but for the order of summation, and the same class first. Tolerances are multiplied by `strictness`."""
    tolerance = {"rtol": RTOL * strictness, "atol": ATOL * strictness * float(expected.abs().max())}
    worst = float((expected - got).abs().max())
    assert torch.allclose(expected, got, **tolerance), f"the shrunk network's outputs differ by up to {worst:.3g}"
    assert torch.equal(expected.argmax(1), got.argmax(1)), "the shrunk network names other classes"
