"""The distance to the decision boundary: Choquette-Choo et al. 2021, section 4.4; Tang et al. 2022 (SELENA).

Training pushes the boundary away from members. The distance is measured by HopSkipJump from labels alone, or by Carlini
& Wagner's attack from gradients; a point that is named wrongly has the distance 0. It costs far more than one answer
a point, so that it is known for a drawn sample of each audit set, as many members as others. All other points have no
score, which the table's numbers of members and non-members say.

With several versions of a model, the logarithms of their distances are averaged: ours, in no paper.
"""

from collections.abc import Sequence

import numpy as np

from attacks.common.queries import checked_probe
from attacks.common.signals import Result, Signals, Unusable, audit_rows, check_same_points
from attacks.common.thresholds import balanced_threshold

COLUMNS = {"hop_skip_jump": 0, "carlini_wagner": 1}
SMALLEST = 1e-6  # distance whose logarithm stands for that of 0


def boundary(models: Sequence[Signals], *, seed: int = 0, classifier: str = "hop_skip_jump") -> Result:
    """Log-distances of the victim's audit points, (A,), NaN where it was not measured. `seed` is unused.

    classifier: how it was measured, a key of COLUMNS. Raises Unusable where there is no shadow model, without the probe
    "boundary", or where no audited point of a shadow or of the victim has a distance.
    """
    check_same_points(models)
    shadow, victim = audit_rows(models[0])
    column = COLUMNS[classifier]
    by_model = [checked_probe(model, "boundary")[..., column] for model in models]  # (R, N) each
    distances = np.mean([np.log(np.maximum(distance, SMALLEST)) for distance in by_model], axis=0)
    shadow_scores, scores = (distances[rows].astype(np.float64) for rows in (shadow, victim))
    measured = ~np.isnan(shadow_scores)
    if not measured.any() or np.isnan(scores).all():
        raise Unusable(f"no distance to the boundary was measured by {classifier}")
    threshold = balanced_threshold(shadow_scores[measured], models[0].member[shadow][measured])
    return Result(scores, scores >= threshold, shadow_scores)
