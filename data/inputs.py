"""The kinds of input, and what each one knows: how stored values become network input, and how training varies them.

Membership inference compares members with non-members, so both must reach the model by the same path: every query goes
through `to_input` and nothing else, and training alone calls `augmented_batch`.
A kind is a value that others take along and ask. A further kind is a further value here.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data.noise import Noise, noise_for_pictures, noise_for_rows
from data.views import PAD, shifts_and_flips

WIDEST = 600  # features of a table that a summary holds: thousands would take hours
SAMPLE = 5000  # rows of a table, about, from which it is read how much each feature varies


class InputKind(NamedTuple):
    """What is done to inputs of one kind. Stored values are (N, ...) on any device, network inputs are float32."""

    name: str
    one_set: str  # one data set of this kind, in words
    sets: str  # several of them
    augmentable: bool  # whether augmentation changes these inputs
    showable: bool  # whether people can look at them as pictures
    count_features: Callable[[Tensor], int | None]  # of stored values: what the network must be told, None for images
    to_input: Callable[[Tensor], Tensor]  # stored values (B, ...) -> network inputs (B, ...), without randomness
    pad: Callable[[Tensor], Tensor]  # stored values -> what `augmented_batch` takes, once for a whole training set
    draw_augmentation: Callable[[int, bool, torch.Generator], Tensor]  # (n, flip, generator) -> draws (n, d) int64
    no_augmentation: Callable[[int], Tensor]  # n -> the draws (n, d) that change nothing
    fixed_views: Callable[[bool], Tensor]  # flip -> the same draws (V, d) for every point; the first changes nothing
    augmented_batch: Callable[[Tensor, Tensor, Tensor], Tensor]  # (padded, index (B,), draws (B, d)) -> stored (B, ...)
    perturb: Callable[[Tensor, float, torch.Generator], Tensor]  # (network inputs, amount, generator) -> the same shape
    noise_for: Callable[[np.ndarray], Noise]  # all stored values -> noise of several strengths for their network inputs
    summarise: Callable[[np.ndarray], np.ndarray]  # stored (n, ...) -> (n, F) columns for a classifier without a model


def add_noise(inputs: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """inputs + amount * u with u ~ N(0, I); the generator belongs to the inputs' device."""
    return inputs + amount * torch.randn(inputs.shape, generator=generator, device=inputs.device)


# Images: (N, H, W, 3) uint8


def image_to_input(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-2, 2], channels last in memory."""
    return images.permute(0, 3, 1, 2).float().sub_(127.5).div_(63.75)


def pad_images(images: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, H + 2 PAD, W + 2 PAD, 3)."""
    return F.pad(images, (0, 0, PAD, PAD, PAD, PAD))


def draw_crops(n: int, flip: bool, generator: torch.Generator) -> Tensor:
    """(n, 3) int64: row offset, column offset and whether to mirror, drawn independently for each image."""
    offsets = torch.randint(0, 2 * PAD + 1, (n, 2), generator=generator)
    mirror = torch.randint(0, 2, (n, 1), generator=generator) if flip else torch.zeros(n, 1, dtype=torch.int64)
    return torch.cat([offsets, mirror], dim=1)


def central_crops(n: int) -> Tensor:
    """(n, 3) int64: the draws that leave every image as it is."""
    return torch.tensor([[PAD, PAD, 0]]).expand(n, 3)


def crop_and_mirror(padded: Tensor, index: Tensor, draws: Tensor) -> Tensor:
    """Random crop and horizontal flip of `padded[index]` as one gather; (B, H, W, 3) uint8 like the stored images.

    padded: (N, H + 2 PAD, W + 2 PAD, 3) from `pad_images`; index: (B,); draws: (B, 3) from `draw_crops`.
    """
    height, width = padded.shape[1] - 2 * PAD, padded.shape[2] - 2 * PAD
    row = draws[:, 0:1] + torch.arange(height, device=index.device)  # (B, H)
    column = torch.arange(width, device=index.device).expand(len(index), width)
    column = draws[:, 1:2] + torch.where(draws[:, 2:3].bool(), width - 1 - column, column)  # (B, W)
    return padded[index[:, None, None], row[:, :, None], column[:, None, :]]


def summarise_images(images: np.ndarray) -> np.ndarray:
    """(n, 32, 32, 3) uint8 -> (n, 204): means of 4 x 4 patches; mean, deviation, least and largest of each channel."""
    patches = images.reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(len(images), -1)
    pixels = images.reshape(len(images), -1, 3)
    return np.hstack([patches, *(statistic(pixels, axis=1) for statistic in (np.mean, np.std, np.min, np.max))])


IMAGES = InputKind(
    name="images",
    one_set="images",
    sets="images",
    augmentable=True,
    showable=True,
    count_features=lambda stored: None,
    to_input=image_to_input,
    pad=pad_images,
    draw_augmentation=draw_crops,
    no_augmentation=central_crops,
    fixed_views=lambda flip: torch.from_numpy(shifts_and_flips(flip)),
    augmented_batch=crop_and_mirror,
    perturb=add_noise,
    noise_for=noise_for_pictures,
    summarise=summarise_images,
)

# Rows of features: (N, F) uint8 or float32. They reach the network as they are, and nothing augments them.


def no_draws(n: int, *_) -> Tensor:
    """(n, 0) int64."""
    return torch.empty(n, 0, dtype=torch.int64)


def summarise_table(table: np.ndarray) -> np.ndarray:
    """(n, F) -> the features that vary most, at most WIDEST of them, and the mean of all."""
    deviation = table[:: 1 + len(table) // SAMPLE].std(axis=0)
    widest = np.sort(np.argsort(-deviation, kind="stable")[:WIDEST])
    return np.hstack([table[:, widest], table.mean(axis=1, dtype=np.float32)[:, None]])


FEATURES = InputKind(
    name="features",
    one_set="a table of features",
    sets="tables of features",
    augmentable=False,
    showable=False,
    count_features=lambda stored: stored.shape[1],
    to_input=lambda stored: stored.float(),
    pad=lambda stored: stored,
    draw_augmentation=no_draws,
    no_augmentation=no_draws,
    fixed_views=lambda flip: no_draws(1),
    augmented_batch=lambda stored, index, draws: stored[index],
    perturb=add_noise,
    noise_for=noise_for_rows,
    summarise=summarise_table,
)

KINDS = {kind.name: kind for kind in (IMAGES, FEATURES)}
