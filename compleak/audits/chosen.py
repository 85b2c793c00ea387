"""Which attack an attacker deploys, and one scale for the scores of two attacks."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

DEFAULT_HEADLINE = "combined"  # the key of the attack that is deployed unless another is clearly better
CLEARLY = 2  # standard errors by which another attack must have done better
TAIL_SHARE = 0.05  # of the known non-members: their highest scores, to which the tail is fitted
FEWEST_IN_TAIL = 10
LARGEST = 1e300  # of a mapped score


def choose(worth: Mapping[str, Sequence[float]], error: Callable[[str, str, int], float]) -> list[str] | None:
    """One key for each part (a fit and the points that it judges), of the attack that an attacker deploys there.

    None where there are several attacks and none is eligible for any part. DEFAULT_HEADLINE is chosen unless the best
    attack is clearly better, for the best of many attacks is the best by chance, too. The first of equally good attacks
    counts. A single attack needs no choice.

    worth: for each attack and part how well it did on points whose membership is known; NaN where not eligible.
    error(key, other, part): the standard error of the difference of two attacks' worth.
    """
    keys = list(worth)
    table = np.array([worth[key] for key in keys], dtype=float)  # (attacks, parts)
    if len(keys) == 1:
        return keys * table.shape[1]
    if np.isnan(table).all():
        return None
    return [choose_for_part(dict(zip(keys, column, strict=True)), part, error) for part, column in enumerate(table.T)]


def choose_for_part(worth: Mapping[str, float], part: int, error: Callable[[str, str, int], float]) -> str:
    """The best attack's key for one part, or DEFAULT_HEADLINE unless the best is clearly better.

    Arguments as for `choose`.
    """
    best = max(worth, key=lambda key: np.nan_to_num(worth[key], nan=-np.inf))
    usual = worth.get(DEFAULT_HEADLINE, np.nan)
    if best == DEFAULT_HEADLINE or np.isnan(usual):
        return best
    clearly_better = worth[best] - usual > CLEARLY * error(best, DEFAULT_HEADLINE, part)
    return best if clearly_better else DEFAULT_HEADLINE


def rarity(scores: np.ndarray, known_scores: np.ndarray, known_truth: np.ndarray) -> np.ndarray:
    """How rare scores like these are among non-members: -log of an estimated false-positive rate, (n,) float64.

    The rates are those of the known non-members' own scores, interpolated between them. Beyond the highest the rate
    falls exponentially, as fast as the highest scores of the known non-members spread. The map is strictly increasing:
    scores (n,) keep their order and their ties; below the lowest known score it falls below 0. known_scores (M,): each
    by a fit that did not see its point; known_truth (M,).
    """
    others = known_scores[(np.asarray(known_truth) == 0) & ~np.isnan(known_scores)]
    distinct, place = np.unique(scores, return_inverse=True)
    return strictly_increasing(_minus_log_rate(distinct, np.sort(others)))[place]


def _minus_log_rate(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """-log of the share of the non-members `others`, (n,) ascending, that score so high or higher."""
    values, first = np.unique(others, return_index=True)
    rates = -np.log((len(others) - first) / len(others))
    with np.errstate(over="ignore"):
        beyond = np.maximum(scores - values[-1], 0) / _tail_spread(others)
        below = np.maximum(values[0] - scores, 0) / _tail_spread(-others[::-1])
        mapped = np.interp(scores, values, rates) + beyond - below
    return np.clip(mapped, -LARGEST, LARGEST)


def _tail_spread(others: np.ndarray) -> float:
    """The mean distance of the highest scores from where the tail begins, an exponential's scale; 1 if all are equal.

    others: (n,) ascending.
    """
    size = min(len(others) - 1, max(FEWEST_IN_TAIL, round(TAIL_SHARE * len(others))))
    highest = others[len(others) - size :]
    spread = float(np.mean(highest - others[len(others) - size - 1])) if size else 0.0
    return spread if spread > 0 else 1.0


def strictly_increasing(values: np.ndarray) -> np.ndarray:
    """Values (n,) that should ascend, with those that rounding has made equal set apart by the least step."""
    apart = values.copy()
    for place in range(1, len(apart)):
        if apart[place] <= apart[place - 1]:
            apart[place] = np.nextafter(apart[place - 1], np.inf)
    return apart
