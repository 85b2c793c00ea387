"""`int8_dynamic`: weights on eight bits, and each layer's input on eight bits with the range that it has at hand.

Weights are those of `int8_static`. Nothing is calibrated: scale and zero point of a layer's input follow from its own
least and largest value, by the formula of ONNX's `DynamicQuantizeLinear`. That operator takes the range over a whole
batch, so that an answer depends on what else is asked at the same time. Here each sample has a range of its own, as on
a server that answers one query at a time. The answer to a sample then does not depend on its company.
"""

import copy

import torch
from torch import Tensor, nn

from models.tools import assert_equal_outputs
from quantization.embeddings import Int8Embedding, RoundedEmbedding, pack_embedding
from quantization.int8 import (
    INPUT_LEVELS,
    assert_int8_weights,
    fold,
    layers_of,
    operation,
    pack_layers,
    replace_layers,
    unpack_layers,
)
from quantization.rounding import codes_of, per_channel, round_channels

DEGREE = "int8_dynamic"
FACTOR = 100  # by which `verify` multiplies a sample's company


class FakeQuantized(nn.Module):
    """A conv or linear layer and the batch norm after it (or None), folded, computed as its int8 form will be."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm
        self.operation = operation(layer)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            weight, _, bias = self.quantized()
            return self.operation(quantize_samples(x.float()), weight, bias)

    def quantized(self) -> tuple[Tensor, Tensor, Tensor]:
        """The folded weight rounded to its grid, the grid's scale (channels,) and the folded bias."""
        weight, bias = fold(self.layer, self.norm)
        return *round_channels(weight), bias


class DynamicInt8(nn.Module):
    """A layer with int8 weights. It computes what `FakeQuantized` does, in the same order, so outputs are bit-equal."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        self.operation = operation(layer)
        self.register_buffer("weight", torch.zeros_like(layer.weight, dtype=torch.int8))
        for name in ("scale", "bias"):
            self.register_buffer(name, layer.weight.new_zeros(len(layer.weight)))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.operation(quantize_samples(x.float()), self.dequantized(), self.bias)

    def dequantized(self) -> Tensor:
        return self.weight * per_channel(self.scale, self.weight)


def quantize_samples(x: Tensor) -> Tensor:
    """(B, ...) rounded to 256 levels, with a range for each sample that holds its values and zero.

    ONNX, DynamicQuantizeLinear: scale (max - min) / 255, zero point round(-min / scale); scale 1 where all is zero.
    """
    dims = tuple(range(1, x.dim()))
    low = x.amin(dims, keepdim=True).clamp(max=0)
    high = x.amax(dims, keepdim=True).clamp(min=0)
    scale = (high - low) / INPUT_LEVELS
    scale = torch.where(scale > 0, scale, 1)
    zero_point = (-low / scale).round().clamp(0, INPUT_LEVELS)
    codes = ((x / scale).round() + zero_point).clamp(0, INPUT_LEVELS)
    return (codes - zero_point) * scale


def prepare(model: nn.Module, degree: str) -> nn.Module:
    """A copy with batch norm folded and every weight and layer input fake-quantized. It is ready to answer.

    Raises ValueError unless degree is "int8_dynamic".
    """
    if degree != DEGREE:
        raise ValueError(f"dynamic quantization has the degree {DEGREE!r}, not {degree!r}")
    return replace_layers(copy.deepcopy(model), FakeQuantized, RoundedEmbedding).eval()


def pack(prepared: nn.Module) -> dict[str, Tensor]:
    """Per layer `weight` int8, and `scale` and `bias` per channel; all other tensors as they are."""
    return pack_layers(prepared, {FakeQuantized: pack_layer, RoundedEmbedding: pack_embedding})


def pack_layer(source: FakeQuantized) -> DynamicInt8:
    target = DynamicInt8(source.layer, source.norm)
    weight, target.scale, target.bias = source.quantized()
    target.weight = codes_of(weight, target.scale)
    return target


def unpack(skeleton: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """The dynamic int8 model, in eval mode: a copy of the float network `skeleton` filled from `pack`'s tensors.

    Raises ValueError naming the first tensor that does not fit.
    """
    return unpack_layers(skeleton, DynamicInt8, Int8Embedding, tensors)


@torch.no_grad()
def verify(prepared: nn.Module, restored: nn.Module, degree: str, inputs: Tensor) -> str:
    """Assert int8 weights, equal outputs for network inputs (N, ...), and that company changes no answer.

    Returns one line that says so. `restored` is what `unpack` made of the tensors of `prepared`.
    """
    sources = layers_of(prepared, (FakeQuantized, RoundedEmbedding))
    weights = assert_int8_weights(sources, restored, DynamicInt8)
    assert_equal_outputs(prepared, restored, inputs)
    assert_company_changes_nothing(restored, inputs)
    return (
        f"quantization {degree}: {weights:,} int8 weights in {len(sources)} layers, each sample's inputs on a grid of "
        f"its own; restored outputs equal those of the fake-quantized model on {len(inputs)} points"
    )


def assert_company_changes_nothing(model: nn.Module, inputs: Tensor) -> None:
    """Assert that the first half of the inputs gets bit-equal logits beside the second half and beside extreme values.

    Token ids cannot be scaled, so for texts the second half of the batch is reversed instead: each of its texts is read
    backwards.

    Both batches have one size: another size may have other kernels, which round in another way.
    """
    half = len(inputs) // 2
    company = inputs[half:] * FACTOR if inputs.is_floating_point() else inputs[half:].flip(1)
    extreme = torch.cat([inputs[:half], company])
    device = next(model.buffers()).device
    usual, beside_extremes = (model(batch.to(device))[:half] for batch in (inputs, extreme))
    assert torch.equal(usual, beside_extremes), "a sample's logits depend on the other samples of its batch"
