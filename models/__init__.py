"""Networks for 32x32 RGB images, built by name."""

import math
from numbers import Real

from torch import nn

from .mobilenet import mobilenetv2
from .resnet import resnet18
from .vgg import vgg16_bn

BUILDERS = {"resnet18": resnet18, "vgg16_bn": vgg16_bn, "mobilenetv2": mobilenetv2}
NAMES = tuple(BUILDERS)


def build(name: str, num_classes: int, width: float = 1.0) -> nn.Module:
    """A freshly initialised network: images (N, 3, 32, 32) -> logits (N, num_classes). The caller seeds torch.

    `width` multiplies every layer's channels (rounded to multiples of 8, at least 16). Convolutions start from
    He et al. 2015 (fan-out); no network has dropout, so that a training run follows from its seed.

    Raises ValueError for an unknown name, fewer than two classes, or a width that is not a positive number.
    """
    if name not in BUILDERS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(NAMES)}")
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(f"num_classes must be an integer of at least 2, not {num_classes!r}")
    if isinstance(width, bool) or not isinstance(width, Real) or not (math.isfinite(width) and width > 0):
        raise ValueError(f"width must be a positive number, not {width!r}")
    model = BUILDERS[name](num_classes, width)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
