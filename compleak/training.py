"""The one training loop, resumable, for original models and compressed ones; and the one way to query a model."""

import math
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from compleak.checkpoints import load_resume, save_resume
from core import devices
from core.console import progress
from core.errors import UserError
from data.inputs import augmented_batch, draw_augmentation, no_augmentation, pad, to_input
from defenses import Procedure

SAVE_EVERY = 5  # epochs; a killed run loses at most these ...
SAVE_AFTER = 30.0  # ... or one epoch, where epochs are longer than this many seconds


class Recipe(NamedTuple):
    """How a model is trained (PROTOCOL §2): SGD with momentum and weight decay, cosine to 0."""

    epochs: int
    lr: float
    batch_size: int
    seed: int
    augment: bool = True
    momentum: float = 0.9
    weight_decay: float = 5e-4


def fit(
    model: nn.Module,
    images: torch.Tensor,  # (n, 32, 32, 3) uint8 or features (n, F), on `device`
    labels: torch.Tensor,  # (n,) int64, on `device`
    recipe: Recipe,
    *,
    flip: bool,
    device: torch.device,
    resume: Path,
    identity: dict,
    desc: str,
    procedure: Procedure | None = None,
    reserve: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> float:
    """Train `model` in place and leave its last epoch; returns that epoch's mean training loss.

    All randomness is drawn on the CPU from (seed, epoch), so an epoch is the same whether or not the run was stopped
    before it. `resume` holds the state every few epochs; `identity` says which training it belongs to. `procedure` is
    what a defence makes of a step, `reserve` the images and labels that it may use beside the members.
    Raises UserError where the state belongs to another training or the loss is no longer finite.
    """
    model.to(device, memory_format=torch.channels_last).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    procedure = procedure or Procedure()
    seen = to_input(reserve[0]) if reserve else None
    optimizer = procedure.start(model, optimizer, len(labels), recipe.batch_size, seen)
    start, loss = load_resume(resume, identity, model, optimizer, procedure)
    saved = time.monotonic()
    members = Points(pad(images), labels, flip)
    others = Points(pad(reserve[0]), reserve[1], flip) if procedure.steps_on_reserve else None
    bar = progress(range(start, recipe.epochs), desc, total=recipe.epochs)
    bar.update(start)
    with devices.repeatable():
        for epoch in bar:
            loss = _epoch(model, members, others, optimizer, procedure, recipe, epoch)
            if not math.isfinite(loss):
                raise UserError(f"{desc}: the training loss is {loss} in epoch {epoch + 1}; lower --lr")
            bar.set_postfix(loss=f"{loss:.3f}")
            due = (epoch + 1) % SAVE_EVERY == 0 or time.monotonic() - saved > SAVE_AFTER
            if due and epoch + 1 < recipe.epochs:
                save_resume(resume, identity, model, optimizer, procedure, epoch + 1, loss)
                saved = time.monotonic()
    return loss


class Points(NamedTuple):
    """What batches are drawn from, on the device."""

    padded: torch.Tensor  # (n, ...) from `pad`
    labels: torch.Tensor  # (n,) int64
    flip: bool  # whether augmentation may mirror them

    def batch(self, index: torch.Tensor, draws: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Network inputs (B, ...) and labels (B,)."""
        return to_input(augmented_batch(self.padded, index, draws)), self.labels[index]


def _epoch(model, members: Points, reserve: Points | None, optimizer, procedure, recipe: Recipe, epoch: int) -> float:
    """One pass over the members; the host waits for the device once, at its end."""
    generator = torch.Generator().manual_seed(_epoch_seed(recipe.seed, epoch))
    order = torch.randperm(len(members.labels), generator=generator)
    procedure.begin_epoch(generator)
    batches = _drawn(members, procedure.batches(order, recipe.batch_size, generator), recipe, generator)
    others = [None] * len(batches)
    if reserve is not None:
        n = len(reserve.labels)
        wanted = [torch.randint(n, (len(index),), generator=generator) for index, _ in batches]
        others = _drawn(reserve, wanted, recipe, generator)
    torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))  # of dropout, which has no other generator
    total = torch.zeros((), device=members.labels.device)
    for step, (own, other) in enumerate(zip(batches, others, strict=True)):
        for group in optimizer.param_groups:
            group["lr"] = cosine(recipe.lr, epoch + step / len(batches), recipe.epochs)
        found = procedure.step(model, optimizer, *members.batch(*own), reserve.batch(*other) if other else None)
        total += found * len(own[0])
    return total.item() / max(1, sum(len(index) for index, _ in batches))


def _drawn(points: Points, batches: list[torch.Tensor], recipe: Recipe, generator: torch.Generator) -> list[tuple]:
    """Each batch's points with a draw of the augmentation for each, (B,) and (B, 3), on the device."""
    sizes, index = [len(batch) for batch in batches], torch.cat(batches)
    n, device = len(index), points.labels.device
    draws = draw_augmentation(n, points.flip, generator) if recipe.augment else no_augmentation(n)
    return list(zip(index.to(device).split(sizes), draws.to(device).split(sizes), strict=True))


def cosine(lr: float, epoch: float, epochs: int) -> float:
    """The learning rate after `epoch` (fractional) of `epochs`: from lr to 0 along half a cosine."""
    return lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]) >> 1


def predict(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """(B, C) float32 logits of network inputs, in full float32 precision. The model must be in eval mode."""
    with torch.inference_mode(), devices.exact():
        return model(inputs).float()


def ask(model: nn.Module, images: np.ndarray, device: torch.device, batch_size: int, bar=None) -> np.ndarray:
    """(n, C) float32 logits of images or features, without augmentation: the one way any point is queried."""
    model.to(device, memory_format=torch.channels_last).eval()
    answers = []
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(images[start : start + batch_size]).to(device)
        answers.append(predict(model, to_input(batch)).cpu().numpy())
        if bar is not None:
            bar.update(len(batch))
    return np.concatenate(answers)


def accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray, device: torch.device, batch_size: int) -> float:
    """Share of images whose class the model names."""
    return float((ask(model, images, device, batch_size).argmax(axis=1) == labels).mean())
