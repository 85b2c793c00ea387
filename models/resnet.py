"""ResNet-18 (He et al. 2016, arXiv:1512.03385) for 32x32 images: 3x3 stem of stride 1, max-pool kept.

It has batch normalisation, or group normalisation for private training, where samples may not share statistics.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from .layers import conv_bn, conv_gn, scaled


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (Fig. 2): (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int, conv: Callable[..., nn.Sequential]) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.conv2 = conv(outputs, outputs)
        keep = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if keep else conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


def resnet18(num_classes: int, width: float = 1.0, conv: Callable[..., nn.Sequential] = conv_bn) -> nn.Sequential:
    """Images (N, 3, H, W) -> logits (N, num_classes). `conv` makes a convolution and its normalisation."""
    channels = [scaled(c, width) for c in (64, 128, 256, 512)]
    stem = nn.Sequential(conv(3, channels[0]), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))
    blocks = []
    inputs = channels[0]
    for stage, outputs in enumerate(channels):
        blocks += [Block(inputs, outputs, 1 if stage == 0 else 2, conv), Block(outputs, outputs, 1, conv)]
        inputs = outputs
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes))
    return nn.Sequential(stem, nn.Sequential(*blocks), head)


def resnet18_gn(num_classes: int, width: float = 1.0) -> nn.Sequential:
    """`resnet18` with group normalisation in place of batch normalisation."""
    return resnet18(num_classes, width, conv_gn)
