"""Weights rounded to a symmetric grid of each output channel: Krishnamoorthi 2018 (arXiv:1806.08342), section 2.2."""

import torch
from torch import Tensor

WEIGHT_LEVELS = 127  # of eight bits
MIN_SCALE = torch.finfo(torch.float32).eps  # keeps 1 / scale finite where a channel, or its gamma, is almost zero


def round_channels(weight: Tensor, levels: int = WEIGHT_LEVELS) -> tuple[Tensor, Tensor]:
    """A weight rounded to the grid -levels ... levels of each output channel, and the grids' scale (channels,)."""
    dims = tuple(range(1, weight.dim()))
    scale = (weight.detach().abs().amax(dims) / levels).clamp(min=MIN_SCALE)
    zero_point = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero_point, 0, -levels, levels), scale


def codes_of(rounded: Tensor, scale: Tensor) -> Tensor:
    """The int8 codes of a weight that `round_channels` rounded to grids of this scale."""
    return (rounded / per_channel(scale, rounded)).round().to(torch.int8)


def per_channel(vector: Tensor, weight: Tensor) -> Tensor:
    """(channels,) shaped so that it multiplies the output channels of the weight."""
    return vector.view(-1, *[1] * (weight.dim() - 1))
