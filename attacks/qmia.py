"""Bertran et al. 2023, Scalable membership inference attacks via quantile regression (NeurIPS; arXiv:2307.03694): QMIA.

No reference model: the attacker learns from points that the model did not train on how confident it is on a point that
looks like this one. A point on which it is more confident than that is called a member. The score is the confidence's
distance from what is expected of a non-member, in deviations, which is the quantile it reaches under a Gaussian whose
mean and deviation depend on the point:

    score(x, y) = (confidence(x, y) - mean(x, y)) / deviation(x, y)

Both are regressions on what the point looks like, `Signals.columns`, and on its class. The authors train a network on
pictures and boosted trees on tables, for the Gaussian's likelihood; here both are boosted trees, since an attack sees
arrays only. The mean is fitted by squared errors, then the variance by the gamma likelihood of the squared errors,
which is the Gaussian's likelihood in the variance. On pictures the columns are a summary, so this is weaker there than
the authors' network.

Each model's regressions are fitted on the points that it is known not to have trained on. If a model has no such
points, its regressions use the shadows' audited non-members instead; so it is with the victim of an attacker who knows
half of its points. A point that is fitted on is scored by a fit without it, in turn.
"""

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from attacks.common.folds import POINT_FOLDS, number_in_turn
from attacks.common.references import known_outsiders
from attacks.common.signals import Result, Signals, Unusable, audit_rows, shadow_rows
from attacks.common.statistics import confidence
from attacks.common.thresholds import decide

MOST_POINTS = 10_000  # that a regression is fitted on
FEWEST_POINTS = 30
SMALLEST = 1e-6  # squared error
TREES = {"max_iter": 50, "max_leaf_nodes": 15, "min_samples_leaf": 20, "early_stopping": False}


def looks(target: Signals) -> np.ndarray:
    """(N, F + 1): the columns, then the class."""
    return np.column_stack([target.columns, target.labels])


def regression(target: Signals, seed: int, loss: str) -> HistGradientBoostingRegressor:
    """Boosted trees that take `looks`, not fitted yet."""
    is_class = np.arange(target.columns.shape[1] + 1) == target.columns.shape[1]
    countable = target.logits.shape[-1] <= 255  # the most kinds that these trees tell apart
    return HistGradientBoostingRegressor(
        loss=loss, random_state=seed, categorical_features=is_class if countable else None, **TREES
    )


def fit(target: Signals, points, values, seed: int):
    """A function from points to (mean, deviation) of a non-member's confidence. points, values: (n,) fitted on."""
    inputs = looks(target)
    if len(points) > MOST_POINTS:
        drawn = np.sort(np.random.default_rng(seed).permutation(len(points))[:MOST_POINTS])
        points, values = points[drawn], values[drawn]
    mean = regression(target, seed, "squared_error").fit(inputs[points], values)
    errors = np.maximum((values - mean.predict(inputs[points])) ** 2, SMALLEST)
    variance = regression(target, seed, "gamma").fit(inputs[points], errors)
    return lambda points: (mean.predict(inputs[points]), np.sqrt(variance.predict(inputs[points])))


def non_members_of(target: Signals, model: int) -> tuple[np.ndarray, np.ndarray]:
    """(models, points) index pairs that the regressions of a model are fitted on."""
    points = np.flatnonzero(known_outsiders(target)[model])
    if len(points) >= FEWEST_POINTS:
        return np.full(len(points), model), points
    models, points = shadow_rows(target.audit)
    others = target.member[models, points] == 0
    return models[others], points[others]


def scores_of_model(target: Signals, confidences, model: int, points, seed: int) -> np.ndarray:
    """Scores (n,) of the model's points (n,), each by a fit without the point."""
    models, known = non_members_of(target, model)
    part = number_in_turn(np.r_[points, known], POINT_FOLDS)
    part_of_point, part_of_known = np.split(part, [len(points)])
    scores = np.empty(len(points))
    for number in np.unique(part_of_point):
        seen = part_of_known != number
        if seen.sum() < FEWEST_POINTS:
            raise Unusable(f"it needs {FEWEST_POINTS} points that the model is known not to have trained on")
        scored = part_of_point == number
        expected = fit(target, known[seen], confidences[models[seen], known[seen]], seed)
        mean, deviation = expected(points[scored])
        scores[scored] = (confidences[model, points[scored]] - mean) / deviation
    return scores


def qmia(target: Signals, *, seed: int) -> Result:
    """Deviations above what is expected of a non-member, of the victim's audit points, (A,).

    Raises Unusable without `columns`, or where too few non-members are known.
    """
    shadow, victim = audit_rows(target)
    if target.columns is None:
        raise Unusable("it needs what the points look like, and these signals hold no columns")
    confidences = confidence(target.logits, target.labels)
    shadow_scores = np.empty(len(shadow[0]))
    for model in np.unique(shadow[0]):
        of_model = shadow[0] == model
        shadow_scores[of_model] = scores_of_model(target, confidences, model, shadow[1][of_model], seed)
    scores = scores_of_model(target, confidences, 0, victim[1], seed)
    return decide(shadow_scores, target.member[shadow], scores)
