"""What an attack says of all audited points, put together from its parts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import attacks
from compleak.audits import metrics
from compleak.audits.attackers import Part
from compleak.audits.chosen import rarity

ROUNDING = 1e-9  # by which scores may differ that are the same


class Verdicts(NamedTuple):
    """An attack's answer about the victim's audited points, in file order."""

    scores: np.ndarray  # (A,) float64
    decision: np.ndarray  # (A,) bool
    strict: np.ndarray  # (A,) bool: accused at the threshold with 0.1 % false alarms where membership is known
    scored_by: np.ndarray | None  # (A,) int: the fit behind each score and decision; None where there is one fit

    @property
    def is_scored(self) -> np.ndarray:
        """(A,) bool: all points, or the sample that the attack knows enough about to score it."""
        return ~np.isnan(self.scores)

    def of(self, points: np.ndarray) -> "Verdicts":
        """The verdicts on these points alone, (A,) bool."""
        return Verdicts(*(None if array is None else array[points] for array in self))


def join_results(parts: Sequence[Part], results: Sequence[attacks.Result]) -> Verdicts:
    """The results of the parts put together: one for each part, of one attack or of each part's own choice.

    Where two fits score the same point differently, both are brought to one scale, how rare a score is among
    non-members. Otherwise scores of 0.7 from two fits would count as equal although they are not. Two fits of `rmia`
    with another a or gamma each, whose scores were put side by side as they are, lost 6 points of AUC on 1,000 + 1,000
    points.
    """
    pairs = list(zip(parts, results, strict=True))
    alike = score_alike(parts, results)
    scores = [result.scores if alike else rarity_of(part, result) for part, result in pairs]
    return Verdicts(
        scores=join(parts, scores),
        decision=join(parts, [result.decision for result in results]),
        strict=join(parts, [accuse_strictly(part, result) for part, result in pairs]),
        scored_by=number_of_part(parts),
    )


def join(parts: Sequence[Part], values: Sequence[np.ndarray]) -> np.ndarray:
    """(A,): for each point the value that its own part gives. values: for each part, of the points that it judges."""
    joined = np.empty(len(parts[0].judged), dtype=values[0].dtype)
    for part, of_part in zip(parts, values, strict=True):
        joined[part.judged] = of_part
    return joined


def number_of_part(parts: Sequence[Part]) -> np.ndarray | None:
    """(A,) int: which part judges each point; None where there is one part."""
    if len(parts) == 1:
        return None
    return join(parts, [np.full(part.judged.sum(), number) for number, part in enumerate(parts)])


def rarity_of(part: Part, result: attacks.Result) -> np.ndarray:
    return rarity(result.scores, result.shadow_scores, part.known_truth)


def accuse_strictly(part: Part, result: attacks.Result) -> np.ndarray:
    """The points that a threshold accuses which accuses 0.1 % of the known non-members."""
    is_scored = ~np.isnan(result.shadow_scores)
    known = (result.shadow_scores[is_scored], part.known_truth[is_scored])
    return result.scores >= metrics.strict_threshold(*known)


def score_alike(parts: Sequence[Part], results: Sequence[attacks.Result]) -> bool:
    """Whether the fits of all parts give the same scores but for rounding, as those of a plain loss do.

    The points that one fit learns from are judged by another, so both have scored them.
    """
    if len(parts) == 1:
        return True
    scores = join(parts, [result.scores for result in results])
    for part, result in zip(parts, results, strict=True):
        if not np.allclose(result.shadow_scores, scores[part.known_places], ROUNDING, ROUNDING, equal_nan=True):
            return False
    return True
