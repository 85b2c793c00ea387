"""`int4`: weights on four bits in groups, activations in float32, without fine-tuning.

Each group of 64 weights of an output channel has a grid of its own, symmetric on [-7, 7]: group-wise quantization (Shen
et al. 2020, "Q-BERT", arXiv:1909.05840) with a small group, which four bits need (Dettmers & Zettlemoyer 2023,
arXiv:2212.09720). A layer whose channels are no multiple of 64 weights has one group a channel. Batch norm is folded
first (Jacob et al. 2018, eq. 14), biases stay float32.

Two codes make a byte, the first in the lower half, each in two's complement: the layout of INT4 in ONNX.
"""

import copy
import math

import torch
from torch import Tensor, nn

from models.tools import assert_equal_outputs
from quantization.int8 import fold, layers_of, operation, pack_layers, replace_layers, unpack_layers
from quantization.rounding import codes_of, round_channels

DEGREE = "int4"
WEIGHT_LEVELS = 7
GROUP = 64  # weights that share a scale


def group_size(weight: Tensor) -> int:
    """How many weights of an output channel share a scale."""
    size = weight[0].numel()
    return GROUP if size % GROUP == 0 else size


class Rounded(nn.Module):
    """A layer and the batch norm after it (or None), folded, its weights rounded to four bits."""

    def __init__(self, layer: nn.Module, norm: nn.BatchNorm2d | None = None) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm
        self.operation = operation(layer)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            groups, _, bias = self.quantized()
            return self.operation(in_float32(x), groups.view(self.layer.weight.shape), bias)

    def quantized(self) -> tuple[Tensor, Tensor, Tensor]:
        """The folded weight's groups (groups, size) rounded to their grids, the grids' scale, and the folded bias."""
        weight, bias = fold(self.layer, self.norm)
        groups = weight.contiguous().view(-1, group_size(weight))
        return *round_channels(groups, WEIGHT_LEVELS), bias


class Int4(nn.Module):
    """A layer whose weights are four-bit codes. Its outputs are bit-equal to those of `Rounded`."""

    def __init__(self, layer: nn.Module, norm: nn.BatchNorm2d | None = None) -> None:
        super().__init__()
        self.operation = operation(layer)
        self.shape = layer.weight.shape
        self.group = group_size(layer.weight)
        count = layer.weight.numel()
        self.register_buffer("codes", layer.weight.new_zeros(math.ceil(count / 2), dtype=torch.uint8))
        self.register_buffer("scale", layer.weight.new_zeros(count // self.group))
        has_bias = not isinstance(layer, nn.Embedding)
        self.register_buffer("bias", layer.weight.new_zeros(len(layer.weight)) if has_bias else None)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.operation(in_float32(x), self.dequantized(), self.bias)

    def dequantized(self) -> Tensor:
        groups = two_from_a_byte(self.codes, self.shape.numel()).view(-1, self.group)
        return (groups * self.scale[:, None]).view(self.shape)


def in_float32(x: Tensor) -> Tensor:
    """Values in full precision; tokens as they are."""
    return x.float() if x.is_floating_point() else x


def two_in_a_byte(codes: Tensor) -> Tensor:
    """int8 codes (n,) from -8 to 7 -> uint8 (ceil(n / 2),); the last half of an odd number is 0."""
    padded = torch.cat([codes, codes.new_zeros(len(codes) % 2)]).view(torch.uint8) & 15
    return padded[0::2] | (padded[1::2] << 4)


def two_from_a_byte(packed: Tensor, count: int) -> Tensor:
    """The first `count` codes that `two_in_a_byte` put into uint8 (n,): int8 (count,)."""
    nibbles = torch.stack([packed & 15, packed >> 4], dim=1).flatten()[:count].to(torch.int8)
    return nibbles - 16 * (nibbles > 7).to(torch.int8)


def prepare(model: nn.Module, degree: str) -> nn.Module:
    """A copy with batch norm folded and every weight rounded to four bits. It is ready to answer.

    Raises ValueError unless degree is "int4".
    """
    if degree != DEGREE:
        raise ValueError(f"four-bit quantization has the degree {DEGREE!r}, not {degree!r}")
    return replace_layers(copy.deepcopy(model), Rounded, Rounded).eval()


def pack(prepared: nn.Module) -> dict[str, Tensor]:
    """Per layer `codes`, two a byte, `scale` per group and `bias` per channel; all other tensors as they are."""
    return pack_layers(prepared, {Rounded: pack_layer})


def pack_layer(source: Rounded) -> Int4:
    target = Int4(source.layer, source.norm)
    groups, target.scale, target.bias = source.quantized()
    target.codes = two_in_a_byte(codes_of(groups, target.scale).flatten())
    return target


def unpack(skeleton: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """The four-bit model, in eval mode: a copy of the float network `skeleton` filled from `pack`'s tensors.

    Raises ValueError naming the first tensor that does not fit.
    """
    return unpack_layers(skeleton, Int4, Int4, tensors)


@torch.no_grad()
def verify(prepared: nn.Module, restored: nn.Module, degree: str, inputs: Tensor) -> str:
    """Assert at most 15 values a group, half a byte a weight, and equal outputs for network inputs (N, ...).

    Returns one line that says so. `restored` is what `unpack` made of the tensors of `prepared`.
    """
    sources = layers_of(prepared, Rounded)
    weights = 0
    for name, source in sources.items():
        target = restored.get_submodule(name)
        count = source.layer.weight.numel()
        assert isinstance(target, Int4) and len(target.codes) == math.ceil(count / 2), f"{name} holds no 4-bit codes"
        codes = two_from_a_byte(target.codes, count)
        assert codes.abs().max() <= WEIGHT_LEVELS, f"{name} holds codes beyond -7 ... 7"
        same = torch.equal(target.dequantized().flatten().cpu(), source.quantized()[0].flatten().cpu())
        assert same, f"{name}: the 4-bit weights are not those of the rounded layer"
        weights += count
    assert_equal_outputs(prepared, restored, inputs)
    return (
        f"quantization {degree}: {weights:,} 4-bit weights in {len(sources)} layers, two a byte, with "
        f"{describe_scales(list(sources.values()))}; restored outputs equal those of the rounded model on "
        f"{len(inputs)} points"
    )


def describe_scales(layers: list[Rounded]) -> str:
    """How many weights share a scale, and in how many layers where it is not the same in all."""
    whole_channels = sum(group_size(source.layer.weight) != GROUP for source in layers)
    if not whole_channels:
        return f"a scale for each {GROUP} of them"
    if whole_channels == len(layers):
        return "a scale for each output channel"
    return (
        f"a scale for each {GROUP} of them in {len(layers) - whole_channels} layers and for each output channel in "
        f"{whole_channels}"
    )
