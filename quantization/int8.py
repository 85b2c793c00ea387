"""Quantization-aware training with eight-bit weights and activations, and the int8 model that results.

From Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
(arXiv:1712.05877): fake quantization in the forward pass (§3, eq. 12), gradients that pass through the rounding
unchanged, activation ranges by exponential moving averages (§3.1), batch normalisation folded into the weights before
these are quantized (§3.2, eq. 14). From Krishnamoorthi 2018 (arXiv:1806.08342, §2.2 and §2.6): weights per output
channel, symmetric on [-127, 127]; the input of every layer per tensor, affine on [0, 255].

Fine-tuning leaves the moving averages of a folded batch normalisation as they are, and trains its gamma and beta with
the weights. A batch normalisation that cannot be folded, because no convolution stands right before it, stays a layer
in float32 and goes on as in training. Biases stay float32.
"""

import copy
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.tools import assert_equal_outputs, load_exactly, norm_after
from quantization.embeddings import Int8Embedding, RoundedEmbedding, pack_embedding
from quantization.rounding import MIN_SCALE, codes_of, per_channel, round_channels

DEGREE = "int8"
INPUT_LEVELS = 255
MOMENTUM = 0.01  # of the moving averages of input ranges


def parse_degree(text: str) -> str:
    """The degree that `prepare` takes; ValueError where the text is none."""
    if text != DEGREE:
        raise ValueError(f"the only degree of quantization-aware training is {DEGREE!r}, not {text!r}")
    return DEGREE


class FakeQuantized(nn.Module):
    """A convolution or linear layer and the batch norm after it (or None), computed as its int8 form will be."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm
        self.operation = operation(layer)
        # NaN until the first training batch: a model that was never trained answers NaN, not something plausible
        self.register_buffer("low", torch.full((), torch.nan, device=layer.weight.device))
        self.register_buffer("high", self.low.clone())
        self.observes_input_ranges = True

    def prepare_for_single_samples(self) -> None:
        """Keep the ranges as they are, so that a sample's gradient depends on no other sample."""
        self.observes_input_ranges = False

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # half precision would blur the grid
            x = x.float()
            if self.training and self.observes_input_ranges:
                self.observe(x.detach())
            weight, scale, bias = self.quantized()
            return self.operation(quantize_input(x, *self.input_grid()), weight, bias)

    def observe(self, x: Tensor) -> None:
        """Move the running range towards this batch's range; the first batch sets it."""
        low, high = torch.aminmax(x)
        for running, value in ((self.low, low), (self.high, high)):
            running.copy_(torch.where(running.isnan(), value, running.lerp(value, MOMENTUM)))

    def input_grid(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point, 0-d float32 and int32.

        The range is widened to hold zero, so that the zeros of a convolution's padding stay exact.
        """
        low = self.low.clamp(max=0)
        high = self.high.clamp(min=0)
        scale = ((high - low) / INPUT_LEVELS).clamp(min=MIN_SCALE)
        return scale, (-low / scale).round().clamp(0, INPUT_LEVELS).int()

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one layer that equals layer and norm together in eval mode."""
        return fold(self.layer, self.norm)

    def quantized(self) -> tuple[Tensor, Tensor, Tensor]:
        """The folded weight rounded to its grid, the grid's scale (channels,) and the folded bias."""
        weight, bias = self.folded()
        return *round_channels(weight), bias


class Int8(nn.Module):
    """A layer with int8 weights. It computes what `FakeQuantized` does, in the same order, so outputs are bit-equal."""

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


def fold(layer: nn.Module, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the one layer that equals `layer` and then `norm` in eval mode (Jacob et al., eq. 14).

    An embedding has neither a bias nor a norm.
    """
    weight = layer.weight
    if isinstance(layer, nn.Embedding):
        return weight, None
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias
    if norm is None:
        return weight, bias
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return weight * per_channel(factor, weight), norm.bias + (bias - norm.running_mean) * factor


def operation(layer: nn.Module) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """What the layer computes, as a function of input, weight and bias."""
    if isinstance(layer, nn.Embedding):
        return look_up
    if isinstance(layer, nn.Linear):
        return F.linear
    options = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    return partial(F.conv2d, **options)


def look_up(ids: Tensor, weight: Tensor, bias: None) -> Tensor:
    """What an embedding computes."""
    return F.embedding(ids, weight)


def quantize_input(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, INPUT_LEVELS)


def replace_layers(
    model: nn.Module,
    make: Callable[[nn.Module, nn.Module | None], nn.Module],
    make_embedding: Callable[[nn.Embedding], nn.Module],
) -> nn.Module:
    """Change the model in place: make(layer, norm) replaces every conv and linear layer, an identity its batch norm.

    make_embedding(layer) replaces every embedding. Group and layer normalisation stay as they are: their statistics
    belong to each sample, so they cannot be folded.
    """
    for name, norm_name in norm_after(model).items():
        layer = model.get_submodule(name)
        norm = model.get_submodule(norm_name) if norm_name else None
        model.set_submodule(name, make_embedding(layer) if isinstance(layer, nn.Embedding) else make(layer, norm))
        if norm is not None:
            model.set_submodule(norm_name, nn.Identity())
    return model


def layers_of(model: nn.Module, kind: type[nn.Module] | tuple[type[nn.Module], ...]) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, kind)}


def fake_quantized_layers(model: nn.Module) -> dict[str, FakeQuantized]:
    return layers_of(model, FakeQuantized)


def prepare(model: nn.Module, degree: str) -> nn.Module:
    """A copy with batch norm folded and every weight and every layer input fake-quantized, trainable throughout.

    Its input ranges come from its training batches: it needs one before it answers in eval mode.
    Raises ValueError unless degree is "int8".
    """
    parse_degree(degree)
    return replace_layers(copy.deepcopy(model), FakeQuantized, RoundedEmbedding)


@torch.no_grad()
def pack(prepared: nn.Module) -> dict[str, Tensor]:
    """Per layer `weight` int8, `scale` and `bias` per channel, `input_scale` and `input_zero_point`.

    All other tensors are packed as they are.
    Raises ValueError where the model has not seen a training batch.
    """
    for name, source in fake_quantized_layers(prepared).items():
        if source.low.isnan():
            raise ValueError(f"{name} has seen no training batch and no calibration: its input's range is unknown")
    return pack_layers(prepared, {FakeQuantized: pack_layer, RoundedEmbedding: pack_embedding})


def pack_layer(source: FakeQuantized) -> Int8:
    target = Int8(source.layer, source.norm)
    weight, target.scale, target.bias = source.quantized()
    target.weight = codes_of(weight, target.scale)
    target.input_scale, target.input_zero_point = source.input_grid()
    return target


@torch.no_grad()
def pack_layers(
    prepared: nn.Module, packers: Mapping[type[nn.Module], Callable[[nn.Module], nn.Module]]
) -> dict[str, Tensor]:
    """All tensors of a copy of `prepared` in which packers[type](layer) replaces every layer of these types."""
    model = copy.deepcopy(prepared)
    for name, layer in layers_of(model, tuple(packers)).items():
        model.set_submodule(name, packers[type(layer)](layer))
    return {name: t.cpu().contiguous().clone() for name, t in model.state_dict().items()}


def unpack(skeleton: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """The int8 model, in eval mode: a copy of the float network `skeleton` filled from `pack`'s tensors.

    Raises ValueError naming the first tensor that does not fit.
    """
    return unpack_layers(skeleton, Int8, Int8Embedding, tensors)


def unpack_layers(
    skeleton: nn.Module,
    kind: type[nn.Module],
    embedding: Callable[[nn.Embedding], nn.Module],
    tensors: dict[str, Tensor],
) -> nn.Module:
    """A copy of the float network whose layers and embeddings are of these kinds, filled and in eval mode."""
    model = replace_layers(copy.deepcopy(skeleton), kind, embedding)
    return load_exactly(model, tensors).eval().requires_grad_(False)


@torch.no_grad()
def verify(prepared: nn.Module, restored: nn.Module, degree: str, inputs: Tensor) -> str:
    """Assert int8 weights and equal outputs for network inputs (N, ...); returns one line that says so.

    The weights are those of the fake-quantized model `prepared`, and `restored` is what `unpack` made of its tensors.
    """
    sources = layers_of(prepared, (FakeQuantized, RoundedEmbedding))
    weights = assert_int8_weights(sources, restored, Int8)
    assert_equal_outputs(prepared, restored, inputs)
    norms = [source.norm for source in fake_quantized_layers(prepared).values()]
    folded = ", batch norm folded" if any(norm is not None for norm in norms) else ""
    return (
        f"quantization {degree}: {weights:,} int8 weights in {len(sources)} layers{folded}; "
        f"restored outputs equal those of the fake-quantized model on {len(inputs)} points"
    )


def assert_int8_weights(sources: dict[str, nn.Module], restored: nn.Module, kind: type[nn.Module]) -> int:
    """Assert that these layers are of this kind or embeddings and hold their source's weights; how many weights."""
    weights = 0
    for name, source in sources.items():
        target = restored.get_submodule(name)
        assert isinstance(target, (kind, Int8Embedding)) and target.weight.dtype == torch.int8, (
            f"{name} holds no int8 weights"
        )
        same = torch.equal(target.dequantized().cpu(), source.quantized()[0].cpu())
        assert same, f"{name}: the int8 weights are not those of the fake-quantized layer"
        weights += target.weight.numel()
    return weights
