"""Several answers about each point, the probes `augmented` and `correct`: how attacks take them together.

A model that was trained on crops and flips of a point knows these as well as the point. So Carlini et al. 2022,
Membership inference attacks from first principles (section VI.C), ask about 18 of them. The logit-scaled confidences
are about Gaussian. Their mean over the queries is what a Gaussian likelihood ratio comes to where all queries are
equally noisy and equally correlated; it takes the noise of single queries out of the target's and of the references'
answers alike.

`averaged` puts the mean in the place of the answer, so that every attack that reads a model's answer reads all of them.
"""

from collections.abc import Sequence

import numpy as np

from attacks.common.signals import Signals, Unusable
from attacks.common.statistics import confidence, log_posterior

AT_ONCE = 2_000  # points whose answers are taken together


def averaged(target: Signals) -> Signals:
    """The signals with one answer a point that stands for all of them; unchanged where there are no further answers.

    Its confidence in the true class is the mean of the confidences log p_y / (1 - p_y) in the answers of `augmented`,
    the first of which is about the point as it is. The other classes keep the proportions of their mean
    log-posteriors. Where a model was not asked, its answer is NaN, as for a model that was asked nothing.
    """
    if "augmented" not in target.probes:
        return target
    answers = target.probes["augmented"]  # (R, N, Q, C)
    logits = np.empty(target.logits.shape)
    for start in range(0, len(target.labels), AT_ONCE):
        here = slice(start, start + AT_ONCE)
        logits[:, here] = mean_answer(answers[:, here], target.labels[here])
    return target._replace(logits=logits)


@np.errstate(invalid="ignore")  # NaN stays NaN: the model was never asked about the point
def mean_answer(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log-posteriors (R, n, C), up to a constant, whose confidence is the mean over queries: answers (R, n, Q, C)."""
    by_query = np.moveaxis(answers, 2, 0).astype(np.float64)  # (Q, R, n, C)
    wanted = confidence(by_query, labels).mean(axis=0)  # (R, n)
    means = log_posterior(by_query).mean(axis=0)  # (R, n, C)
    is_label = np.arange(means.shape[-1]) == labels[:, None]
    others = np.logaddexp.reduce(np.where(is_label, -np.inf, means), axis=-1)
    return np.where(is_label, (wanted + others)[..., None], means)


def with_averages(models: Sequence[Signals]) -> list[Signals]:
    """The models, each with its averaged answers behind it where it has further answers."""
    pairs = [(model, averaged(model)) if "augmented" in model.probes else (model,) for model in models]
    return [model for pair in pairs for model in pair]


def checked_probe(target: Signals, name: str) -> np.ndarray:
    """What the models answered to this probe, (R, N, ...). Raises Unusable where they were not asked."""
    if name not in target.probes:
        raise Unusable(f"it needs the answers {name}, and these signals hold none")
    return target.probes[name]


def correct_bits(target: Signals, rows) -> np.ndarray:
    """Whether each answer names the label, (n, Q) bool, of the (model, point) rows: `correct`, else by `augmented`.

    Raises Unusable without either.
    """
    if "augmented" not in target.probes or "correct" in target.probes:
        return checked_probe(target, "correct")[rows]
    answers = target.probes["augmented"][rows]  # (n, Q, C)
    return answers.argmax(axis=-1) == target.labels[rows[1]][:, None]
