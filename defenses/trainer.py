"""What a defence that replaces the whole training works with."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]  # stored inputs (n, ...), and labels (n,) of classes or (n, C) of posteriors


class Trainer(NamedTuple):
    """The means to train one defended model, original or compressed, and others on the way.

    Trainings have numbers, so that each goes on from its own state where it was stopped. Number 0 has the model's own
    seed and every other number a seed of its own.
    """

    train: Callable[
        ..., dict
    ]  # train(model, points: Pair, number=0) -> facts; trains in place, by the defence's `step`
    forget: Callable[[int], None]  # delete the state of the training of this number
    foreign_states: Callable[[Iterable[int]], list[Path]]  # numbers -> those of their states that `train` would refuse
    new_network: Callable[[int], nn.Module]  # number -> a freshly initialised network of the same kind
    ask: Callable[[nn.Module, np.ndarray], np.ndarray]  # (model, points (m,)) -> (m, C) posteriors of plain inputs
    points: np.ndarray  # (N,) int64: the points of the data set that are asked about, the members among them
    member_of: np.ndarray  # (N,) int64: of each such point the place among the members, -1 where it is no member
    folder: Path  # of the original: what its training leaves there is for its compressed versions too
    identity: dict  # what the original is made from
    is_original: bool
