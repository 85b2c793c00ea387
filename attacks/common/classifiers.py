"""Classifiers of members and non-members: logistic regression, random forest, boosted trees."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from attacks.common.folds import score_out_of_fold
from attacks.common.signals import Result, Unusable
from attacks.common.thresholds import decide
from core.threads import threads_in_use

CLASSIFIERS = ("logistic_regression", "random_forest")
TREES = 500
LEAF = 30  # points of a leaf, at least
BAG = 1 / 3  # share of the points a tree sees: with leaves of 30 as good as the usual bootstrap, in a third of its time


def classify(classifier: str, fitted_on, member, rows, applied_to, *, seed: int) -> Result:
    """Fit "logistic_regression" or "random_forest" on the shadows' features (M, F) and score the victim's (A, F).

    member: (M,); rows: the shadows' (model, point) pairs. The regression's score is its logit, which does not saturate;
    the forest's is a probability. The shadows' scores are out of fold or out of bag, because scores of rows that were
    fitted on are drawn towards the truth. Raises ValueError for another classifier.
    """
    if classifier == "logistic_regression":
        shadow_scores, scores = score_out_of_fold(fit_regression, fitted_on, member, rows, applied_to)
    elif classifier == "random_forest":
        shadow_scores, scores = forest(fitted_on, member, rows[1], applied_to, seed=seed)
    else:
        raise ValueError(f"unknown classifier {classifier!r}: use {' or '.join(map(repr, CLASSIFIERS))}")
    return decide(shadow_scores, member, scores)


def fit_regression(features, member):
    """A function from features (n, F) to log-odds of membership (n,).

    Members and non-members count the same in sum. Otherwise a fit without a member, which has fewer members, would
    score that member lower, and the AUC on the shadow models would lie below a half where nothing leaks.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
    return model.fit(features, member).decision_function


def boosted_trees(seed: int, monotonic: list[int] | None = None) -> HistGradientBoostingClassifier:
    """Gradient-boosted trees, not fitted yet.

    monotonic: for each feature 1 where the odds of membership may only rise with it, -1 only fall, 0 both.
    """
    return HistGradientBoostingClassifier(
        learning_rate=0.1,
        max_iter=75,
        max_leaf_nodes=15,
        min_samples_leaf=50,
        random_state=seed,
        early_stopping=False,
        monotonic_cst=monotonic,
    )


def forest(fitted_on, member, points, applied_to, *, seed: int):
    """Random forest (Breiman 2001): probabilities of membership of the shadows' rows, (M,), and the victim's, (A,).

    fitted_on (M, F), member (M,), points (M,): features, truth and point of each shadow's row; applied_to (A, F).
    The shadows' probabilities are out of bag: the mean over the trees that saw neither the row nor its point, so that a
    second stage may be trained on them. Bags hold points, drawn without replacement: a point that several shadows audit
    is in a bag with all its rows or with none. The trees are summed in the order of their numbers, whichever thread
    finishes first, so that results are the same to the last bit. Raises Unusable where a point is in every bag.
    """
    fitted_on, applied_to = (np.asarray(features, dtype=np.float32) for features in (fitted_on, applied_to))
    names, point = np.unique(points, return_inverse=True)

    def grow(number: int):
        rng = np.random.default_rng([seed, number])
        bag = draw_bag(rng, len(names))[point]
        tree = DecisionTreeClassifier(max_features="sqrt", min_samples_leaf=LEAF, random_state=int(rng.integers(2**32)))
        tree.fit(fitted_on[bag], member[bag], sample_weight=balanced(member[bag]))
        return ~bag, share_of_members(tree, fitted_on[~bag]), share_of_members(tree, applied_to)

    total = np.zeros(len(fitted_on))
    trees_without = np.zeros(len(fitted_on))  # how many trees did not see the row
    victim_total = np.zeros(len(applied_to))
    with ThreadPoolExecutor(threads_in_use()) as workers:
        for out_of_bag, shares, victim_shares in workers.map(grow, range(TREES)):
            total[out_of_bag] += shares
            trees_without += out_of_bag
            victim_total += victim_shares
    if not trees_without.all():
        raise Unusable(f"{TREES} trees are too few for out-of-bag scores of all {len(fitted_on)} rows")
    return total / trees_without, victim_total / TREES


def draw_bag(rng, points: int) -> np.ndarray:
    """Which of the points a tree sees, (points,) bool: a share of BAG, at least one."""
    bag = np.zeros(points, dtype=bool)
    bag[rng.permutation(points)[: max(1, round(BAG * points))]] = True
    return bag


def balanced(member) -> np.ndarray:
    """Weights, (n,), by which members and non-members count the same in sum.

    A bag without a member has fewer members in it, which would draw that member's out-of-bag score down.
    """
    member = np.asarray(member).astype(bool)
    share = member.mean()
    return np.where(member, 1 - share, share) if 0 < share < 1 else np.ones(len(member))


def share_of_members(tree: DecisionTreeClassifier, features) -> np.ndarray:
    """The share of members in the leaf that each row falls into, (n, F) float32 -> (n,)."""
    counts = tree.tree_.value[:, 0]  # (nodes, classes)
    share = counts @ tree.classes_ / counts.sum(axis=1)
    return share[tree.tree_.apply(features)]
