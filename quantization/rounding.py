"""Weights rounded to symmetric grids, one for each row: Krishnamoorthi 2018 (arXiv:1806.08342), section 2.2.

A row is all that has one index along the first axis: an output channel, the vector of one token, or, for `int4`, a
group of weights.
"""

import torch
from torch import Tensor

WEIGHT_LEVELS = 127  # of eight bits
MIN_SCALE = torch.finfo(torch.float32).eps  # keeps 1 / scale finite where a channel, or its gamma, is almost zero


def round_channels(weight: Tensor, levels: int = WEIGHT_LEVELS) -> tuple[Tensor, Tensor]:
    """A weight (rows, ...) rounded to the grid -levels ... levels of each row, and the grids' scale (rows,)."""
    dims = tuple(range(1, weight.dim()))
    scale = (weight.detach().abs().amax(dims) / levels).clamp(min=MIN_SCALE)
    zero_point = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero_point, 0, -levels, levels), scale


def codes_of(rounded: Tensor, scale: Tensor) -> Tensor:
    """The codes, as int8 numbers, of a weight that `round_channels` rounded to grids of this scale (rows,)."""
    return (rounded / per_channel(scale, rounded)).round().to(torch.int8)


def per_channel(vector: Tensor, weight: Tensor) -> Tensor:
    """(rows,) shaped so that it multiplies the rows of the weight."""
    return vector.view(-1, *[1] * (weight.dim() - 1))
