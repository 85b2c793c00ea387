"""What an attack's paper leaves open, chosen on the shadows without a look at the rows that are scored."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from attacks.common.folds import split_folds
from attacks.common.signals import Unusable


def choose_out_of_fold(candidates: Sequence[np.ndarray], member, rows) -> tuple[int, np.ndarray]:
    """The number of the candidate with the best AUC on all rows, and the shadows' scores (M,).

    candidates: arrays (M,), the shadows' scores under each choice; member: (M,); rows: the (model, point) pairs. The
    choice behind a row's score is made without its shadow and its point. Where it is another than the choice on all
    rows, its scores are shifted and scaled until the non-members among the rows it was made on have the same mean and
    deviation as under the choice on all rows: scores under two choices may be on two scales. The first of equally good
    candidates counts. Raises Unusable where a fold leaves no member or no non-member to choose by.
    """
    table = np.stack(candidates)
    best = _best(table, member)
    shadow_scores = np.empty(len(member))
    for seen, scored in split_folds(*rows):
        choice = _best(table[:, seen], member[seen])
        others = seen & (member == 0)
        shadow_scores[scored] = _rescale(table[choice, scored], table[choice, others], table[best, others])
    return best, shadow_scores


def _best(table: np.ndarray, member) -> int:
    """Which row of the table (K, n) has the largest AUC; the first of equally good ones. member: (n,) of 0/1."""
    if len(np.unique(member)) < 2:
        raise Unusable("the shadows' audit rows are too few to hold some out")
    rank_sums = rankdata(table, axis=1)[:, member == 1].sum(axis=1)  # in the order of the AUC (Mann & Whitney 1947)
    return int(np.argmax(rank_sums))


def _rescale(values: np.ndarray, of_choice: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values, moved so that `of_choice` would get the mean and deviation of `wanted`."""
    if np.array_equal(of_choice, wanted):
        return values
    deviation = of_choice.std()
    scale = wanted.std() / deviation if deviation > 0 else 1.0
    return (values - of_choice.mean()) * scale + wanted.mean()
