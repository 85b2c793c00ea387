"""From what anybody's model answers to logits: probabilities, counts and single outputs are recognised by value.

Attacks take logits. Probabilities become their logarithms, whose softmax gives the same probabilities again. A binary
classifier with one output a point gets a second one, so that the softmax of both is its sigmoid.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from core.errors import UserError

SMALLEST = 1e-30  # of a probability, before its logarithm is taken; a logarithm of 0 would not be finite
ROUNDING = 1e-6  # by which a probability may lie below 0
LARGEST = np.finfo(np.float32).max
SUM_TOLERANCE = 0.01  # of the sums of probabilities, in the median over points: they may be float16 or rounded
WORST_SUM_TOLERANCE = 0.1  # of a single point's sum


class Scale(NamedTuple):
    """What a model's answers are, and how they become logits.

    `convert` takes (n, C) float64 and gives the same; of a single output it takes (n, 1) and gives (n, 2).
    """

    name: str
    convert: Callable[[np.ndarray], np.ndarray]
    total: float | None = None  # to which the answers about a point sum, if they are shares


def _shares(name: str, total: float) -> Scale:
    return Scale(f"{name}, turned into logits", lambda answers: np.log(np.maximum(answers / total, SMALLEST)), total)


LOGITS = Scale("logits", lambda answers: answers)
LOG_PROBABILITIES = Scale("log-probabilities", lambda answers: answers)
PROBABILITIES = _shares("probabilities", 1)
PERCENTAGES = _shares("percentages", 100)
CLASSES_ALONE = _shares("predicted classes alone (one-hot)", 1)
ONE_PROBABILITY = Scale(
    "one probability, turned into two logits",
    lambda answers: np.log(np.maximum(np.hstack([1 - answers, answers]), SMALLEST)),
)
BEFORE_SIGMOID = Scale(
    "one value before a sigmoid, turned into two logits",
    lambda answers: np.hstack([np.zeros_like(answers), answers]),
)
OF_EACH_CLASS = Scale(
    "a probability of each class by itself, turned into logits",
    lambda answers: np.log(np.maximum(answers, SMALLEST)) - np.log(np.maximum(1 - answers, SMALLEST)),
)
LOSSES = Scale("losses of each class, turned into logits", lambda answers: -answers)


def as_table(answers: np.ndarray, name: str) -> np.ndarray:
    """Raw answers (n, ...) as (n, C) float64; C is 1 for a single output. UserError where no classifier answers so."""
    answers = np.asarray(answers)
    if answers.dtype.kind not in "fiu":
        raise UserError(f"{name} answers values of type {answers.dtype}: numbers are needed, name another output")
    table = answers.reshape(len(answers), -1).astype(np.float64)
    if answers.ndim > 2 and table.shape[1] != max(answers.shape[1:]):
        shape = answers.shape[1:]
        raise UserError(f"{name} answers an array of shape {shape} for a point: name the output with one value a class")
    if not np.isfinite(table).all():
        point = int(np.argmax(~np.isfinite(table).all(axis=1)))
        raise UserError(f"{name} answers a value that is not finite, first for point {point}: no attack can use it")
    if table.shape[1] == 1 and answers.dtype.kind in "iu":
        raise UserError(f"{name} answers one whole number a point, perhaps the predicted class: scores are needed")
    return table


def scale_of(table: np.ndarray) -> Scale:
    """What the answers (n, C) float64 of one model are. Counts are whole numbers of one sum, such as trees' votes.

    All answers of a model are looked at together: a few logits of a two-class model may well lie between 0 and 1.
    """
    lies_in_unit = table.min() >= 0 and table.max() <= 1
    if table.shape[1] == 1:
        return ONE_PROBABILITY if lies_in_unit else BEFORE_SIGMOID
    if table.min() < -ROUNDING:
        is_log = table.max() <= ROUNDING and sums_are(np.exp(table), 1)
        return LOG_PROBABILITIES if is_log else LOGITS
    if sums_are(table, 1):
        return CLASSES_ALONE if np.isin(table, (0, 1)).all() else PROBABILITIES
    if sums_are(table, 100):
        return PERCENTAGES
    if lies_in_unit and table.max() > 0.5:
        return OF_EACH_CLASS
    total = float(np.median(table.sum(axis=1)))
    if total > 1 and sums_are(table, total) and (table == np.round(table)).all():
        return _shares(f"counts out of {total:g}", total)
    return LOSSES if sums_are(np.exp(-table), 1) else LOGITS


def to_logits(table: np.ndarray, scale: Scale) -> np.ndarray:
    """(n, C) float32 logits of answers on this scale."""
    return np.clip(scale.convert(table), -LARGEST, LARGEST).astype(np.float32)


def sums_are(answers: np.ndarray, total: float) -> bool:
    """Whether the rows of (n, C), which are not negative, sum to `total` but for rounding."""
    error = np.abs(answers.sum(axis=1, dtype=np.float64) / total - 1)
    return bool(np.median(error) <= SUM_TOLERANCE and error.max() <= WORST_SUM_TOLERANCE)
