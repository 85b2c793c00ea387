"""Defences, one file each: what they change in training, of original models and compressed ones alike, or in answers.

Defences have three places. One that is trained in uses one or both of the first two:

    the step             a `Procedure`: which points make a batch, what a step minimises, what it needs beside members
    the whole training   a function in place of the one training of a model, for example several models and a student
    the answers          a function of the posteriors that a model gives away

`compleak` looks defences up in `DEFENCES` and `DEFENCES_OF_ANSWERS`, and knows nothing else of them. A defence of
answers needs no training and goes with any other defence.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from core import arguments
from defenses import selena
from defenses.adv import AdversarialRegularization
from defenses.dp import DPSGD
from defenses.early_stopping import EarlyStopping
from defenses.label_smoothing import LabelSmoothing
from defenses.memguard import guard
from defenses.outputs import DECIMALS, OwnersKnowledge, check_count, keep_largest, name_label, round_off
from defenses.ppb import PosteriorBalancing
from defenses.procedure import Procedure
from defenses.relaxloss import RelaxLoss
from defenses.weight_decay import WeightDecay

__all__ = [
    "DEFENCES",
    "DEFENCES_OF_ANSWERS",
    "WITH_PARTS",
    "Defence",
    "DefenceOfAnswers",
    "OwnersKnowledge",
    "Parts",
    "Procedure",
    "build",
]


class Parts(NamedTuple):
    """The parts of a whole training. A whole training makes those that are not made yet."""

    name: str  # of one part, for people
    count: Callable[[float], int]  # the defence's argument -> how many; UserError where it is none
    check: Callable[[float, int], None]  # UserError where so many members are too few for the argument
    make: Callable[..., None]  # make(trainer, members, number, *, argument, seed)


class Defence(NamedTuple):
    """A trained defence's entry: the meaning, the default and the largest value of its argument, and its two places.

    step: step(argument, num_cls=..., seed=...) makes the procedure of one training.

    whole_training: `compleak.training` calls it once for each defended model, original or compressed, where it would
    otherwise train the model on its members:

        whole_training(trainer, model, members, reserve, *, argument, seed) -> facts

        trainer   the means to train it, and others beside it: `defenses.trainer`
        model     the network as it starts; must hold the trained weights afterwards
        members   the stored inputs (n, ...) and the labels of the model's members, on its device
        reserve   the same of its reserve, None where `step.needs_reserve` is false
        facts     what the model's meta.json says of its training; "files" names further files in the model's folder

    parts: what of the whole training of an original can be made beforehand, each part in a stage of its own.
    """

    argument: str
    default: float
    step: type[Procedure] = Procedure
    whole_training: Callable[..., dict] | None = None
    parts: Parts | None = None
    most: float = math.inf  # the largest argument that has a meaning


class DefenceOfAnswers(NamedTuple):
    """A defence of answers: what it does, its argument, and how the argument is read from a command line.

    change: `compleak.queries` calls it once for each defended model, on everything that the model answers:

        change(posteriors, argument, owner) -> posteriors, both (n, C) float64 arrays whose rows add up to one
    """

    change: Callable[[np.ndarray, float | None, OwnersKnowledge], np.ndarray]
    argument: str  # its meaning; "" where there is none
    read: Callable[[str], float] | None = None
    default: float | None = None  # None: it must be stated
    needs_owner: bool = False  # whether it must know points that were trained on and points that were not
    most: float = math.inf  # the largest argument that changes anything
    check: Callable[[float, int], None] | None = None  # UserError where it hides nothing of so many classes


DEFENCES = {
    "ppb": Defence("lambda, the weight of the divergence between two samples' posteriors", 4.0, PosteriorBalancing),
    "adv": Defence("alpha, the weight of the inference network's gain", 1.0, AdversarialRegularization),
    "dp": Defence("noise multiplier: standard deviation of the noise over the clipping norm", 1.0, DPSGD),
    "relaxloss": Defence("alpha, the loss that training keeps to", 1.0, RelaxLoss),
    "label_smoothing": Defence("epsilon, the share of the label for all classes", 0.1, LabelSmoothing, most=1.0),
    "early_stopping": Defence("share of the epochs after which training ends", 0.5, EarlyStopping, most=1.0),
    "weight_decay": Defence("factor in place of the usual 5e-4 (AdamW: 0.01), and above it", 0.005, WeightDecay),
    "selena": Defence(
        "the number of sub-models, of which 0.4 leave out each member",
        25.0,
        whole_training=selena.distil,
        parts=Parts("sub-model", selena.count_sub_models, selena.check, selena.make_sub_model),
        most=1000.0,  # forty times the paper's; a plan has a stage for each
    ),
}
WITH_PARTS = tuple(name for name, defence in DEFENCES.items() if defence.parts)

DEFENCES_OF_ANSWERS = {
    "memguard": DefenceOfAnswers(guard, "the budget of expected distortion", arguments.positive_float, 1.0, True),
    "topk": DefenceOfAnswers(keep_largest, "how many posteriors are told", arguments.positive_int, check=check_count),
    "round": DefenceOfAnswers(round_off, "decimals that are told", arguments.whole_number, most=DECIMALS),
    "label": DefenceOfAnswers(name_label, ""),
}


def build(name: str, argument: float, *, num_cls: int, seed: int) -> Procedure:
    """The procedure of one training with a defence; plain training where the name is empty."""
    step = DEFENCES[name].step if name else Procedure
    return Procedure() if step is Procedure else step(argument, num_cls=num_cls, seed=seed)
