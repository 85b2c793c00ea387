"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381) for 32x32 images.

The layers of the paper's Table 2, with stride 1 instead of 2 in the stem and in the second stage, so that the last map
has 4x4 pixels and not one.
"""

from torch import Tensor, nn

from .layers import conv_bn, scaled

# expansion t, channels c, blocks n, stride s: the columns of Table 2
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Expand, convolve per channel, project (Table 1): (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [conv_bn(inputs, hidden, 1), nn.ReLU6()] if expansion > 1 else []
        depthwise = [conv_bn(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6()]
        self.path = nn.Sequential(*expand, *depthwise, conv_bn(hidden, outputs, 1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.path(x) if self.residual else self.path(x)


def mobilenetv2(num_classes: int, width: float = 1.0) -> nn.Sequential:
    """Images (N, 3, H, W) -> logits (N, num_classes)."""
    inputs = scaled(32, width)
    last = scaled(1280, width)
    features = [conv_bn(3, inputs), nn.ReLU6()]
    for expansion, channels, blocks, stride in STAGES:
        outputs = scaled(channels, width)
        for block in range(blocks):
            features.append(InvertedResidual(inputs, outputs, expansion, stride if block == 0 else 1))
            inputs = outputs
    features += [conv_bn(inputs, last, 1), nn.ReLU6()]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, num_classes))
    return nn.Sequential(nn.Sequential(*features), head)
