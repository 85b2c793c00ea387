"""Defences, one file each: what they change in training, of original models and compressed ones alike, or in answers.

A defence has three places, and uses those that it needs:

    the step             a `Procedure`: which points make a batch, what a step minimises, what it needs beside members
    the whole training   a function in place of the one training of a model, for example several models and a student
    the answers          a function of the posteriors that a model gives away

`compleak` looks defences up in `DEFENCES` and knows nothing else of them.
"""

from collections.abc import Callable
from typing import NamedTuple

from defenses import selena
from defenses.adv import AdversarialRegularization
from defenses.dp import DPSGD
from defenses.ppb import PosteriorBalancing
from defenses.procedure import Procedure

__all__ = ["DEFENCES", "WITH_PARTS", "Defence", "Parts", "Procedure", "build"]


class Parts(NamedTuple):
    """The parts of a whole training. A whole training makes those that are not made yet."""

    name: str  # of one part, for people
    count: Callable[[float], int]  # the defence's argument -> how many; UserError where it is none
    make: Callable[..., None]  # make(trainer, members, number, *, argument, seed)


class Defence(NamedTuple):
    """A defence's entry: the meaning and the default of its argument, and its three places.

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

    answers: `compleak.queries` calls it on everything that a defended model answers, before anything is stored:

        answers(posteriors, argument) -> posteriors, both (n, C) float64 arrays of numpy whose rows add up to one
    """

    argument: str
    default: float
    step: type[Procedure] = Procedure
    whole_training: Callable[..., dict] | None = None
    parts: Parts | None = None
    answers: Callable | None = None


DEFENCES = {
    "ppb": Defence("lambda, the weight of the divergence between two samples' posteriors", 4.0, PosteriorBalancing),
    "adv": Defence("alpha, the weight of the inference network's gain", 1.0, AdversarialRegularization),
    "dp": Defence("noise multiplier: standard deviation of the noise over the clipping norm", 1.0, DPSGD),
    "selena": Defence(
        "the number of sub-models, of which 0.4 leave out each member",
        25.0,
        whole_training=selena.distil,
        parts=Parts("sub-model", selena.count_sub_models, selena.make_sub_model),
    ),
}
WITH_PARTS = tuple(name for name, defence in DEFENCES.items() if defence.parts)


def build(name: str, argument: float, *, num_cls: int, seed: int) -> Procedure:
    """The procedure of one training with a defence; plain training where the name is empty."""
    step = DEFENCES[name].step if name else Procedure
    return Procedure() if step is Procedure else step(argument, num_cls=num_cls, seed=seed)
