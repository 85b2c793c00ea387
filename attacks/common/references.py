"""References: the models that are known not to have trained on a point, and what they answer about it.

They show how a model answers that never saw the point, so that an attack can tell an easy point from a member. For a
victim's audit point the references are shadow models. For a shadow's point they are the other shadows and the victim:
the attacker drew the pool of points from outside the victim's data.
"""

from typing import NamedTuple

import numpy as np

from attacks.common.signals import Signals, Unusable, audit_rows


def known_outsiders(target: Signals) -> np.ndarray:
    """(R, N) bool: the model is known not to have trained on the point, and was asked about it.

    NaN logits say that a model was never asked.
    """
    return (target.member == 0) & np.isfinite(target.logits).all(axis=-1)


def known_insiders(target: Signals) -> np.ndarray:
    """(R, N) bool: the model is known to have trained on the point, and was asked about it."""
    return (target.member == 1) & np.isfinite(target.logits).all(axis=-1)


def checked_outsiders(target: Signals, attack: str) -> np.ndarray:
    """`known_outsiders`, (R, N) bool. Raises Unusable unless every audit row has a reference."""
    mask = known_outsiders(target)
    check_references(mask, target, attack)
    return mask


def reference_count(mask) -> np.ndarray:
    """(R, N): how many references each model's points have: all models in `mask`, (R, N) bool, but the model itself."""
    return mask.sum(axis=0) - mask


def check_references(mask, target: Signals, attack: str) -> None:
    """Raises Unusable unless every audit row has a reference in `mask`, (R, N) bool."""
    if not all(reference_count(mask)[rows].all() for rows in audit_rows(target)):
        raise Unusable(f"{attack} needs, for every audit point, a reference model known not to have trained on it")


class Moments(NamedTuple):
    """What the references of each (model, point) answer, (R, N) each; a model is no reference of its own points."""

    count: np.ndarray  # int
    mean: np.ndarray  # float64, NaN without a reference
    variance: np.ndarray  # float64, unbiased, NaN with fewer than two


def reference_moments(mask, values) -> Moments:
    """Moments of `values` over the models in `mask` other than the row's model; both (R, N)."""
    count = reference_count(mask)
    answers = np.where(mask, values, 0.0)
    centre = answers.sum(axis=0) / np.maximum(mask.sum(axis=0), 1)  # sums of squares about zero would cancel
    answers = np.where(mask, answers - centre, 0.0)
    mean = np.where(count > 0, (answers.sum(axis=0) - answers) / np.maximum(count, 1), np.nan)
    squares = (answers**2).sum(axis=0) - answers**2
    variance = (squares - count * np.nan_to_num(mean) ** 2) / np.maximum(count - 1, 1)
    return Moments(count, mean + centre, np.where(count > 1, np.maximum(variance, 0), np.nan))


@np.errstate(invalid="ignore")
def reference_log_p(log_p, mask) -> np.ndarray:
    """log of the mean of p over the models in `mask` other than the row's model, (R, N) and (R, N) bool -> (R, N).

    NaN where there is none. A sum over all models minus the model's own term would cancel, so the terms before it and
    the terms after it are summed.
    """
    log_p = np.where(mask, log_p, -np.inf)
    nothing = np.full_like(log_p[:1], -np.inf)
    before = np.concatenate([nothing, np.logaddexp.accumulate(log_p[:-1])])
    after = np.concatenate([np.logaddexp.accumulate(log_p[:0:-1])[::-1], nothing])
    count = reference_count(mask)
    return np.where(count > 0, np.logaddexp(before, after) - np.log(np.maximum(count, 1)), np.nan)
