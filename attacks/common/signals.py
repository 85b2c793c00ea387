"""What an attack is given, `Signals`, what it returns, `Result`, and the rows on which it is fitted and applied."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

MOST_ROWS = 20_000  # rows an attack is fitted on, as many as one shadow of CIFAR-10 has: the cost does not grow with R


class Signals(NamedTuple):
    """What the attacker knows about one model and its shadows. Row 0 is the victim, the other rows are the shadows.

    `probes` holds what the models were asked beside their plain answer, by name (`compleak.queries.probes`):
    "sensitivity" (R, N, C), how far each probability moves when the input does; "augmented" (R, N, Q, C), answers about
    Q views of each point; "correct" (R, N, Q) bool, whether their labels are right; "noise" (R, N, L), the share of
    noisy copies with the right label, for L strengths; "boundary" (R, N, 2), distances to the decision boundary. They
    are NaN, or False, where a model was not asked; audit[r] always was, but for "boundary", which a sample has.
    One more is asked of no model of the file: "split_ai" (R, N, 2, C), the answers of an attacker's own Split-AI
    (`attacks.selena_adaptive`), row 0 alone.
    """

    logits: np.ndarray  # (R, N, C) float32
    labels: np.ndarray  # (N,) int64
    member: np.ndarray  # (R, N) int8: 1 trained on the point, 0 not, -1 withheld (the victim's audit points)
    audit: np.ndarray  # (R, N) bool: the point is in that model's balanced audit set
    probes: Mapping[str, np.ndarray] = {}
    columns: np.ndarray | None = None  # (N, F) what the points look like, where the attacker has them


class Unusable(ValueError):
    """An attack cannot run on these signals: too few points, no reference, or answers that are all the same."""


class Result(NamedTuple):
    """An attack's answer about the victim's audit points, in file order."""

    scores: np.ndarray  # (A,) float64, larger = more likely a member
    decision: np.ndarray  # (A,) bool, from a threshold chosen on the shadows only
    shadow_scores: np.ndarray  # (M,) float64, the scores on which the threshold was chosen
    chosen: str = ""  # what was tuned, and to which value: `scale 0.05, temperature 1.5`; "" where nothing was


def audit_rows(target: Signals):
    """Where an attack is fitted and where it is applied: two (model, point) index pairs, ready for `array[rows]`.

    The first stacks the audit sets of all shadows, (M,) each; the second is the victim's, (A,) each, in file order.
    Raises Unusable when there is no shadow model to fit on.
    """
    victim_points = np.flatnonzero(target.audit[0])
    victim_models = np.zeros(len(victim_points), dtype=np.int64)
    return shadow_rows(target.audit), (victim_models, victim_points)


def shadow_rows(audit):
    """(model, point) index pairs of the shadows' audit sets. audit: (R, N) bool.

    Where there are more than MOST_ROWS of them, that many are drawn at random, the same ones each time. Raises Unusable
    when there is no shadow model.
    """
    models, points = np.nonzero(audit[1:])
    if len(models) == 0:
        raise Unusable("the attack is fitted on shadow models, and these signals hold none (R >= 2 needed)")
    if len(models) > MOST_ROWS:
        drawn = np.sort(np.random.default_rng(0).permutation(len(models))[:MOST_ROWS])
        models, points = models[drawn], points[drawn]
    return models + 1, points


def stack_rows(first, second):
    """The (model, point) index pairs of both, one after the other."""
    return tuple(np.concatenate(pair) for pair in zip(first, second, strict=True))


def check_same_points(models) -> None:
    """Raises ValueError unless all models are about the same points, labels, membership and audit sets."""
    for field in ("labels", "member", "audit"):
        if not all(np.array_equal(getattr(models[0], field), getattr(model, field)) for model in models[1:]):
            raise ValueError(f"the models' signals differ in {field!r}: they are not from one run and cannot be joined")
