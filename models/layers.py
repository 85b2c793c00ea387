"""Building blocks shared by the networks."""

import math

from torch import nn

GROUP = 16  # channels that are normalised together (Wu & He 2018, table 3)


def scaled(channels: int, width: float, least: int = 16) -> int:
    """`channels` times `width`, rounded to a multiple of 8 (the divisor of Sandler et al. 2018), at least `least`.

    The usual least is 16 and not 8 because torch 2.15's CPU kernel for strided 1x1 convolutions crashes on 8
    channels-last channels.
    """
    return max(least, int(channels * width / 8 + 0.5) * 8)


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias, "same" padding: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution and its batch normalisation: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride).

    The two are direct neighbours in one `nn.Sequential`: this is how compressions recognise a pair that they can fold
    into one layer.
    """
    return nn.Sequential(convolution(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs))


def conv_gn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution and its group normalisation (Wu & He 2018, arXiv:1803.08494), of the same shapes as `conv_bn`.

    Each sample is normalised by its own statistics. Groups have 16 channels, or 8 where 16 does not divide them.
    """
    norm = nn.GroupNorm(outputs // math.gcd(outputs, GROUP), outputs)
    return nn.Sequential(convolution(inputs, outputs, kernel, stride, groups), norm)
