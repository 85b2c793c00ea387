"""Networks for RGB images of any size, for rows of features and for texts, built by name."""

import math
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import NamedTuple

from torch import nn

from .densenet import densenet121
from .mlp import mlp
from .mobilenet import mobilenetv2
from .resnet import resnet18, resnet18_gn
from .text import bert, gpt2
from .vgg import vgg16_bn


class Network(NamedTuple):
    """A network's entry in the registry."""

    builder: Callable[..., nn.Module]  # (num_classes, width), preceded by the number of features where it takes them
    takes: str  # the name of the kind of input (`data.inputs.KINDS`)
    batch_norm: bool
    halvings: int = 0  # how often height and width of an image are halved on its way through the network
    tokenizer: str = ""  # of texts: which kind is trained for it

    @property
    def least_side(self) -> int:
        """The pixels that an image must have in height and width."""
        return 2**self.halvings


NETWORKS = {
    "resnet18": Network(resnet18, takes="images", batch_norm=True, halvings=4),
    "vgg16_bn": Network(vgg16_bn, takes="images", batch_norm=True, halvings=5),
    "mobilenetv2": Network(mobilenetv2, takes="images", batch_norm=True, halvings=3),
    "densenet121": Network(densenet121, takes="images", batch_norm=True, halvings=4),
    "resnet18_gn": Network(resnet18_gn, takes="images", batch_norm=False, halvings=4),
    "mlp": Network(mlp, takes="features", batch_norm=False),
    "bert": Network(bert, takes="text", batch_norm=False, tokenizer="wordpiece"),
    "gpt2": Network(gpt2, takes="text", batch_norm=False, tokenizer="byte_bpe"),
}
NAMES = tuple(NETWORKS)


def names_for(kind: str) -> tuple[str, ...]:
    """The networks that take this kind of input."""
    return tuple(name for name, network in NETWORKS.items() if network.takes == kind)


FOR_IMAGES = names_for("images")
FOR_FEATURES = names_for("features")
FOR_TEXT = names_for("text")
WITHOUT_BATCH_NORM = tuple(name for name, network in NETWORKS.items() if not network.batch_norm)


def build(
    name: str, num_classes: int, width: float = 1.0, features: int | None = None, pretrained: Path | None = None
) -> nn.Module:
    """An untrained network: images (N, 3, H, W), rows (N, features) or tokens (N, 64) -> logits (N, num_classes).

    Images may have any size from the network's `least_side` on; every other kind of input needs `features`, which for
    texts is the number of tokens that there are. `width` multiplies the channels or units of every layer (rounded to
    multiples of 8, at least 16; what a layer of densenet121 adds, at least 8). Convolutions start from He et al. 2015
    (fan-out). The caller seeds torch. `mlp` and the networks for texts have dropout, whose draws come from torch's
    global generator. `pretrained` is a folder from which a network for texts takes its weights.

    Raises ValueError for an unknown name, fewer than two classes, a width that is not a positive number, or features or
    a pretrained folder that do not go with the kind of network. UserError where transformers is missing or the folder
    holds no fitting weights.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(NAMES)}")
    if not _is_integer(num_classes) or num_classes < 2:
        raise ValueError(f"num_classes must be an integer of at least 2, not {num_classes!r}")
    if isinstance(width, bool) or not isinstance(width, Real) or not (math.isfinite(width) and width > 0):
        raise ValueError(f"width must be a positive number, not {width!r}")
    _check_features(name, features)
    if pretrained and NETWORKS[name].takes != "text":
        raise ValueError(f"{name} starts from no pretrained folder, as networks for texts do")
    size = () if features is None else (features,)
    start = {"pretrained": pretrained} if pretrained else {}
    return _initialise_convolutions(NETWORKS[name].builder(*size, num_classes, width, **start))


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
