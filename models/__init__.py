"""Networks for 32x32 RGB images and for rows of features, built by name."""

import math
from numbers import Real

from torch import nn

from .mlp import mlp
from .mobilenet import mobilenetv2
from .resnet import resnet18, resnet18_gn
from .vgg import vgg16_bn

BUILDERS = {"resnet18": resnet18, "vgg16_bn": vgg16_bn, "mobilenetv2": mobilenetv2, "resnet18_gn": resnet18_gn}
FOR_IMAGES = tuple(BUILDERS)
FOR_FEATURES = ("mlp",)
NAMES = (*FOR_IMAGES, *FOR_FEATURES)
WITHOUT_BATCH_NORM = ("resnet18_gn", "mlp")


def build(name: str, num_classes: int, width: float = 1.0, features: int | None = None) -> nn.Module:
    """A freshly initialised network: images (N, 3, 32, 32) -> logits (N, num_classes). The caller seeds torch.

    With `features`, which only `mlp` takes and needs, the input is (N, features). `width` multiplies every layer's
    channels (rounded to multiples of 8, at least 16). Convolutions start from He et al. 2015 (fan-out). Only `mlp` has
    dropout, whose draws come from torch's global generator.

    Raises ValueError for an unknown name, fewer than two classes, a width that is not a positive number, or features
    that do not go with the network.
    """
    if name not in NAMES:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(NAMES)}")
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(f"num_classes must be an integer of at least 2, not {num_classes!r}")
    if isinstance(width, bool) or not isinstance(width, Real) or not (math.isfinite(width) and width > 0):
        raise ValueError(f"width must be a positive number, not {width!r}")
    if name in FOR_FEATURES:
        if isinstance(features, bool) or not isinstance(features, int) or features < 1:
            raise ValueError(f"features must be a positive integer for {name}, not {features!r}")
        return mlp(features, num_classes, width)
    if features is not None:
        raise ValueError(f"{name} takes images, not {features!r} features")
    model = BUILDERS[name](num_classes, width)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
