"""What compressions and defences need of any network: its layers, its cost, strict loading, proof of equal outputs."""

import copy
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from core import devices

RANGE_INPUTS = 1000  # network inputs that input ranges are read from at most


WEIGHTED = (nn.Conv2d, nn.Linear, nn.Embedding)


def weighted_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that compressions change, by name: every convolution, linear layer and embedding."""
    return {name: module for name, module in model.named_modules() if isinstance(module, WEIGHTED)}


def norm_after(model: nn.Module, kinds: tuple[type, ...] = (nn.BatchNorm2d,)) -> dict[str, str | None]:
    """For each of `weighted_layers`, by name, the name of the normalisation right after it, or None.

    Only a normalisation of one of these kinds counts, and only as the next module of the same `nn.Sequential`.
    """
    norms = {}
    for prefix, parent in model.named_modules():
        children = [(f"{prefix}.{name}".lstrip("."), child) for name, child in parent.named_children()]
        for (name, layer), (next_name, following) in pairwise([*children, ("", None)]):
            if isinstance(layer, WEIGHTED):
                paired = isinstance(parent, nn.Sequential) and isinstance(following, kinds)
                norms[name] = next_name if paired else None
    return norms


# What defences ask of layers. A layer that has something to do for it says so by an attribute or a method.


@torch.no_grad()
def observe_input_ranges(model: nn.Module, inputs: Tensor) -> None:
    """Show network inputs (n, ...), at most RANGE_INPUTS of them, to the layers that quantize what reaches them.

    Such a layer has a true `observes_input_ranges` and sets its range in train mode. A model without any is left alone.
    """
    if any(getattr(module, "observes_input_ranges", False) for module in model.modules()):
        model.train()(inputs[:RANGE_INPUTS])


def prepare_for_single_samples(model: nn.Module) -> None:
    """Let layers compute so that torch.func can give the gradient of each sample of a batch, unmoved by the others.

    A layer that must change for this has a method `prepare_for_single_samples`.
    """
    for module in model.modules():
        if hasattr(module, "prepare_for_single_samples"):
            module.prepare_for_single_samples()


class Cost(NamedTuple):
    """What a model has, and what it does for one input.

    `multiply_adds` are those of convolutions and linear layers; those with the zeros of a padding count too.
    """

    parameters: int
    multiply_adds: int


def cost(model: nn.Module, inputs: Tensor, *, zeros: bool) -> Cost:
    """The model's cost for one of `inputs` (N, ...), counted with the weights that are zero or without them."""

    def count(tensor: Tensor) -> int:
        return tensor.numel() if zeros else int(tensor.count_nonzero())

    multiply_adds = 0
    for layer, positions in _positions(model, inputs):
        multiply_adds += count(layer.weight) * positions
    return Cost(sum(count(parameter) for parameter in model.parameters()), multiply_adds)


def _positions(model: nn.Module, inputs: Tensor) -> list[tuple[nn.Module, int]]:
    """Each call of a convolution or linear layer for one input, with the number of times it uses every weight.

    An embedding looks weights up and multiplies none.
    """
    calls = []

    def add(layer: nn.Module, _, output: Tensor) -> None:
        calls.append((layer, output[0].numel() // len(layer.weight)))

    layers = [layer for layer in weighted_layers(model).values() if not isinstance(layer, nn.Embedding)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    try:
        with torch.no_grad():
            model(inputs[:1].to(next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def unchanged_tensors(prepared: nn.Module) -> dict[str, Tensor]:
    """Copies on the CPU of all parameters and buffers that have no parametrisation, by name."""
    state = prepared.state_dict()
    return {name: t.detach().cpu().clone() for name, t in state.items() if ".parametrizations." not in name}


def pop_checked(
    tensors: dict[str, Tensor], name: str, dtype: torch.dtype, shape: Sequence[int] | None = None
) -> Tensor:
    """Remove `name` from `tensors` and return it. ValueError where it is missing or has another type or shape."""
    tensor = tensors.pop(name, None)
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} is missing")
    shape = tensor.shape if shape is None else torch.Size(shape)
    if tensor.dtype != dtype or tensor.shape != shape:
        raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {tuple(shape)}")
    return tensor


def load_exactly(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Fill the model, in place, with tensors of the very names, types and shapes that it has.

    Raises ValueError where they differ; `load_state_dict` alone would convert types.
    """
    rest = dict(tensors)
    wanted = model.state_dict()
    state = {name: pop_checked(rest, name, tensor.dtype, tensor.shape) for name, tensor in wanted.items()}
    if rest:
        raise ValueError(f"{next(iter(rest))} belongs to no layer of this network")
    model.load_state_dict(state)
    return model


def assert_equal_outputs(prepared: nn.Module, restored: nn.Module, inputs: Tensor) -> None:
    """Both models, in eval mode on the first one's device, give bit-equal logits for network inputs (N, ...)."""
    device = next(chain(prepared.parameters(), prepared.buffers())).device
    expected, restored_logits = (_outputs(model, inputs.to(device)) for model in (prepared, restored))
    assert expected.isfinite().all(), "the compressed model gives logits that are not finite"
    difference = (expected - restored_logits).abs().max()
    assert torch.equal(expected, restored_logits), f"the restored model's logits differ by up to {difference:.3g}"


def _outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits of a copy of the model in which every tensor is contiguous.

    The strides of a tensor choose the convolution algorithm and so its rounding. The strides of 1x1 and depthwise
    weights differ between a model trained in channels_last and a loaded one even after both were converted. Cloning
    every tensor removes this difference.
    """
    model = copy.deepcopy(model).to(inputs.device).eval()
    for tensor in chain(model.parameters(), model.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    inputs = inputs.clone(memory_format=torch.contiguous_format)
    with torch.inference_mode(), torch.autocast(inputs.device.type, enabled=False), devices.exact():
        return model(inputs)
