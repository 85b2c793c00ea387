"""The fully-connected network of Yuan & Zhang 2022 (arXiv:2202.03335) for rows of features."""

from torch import nn

from .layers import scaled

HIDDEN = (256, 128)
DROPOUT = 0.1


def mlp(features: int, num_classes: int, width: float = 1.0) -> nn.Sequential:
    """Features (N, features) -> logits (N, num_classes)."""
    layers = []
    inputs = features
    for units in HIDDEN:
        outputs = scaled(units, width)
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(DROPOUT)]
        inputs = outputs
    return nn.Sequential(*layers, nn.Linear(inputs, num_classes))
