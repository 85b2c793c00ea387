"""What is done to answers: functions from what a model answers to what people get to see.

    change(posteriors, argument, owner) -> posteriors

Both posteriors are (n, C) float64 arrays of numpy whose rows add up to one. The class that the model predicts stays the
most likely one, if perhaps not the only one.

The three below are PrivBox's wrappers (PaddleSleeve, PrivacyGuard/post_process): TopK, Rounding and Labeling. PrivBox
gives fewer or other numbers than a posterior has. Here what an answer leaves open is spread evenly, as an attacker may
do who sees such answers. So nothing is added to what is told, and nothing of it is lost.
"""

from typing import NamedTuple

import numpy as np

from core.errors import UserError

DECIMALS = 15  # that float64 has of a number below one, for certain


class OwnersKnowledge(NamedTuple):
    """What the owner of a model knows beside the answer to be given: what the model answers about known points."""

    members: np.ndarray  # (m, C) posteriors of points that the model was trained on
    others: np.ndarray  # (k, C) posteriors of points that it was not trained on and that nobody audits
    seed: int = 0
    device: str = "cpu"  # or a torch.device


def keep_largest(posteriors: np.ndarray, count: int, owner: OwnersKnowledge | None = None) -> np.ndarray:
    """The `count` largest entries of each row as they are; the others share what is left evenly.

    UserError where that tells every posterior.
    """
    classes = posteriors.shape[1]
    check_count(count, classes)
    largest = np.argsort(-posteriors, axis=1, kind="stable")[:, :count]
    told = np.take_along_axis(posteriors, largest, axis=1)
    left = (1 - told.sum(axis=1, keepdims=True)) / (classes - count)
    answers = np.repeat(np.clip(left, 0, told[:, -1:]), classes, axis=1)  # rounding may put it beyond
    np.put_along_axis(answers, largest, told, axis=1)
    return answers


def check_count(count: int, classes: int) -> None:
    """UserError where the `count` largest posteriors tell all of them: the last one follows from the sum of one."""
    largest = classes - 2
    if count > largest:
        advice = f"give {largest} or less" if largest > 0 else "choose another defence of answers"
        raise UserError(f"topk:{count} hides nothing of {classes} classes, whose posteriors add up to one: {advice}")


def round_off(posteriors: np.ndarray, decimals: int, owner: OwnersKnowledge | None = None) -> np.ndarray:
    """All entries rounded to so many decimals; what a row then lacks is spread evenly, a row above one is divided."""
    rounded = np.round(posteriors, decimals)
    total = np.round(rounded.sum(axis=1, keepdims=True), decimals)
    return rounded / np.maximum(total, 1) + np.maximum(1 - total, 0) / posteriors.shape[1]


def name_label(posteriors: np.ndarray, argument: None = None, owner: OwnersKnowledge | None = None) -> np.ndarray:
    """One for the predicted class, zero for all others."""
    return np.eye(posteriors.shape[1])[posteriors.argmax(axis=1)]
