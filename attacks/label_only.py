"""LABEL-ONLY, the augmentation attack of Choquette-Choo et al. 2021 (section 4.2) as PrivBox runs it: rotations.

The attacker sees the predicted class alone. A model that was trained on a picture often still knows it when it is
turned a little. So each picture is asked about at -r, ..., 0, ..., r degrees; the 2r + 1 bits that say whether the
answer was right go to the network of `ml_leak`, which is trained on a shadow model's bits.
"""

import numpy as np

from attacks.common.signals import Result
from attacks.ml_leak import Classifier, score_rows


def label_only(
    shadow_right, member, target_right, *, classifier: Classifier, seed: int, device="cpu", progress=None
) -> Result:
    """Log-odds of membership of the target's points, (A,).

    shadow_right: (M, 2r + 1) and target_right: (A, 2r + 1), whether each answer is right; member: (M,) of 0/1 of the
    shadow model; the rest as in `ml_leak`.
    """
    bits = [np.asarray(right, dtype=np.float64) for right in (shadow_right, target_right)]
    return score_rows(bits[0], member, bits[1], classifier, seed=seed, device=device, progress=progress)
