"""LABEL-ONLY, the augmentation attack of Choquette-Choo et al. 2021 (section 4.2) as PrivBox runs it: rotations.

The attacker sees the predicted class alone. A model that was trained on a picture often still knows it when it is
turned a little. So each picture is asked about at -r, ..., 0, ..., r degrees; the 2r + 1 bits that say whether the
answer was right go to the network of `ml_leak`, which is trained on a shadow model's bits.
"""

import math

import numpy as np
import torch
from torch.nn import functional

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


def angles(r: int) -> range:
    """The whole degrees -r, ..., r."""
    return range(-r, r + 1)


def rotate(pictures: np.ndarray, degrees: float) -> np.ndarray:
    """Pictures (B, C, H, W) turned counter-clockwise about their centre, float32; what turns into view is 0.

    Values between pixels are bilinear. At 0 degrees the pictures come back as they are.
    """
    if degrees == 0:
        return pictures
    height, width = pictures.shape[2:]
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    # Where each pixel comes from, in coordinates from -1 to 1 along each side: sides of unequal length scale the sines.
    source = torch.tensor([[cosine, -sine * height / width, 0], [sine * width / height, cosine, 0]])
    grid = functional.affine_grid(source.expand(len(pictures), 2, 3), list(pictures.shape), align_corners=False)
    values = torch.from_numpy(np.ascontiguousarray(pictures, dtype=np.float32))
    return functional.grid_sample(values, grid, align_corners=False).numpy()
