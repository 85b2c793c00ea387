"""Small networks on everything that tells how hard a point is (ours, in no paper).

`calibrated` compares the target's confidence in the true class with that of models that never saw the point. These
networks compare all classes, and they know the point's class. For each model at hand they are given

- the confidence log p_y / (1 - p_y), the references' mean confidence, and the difference of the two;
- confidence and difference once more, in deviations from what the model answers about points of the same class that it
  is known not to have trained on: one class is easier than another, and one model surer than another;
- log p_c / (1 - p_c) of the target's most likely classes, and the references' mean of the same classes in that order;
- from the second model on, the difference to the first model's confidence.

The point's class is added where there are few classes. Four perceptrons learn from the shadows side by side, from four
initialisations, and the score is the mean of their log-odds of membership.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.common.folds import score_out_of_fold
from attacks.common.networks import Recipe, one_cycle, standardise, train_and_score, with_enough_steps
from attacks.common.references import checked_outsiders, reference_moments
from attacks.common.signals import Result, Signals, audit_rows, check_same_points, stack_rows
from attacks.common.statistics import descending_order, log_odds, of_label
from attacks.common.thresholds import decide

TOP = 10  # most likely classes whose log-odds are read
MOST_CLASSES = 100  # that get a one-hot column each; of more classes each has too few rows to learn from
FARTHEST = 8  # deviations from the mean of the shadows, at most
FEWEST_KNOWN = 3  # non-members of a class, so that each has two others
NETWORKS = 4
WIDTH = 64  # of the two hidden layers
DROPOUT = 0.2
LEAST_STEPS = 120  # however few rows there are


class Perceptrons(torch.nn.Module):
    """NETWORKS perceptrons on the same inputs: (b, F) -> (b, 2), the mean of their logits.

    While they train, the logits of each: (b, NETWORKS, 2).
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        sizes = ((inputs, WIDTH), (WIDTH, WIDTH), (WIDTH, 2))
        self.weights = torch.nn.ParameterList([(2 * torch.rand(NETWORKS, n, m) - 1) / n**0.5 for n, m in sizes])
        self.biases = torch.nn.ParameterList([torch.zeros(NETWORKS, 1, m) for _, m in sizes])

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs.expand(NETWORKS, *inputs.shape)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = F.dropout(torch.relu(torch.baddbmm(bias, hidden, weight)), DROPOUT, self.training)
        logits = torch.baddbmm(self.biases[-1], hidden, self.weights[-1]).transpose(0, 1)
        return logits if self.training else logits.mean(dim=1)


def mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over rows and networks: (b, NETWORKS, 2) and (b,) -> ()."""
    return F.cross_entropy(logits.flatten(0, 1), targets.repeat_interleave(NETWORKS))


RECIPE = Recipe(one_cycle, epochs=10, batch=256, loss=mean_loss)


def features(models: Sequence[Signals], rows) -> np.ndarray:
    """What the networks see of the (model, point) rows: (n, F)."""
    columns, first = [], None
    for model in models:
        outsiders = checked_outsiders(model, "neural")
        odds = log_odds(model.logits)  # (R, N, C)
        confidences = of_label(odds, model.labels)  # (R, N)
        reference = reference_moments(outsiders, confidences).mean
        difference = confidences - reference
        columns += [confidences[rows], reference[rows], difference[rows]]
        audited = model.audit.any(axis=1)
        for values in (confidences, difference):
            columns.append(deviations_in_class(values, outsiders, model.labels, audited)[rows])
        order = descending_order(model.logits[rows])[:, :TOP]
        columns += list(np.take_along_axis(odds[rows], order, axis=1).T)
        columns += list(reference_log_odds(odds, outsiders, rows, order).T)
        if first is None:
            first = confidences[rows]
        else:
            columns.append(confidences[rows] - first)
    classes = models[0].logits.shape[-1]
    if classes <= MOST_CLASSES:
        columns += list(np.arange(classes)[:, None] == models[0].labels[rows[1]])
    return np.stack(columns, axis=1)


def deviations_in_class(values, outsiders, labels, audited) -> np.ndarray:
    """How far each value lies from those of the model's known non-members of the class, in their standard deviations.

    values (R, N), NaN where unknown; outsiders (R, N) bool; labels (N,); audited (R,) bool, the models with an audit
    set -> (R, N). A non-member is left out of the points that it is compared with, as the victim's audited points are.
    0 where those points' values are all equal. A class is 0 for all models where one of the audited models knows fewer
    than FEWEST_KNOWN non-members of it, so that the feature means the same of the shadows and of the victim.
    """
    distances = np.zeros(values.shape)
    usable = outsiders & np.isfinite(values)
    for label in np.unique(labels):
        points = labels == label
        if usable[audited][:, points].sum(axis=1).min() < FEWEST_KNOWN:
            continue
        for of_model, known, distance in zip(values, usable, distances, strict=True):
            others = reference_moments(known[points, None], of_model[points, None])
            spread = np.sqrt(others.variance[:, 0])
            far = of_model[points] - others.mean[:, 0]
            distance[points] = np.divide(far, spread, out=np.zeros(len(far)), where=spread > 0)
    return distances


def reference_log_odds(odds, outsiders, rows, order) -> np.ndarray:
    """The references' mean log-odds of the classes in `order`, (n, T) for the (model, point) rows.

    odds (R, N, C), outsiders (R, N) bool, order (n, T).
    """
    models, points = rows
    total = np.zeros(order.shape)
    count = np.zeros(len(points))
    for number, (of_model, outside) in enumerate(zip(odds, outsiders, strict=True)):
        is_reference = outside[points] & (models != number)
        total[is_reference] += np.take_along_axis(of_model[points], order, axis=1)[is_reference]
        count += is_reference
    return total / count[:, None]


def neural(models: Sequence[Signals], *, seed: int, device="cpu") -> Result:
    """Log-odds of membership of the victim's audit points, (A,). models[0] is the original where it is available.

    Raises Unusable where a point has no reference.
    """
    check_same_points(models)
    shadow, victim = audit_rows(models[0])
    member = models[0].member[shadow]
    fitted_on, applied_to = np.split(features(models, stack_rows(shadow, victim)), [len(member)])

    def fit(inputs, member):
        def score(asked) -> np.ndarray:
            known, unknown = (values.clip(-FARTHEST, FARTHEST) for values in standardise(inputs, asked))
            recipe = with_enough_steps(RECIPE, len(known), LEAST_STEPS)
            build = partial(Perceptrons, known.shape[1])
            return train_and_score(build, recipe, known, member, unknown, seed=seed, device=device)[1]

        return score

    shadow_scores, scores = score_out_of_fold(fit, fitted_on, member, shadow, applied_to)
    return decide(shadow_scores, member, scores)
