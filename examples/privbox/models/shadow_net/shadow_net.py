"""The attacker's model, a little different from the target. No weights lie here: the attack trains it."""

from torch import nn


def get_model():
    """Pictures (B, 1, 8, 8) -> one output a class, before the softmax (B, 10)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 192), nn.ReLU(), nn.Linear(192, 10))
