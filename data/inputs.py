"""The kinds of input, and what each one knows: how stored values become network input, and how training varies them.

Membership inference compares members with non-members, so both must reach the model by the same path: every query goes
through `to_input` and nothing else, and training alone calls `augmented_batch`.
A kind is a value that others take along and ask. A further kind is a further value here.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data import tokens
from data.noise import Noise, noise_for_pictures, noise_for_rows
from data.views import PAD, shifts_and_flips

PATCHES = 8  # along each side of an image, whose means a summary holds
WIDEST = 600  # features of a table that a summary holds: thousands would take hours
SAMPLE = 5000  # rows of a table, about, from which it is read how much each feature varies


class InputKind(NamedTuple):
    """What is done to inputs of one kind.

    Stored values are (N, ...) on any device. Network inputs are float32, or int64 where they are tokens. Points as they
    were read are what a person would see of them: the stored values, or the texts from which tokens were made.
    """

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
    # (model, network inputs, amount, generator) -> inputs that the model answers as if moved, inside the block
    perturb: Callable[[nn.Module, Tensor, float, torch.Generator], contextlib.AbstractContextManager[Tensor]]
    # all stored values -> noise of several strengths for their network inputs; None where inputs are no quantities
    noise_for: Callable[[np.ndarray], Noise] | None
    summarise: Callable[[np.ndarray], np.ndarray]  # points as they were read (n, ...) -> columns of numbers (n, F)
    columns_for_blind: Callable[[np.ndarray], np.ndarray]  # the same -> what a classifier without a model is given
    encode: Callable[[str, np.ndarray], np.ndarray] | None = None  # (tokenizer, points as they were read) -> stored


def add_noise(values: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """values + amount * u with u ~ N(0, I); the generator belongs to the values' device."""
    return values + amount * torch.randn(values.shape, generator=generator, device=values.device)


@contextlib.contextmanager
def move_inputs(model: nn.Module, inputs: Tensor, amount: float, generator: torch.Generator) -> Iterator[Tensor]:
    """The inputs with noise."""
    yield add_noise(inputs, amount, generator)


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
    """(n, H, W, 3) uint8 -> (n, 204): means of 8 x 8 patches; mean, deviation, least and largest of each channel.

    No side may be below 8 pixels. Of one that 8 does not divide some patches are a pixel longer than others.
    """
    patches = images
    for axis in (1, 2):
        patches = mean_of_parts(patches, axis)
    patches = patches.reshape(len(images), -1)
    pixels = images.reshape(len(images), -1, 3)
    return np.hstack([patches, *(statistic(pixels, axis=1) for statistic in (np.mean, np.std, np.min, np.max))])


def mean_of_parts(values: np.ndarray, axis: int) -> np.ndarray:
    """Means of PATCHES parts, as equal as can be, into which an axis is cut."""
    edges = np.linspace(0, values.shape[axis], PATCHES + 1).astype(np.int64)
    parts = np.split(values, edges[1:-1], axis)
    return np.stack([part.mean(axis=axis) for part in parts], axis)


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
    perturb=move_inputs,
    noise_for=noise_for_pictures,
    summarise=summarise_images,
    columns_for_blind=summarise_images,
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
    perturb=move_inputs,
    noise_for=noise_for_rows,
    summarise=summarise_table,
    columns_for_blind=summarise_table,
)

# Texts: token ids (N, length) int32. Nothing augments them, no more than rows of features.


@contextlib.contextmanager
def move_embeddings(model: nn.Module, ids: Tensor, amount: float, generator: torch.Generator) -> Iterator[Tensor]:
    """The tokens as they are; inside the block the model adds noise to what its layer `token_embedding` makes of them.

    Tokens cannot move by a little, the vectors that stand for them can.
    """
    layer = next(part.token_embedding for part in model.modules() if hasattr(part, "token_embedding"))
    hook = layer.register_forward_hook(lambda _, ids, vectors: add_noise(vectors, amount, generator))
    try:
        yield ids
    finally:
        hook.remove()


def count_trigrams(texts: np.ndarray) -> np.ndarray:
    """Texts (n,) -> (n, 256) float32: how often they have letters that follow one another, as audits of files count."""
    from data.foreign.summaries import summarise  # it imports this module

    return summarise(list(texts), "text")


TEXT = FEATURES._replace(
    name="text",
    one_set="a set of texts",
    sets="texts",
    count_features=lambda stored: None,  # the tokenizer knows
    to_input=lambda stored: stored.long(),
    perturb=move_embeddings,
    noise_for=None,
    summarise=count_trigrams,
    columns_for_blind=lambda texts: texts,
    encode=tokens.encode,
)

KINDS = {kind.name: kind for kind in (IMAGES, FEATURES, TEXT)}
