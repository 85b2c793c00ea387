"""The victim's audited points in two halves, of which an attacker knows one and is judged on the other."""

import numpy as np

from core.errors import UserError


def draw_half(truth: np.ndarray, group: np.ndarray | None, seed: int) -> np.ndarray:
    """(A,) bool: a random half of the points, with half of the members and half of the non-members.

    truth: (A,) bool, membership; group: (A,) int64 or None. Points of one group are copies of each other, and all of
    them come into the same half. Groups are dealt out in random order, the largest first, each to the half that has too
    few of its points so far. UserError where a half would then have no member or no non-member.
    """
    groups = np.arange(len(truth)) if group is None else np.unique(group, return_inverse=True)[1]
    members = np.bincount(groups, weights=truth)
    others = np.bincount(groups, weights=~truth)
    in_first = _deal(members, others, _random_order(members + others, seed))[groups]
    for half in (in_first, ~in_first):
        check_both_kinds(truth[half])
    return in_first


def one_of_each_group(group: np.ndarray | None, size: int, seed: int) -> np.ndarray:
    """(A,) bool: a random point of each group; all points where `group`, (A,) int64, is None. size: A."""
    if group is None:
        return np.ones(size, dtype=bool)
    order = np.random.default_rng(seed).permutation(size)
    _, first = np.unique(group[order], return_index=True)
    drawn = np.zeros(size, dtype=bool)
    drawn[order[first]] = True
    return drawn


def check_both_kinds(truth: np.ndarray) -> None:
    """UserError unless there are members and non-members."""
    if not truth.any() or truth.all():
        raise UserError(
            "the audited points cannot be split into two halves that both hold members and non-members: the array "
            "group says that too many of them are copies of each other; add other points, or leave group out"
        )


def _random_order(sizes: np.ndarray, seed: int) -> np.ndarray:
    """The groups, the largest first, groups of equal size in random order."""
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    return shuffled[np.argsort(-sizes[shuffled], kind="stable")]


def _deal(members: np.ndarray, others: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(G,) bool: the groups of the first half. members, others: (G,), how many points of either kind a group has."""
    in_first = np.zeros(len(members), dtype=bool)
    more_members = more_others = 0.0  # in the first half than in the second
    for number in order:
        imbalance = more_members * members[number] + more_others * others[number]
        in_first[number] = imbalance <= 0
        sign = 1 if in_first[number] else -1
        more_members += sign * members[number]
        more_others += sign * others[number]
    return in_first
