"""Noise of several strengths on network inputs, for attacks that ask how much of it a prediction survives.

Rows of bits have bits flipped (Choquette-Choo et al. 2021, section 4.3; Tang et al. 2022). Everything else gets
Gaussian noise in units of how much each feature varies.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

FLIPS = (1, 2, 3, 5, 8, 13, 20, 35, 60, 100)  # bits of a row
DEVIATIONS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0)  # of Gaussian noise, in deviations of each feature
LEVELS = 10  # of each list
SAMPLE = 5000  # points, about, from which it is read how much each feature varies


class Noise(NamedTuple):
    """Noise for one data set. `add(inputs, level, generator)` makes noisy copies of network inputs (B, ...)."""

    levels: tuple[float, ...]
    add: Callable[[Tensor, float, torch.Generator], Tensor]
    unit: str


def noise_for_rows(stored: np.ndarray) -> Noise:
    """For a table (N, F): flips where it holds bits alone, else Gaussian noise."""
    sample = stored[:: 1 + len(stored) // SAMPLE]
    if np.isin(sample, (0, 1)).all():
        return Noise(tuple(n for n in FLIPS if 2 * n <= stored.shape[1]) or (1,), flip_bits, "flipped bits")
    return gaussian(np.maximum(sample.std(axis=0), 1e-12))


def noise_for_inputs(inputs: np.ndarray) -> Noise:
    """For network inputs (n, ...) of anybody's model: rows (n, F) are a table; all other values vary alike."""
    if inputs.ndim == 2:
        return noise_for_rows(inputs)
    return gaussian(np.maximum(inputs.std(), 1e-12))


def noise_for_pictures(stored: np.ndarray) -> Noise:
    """Gaussian noise of one deviation for all pixels: network inputs have a deviation of about 1."""
    return gaussian(np.float32(1))


def gaussian(deviation: np.ndarray) -> Noise:
    """Gaussian noise; deviation: of each feature, or one number."""

    def add(inputs: Tensor, level: float, generator: torch.Generator) -> Tensor:
        scale = torch.as_tensor(level * deviation, dtype=inputs.dtype, device=inputs.device)
        return inputs + scale * torch.randn(inputs.shape, generator=generator, device=inputs.device)

    return Noise(DEVIATIONS, add, "deviations of each feature")


def flip_bits(inputs: Tensor, count: float, generator: torch.Generator) -> Tensor:
    """Rows of 0 and 1, (B, F), each with `count` bits flipped that are drawn at random without repetition."""
    drawn = torch.rand(inputs.shape, generator=generator, device=inputs.device).topk(int(count), dim=1).indices
    return inputs.scatter(1, drawn, 1 - inputs.gather(1, drawn))
