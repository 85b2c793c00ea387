"""The training loop of the attacks that are neural networks.

These are SAMIA, MR, the `nn` family, `dsq`, the networks of `selena_adaptive`, `rapid`, `seqmia_versions` and `neural`.
All but `neural`, which is ours, have two recipes. `paper` is the authors': SGD for 100 epochs (SAMIA, MR, `nn`), or
Adam for 100 (`seqmia_versions`) or 150 (`dsq`, `selena_adaptive`, `rapid`). `fast` is AdamW with a one-cycle schedule
(Smith & Topin 2018, arXiv:1708.07120) for a few epochs, and reaches the same AUC in a fraction of the time; with more
epochs these networks overfit.

The shadow scores of `rapid` and `neural` are out of fold. Those of the other networks are of the very rows that they
were trained on, so that their thresholds are less good. This concerns ACC, `strict_*` and `ppv_*` of these rows of a
table, not AUC or TPR.
"""

from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from attacks.common.signals import Result, Unusable
from attacks.common.statistics import LARGEST
from attacks.common.thresholds import decide

FARTHEST = 1e6  # deviations from the mean of the shadows, at most: a float32 network cannot work with any number
ROWS_AT_ONCE = 2048  # that go through a network together, unless they take too much memory


@contextmanager
def seeded(seed: int, device: torch.device):
    """Torch's generators start from `seed` inside, and go on afterwards as if nothing had happened.

    Attention uses the math kernel inside, the only deterministic one.
    """
    cuda = cuda_indices(device)
    with torch.random.fork_rng(devices=cuda), sdpa_kernel(SDPBackend.MATH):
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            with torch.cuda.device(index):
                torch.cuda.manual_seed(seed)
        yield


def cuda_indices(device: torch.device) -> list[int]:
    """The number of the GPU that the device is; [] for a processor."""
    if device.type != "cuda":
        return []
    return [torch.cuda.current_device() if device.index is None else device.index]


class Recipe(NamedTuple):
    """How an attack network is trained."""

    optimise: Callable  # (parameters, steps) -> an optimizer and a scheduler, both stepped once a batch
    epochs: int
    batch: int
    loss: Callable = torch.nn.functional.cross_entropy  # (logits (b, 2), targets (b,) of 0/1) -> their mean loss


def one_cycle(parameters, steps: int):
    """AdamW with a one-cycle schedule."""
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)


def sgd(parameters, steps: int):
    """SGD at a constant learning rate, as Yuan & Zhang 2022 train their attacks."""
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=5e-4)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def choose_recipe(recipes: dict[str, Recipe], name: str) -> Recipe:
    """The recipe of that name. Raises ValueError for a name that is not among them."""
    if name not in recipes:
        raise ValueError(f"unknown recipe {name!r}: use {' or '.join(map(repr, recipes))}")
    return recipes[name]


def with_enough_steps(recipe: Recipe, rows: int, steps: int) -> Recipe:
    """The recipe with as many epochs as `steps` optimizer steps on so many rows take, or its own if those are more."""
    steps_of_epoch = -(-rows // recipe.batch)
    return recipe._replace(epochs=max(recipe.epochs, -(-steps // steps_of_epoch)))


def standardise(shadow, victim):
    """Columns with mean 0 and deviation 1 on the shadows' rows, (M, ...) and (A, ...) -> the same, float32."""
    shadow, victim = (np.clip(values, -LARGEST, LARGEST) for values in (shadow, victim))
    mean, deviation = shadow.mean(axis=0), shadow.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1)
    distances = ((values - mean) / deviation for values in (shadow, victim))
    return tuple(np.clip(distance, -FARTHEST, FARTHEST).astype(np.float32) for distance in distances)


def train_and_score(
    build,
    recipe: Recipe,
    shadow,
    member,
    victim,
    *,
    seed: int,
    device="cpu",
    progress=None,
    rows_at_once: int = ROWS_AT_ONCE,
):
    """Train `build()` on the shadows' rows; log-odds of membership of the shadows (M,) and the victim (A,), float64.

    build() returns a network from (b, ...) inputs to (b, 2) logits. shadow (M, ...), victim (A, ...): float32 inputs;
    member (M,): 0/1; progress: a callable that wraps the iterable of epochs, or None. The last epoch's weights count.
    rows_at_once bounds memory: larger batches go through the network in parts, and their gradients are added up. Raises
    Unusable where the training diverges.
    """
    device = torch.device(device)
    inputs = torch.from_numpy(shadow).to(device)
    targets = torch.from_numpy(member.astype(np.int64)).to(device)
    with seeded(seed, device):
        network = build().to(device)
        train(network, recipe, inputs, targets, rows_at_once, progress)
        shadow_scores = log_odds_of_membership(network, inputs, rows_at_once, device)
        scores = log_odds_of_membership(network, torch.from_numpy(victim), rows_at_once, device)
    if not (np.isfinite(shadow_scores).all() and np.isfinite(scores).all()):
        raise Unusable("the training of its network diverged on these signals")
    return shadow_scores, scores


def train_and_decide(build, recipe: Recipe, shadow, member, victim, **options) -> Result:
    """The victim's scores of `train_and_score`, with the threshold that is best for the shadows' scores."""
    shadow_scores, scores = train_and_score(build, recipe, shadow, member, victim, **options)
    return decide(shadow_scores, member, scores)


def train(network, recipe: Recipe, inputs, targets, rows_at_once: int, progress=None) -> None:
    """Train by the recipe's loss on inputs (M, ...) and targets (M,) of 0/1, in batches drawn anew each epoch."""
    steps = recipe.epochs * -(-len(inputs) // recipe.batch)
    optimizer, scheduler = recipe.optimise(network.parameters(), steps)
    network.train()
    for _ in (progress or iter)(range(recipe.epochs)):
        for batch in torch.randperm(len(inputs)).to(inputs.device).split(recipe.batch):
            optimizer.zero_grad()
            for part in batch.split(rows_at_once):
                loss = recipe.loss(network(inputs[part]), targets[part])
                (loss * (len(part) / len(batch))).backward()
            optimizer.step()
            scheduler.step()


@torch.no_grad()
def log_odds_of_membership(network, inputs, rows_at_once: int, device) -> np.ndarray:
    """(n, ...) -> (n,) float64; a difference of two logits, which unlike a probability does not saturate."""
    network.eval()
    parts = [network(part.to(device)) for part in inputs.split(rows_at_once)]
    logits = torch.cat(parts).double().cpu().numpy()
    return logits[:, 1] - logits[:, 0]
