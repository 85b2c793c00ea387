"""What every attack shares: its input, its output, and the few numerical steps that appear in more than one attack.

Attacks are pure: arrays in, scores out. They are fitted on the rows of the shadow models (membership known to the
attacker, who trained them) and applied to the row of the victim (membership withheld).

Throughout: R models (row 0 the victim, the others the shadows), N points, C classes, M audited rows of all shadows
stacked, A audited points of the victim. Everything is computed in float64: ranks matter, and a float32 sigmoid ties
thousands of points.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

MOST_ROWS = 20_000  # that an attack is fitted on, as many as one shadow of CIFAR-10 has: its cost does not grow with R
SHADOW_FOLDS, POINT_FOLDS = 5, 3  # in which the shadows' rows are scored by a fit that has not seen them
TREES = 500
LEAF = 30
BAG = 1 / 3  # of the points a tree sees: with leaves of 30 as good as the usual bootstrap, in a third of its time


class Signals(NamedTuple):
    """What the attacker knows. Row 0 is the victim, rows 1.. the shadows."""

    logits: np.ndarray  # (R, N, C) float32
    labels: np.ndarray  # (N,) int64
    member: np.ndarray  # (R, N) int8: 1 trained on the point, 0 not, -1 withheld (the victim's audit points)
    audit: np.ndarray  # (R, N) bool: the point is in that model's balanced audit set
    sensitivity: np.ndarray | None = None  # (R, N, C) float32, NaN outside audit[r]


class Unusable(ValueError):
    """These signals do not say what an attack needs: too few points, no reference, answers that are all the same."""


class Result(NamedTuple):
    """An attack's answer for the victim's audit points, in file order."""

    scores: np.ndarray  # (A,) float64, larger = more likely a member
    decision: np.ndarray  # (A,) bool, from a threshold chosen on the shadows only
    shadow_scores: np.ndarray  # (M,) float64, what the threshold was chosen on


def audit_rows(target: Signals):
    """Where the attack is fitted and where it is applied: two (model, point) index pairs, ready for `array[rows]`.

    The first stacks the audit sets of all shadows, (M,) each; the second is the victim's, (A,) each, in file order.
    Raises ValueError when there is no shadow model to fit on.
    """
    return shadow_rows(target.audit), (np.zeros(target.audit[0].sum(), dtype=np.int64), np.flatnonzero(target.audit[0]))


def shadow_rows(audit):
    """(model, point) index pairs of the shadows' audit sets; ValueError when there is none. audit: (R, N) bool.

    Of many shadows' rows, MOST_ROWS are drawn at random, always the same ones.
    """
    models, points = np.nonzero(audit[1:])
    if len(models) == 0:
        raise ValueError("the attack is fitted on shadow models, and these signals hold none (R >= 2 needed)")
    if len(models) > MOST_ROWS:
        kept = np.sort(np.random.default_rng(0).permutation(len(models))[:MOST_ROWS])
        models, points = models[kept], points[kept]
    return models + 1, points


def outside(target: Signals) -> np.ndarray:
    """(R, N) bool: the models known not to have trained on the point, and that were asked about it.

    For a victim's audit point these are shadows; for a shadow's point the victim (the pool lies outside its data, which
    the attacker knows, having drawn the pool himself) and other shadows. A model that was never asked about the point
    (NaN logits) is no reference for it.
    """
    return (target.member == 0) & np.isfinite(target.logits).all(axis=-1)


def reference_count(mask) -> np.ndarray:
    """(R, N): how many models of `mask`, (R, N) bool, are references of each model's points: all but itself."""
    return mask.sum(axis=0) - mask


def check_references(mask, target: Signals, attack: str) -> None:
    """Unusable unless every audit row has a reference in `mask`."""
    if not all(reference_count(mask)[rows].all() for rows in audit_rows(target)):
        raise Unusable(f"{attack} needs, for every audit point, a reference model known not to have trained on it")


def references_of(target: Signals, attack: str) -> np.ndarray:
    """`outside`, once it is known to give every audit row a reference; else Unusable."""
    mask = outside(target)
    check_references(mask, target, attack)
    return mask


class Moments(NamedTuple):
    """What the references of each (model, point) say, the model's own answer left out; (R, N) each."""

    count: np.ndarray  # int
    mean: np.ndarray  # float64, NaN without a reference
    variance: np.ndarray  # float64, unbiased, NaN with fewer than two


def reference_moments(mask, values) -> Moments:
    """Moments of `values` over the models of `mask` other than the row's own; both (R, N)."""
    count = reference_count(mask)
    kept = np.where(mask, values, 0.0)
    centre = kept.sum(axis=0) / np.maximum(mask.sum(axis=0), 1)  # sums of squares about zero would cancel
    kept = np.where(mask, kept - centre, 0.0)
    mean = np.where(count > 0, (kept.sum(axis=0) - kept) / np.maximum(count, 1), np.nan)
    squares = (kept**2).sum(axis=0) - kept**2
    variance = (squares - count * np.nan_to_num(mean) ** 2) / np.maximum(count - 1, 1)
    return Moments(count, mean + centre, np.where(count > 1, np.maximum(variance, 0), np.nan))


@np.errstate(invalid="ignore")  # NaN stays NaN: a model that was never asked about the point
def log_odds(logits) -> np.ndarray:
    """log p_c / (1 - p_c) of every class, (..., C) -> (..., C) float64, without passing through p.

    It is z_c minus the log-sum-exp of the other logits (the logit-scaled confidence of Carlini et al. 2022, section
    VI.B, for every c at once). Only the largest class needs a sum of its own: for the rest, "all minus mine" loses
    nothing, the total being at least twice as large as what is taken off.
    """
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    top = np.arange(shifted.shape[-1]) == shifted.argmax(axis=-1)[..., None]
    weights, rest = np.exp(shifted), np.where(top, -np.inf, shifted)
    second = rest.max(axis=-1, keepdims=True)
    of_rest = second + np.log(np.exp(rest - second).sum(axis=-1, keepdims=True))
    others = np.log(np.where(top, 1.0, weights.sum(axis=-1, keepdims=True) - weights))
    return shifted - np.where(top, of_rest, others)


@np.errstate(invalid="ignore")
def log_posterior(logits) -> np.ndarray:
    """log softmax, (..., C) -> (..., C) float64, exact also where p is one up to rounding."""
    return -np.logaddexp(0, -log_odds(logits))


def posterior(logits) -> np.ndarray:
    """softmax, (..., C) -> (..., C) float64."""
    return np.exp(log_posterior(logits))


def of_label(values, labels) -> np.ndarray:
    """The entry of the point's own class: values (..., N, C), labels (N,) -> (..., N)."""
    return np.take_along_axis(values, np.broadcast_to(labels, values.shape[:-1])[..., None], axis=-1)[..., 0]


def confidence(logits, labels) -> np.ndarray:
    """Logit-scaled confidence log p_y / (1 - p_y), (..., N, C) and (N,) -> (..., N) float64."""
    return of_label(log_odds(logits), labels)


@np.errstate(invalid="ignore")
def cross_entropy(logits, labels) -> np.ndarray:
    """Per-sample loss -log p_y, (..., N, C) and (N,) -> (..., N) float64, positive down to the smallest float64."""
    return np.logaddexp(0, -confidence(logits, labels))


def descending_order(logits) -> np.ndarray:
    """Classes from most to least likely, (n, C) -> (n, C) int64; ties keep class order."""
    return np.argsort(-logits, axis=-1, kind="stable")


def balanced_threshold(scores, member) -> float:
    """The t for which `scores >= t` has the best balanced accuracy; a score itself, the smallest of equally good ones.

    scores: (n,), member: (n,) of 0/1. Equal scores fall on the same side. Raises ValueError without both kinds.
    """
    member = np.asarray(member).astype(bool)
    if member.all() or not member.any():
        raise ValueError("a threshold needs both members and non-members")
    values, block = np.unique(scores, return_inverse=True)
    at_least = [np.cumsum(np.bincount(block[kind], minlength=len(values))[::-1])[::-1] for kind in (member, ~member)]
    return values[np.argmax(at_least[0] / member.sum() - at_least[1] / (~member).sum())]


def decide(shadow_scores, member, victim_scores) -> Result:
    """The victim's scores with the threshold that separates the shadows' members best."""
    victim_scores = np.asarray(victim_scores, dtype=np.float64)
    return Result(victim_scores, victim_scores >= balanced_threshold(shadow_scores, member), shadow_scores)


def class_thresholds(scores, member, classes, num_classes: int) -> np.ndarray:
    """Per class, the smallest score called a member, (C,); a class without both kinds gets the one of all classes.

    scores, member, classes: (M,) of the shadows' audit rows.
    """
    thresholds = np.full(num_classes, balanced_threshold(scores, member))
    for c in range(num_classes):
        own = classes == c
        if len(np.unique(member[own])) == 2:
            thresholds[c] = balanced_threshold(scores[own], member[own])
    return thresholds


def decide_per_class(target: Signals, values, classes=None) -> Result:
    """The distance from the threshold of the point's class; a member where it is not negative.

    values: (R, N), larger = more likely a member; classes: (R, N) whose threshold it is, the label's where None.
    """
    shadow, victim = audit_rows(target)
    classes = np.broadcast_to(target.labels if classes is None else classes, values.shape)
    own, asked = (np.stack([values[rows], classes[rows]], axis=1) for rows in (shadow, victim))

    def fit(rows, member):
        thresholds = class_thresholds(rows[:, 0], member, rows[:, 1], target.logits.shape[-1])
        return lambda rows: rows[:, 0] - thresholds[rows[:, 1].astype(int)]

    result = out_of_fold(fit, own, target.member[shadow], shadow, asked)
    return result._replace(decision=result.scores >= 0)


def classify(classifier: str, features, member, rows, victim_features, *, seed: int) -> Result:
    """Fit "logistic_regression" or "random_forest" on the shadows' rows (M, F), score the victim's (A, F).

    member: (M,); rows: the (model, point) pairs. The regression's score is its logit, which does not saturate; the
    forest's is a probability. The shadows' scores are out of fold or out of bag: in-sample ones are pulled towards the
    label. Raises ValueError for another name.
    """
    if classifier == "logistic_regression":

        def fit(features, member):
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            return model.fit(features, member).decision_function

        return out_of_fold(fit, features, member, rows, victim_features)
    if classifier == "random_forest":
        shadow_scores, scores = forest(features, member, rows[1], victim_features, seed=seed)
        return decide(shadow_scores, member, scores)
    raise ValueError(f"unknown classifier {classifier!r}: use 'logistic_regression' or 'random_forest'")


def out_of_fold(fit, features, member, rows, victim_features) -> Result:
    """A classifier fitted on the shadows, its threshold from scores of rows it was not fitted on.

    fit(features, member) gives a function from features to scores; rows: the shadows' (model, point) pairs.
    """
    shadow_scores = np.empty(len(features))
    for seen, unseen in held_out(*rows):
        if len(np.unique(member[seen])) < 2:
            raise Unusable(f"the shadows' {len(features)} audit rows are too few to hold some out")
        shadow_scores[unseen] = fit(features[seen], member[seen])(features[unseen])
    return decide(shadow_scores, member, fit(features, member)(victim_features))


def held_out(models, points):
    """Each shadow in turn as the pretended victim, a third of the points at a time: masks (seen, unseen), (M,) each.

    Seen are the rows of the other shadows, where there are any, about other points: a point has nearly the same
    references in all its rows, which would give it away. More than SHADOW_FOLDS shadows take turns in as many groups.
    """
    shadow, third = (np.unique(names, return_inverse=True)[1] % count
                     for names, count in ((models, SHADOW_FOLDS), (points, POINT_FOLDS)))  # fmt: skip
    for one in range(shadow.max() + 1):
        for part in range(third.max() + 1):
            others, unseen = shadow != one if shadow.any() else True, (shadow == one) & (third == part)
            if unseen.any():
                yield others & (third != part), unseen


def forest(features, member, points, victim_features, *, seed: int):
    """Random forest (Breiman 2001): probabilities of membership of the shadows' rows, (M,), and the victim's, (A,).

    The shadows' are out of bag: the mean of the trees that saw neither the row nor its point, so that a second stage
    may be trained on them. Bags are drawn by point, without replacement (a point audited by several shadows is in a
    bag with all its rows or with none), and the trees are added in their own order: the same to the last bit.
    Raises Unusable where a point is in every bag.
    """
    features, victim_features = (np.asarray(values, dtype=np.float32) for values in (features, victim_features))
    names, point = np.unique(points, return_inverse=True)
    bagged = max(1, round(BAG * len(names)))

    def grow(number: int):
        rng = np.random.default_rng([seed, number])
        in_bag = np.zeros(len(names), dtype=bool)
        in_bag[rng.permutation(len(names))[:bagged]] = True
        bag = in_bag[point]
        tree = DecisionTreeClassifier(max_features="sqrt", min_samples_leaf=LEAF, random_state=int(rng.integers(2**32)))
        tree.fit(features[bag], member[bag])
        return ~bag, *(membership_in(tree, values) for values in (features[~bag], victim_features))

    shadow, seen, victim = np.zeros(len(features)), np.zeros(len(features)), np.zeros(len(victim_features))
    with ThreadPoolExecutor(threads()) as workers:
        for out, probability, victims in workers.map(grow, range(TREES)):
            shadow[out] += probability
            seen += out
            victim += victims
    if not seen.all():
        raise Unusable(f"{TREES} trees are too few for out-of-bag scores of all {len(features)} rows")
    return shadow / seen, victim / TREES


def threads() -> int:
    """As many as other libraries take: OMP_NUM_THREADS, or one for each core that this process may use."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # of nested levels
    return max(1, int(first) if first.isdigit() else joblib.cpu_count())


def membership_in(tree: DecisionTreeClassifier, features) -> np.ndarray:
    """(n, F) float32 -> (n,): the share of members in the leaf that each row falls into."""
    counts = tree.tree_.value[:, 0]  # (nodes, classes)
    share = counts @ tree.classes_ / counts.sum(axis=1)
    return share[tree.tree_.apply(features)]
