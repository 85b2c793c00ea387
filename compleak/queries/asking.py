"""Asking anybody's model about points, in one order and in company that say nothing of membership (PROTOCOL §7).

Members and non-members are asked in one mixed, seeded order, by one path. Some models answer differently about a point
when other points share its batch: dynamic int8 scales a layer's input by the largest value in the batch. Batches of
members alone and of non-members alone would then be two transforms. So `find_company` asks some points twice, in a
batch and alone. Where the answers differ, every point is asked alone, which is how a server answers single questions.

Answers are kept in a file while they come in, so that a stopped audit goes on where it was. Only two kinds of questions
are asked again: those that a model answered in the last seconds before the stop, and those of `find_company`, which
keeps nothing and asks about the first 32 points up to three times.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from compleak.queries.logits import Scale, as_table, scale_of, to_logits
from compleak.queries.signals_file import DAMAGED, read_source, write
from core.console import progress

TOLERANCE = 1e-3  # of logits, by which rounding may change them when the batch changes
TRIED = 32  # points that are asked in a batch, in the same batch again, and alone
PILOT = 1000  # points after whose answers the accuracy is looked at
FORMAT = 2  # of kept answers: another number makes them anew
KEEP_EVERY = 10.0  # seconds between two writings of the answers so far


class Company(NamedTuple):
    """How a model's answers depend on what else is in the batch."""

    batch_size: int  # in which points are to be asked
    in_words: str
    is_random: bool = False  # the same question gets another answer each time


class Asked(NamedTuple):
    """A model, and the points that it is to be asked about in their order.

    answer: network inputs (B, ...) -> raw answers (B, ...); inputs: positions (B,) in the order -> network inputs;
    count: of all points; fixed_batch: the only batch size that the model takes, None where it takes any.
    """

    name: str
    answer: Callable[[np.ndarray], np.ndarray]
    inputs: Callable[[np.ndarray], np.ndarray]
    count: int
    fixed_batch: int | None = None

    def table(self, positions: np.ndarray) -> np.ndarray:
        """(B, C) float64 answers about the points at these positions, asked together; C is 1 for a single output."""
        return as_table(self.answer(self.inputs(positions)), self.name)


def find_company(asked: Asked, batch_size: int) -> Company:
    """Ask the first points in a batch, in the same batch again and alone; say what that changes."""
    positions = np.arange(min(TRIED, asked.count))
    together = asked.table(positions)
    scale = scale_of(together)
    again = asked.table(positions)
    random = _largest_difference(together, again, scale)
    if random > TOLERANCE:
        words = f"answers are random: the same question asked twice gave logits that differ by up to {random:.2g}"
        return Company(batch_size, words, is_random=True)
    alone = np.concatenate([asked.table(positions[i : i + 1]) for i in range(len(positions))])
    difference = _largest_difference(together, alone, scale)
    if difference <= TOLERANCE:
        words = f"answers do not depend on what else is in the batch (largest difference of logits {difference:.1g})"
        return Company(batch_size, words)
    depends = f"answers depend on what else is in the batch (logits differ by up to {difference:.2g})"
    if asked.fixed_batch and asked.fixed_batch > 1:
        return Company(asked.fixed_batch, f"{depends}: members and non-members are asked in fixed, mixed batches")
    return Company(1, f"{depends}: every point is asked alone")


def _largest_difference(one: np.ndarray, other: np.ndarray, scale: Scale) -> float:
    """The largest difference of two answers' log-posteriors.

    Adding a constant to all logits of a point does not change these.
    """
    differences = [_log_softmax(to_logits(table, scale)) for table in (one, other)]
    likely = np.maximum(*differences) > np.log(1e-6)  # the logarithm of a tiny probability magnifies rounding
    return float(np.abs(differences[0] - differences[1])[likely].max())


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def ask(asked: Asked, batch_size: int, file: Path, source: dict, *, first: int | None = None) -> np.ndarray:
    """(n, C) float64 raw answers about the first n points (None: all), in their order.

    file: where answers are kept; source: all that they follow from. Answers of the same source are not asked for again.
    """
    count = asked.count if first is None else min(first, asked.count)
    parts = _kept_answers(file, source)
    done = sum(map(len, parts))
    last_kept = time.monotonic()
    with progress(None, f"asking {asked.name}", total=count) as bar:
        bar.update(min(done, count))
        while done < count:
            positions = np.arange(done, min(done + batch_size, asked.count))
            parts.append(asked.table(positions))
            done += len(positions)
            bar.update(len(positions))
            if time.monotonic() - last_kept > KEEP_EVERY or done >= count:
                parts = _keep(parts, file, source)
                last_kept = time.monotonic()
    return np.concatenate(parts)[:count]


def _kept_answers(file: Path, source: dict) -> list[np.ndarray]:
    if read_source(file) != source:
        return []
    try:
        with np.load(file, allow_pickle=False) as content:
            return [content["answers"]]
    except DAMAGED:
        return []


def _keep(parts: list[np.ndarray], file: Path, source: dict) -> list[np.ndarray]:
    answers = np.concatenate(parts)
    write(file, {"answers": answers}, source)
    return [answers]
