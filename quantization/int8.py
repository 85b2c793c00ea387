"""Quantization-aware training with eight-bit weights and activations, and the int8 model that results.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
(arXiv:1712.05877): fake quantization in the forward pass (§3, eq. 12), gradients straight through it, activation ranges
by exponential moving averages (§3.1), batch normalisation folded into the weights before they are quantized (§3.2,
eq. 14). As later practice has it (Krishnamoorthi 2018, arXiv:1806.08342, §2.2 and §2.6): weights per output channel,
symmetric on [-127, 127]; the input of every layer per tensor, affine on [0, 255]. The moving averages of batch
normalisation are frozen while fine-tuning; its gamma and beta are trained with the weights. Biases stay float32.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.tools import assert_equal_outputs, load_exactly, norm_after

WEIGHT_LEVELS = 127
INPUT_LEVELS = 255
MOMENTUM = 0.01  # of the activation ranges' moving averages
MIN_SCALE = torch.finfo(torch.float32).eps  # keeps 1 / scale finite where a channel (its gamma, say) is all but zero


class FakeQuantized(nn.Module):
    """A convolution or linear layer and the batch norm after it (or None), computed as their int8 form will."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm
        self.operation = operation(layer)
        # nan until the first training batch: a model never trained answers nan, not something plausible
        self.register_buffer("low", torch.full((), torch.nan, device=layer.weight.device))
        self.register_buffer("high", self.low.clone())
        self.observing = True

    def for_single_samples(self) -> None:
        """Keep the ranges as they are, so that a sample's gradient depends on no other sample."""
        self.observing = False

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # half precision would blur the grid
            x = x.float()
            if self.training and self.observing:
                self.observe(x.detach())
            weight, scale, bias = self.quantized()
            return self.operation(quantize_input(x, *self.input_grid()), weight, bias)

    def observe(self, x: Tensor) -> None:
        """Move the running range towards this batch's; the first batch sets it."""
        for running, value in zip((self.low, self.high), torch.aminmax(x), strict=True):
            running.copy_(torch.where(running.isnan(), value, running.lerp(value, MOMENTUM)))

    def input_grid(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point (0-d float32 and int32) of a range that holds zero, which padding needs exact."""
        low, high = self.low.clamp(max=0), self.high.clamp(min=0)
        scale = ((high - low) / INPUT_LEVELS).clamp(min=MIN_SCALE)
        return scale, (-low / scale).round().clamp(0, INPUT_LEVELS).int()

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one layer that layer and norm make in eval mode (eq. 14)."""
        weight, bias = self.layer.weight, self.layer.bias
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        if self.norm is None:
            return weight, bias
        factor = self.norm.weight * (self.norm.running_var + self.norm.eps).rsqrt()
        return weight * per_channel(factor, weight), self.norm.bias + (bias - self.norm.running_mean) * factor

    def quantized(self) -> tuple[Tensor, Tensor, Tensor]:
        """Folded weight on its grid, the grid's scale (channels,), folded bias."""
        weight, bias = self.folded()
        dims = tuple(range(1, weight.dim()))
        scale = (weight.detach().abs().amax(dims) / WEIGHT_LEVELS).clamp(min=MIN_SCALE)
        zero_point = torch.zeros_like(scale, dtype=torch.int32)
        weight = torch.fake_quantize_per_channel_affine(weight, scale, zero_point, 0, -WEIGHT_LEVELS, WEIGHT_LEVELS)
        return weight, scale, bias


class Int8(nn.Module):
    """The same layer stored as int8 and computed as the fake-quantized one was, so that outputs are equal exactly."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        self.operation = operation(layer)
        self.register_buffer("weight", torch.zeros_like(layer.weight, dtype=torch.int8))
        for name in ("scale", "bias"):
            self.register_buffer(name, layer.weight.new_zeros(len(layer.weight)))
        self.register_buffer("input_scale", layer.weight.new_ones(()))
        self.register_buffer("input_zero_point", torch.zeros_like(self.input_scale, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = quantize_input(x.float(), self.input_scale, self.input_zero_point)
            return self.operation(x, self.dequantized(), self.bias)

    def dequantized(self) -> Tensor:
        return self.weight * per_channel(self.scale, self.weight)


def operation(layer: nn.Conv2d | nn.Linear) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The layer as a function of input, weight and bias."""
    if isinstance(layer, nn.Linear):
        return F.linear
    options = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    return partial(F.conv2d, **options)


def per_channel(vector: Tensor, weight: Tensor) -> Tensor:
    """(channels,) shaped so that it multiplies the output channels of the weight."""
    return vector.view(-1, *[1] * (weight.dim() - 1))


def quantize_input(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, INPUT_LEVELS)


def replace_layers(model: nn.Module, make: Callable[[nn.Module, nn.Module | None], nn.Module]) -> nn.Module:
    """Put make(layer, norm) in place of every conv and linear layer, in place; its batch norm becomes an identity.

    Group normalisation, whose statistics are each sample's own, cannot be folded and stays as it is.
    """
    for name, norm_name in norm_after(model).items():
        norm = model.get_submodule(norm_name) if norm_name else None
        model.set_submodule(name, make(model.get_submodule(name), norm))
        if norm is not None:
            model.set_submodule(norm_name, nn.Identity())
    return model


def fake_quantized_layers(model: nn.Module) -> dict[str, FakeQuantized]:
    return {name: module for name, module in model.named_modules() if isinstance(module, FakeQuantized)}


@torch.no_grad()
def set_ranges(model: nn.Module, inputs: Tensor) -> None:
    """Let fake-quantized layers see network inputs before training, a thousand at most; other networks stay as is."""
    if fake_quantized_layers(model):
        model.train()(inputs[:1000])


def prepare(model: nn.Module, degree: str) -> nn.Module:
    """A copy with batch norm folded and every weight and every layer input fake-quantized, trainable throughout.

    Its input ranges come from its training batches: one is needed before it answers in eval mode.
    Raises ValueError unless degree is "int8".
    """
    if degree != "int8":
        raise ValueError(f"the only degree of quantization is 'int8', not {degree!r}")
    return replace_layers(copy.deepcopy(model), FakeQuantized)


@torch.no_grad()
def pack(prepared: nn.Module) -> dict[str, Tensor]:
    """Per layer `weight` int8, `scale` and `bias` per channel, `input_scale` and `input_zero_point`; the rest as it is.

    Raises ValueError where the model has not seen a training batch.
    """
    model = copy.deepcopy(prepared)
    for name, source in fake_quantized_layers(model).items():
        if source.low.isnan():
            raise ValueError(f"{name} has seen no training batch, so the range of its input is unknown")
        target = Int8(source.layer, source.norm)
        weight, target.scale, target.bias = source.quantized()
        target.weight = (weight / per_channel(target.scale, weight)).round().to(torch.int8)
        target.input_scale, target.input_zero_point = source.input_grid()
        model.set_submodule(name, target)
    return {name: t.cpu().contiguous().clone() for name, t in model.state_dict().items()}


def unpack(skeleton: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """The int8 model, in eval mode: the float network `skeleton`'s layers replaced, in a copy, by `pack`'s tensors.

    Raises ValueError naming the first tensor that does not fit.
    """
    return load_exactly(replace_layers(copy.deepcopy(skeleton), Int8), tensors).eval().requires_grad_(False)


@torch.no_grad()
def verify(prepared: nn.Module, restored: nn.Module, degree: str, images: Tensor) -> str:
    """Assert the stated property and equal outputs for images (N, 3, 32, 32); returns one line that says so."""
    sources = fake_quantized_layers(prepared)
    weights = 0
    for name, source in sources.items():
        target = restored.get_submodule(name)
        assert isinstance(target, Int8) and target.weight.dtype == torch.int8, f"{name} holds no int8 weights"
        same = torch.equal(target.dequantized().cpu(), source.quantized()[0].cpu())
        assert same, f"{name}: the int8 weights are not those of the fake-quantized layer"
        weights += target.weight.numel()
    assert_equal_outputs(prepared, restored, images)
    folded = ", batch norm folded" if any(source.norm is not None for source in sources.values()) else ""
    return (
        f"quantization {degree}: {weights:,} int8 weights in {len(sources)} layers{folded}; "
        f"restored outputs equal those of the fake-quantized model on {len(images)} images"
    )
