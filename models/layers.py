"""Building blocks shared by the networks."""

import math

from torch import nn

GROUP = 16  # channels normalised together (Wu & He 2018, table 3)


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 8 (the divisor of Sandler et al. 2018), at least 16.

    Eight would do, but torch 2.15's CPU kernel for strided 1x1 convolutions crashes on 8 channels-last channels.
    """
    return max(16, int(channels * width / 8 + 0.5) * 8)


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution and its batch normalisation, "same" padding: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride).

    The two are always direct neighbours in one `nn.Sequential`, so that they can be found and folded into one.
    """
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def conv_gn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """The same with group normalisation (Wu & He 2018, arXiv:1803.08494): a sample's statistics are its own.

    Groups have 16 channels, or 8 where 16 does not divide them.
    """
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(outputs // math.gcd(outputs, GROUP), outputs))
