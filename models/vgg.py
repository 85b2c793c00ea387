"""VGG-16 with batch normalisation (Simonyan & Zisserman 2015, arXiv:1409.1556, configuration D) for 32x32 images.

Five poolings leave one pixel, so one linear layer takes the place of the paper's three. Of larger images more pixels
are left, and averaged. There is no dropout.
"""

from torch import nn

from .layers import conv_bn, scaled

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16_bn(num_classes: int, width: float = 1.0) -> nn.Sequential:
    """Images (N, 3, H, W) -> logits (N, num_classes)."""
    features = []
    inputs = 3
    for stage in STAGES:
        for channels in stage:
            outputs = scaled(channels, width)
            features += [conv_bn(inputs, outputs), nn.ReLU()]
            inputs = outputs
        features.append(nn.MaxPool2d(2))
    features.append(nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(nn.Sequential(*features), nn.Flatten(), nn.Linear(inputs, num_classes))
