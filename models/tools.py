"""What the three compressions share: the layers they change, their cost, strict loading, proof of equality."""

import copy
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from core import devices


def weighted_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers a compression changes, by name: every convolution and every linear layer."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}


def norm_after(model: nn.Module, kinds: tuple[type, ...] = (nn.BatchNorm2d,)) -> dict[str, str | None]:
    """Every convolution and linear layer, and the norm right after it in the same `nn.Sequential`, by name."""
    found = {}
    for prefix, parent in model.named_modules():
        children = [(f"{prefix}.{name}".lstrip("."), child) for name, child in parent.named_children()]
        for (name, layer), (next_name, norm) in pairwise([*children, ("", None)]):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                paired = isinstance(parent, nn.Sequential) and isinstance(norm, kinds)
                found[name] = next_name if paired else None
    return found


class Cost(NamedTuple):
    """`multiply_adds` are those of convolutions and linear layers on one input, padding included."""

    parameters: int
    multiply_adds: int


def cost(model: nn.Module, inputs: Tensor, *, zeros: bool) -> Cost:
    """What a model has and does for one of `inputs` (N, ...): with the weights that are zero, or without them."""

    def count(tensor: Tensor) -> int:
        return tensor.numel() if zeros else int(tensor.count_nonzero())

    multiply_adds = 0

    def add(layer: nn.Module, _, output: Tensor) -> None:
        nonlocal multiply_adds
        positions = output[0].numel() // len(layer.weight)  # every weight is used once at each of them
        multiply_adds += count(layer.weight) * positions

    hooks = [layer.register_forward_hook(add) for layer in weighted_layers(model).values()]
    try:
        with torch.no_grad():
            model(inputs[:1].to(next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return Cost(sum(count(parameter) for parameter in model.parameters()), multiply_adds)


def unchanged_tensors(prepared: nn.Module) -> dict[str, Tensor]:
    """Copies on the CPU of all tensors but those of parametrised weights: biases and batch normalisation."""
    state = prepared.state_dict()
    return {name: t.detach().cpu().clone() for name, t in state.items() if ".parametrizations." not in name}


def take(tensors: dict[str, Tensor], name: str, dtype: torch.dtype, shape: Sequence[int] | None = None) -> Tensor:
    """Remove `name` from `tensors` and return it. ValueError where it is missing or has another type or shape."""
    tensor = tensors.pop(name, None)
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} is missing")
    shape = tensor.shape if shape is None else torch.Size(shape)
    if tensor.dtype != dtype or tensor.shape != shape:
        raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {tuple(shape)}")
    return tensor


def load_exactly(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Fill the model; ValueError unless names, types and shapes are its own (`load_state_dict` would convert types)."""
    rest = dict(tensors)
    wanted = model.state_dict()
    state = {name: take(rest, name, tensor.dtype, tensor.shape) for name, tensor in wanted.items()}
    if rest:
        raise ValueError(f"{next(iter(rest))} belongs to no layer of this network")
    model.load_state_dict(state)
    return model


def assert_equal_outputs(prepared: nn.Module, restored: nn.Module, images: Tensor) -> None:
    """Both models, in eval mode on the first one's device, give bit-equal logits for images (N, 3, 32, 32)."""
    device = next(chain(prepared.parameters(), prepared.buffers())).device
    expected, got = (_outputs(model, images.to(device)) for model in (prepared, restored))
    assert expected.isfinite().all(), "the compressed model gives logits that are not finite"
    assert torch.equal(expected, got), f"the restored model's logits differ by up to {(expected - got).abs().max():.3g}"


def _outputs(model: nn.Module, images: Tensor) -> Tensor:
    """Logits of a copy whose tensors all lie contiguous.

    A tensor's strides choose the convolution algorithm and so its rounding, and those of 1x1 and depthwise weights
    differ between a model trained in channels_last and a loaded one even after both were converted: hence the clones.
    """
    model = copy.deepcopy(model).to(images.device).eval()
    for tensor in chain(model.parameters(), model.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    images = images.clone(memory_format=torch.contiguous_format)
    with torch.inference_mode(), torch.autocast(images.device.type, enabled=False), devices.exact():
        return model(images)
