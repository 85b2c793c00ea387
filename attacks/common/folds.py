"""Scores of the shadows' rows from fits that did not see them.

A fit knows the rows it was fitted on too well. A threshold chosen on its scores of those rows would be too strict for
the victim, whose rows the fit never saw.
"""

import numpy as np

from attacks.common.signals import Unusable

SHADOW_FOLDS = 5
POINT_FOLDS = 3


def score_out_of_fold(fit, fitted_on, member, rows, applied_to):
    """Scores of the shadows' rows, (M,), each by a fit without its shadow and its point, and the victim's, (A,).

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
