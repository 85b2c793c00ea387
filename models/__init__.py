"""Networks for 32x32 RGB images and for rows of features, built by name."""

import math
from collections.abc import Callable
from numbers import Real
from typing import NamedTuple

from torch import nn

from .mlp import mlp
from .mobilenet import mobilenetv2
from .resnet import resnet18, resnet18_gn
from .vgg import vgg16_bn


class Network(NamedTuple):
    """A network's entry in the registry."""

    builder: Callable[..., nn.Module]  # (num_classes, width), preceded by the number of features where it takes them
    takes: str  # the name of the kind of input (`data.inputs.KINDS`)
    batch_norm: bool


NETWORKS = {
    "resnet18": Network(resnet18, takes="images", batch_norm=True),
    "vgg16_bn": Network(vgg16_bn, takes="images", batch_norm=True),
    "mobilenetv2": Network(mobilenetv2, takes="images", batch_norm=True),
    "resnet18_gn": Network(resnet18_gn, takes="images", batch_norm=False),
    "mlp": Network(mlp, takes="features", batch_norm=False),
}
NAMES = tuple(NETWORKS)


def names_for(kind: str) -> tuple[str, ...]:
    """The networks that take this kind of input."""
    return tuple(name for name, network in NETWORKS.items() if network.takes == kind)


FOR_IMAGES = names_for("images")
FOR_FEATURES = names_for("features")
WITHOUT_BATCH_NORM = tuple(name for name, network in NETWORKS.items() if not network.batch_norm)


def build(name: str, num_classes: int, width: float = 1.0, features: int | None = None) -> nn.Module:
    """A freshly initialised network: inputs (N, 3, 32, 32) or (N, features) -> logits (N, num_classes).

    Images have one size; every other kind of input needs `features`. `width` multiplies the channels or units of every
    layer (rounded to multiples of 8, at least 16). Convolutions start from He et al. 2015 (fan-out). The caller seeds
    torch. Only `mlp` has dropout, whose draws come from torch's global generator.

    Raises ValueError for an unknown name, fewer than two classes, a width that is not a positive number, or features
    that do not go with the network.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(NAMES)}")
    if not _is_integer(num_classes) or num_classes < 2:
        raise ValueError(f"num_classes must be an integer of at least 2, not {num_classes!r}")
    if isinstance(width, bool) or not isinstance(width, Real) or not (math.isfinite(width) and width > 0):
        raise ValueError(f"width must be a positive number, not {width!r}")
    _check_features(name, features)
    size = () if features is None else (features,)
    return _initialise_convolutions(NETWORKS[name].builder(*size, num_classes, width))


def _check_features(name: str, features: int | None) -> None:
    """ValueError where the network takes images and features are given, or the other way round."""
    takes_images = NETWORKS[name].takes == "images"
    if takes_images and features is not None:
        raise ValueError(f"{name} takes images, not {features!r} features")
    if not takes_images and (not _is_integer(features) or features < 1):
        raise ValueError(f"features must be a positive integer for {name}, not {features!r}")


def _is_integer(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _initialise_convolutions(model: nn.Module) -> nn.Module:
    """Draw all convolutions' weights anew, in place, as He et al. 2015 have it."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
