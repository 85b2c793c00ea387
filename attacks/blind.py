"""A control, not an attack: membership from the images or features alone, without asking any model.

If members and non-members can be told apart by looking at them (a split that is not random, another file format or
transform), every attack's number is inflated, and this one shows it; on a sound split it sits at AUC 0.5 (Das, Zhang,
Tramer 2024, Blind baselines beat membership inference attacks for foundation models). It is fitted on the victim's own
members and non-members: shadows are random splits of one pool, and know nothing of how the victim's data were split.
"""

import numpy as np
from sklearn.model_selection import train_test_split

from attacks.calibrated import trees

WIDEST = 600  # features of a table that are looked at, those that vary most: thousands would take hours


def features(images) -> np.ndarray:
    """Means of 4 x 4 patches, mean, deviation, minimum and maximum of each channel: (n, 32, 32, 3) -> (n, 204).

    Of a table (n, F): the features themselves, at most WIDEST of them, and the mean of all.
    """
    if images.ndim == 2:
        deviation = images[:: 1 + len(images) // 5000].std(axis=0)  # a sample's will do
        kept = np.sort(np.argsort(-deviation, kind="stable")[:WIDEST])
        return np.hstack([images[:, kept], images.mean(axis=1, dtype=np.float32)[:, None]])
    patches = images.reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(len(images), -1)
    pixels = images.reshape(len(images), -1, 3)
    return np.hstack([patches, *(statistic(pixels, axis=1) for statistic in (np.mean, np.std, np.min, np.max))])


def blind(images, member, *, seed: int) -> np.ndarray:
    """Log-odds of membership of half of the victim's audit points, (A,) float64, NaN where the trees were fitted.

    images: (A, 32, 32, 3) uint8, or features (A, F); member: (A,), the truth, which an auditor has and no attacker. Not
    cross-validated: folds stray together, and an interval over points is too narrow for them, by a quarter with three.
    """
    seen, asked = train_test_split(np.arange(len(member)), test_size=0.5, stratify=member, random_state=seed)
    inputs, scores = features(images), np.full(len(member), np.nan)
    scores[asked] = trees(seed).fit(inputs[seen], member[seen]).decision_function(inputs[asked])
    return scores
