"""Scores of the shadows' rows from fits and choices that did not see them.

A fit knows the rows it was fitted on too well. A threshold chosen on its scores of those rows would be too strict for
the victim, whose rows the fit never saw. The same goes for a choice, such as that of a temperature: the best of many
options is good by chance too, on the rows that it was chosen on.
"""

from typing import NamedTuple

import numpy as np

from attacks.common.signals import Unusable

SHADOW_FOLDS = 5
POINT_FOLDS = 3


def score_out_of_fold(fit, fitted_on, member, rows, applied_to):
    """Scores of the shadows' rows, (M,), and the victim's, (A,).

    Each shadow row is scored by a fit without its point and, where there are several shadows, without its shadow.

    fit(features, member) returns a function from features to scores. fitted_on (M, ...) and member (M,) belong to the
    shadows' (model, point) `rows`. The victim's rows, applied_to (A, ...), are scored by a fit on all of them. Raises
    Unusable where a fold leaves no member or no non-member to fit on.
    """
    shadow_scores = np.empty(len(fitted_on))
    for seen, scored in split_folds(*rows):
        if len(np.unique(member[seen])) < 2:
            raise Unusable(f"the shadows' {len(fitted_on)} audit rows are too few to hold some out")
        shadow_scores[scored] = fit(fitted_on[seen], member[seen])(fitted_on[scored])
    return shadow_scores, fit(fitted_on, member)(applied_to)


def split_folds(models, points):
    """Pairs of masks, (M,) bool each: the rows a fit sees, and the rows it then scores. Each row is scored once.

    Each shadow plays the victim in turn, and a third of the points is scored at a time. The fit sees the other shadows'
    rows (with a single shadow, the same shadow's) about the other points: a point has nearly the same references in all
    its rows, so that one of them would tell its membership in another. Where there are more than SHADOW_FOLDS shadows,
    they take turns in that many groups.
    """
    shadow = number_in_turn(models, SHADOW_FOLDS)
    third = number_in_turn(points, POINT_FOLDS)
    several_shadows = shadow.any()
    for group in range(shadow.max() + 1):
        for part in range(third.max() + 1):
            scored = (shadow == group) & (third == part)
            seen = third != part
            if several_shadows:
                seen &= shadow != group
            if scored.any():
                yield seen, scored


def number_in_turn(names, folds: int) -> np.ndarray:
    """0, 1, ..., folds - 1, 0, ... for the distinct names in ascending order, (n,) -> (n,)."""
    return np.unique(names, return_inverse=True)[1] % folds


class Choice(NamedTuple):
    """The best of several options."""

    option: int  # the best on all rows of the shadows
    shadow_scores: np.ndarray  # (M,) each row's score by the option that is best on rows of other shadows and points
    options: tuple[int, ...]  # the options behind `shadow_scores`, and `option`


def choose_out_of_fold(scores, member, rows, lead: float = 0.0) -> Choice:
    """The option with the best AUC on the shadows' rows: scores (G, M) of G options, member (M,), rows as in `Signals`.

    The first of equally good options counts; the first option of all counts as better by `lead`. Each fold's rows are
    scored by the option that is best on the rows that a fit would see (`split_folds`). Two options may score on
    different scales: where that option is not the best on all rows, its scores get the median and the spread of the
    best one's.
    """
    folds = list(split_folds(*rows))
    masks = np.array([seen for seen, _ in folds] + [np.ones(len(member), dtype=bool)])
    aucs = np.array([aucs_of_parts(of_option, member, masks) for of_option in scores])
    aucs[0] += lead
    best = np.argmax(aucs, axis=0)
    shadow_scores = np.empty(len(member))
    for (_, scored), option in zip(folds, best, strict=False):
        of_option = scores[option] if option == best[-1] else rescale(scores[option], scores[best[-1]])
        shadow_scores[scored] = of_option[scored]
    return Choice(int(best[-1]), shadow_scores, tuple(dict.fromkeys(best[::-1].tolist())))


def aucs_of_parts(scores, member, masks) -> np.ndarray:
    """The AUC of scores (M,) on each part of the rows, 0.5 where a part lacks members or non-members.

    member (M,), masks (P, M) bool -> (P,).
    """
    values, place = np.unique(scores, return_inverse=True)
    is_member = np.asarray(member) == 1
    aucs = []
    for mask in masks:
        members = np.bincount(place[mask & is_member], minlength=len(values))
        others = np.bincount(place[mask & ~is_member], minlength=len(values))
        pairs = members.sum() * others.sum()
        below = np.cumsum(others) - others / 2  # a member beats those below it, and half of those that tie with it
        aucs.append(members @ below / pairs if pairs else 0.5)
    return np.array(aucs)


def rescale(scores, like) -> np.ndarray:
    """scores, (M,), moved and stretched so that their median and interquartile range are those of `like`, (M,)."""
    low, middle, high = np.percentile(scores, (25, 50, 75))
    wanted_low, wanted_middle, wanted_high = np.percentile(like, (25, 50, 75))
    stretch = (wanted_high - wanted_low) / (high - low) if high > low and wanted_high > wanted_low else 1.0
    return wanted_middle + (scores - middle) * stretch
