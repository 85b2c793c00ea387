"""The one training loop of the attacks that are neural networks: SAMIA, MR and the `nn` family.

Each has two recipes: `paper`, its authors' (100 epochs), and `fast`, AdamW with a one-cycle schedule (Smith & Topin
2018, arXiv:1708.07120) for a few epochs, which reaches the same AUC in a fraction of the time; more of them overfit.

Their thresholds are chosen on shadow scores of the network fitted on those very points; forests and boosting have
out-of-bag or out-of-fold scores for it. It moves ACC, `strict_*` and `ppv_*` of these rows, not AUC or TPR.
"""

from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def seeded(seed: int, device: torch.device):
    """Torch's generators seeded inside, as they were outside; attention by the one kernel that is deterministic."""
    cuda = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), sdpa_kernel(SDPBackend.MATH):
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            with torch.cuda.device(index):
                torch.cuda.manual_seed(seed)
        yield


class Recipe(NamedTuple):
    """How an attack network is trained."""

    optimise: Callable  # (parameters, steps) -> optimizer and a scheduler stepped once a batch
    epochs: int
    batch: int


def one_cycle(parameters, steps: int):
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)


def sgd(parameters, steps: int):
    """Yuan & Zhang's: a constant learning rate."""
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=5e-4)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def choose(recipes: dict[str, Recipe], name: str) -> Recipe:
    """The recipe of that name. ValueError for another."""
    if name not in recipes:
        raise ValueError(f"unknown recipe {name!r}: use {' or '.join(map(repr, recipes))}")
    return recipes[name]


def standardise(shadow, victim):
    """Columns to mean 0 and deviation 1 on the shadows, (M, ...) and (A, ...) -> the same, float32."""
    mean, deviation = shadow.mean(axis=0), shadow.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1)
    return tuple(((values - mean) / deviation).astype(np.float32) for values in (shadow, victim))


def train_and_score(build, recipe: Recipe, shadow, member, victim, *, seed: int, device="cpu", progress=None):
    """Train `build()` on the shadows' rows; log-odds of membership of the shadows (M,) and the victim (A,), float64.

    build() -> a network from (b, ...) inputs to (b, 2) logits. shadow (M, ...), victim (A, ...): float32; member (M,):
    0/1; progress: a callable that wraps the iterable of epochs, or None. The last epoch's weights count.
    """
    device = torch.device(device)
    inputs, targets = torch.from_numpy(shadow).to(device), torch.from_numpy(member.astype(np.int64)).to(device)
    with seeded(seed, device):
        network = build().to(device)
        optimizer, scheduler = recipe.optimise(network.parameters(), recipe.epochs * -(-len(inputs) // recipe.batch))
        network.train()
        for _ in (progress or iter)(range(recipe.epochs)):
            for index in torch.randperm(len(inputs)).to(device).split(recipe.batch):
                loss = torch.nn.functional.cross_entropy(network(inputs[index]), targets[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
        network.eval()
        return tuple(log_odds_of_membership(network, values, device) for values in (inputs, torch.from_numpy(victim)))


@torch.no_grad()
def log_odds_of_membership(network, inputs, device) -> np.ndarray:
    """(n, ...) -> (n,) float64; a difference of logits, which unlike a probability does not saturate."""
    logits = torch.cat([network(part.to(device)) for part in inputs.split(2048)]).double().cpu().numpy()
    return logits[:, 1] - logits[:, 0]
