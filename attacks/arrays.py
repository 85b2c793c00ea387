"""What every attack shares: its input, its output, and the few numerical steps that appear in more than one attack.

Attacks are pure: arrays in, scores out. They are fitted on the rows of the shadow models (membership known to the
attacker, who trained them) and applied to the row of the victim (membership withheld).

Throughout: R models (row 0 the victim, the others the shadows), N points, C classes, M audited rows of all shadows
stacked, A audited points of the victim. Everything is computed in float64: ranks matter, and a float32 sigmoid ties
thousands of points.
"""

from typing import NamedTuple

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

TREES = 500
TREES_PER_FOLD = 60  # a second stage sees means over five folds: 300 trees for the victim, and time is what they cost


class Signals(NamedTuple):
    """What the attacker knows. Row 0 is the victim, rows 1.. the shadows."""

    logits: np.ndarray  # (R, N, C) float32
    labels: np.ndarray  # (N,) int64
    member: np.ndarray  # (R, N) int8: 1 trained on the point, 0 not, -1 withheld (the victim's audit points)
    audit: np.ndarray  # (R, N) bool: the point is in that model's balanced audit set
    sensitivity: np.ndarray | None = None  # (R, N, C) float32, NaN outside audit[r]


class Result(NamedTuple):
    """An attack's answer for the victim's audit points, in file order."""

    scores: np.ndarray  # (A,) float64, larger = more likely a member
    decision: np.ndarray  # (A,) bool, from a threshold chosen on the shadows only


def audit_rows(target: Signals):
    """Where the attack is fitted and where it is applied: two (model, point) index pairs, ready for `array[rows]`.

    The first stacks the audit sets of all shadows, (M,) each; the second is the victim's, (A,) each, in file order.
    Raises ValueError when there is no shadow model to fit on.
    """
    return shadow_rows(target.audit), (np.zeros(target.audit[0].sum(), dtype=np.int64), np.flatnonzero(target.audit[0]))


def shadow_rows(audit):
    """(model, point) index pairs of all shadows' audit sets; ValueError when there is none. audit: (R, N) bool."""
    models, points = np.nonzero(audit[1:])
    if len(models) == 0:
        raise ValueError("the attack is fitted on shadow models, and these signals hold none (R >= 2 needed)")
    return models + 1, points


def reference_mask(target: Signals, model: int) -> np.ndarray:
    """(R, N) bool: the models, other than `model` itself, that are known not to have trained on the point.

    For a victim's audit point these are shadows; for a shadow's point the victim (the pool lies outside its data, which
    the attacker knows, having drawn the pool himself) and the other shadows. A model that was never asked about the
    point (NaN logits) is no reference for it.
    """
    mask = (target.member == 0) & np.isfinite(target.logits).all(axis=-1)
    mask[model] = False
    return mask


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
    weights = np.exp(shifted)
    others = np.log(np.where(top, 1.0, weights.sum(axis=-1, keepdims=True) - weights))
    return shifted - np.where(top, np.logaddexp.reduce(np.where(top, -np.inf, shifted), axis=-1, keepdims=True), others)


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
    return Result(victim_scores, victim_scores >= balanced_threshold(shadow_scores, member))


def classify(classifier: str, features, member, victim_features, *, seed: int) -> Result:
    """Fit "logistic_regression" or "random_forest" on the shadows' rows (M, F), score the victim's (A, F).

    The forest's threshold comes from its out-of-bag probabilities: in-sample ones are pulled towards the label. The
    regression's score is its logit, which does not saturate. Raises ValueError for another name.
    """
    if classifier == "logistic_regression":
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features, member)
        return decide(model.decision_function(features), member, model.decision_function(victim_features))
    if classifier == "random_forest":
        model = forest(TREES, seed, oob_score=True).fit(features, member)
        return decide(model.oob_decision_function_[:, 1], member, forest_probability(model, victim_features))
    raise ValueError(f"unknown classifier {classifier!r}: use 'logistic_regression' or 'random_forest'")


def forest(trees: int, seed: int, **options) -> RandomForestClassifier:
    return RandomForestClassifier(trees, min_samples_leaf=30, n_jobs=-1, random_state=seed, **options)


def forest_probability(model: RandomForestClassifier, features) -> np.ndarray:
    """Probability of membership, (n, F) -> (n,), bit-identical from run to run.

    The trees are added in their own order; scikit-learn's predict_proba adds them as its threads finish, so that the
    last digits, and with them ranks, change between runs.
    """
    total = np.zeros(len(features))
    for tree, leaves in zip(model.estimators_, model.apply(features).T, strict=True):
        counts = tree.tree_.value[:, 0]  # (nodes, 2)
        total += (counts[:, 1] / counts.sum(axis=1))[leaves]
    return total / len(model.estimators_)


def out_of_fold(features, member, points, victim_features, *, seed: int, folds: int = 5):
    """Forest probabilities that a second model may be trained on: (M,) for the shadows' rows, (A,) for the victim's.

    Each shadow row is scored by a forest that saw neither the row nor its point (a point audited by several shadows
    stays in one fold); the victim, seen by none of the forests, gets the mean of all of them.
    """
    shadow, victim = np.empty(len(features)), np.zeros(len(victim_features))
    splits = GroupKFold(folds).split(features, member, groups=points)
    for fold, (seen, unseen) in enumerate(splits):
        model = forest(TREES_PER_FOLD, seed + fold).fit(features[seen], member[seen])
        shadow[unseen] = forest_probability(model, features[unseen])
        victim += forest_probability(model, victim_features) / folds
    return shadow, victim
