"""Embeddings with int8 weights, for every kind of int8 model: a grid for each row, which is the vector of one token.

Token ids are an embedding's input and are not rounded.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantization.rounding import codes_of, per_channel, round_channels


class RoundedEmbedding(nn.Module):
    """An embedding, computed as its int8 form will be."""

    def __init__(self, layer: nn.Embedding) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.quantized()[0])

    def quantized(self) -> tuple[Tensor, Tensor]:
        """The weight rounded to its grids, and the grids' scale (rows,)."""
        return round_channels(self.layer.weight)


class Int8Embedding(nn.Module):
    """An embedding with int8 weights. Its vectors are bit-equal to those of `RoundedEmbedding`."""

    def __init__(self, layer: nn.Embedding) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros_like(layer.weight, dtype=torch.int8))
        self.register_buffer("scale", layer.weight.new_zeros(len(layer.weight)))

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight[ids] * self.scale[ids].unsqueeze(-1)

    def dequantized(self) -> Tensor:
        return self.weight * per_channel(self.scale, self.weight)


def pack_embedding(source: RoundedEmbedding) -> Int8Embedding:
    target = Int8Embedding(source.layer)
    weight, target.scale = source.quantized()
    target.weight = codes_of(weight, target.scale)
    return target
