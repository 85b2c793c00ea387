"""Which points every model of a run is asked about, and in which calls."""

import hashlib
from typing import NamedTuple

import numpy as np

from compleak.runs.run import Run
from compleak.runs.run import split as split_of
from data.splits import Split, fingerprint


class Targets(NamedTuple):
    """The points of an audit: the victim's audit set and the pool, all members and non-members of the shadow models."""

    split: Split
    audit: Split
    calls: tuple[np.ndarray, np.ndarray]  # the points of the two calls, from `query_calls`

    @property
    def points(self) -> np.ndarray:
        """(N,) all points, in the order of the signals file."""
        return np.concatenate(self.calls)

    def audited(self, row: int) -> np.ndarray:
        """(N,) bool: the points in the audit set of the model in this row."""
        return np.isin(self.points, np.concatenate(self.audit.pairs[row]))

    def members(self, row: int) -> np.ndarray:
        """(N,) bool: the points that the model in this row was trained on."""
        return np.isin(self.points, self.split.pairs[row].train)

    def fingerprints(self, row: int) -> dict:
        """Which points are asked, and which of them are in the audit set of the model in this row, as short hashes."""
        return {
            "points": hashlib.sha256(self.points.tobytes()).hexdigest()[:16],
            "audit": fingerprint(Split([self.audit.pairs[row]])),
        }


def targets_of(run: Run) -> Targets:
    split, audit = split_of(run)
    return Targets(split, audit, query_calls(split, audit))


def query_calls(split: Split, audit: Split) -> tuple[np.ndarray, np.ndarray]:
    """The points of the two calls in which each model is asked.

    The first call holds the victim's audited members and half of its audited non-members, so that both go through one
    call; the second holds all other points. Within a call, points stand in the order of the data set. No audited member
    is in the second call, so attacks must not look at the order.
    """
    members, others = audit.victim
    half = len(others) // 2
    pool = split.pool if split.shadows else np.array([], dtype=np.int64)
    first = np.concatenate([members, others[:half]])
    second = np.concatenate([others[half:], pool])
    return np.sort(first), np.setdiff1d(second, first)  # with --split online the pool holds the victim's points, too
