"""A control, not an attack: membership from the images or features alone, without asking any model.

If members and non-members can be told apart by looking at them (a split that is not random, another file format or
transform), every attack's number is inflated, and this one shows it. On a sound split it sits at AUC 0.5 (Das, Zhang,
Tramer 2024, Blind baselines beat membership inference attacks for foundation models). It is fitted on the victim's own
members and non-members: the shadows are random splits of one pool, and cannot show how the victim's data were split.
"""

import numpy as np
from sklearn.model_selection import train_test_split

from attacks.common.classifiers import boosted_trees

WIDEST = 600  # features of a table that are used, those that vary most: thousands would take hours
SAMPLE = 5000  # rows of a table, about, from which it is read how much each feature varies


def features(inputs) -> np.ndarray:
    """What the classifier sees.

    Of images (n, 32, 32, 3): means of 4 x 4 patches; mean, deviation, minimum and maximum of each channel; (n, 204).
    Of a table (n, F): the features themselves, at most WIDEST of them, and their mean.
    """
    return table_features(inputs) if inputs.ndim == 2 else image_features(inputs)


def table_features(table) -> np.ndarray:
    deviation = table[:: 1 + len(table) // SAMPLE].std(axis=0)
    widest = np.sort(np.argsort(-deviation, kind="stable")[:WIDEST])
    return np.hstack([table[:, widest], table.mean(axis=1, dtype=np.float32)[:, None]])


def image_features(images) -> np.ndarray:
    patches = images.reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(len(images), -1)
    pixels = images.reshape(len(images), -1, 3)
    return np.hstack([patches, *(statistic(pixels, axis=1) for statistic in (np.mean, np.std, np.min, np.max))])


def blind(inputs, member, *, seed: int) -> np.ndarray:
    """Log-odds of membership of half of the victim's audit points, (A,) float64, NaN where the trees were fitted.

    inputs: images (A, 32, 32, 3) uint8, or features (A, F); member: (A,), the truth, which the auditor has and no
    attacker. One half is fitted and the other scored. Cross-validation would score all, but folds err together, and an
    interval over points would be too narrow for them, by a quarter with three folds.
    """
    every = np.arange(len(member))
    fitted_on, scored = train_test_split(every, test_size=0.5, stratify=member, random_state=seed)
    columns = features(inputs)
    trees = boosted_trees(seed).fit(columns[fitted_on], member[fitted_on])
    scores = np.full(len(member), np.nan)
    scores[scored] = trees.decision_function(columns[scored])
    return scores
