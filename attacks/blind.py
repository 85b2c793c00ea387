"""A control, not an attack: membership from the images, features or words alone, without asking any model.

If members and non-members can be told apart by looking at them (a split that is not random, another file format or
transform), every attack's number is inflated, and this one shows it. On a sound split it sits at AUC 0.5 (Das, Zhang,
Tramer 2024, Blind baselines beat membership inference attacks for foundation models). It is fitted on the victim's own
members and non-members: the shadows are random splits of one pool, and cannot show how the victim's data were split.
"""

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from attacks.common.classifiers import boosted_trees
from attacks.common.signals import Unusable

LEAF = 50  # points of a leaf, at least, where there are many
LEAVES = 8  # that the fitted points must be enough for: with a fixed leaf, few points could not be split at all
FEWEST = 16  # fitted members, and fitted non-members, without which trees find nothing and the control says nothing


def blind(columns, member, *, seed: int, fitted_on=None) -> np.ndarray:
    """Log-odds of membership of half of the victim's audit points, (A,) float64, NaN where it was fitted.

    columns: (A, F), what the points look like, or texts (A,); member: (A,), the truth, which the auditor has and no
    attacker. One half is fitted and the other scored. Cross-validation would score all, but folds err together, and an
    interval over points would be too narrow for them, by a quarter with three folds. fitted_on: (A,) bool, the half
    that is fitted; None draws one. Raises Unusable where it would hold fewer than FEWEST members or non-members.
    """
    if fitted_on is None:
        check_size(np.bincount(member, minlength=2) // 2)
        every = np.arange(len(member))
        fitted, scored = train_test_split(every, test_size=0.5, stratify=member, random_state=seed)
    else:
        fitted, scored = np.flatnonzero(fitted_on), np.flatnonzero(~fitted_on)
    check_size(np.bincount(member[fitted], minlength=2))
    classifier = _of_words() if columns.ndim == 1 else _of_columns(len(fitted), seed)
    classifier.fit(columns[fitted], member[fitted])
    scores = np.full(len(member), np.nan)
    scores[scored] = classifier.decision_function(columns[scored])
    return scores


def _of_columns(fitted: int, seed: int):
    return boosted_trees(seed).set_params(min_samples_leaf=min(LEAF, fitted // LEAVES))


def _of_words():
    """Logistic regression on the words of a text, each weighted by how often it occurs and how rare it is (TF-IDF).

    Single characters count as words, so that texts without words have some as well.
    """
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    return make_pipeline(words, LogisticRegression(max_iter=1000))


def check_size(fitted) -> None:
    """Raises Unusable where there are too few points to fit on. fitted: (2,), how many non-members and members."""
    others, members = fitted
    if min(fitted) < FEWEST:
        raise Unusable(
            f"half of the audited points are {members} members and {others} non-members, and it is fitted on at least "
            f"{FEWEST} of each"
        )
