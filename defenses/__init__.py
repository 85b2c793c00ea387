"""Defences: what they change in training, original models and compressed ones alike. One file a defence.

`Procedure` is training without one. A defence overrides what it changes: which points make a step's batch, what a step
minimises, what it needs beside the members. `compleak.training.fit` knows nothing else of it.
"""

from typing import NamedTuple

from defenses.adv import AdversarialRegularization
from defenses.dp import DPSGD
from defenses.ppb import PosteriorBalancing
from defenses.procedure import Procedure

__all__ = ["DEFENCES", "Defence", "Procedure", "build"]


class Defence(NamedTuple):
    """A defence's entry: its procedure, and its argument's meaning and default."""

    procedure: type[Procedure]  # procedure(argument, num_cls=..., seed=...)
    argument: str
    default: float


DEFENCES = {
    "ppb": Defence(PosteriorBalancing, "lambda, the weight of the divergence between two samples' posteriors", 4.0),
    "adv": Defence(AdversarialRegularization, "alpha, the weight of the inference network's gain", 1.0),
    "dp": Defence(DPSGD, "noise multiplier: standard deviation of the noise over the clipping norm", 1.0),
}


def build(name: str, argument: float, *, num_cls: int, seed: int) -> Procedure:
    """The procedure of a defence; of none where the name is empty."""
    return DEFENCES[name].procedure(argument, num_cls=num_cls, seed=seed) if name else Procedure()
