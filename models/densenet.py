"""DenseNet-121 (Huang et al. 2017, arXiv:1608.06993, DenseNet-BC of Table 1) for small images.

A 3x3 stem of stride 1 takes the place of the 7x7 one of stride 2, with the max-pool kept, as in this project's ResNet.
Normalisation comes before each convolution. Compressions can therefore fold the normalisation after the stem and after
each 1x1 convolution of a dense layer; the others are separated from the convolution before them by a concatenation, and
stay layers of their own.
"""

import torch
from torch import Tensor, nn

from .layers import conv_bn, convolution, scaled

BLOCKS = (6, 12, 24, 16)  # dense layers in each block
GROWTH = 32  # channels that a dense layer adds
STEM = 64
BOTTLENECK = 4  # channels between the two convolutions of a dense layer, in channels that it adds
LEAST_GROWTH = 8


class DenseLayer(nn.Module):
    """Put `growth` new channels behind those that come in: (N, inputs, H, W) -> (N, inputs + growth, H, W)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        hidden = BOTTLENECK * growth
        squeeze = [nn.BatchNorm2d(inputs), nn.ReLU(), conv_bn(inputs, hidden, 1), nn.ReLU()]
        self.path = nn.Sequential(*squeeze, convolution(hidden, growth))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.path(x)], 1)


def transition(inputs: int, outputs: int) -> nn.Sequential:
    """Fewer channels and half the pixels: (N, inputs, H, W) -> (N, outputs, H/2, W/2)."""
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), convolution(inputs, outputs, 1), nn.AvgPool2d(2))


def densenet121(num_classes: int, width: float = 1.0) -> nn.Sequential:
    """Images (N, 3, H, W) -> logits (N, num_classes)."""
    growth = scaled(GROWTH, width, LEAST_GROWTH)
    channels = scaled(STEM, width)
    features = [conv_bn(3, channels), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    for number, layers in enumerate(BLOCKS):
        if number > 0:
            features.append(transition(channels, channels // 2))
            channels = channels // 2
        features += [DenseLayer(channels + growth * layer, growth) for layer in range(layers)]
        channels += growth * layers
    features += [nn.BatchNorm2d(channels), nn.ReLU()]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
    return nn.Sequential(nn.Sequential(*features), head)
