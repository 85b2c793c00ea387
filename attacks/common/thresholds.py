"""From scores to decisions: the threshold that tells the shadows' members from the others best."""

from collections.abc import Iterable, Sequence

import numpy as np

from attacks.common.folds import choose_out_of_fold, score_out_of_fold
from attacks.common.signals import Result, Signals, Unusable, audit_rows


def balanced_threshold(scores, member) -> float:
    """The t for which `scores >= t` has the best balanced accuracy; a score itself, the smallest of equally good ones.

    scores: (n,), member: (n,) of 0/1. Equal scores fall on the same side. Raises Unusable without both kinds.
    """
    member = np.asarray(member).astype(bool)
    if member.all() or not member.any():
        raise Unusable("a threshold needs both members and non-members")
    values, block = np.unique(scores, return_inverse=True)
    hits = count_at_least(block[member], len(values))
    alarms = count_at_least(block[~member], len(values))
    return values[np.argmax(hits / member.sum() - alarms / (~member).sum())]


def count_at_least(block, blocks: int) -> np.ndarray:
    """How many entries of `block` are 0 or more, 1 or more, ..., (n,) -> (blocks,)."""
    return np.cumsum(np.bincount(block, minlength=blocks)[::-1])[::-1]


def decide(shadow_scores, member, victim_scores, chosen: str = "") -> Result:
    """The victim's scores with the threshold that is best for the shadows' scores (M,) and membership (M,).

    chosen: what was tuned, for the table.
    """
    victim_scores = np.asarray(victim_scores, dtype=np.float64)
    return Result(victim_scores, victim_scores >= balanced_threshold(shadow_scores, member), shadow_scores, chosen)


def choose_and_decide(names: Sequence[str], shadow_scores, member, rows, victim_scores, lead: float = 0.0) -> Result:
    """The answer of the option that is best on the shadows, their own rows scored out of fold (`choose_out_of_fold`).

    names: of the G options, for the table; shadow_scores (G, M), member (M,) and the shadows' rows; victim_scores(g)
    gives the victim's scores, (A,), by option g; lead: by how much AUC another option must beat the first.
    """
    choice = choose_out_of_fold(shadow_scores, member, rows, lead)
    return decide(choice.shadow_scores, member, victim_scores(choice.option), names[choice.option])


def choose_among(target: Signals, options: Iterable[tuple[str, np.ndarray]]) -> Result:
    """The same for options that score all models and points: pairs of a name and scores (R, N)."""
    shadow, victim = audit_rows(target)
    rows = ((name, scores[shadow], scores[victim]) for name, scores in options)  # the whole arrays are not kept
    names, of_shadows, of_victim = zip(*rows, strict=True)
    return choose_and_decide(names, of_shadows, target.member[shadow], shadow, of_victim.__getitem__)


def class_thresholds(scores, member, classes, num_classes: int) -> np.ndarray:
    """Per class, the smallest score called a member, (C,).

    scores, member, classes: (M,) of the shadows' audit rows. A class without members or without non-members gets the
    threshold of all classes together.
    """
    thresholds = np.full(num_classes, balanced_threshold(scores, member))
    for c in range(num_classes):
        in_class = classes == c
        if len(np.unique(member[in_class])) == 2:
            thresholds[c] = balanced_threshold(scores[in_class], member[in_class])
    return thresholds


def decide_per_class(target: Signals, values, classes=None) -> Result:
    """Scores are distances from the threshold of the point's class; a point is called a member where not negative.

    values: (R, N), larger = more likely a member. classes: (R, N), the class whose threshold counts; None is the label.
    """
    shadow, victim = audit_rows(target)
    classes = np.broadcast_to(target.labels if classes is None else classes, values.shape)
    fitted_on, applied_to = (np.stack([values[rows], classes[rows]], axis=1) for rows in (shadow, victim))
    num_classes = target.logits.shape[-1]

    def fit(pairs, member):
        thresholds = class_thresholds(pairs[:, 0], member, pairs[:, 1], num_classes)
        return lambda pairs: pairs[:, 0] - thresholds[pairs[:, 1].astype(int)]

    shadow_scores, scores = score_out_of_fold(fit, fitted_on, target.member[shadow], shadow, applied_to)
    return Result(scores, scores >= 0, shadow_scores)
