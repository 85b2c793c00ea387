"""The one training loop, for original models and compressed ones. It can be stopped at any moment and goes on later."""

import contextlib
import copy
import math
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from attacks.common.networks import seeded
from compleak.runs.checkpoints import load_resume, save_resume, stopped_file, take_over_stopped
from compleak.training.compiled import compile_errors_as_user_errors, compiled
from core import devices
from core.console import progress
from core.errors import UserError, one_line
from data.inputs import IMAGES, InputKind
from defenses import Procedure

SAVE_EVERY = 5  # epochs; a killed run loses at most these ...
SAVE_AFTER = 30.0  # ... or one epoch, where epochs are longer than this many seconds


WARM_UP = 0.1  # of all steps, in which the learning rate of AdamW rises from 0


class Diverged(UserError):
    """A training whose loss or weights are no longer finite."""


class Recipe(NamedTuple):
    """How a model is trained (PROTOCOL §2): by default SGD with momentum and weight decay, cosine to 0."""

    epochs: int
    lr: float
    batch_size: int
    seed: int
    augment: bool = True
    momentum: float = 0.9
    weight_decay: float = 5e-4
    compiled: bool = False  # by torch.compile
    optimizer: str = "sgd"


def sgd(parameters: list, recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def adamw(parameters: list, recipe: Recipe) -> torch.optim.Optimizer:
    """Loshchilov & Hutter 2019 (arXiv:1711.05101); momentum is its first beta."""
    betas = (recipe.momentum, 0.999)
    return torch.optim.AdamW(parameters, recipe.lr, betas=betas, weight_decay=recipe.weight_decay)


OPTIMIZERS = {"sgd": sgd, "adamw": adamw}


class Points(NamedTuple):
    """The points that batches are drawn from, on the device."""

    padded: torch.Tensor  # (n, ...) from `kind.pad`
    labels: torch.Tensor  # (n,) int64, or (n, C) posteriors
    flip: bool  # whether augmentation may mirror them
    kind: InputKind = IMAGES

    def batch(self, index: torch.Tensor, draws: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Network inputs (B, ...) and labels (B,) or (B, C) of the points in `index`, augmented as `draws` says."""
        return self.kind.to_input(self.kind.augmented_batch(self.padded, index, draws)), self.labels[index]


def fit(
    model: nn.Module,
    images: torch.Tensor,  # (n, S, S, 3) uint8, features (n, F) or tokens (n, length), on `device`
    labels: torch.Tensor,  # (n,) int64 or (n, C) posteriors, on `device`
    recipe: Recipe,
    *,
    flip: bool,
    kind: InputKind = IMAGES,
    device: torch.device,
    resume: Path,
    identity: dict,
    desc: str,
    procedure: Procedure | None = None,
    reserve: tuple[torch.Tensor, torch.Tensor] | None = None,
    rate_flag: str = "--lr",
) -> float:
    """Train `model` in place and leave its last epoch; returns that epoch's mean training loss.

    All randomness is drawn on the CPU from (seed, epoch), so that an epoch is the same whether or not the training was
    stopped before it. `resume` holds the state every few epochs, with the number of threads, since it decides the last
    bits; `identity` says which training the state belongs to. `procedure` is the defence's training step, `reserve` the
    images and labels that the defence may use beside the members. A training that its defence stops early leaves its
    state for longer ones, which go on from it.
    Raises UserError where the state belongs to another training, and Diverged, with the advice to lower `rate_flag`,
    where the loss is no longer finite.
    """
    model.to(device, memory_format=torch.channels_last).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = OPTIMIZERS[recipe.optimizer](trained, recipe)
    procedure = procedure or Procedure()
    if smallest_batch(len(labels), recipe.batch_size) == 1:
        with seeded(recipe.seed, device):
            refuse_single_points(copy.deepcopy(model), kind.to_input(images[:1]), desc)
    reserve_inputs = kind.to_input(reserve[0]) if reserve else None
    with seeded(recipe.seed, device):  # a defence may ask the model for ranges of int8, and some networks have dropout
        optimizer = procedure.start(model, optimizer, len(labels), recipe.batch_size, reserve_inputs)
    epochs = procedure.epochs(recipe.epochs)
    if procedure.stops_early:
        identity = as_undefended(identity)
    take_over_stopped(resume, identity, epochs)
    start, loss = load_resume(resume, identity, model, optimizer, procedure)
    members = Points(kind.pad(images), labels, flip, kind)
    others = Points(kind.pad(reserve[0]), reserve[1], flip, kind) if procedure.steps_on_reserve else None
    saved = time.monotonic()
    bar = progress(range(start, epochs), desc, total=epochs)
    bar.update(start)
    trained_model = compiled(model) if recipe.compiled else model
    errors_in_words = compile_errors_as_user_errors() if recipe.compiled else contextlib.nullcontext()
    with devices.repeatable(), errors_in_words:
        for epoch in bar:
            loss = train_epoch(trained_model, members, others, optimizer, procedure, recipe, epoch)
            check_loss(loss, desc, epoch, resume, rate_flag)
            bar.set_postfix(loss=f"{loss:.3f}")
            due = (epoch + 1) % SAVE_EVERY == 0 or time.monotonic() - saved > SAVE_AFTER
            if due and epoch + 1 < epochs:
                save_resume(resume, identity, model, optimizer, procedure, epoch + 1, loss)
                saved = time.monotonic()
    if epochs < recipe.epochs:
        save_resume(stopped_file(resume.parent), identity, model, optimizer, procedure, epochs, loss)
    return loss


def smallest_batch(count: int, batch_size: int) -> int:
    """The size of the smallest of the batches, as equal as can be, that `Procedure.batches` makes of so many points."""
    return count // math.ceil(count / batch_size)


def refuse_single_points(model: nn.Module, point: torch.Tensor, desc: str) -> None:
    """UserError where the network, which is spoilt, cannot be trained on one point (1, ...), as with batch norm."""
    try:
        model.train()(point)
    except ValueError as error:
        raise UserError(
            f"{desc}: one of the batches would be a single point, on which the network cannot be trained "
            f"({one_line(error)}): give another batch size"
        ) from error


def as_undefended(identity: dict) -> dict:
    """The identity of the training that an early-stopped one is a part of."""
    return {key: value for key, value in identity.items() if key not in ("defend", "defend_arg")}


def check_loss(loss: float, desc: str, epoch: int, resume: Path, rate_flag: str) -> None:
    if not math.isfinite(loss):
        advice = advice_to_lower_rate(resume, rate_flag)
        raise Diverged(f"{desc}: the training loss is {loss} in epoch {epoch + 1}: {advice}")


def advice_to_lower_rate(resume: Path | None, rate: str = "--lr") -> str:
    """What to do where a training diverges. Its stored state belongs to the learning rate that was too high."""
    return f"delete {resume} and lower {rate}" if resume and resume.exists() else f"lower {rate}"


def check_finite(tensors: dict[str, torch.Tensor], desc: str, resume: Path, rate_flag: str = "--lr") -> None:
    """Diverged where a weight or a buffer is infinite: such a model would answer nonsense much later."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            advice = advice_to_lower_rate(resume, rate_flag)
            raise Diverged(f"{desc}: {name} is no longer finite after training: {advice}")


def train_epoch(
    model, members: Points, reserve: Points | None, optimizer, procedure, recipe: Recipe, epoch: int
) -> float:
    """One pass over the members, and its mean loss. The host waits for the device once, at the end."""
    generator = torch.Generator().manual_seed(epoch_seed(recipe.seed, epoch))
    order = torch.randperm(len(members.labels), generator=generator)
    procedure.begin_epoch(generator)
    batches = with_draws(members, procedure.batches(order, recipe.batch_size, generator), recipe, generator)
    reserve_batches = draw_reserve(reserve, batches, recipe, generator)
    torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))  # of dropout, which has no other generator
    total = torch.zeros((), device=members.labels.device)
    for step, (batch, reserve_batch) in enumerate(zip(batches, reserve_batches, strict=True)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch + step / len(batches))
        inputs, labels = members.batch(*batch)
        beside = reserve.batch(*reserve_batch) if reserve_batch else None
        total += procedure.step(model, optimizer, inputs, labels, beside) * len(labels)
    return total.item() / max(1, sum(len(index) for index, _ in batches))


def draw_reserve(reserve: Points | None, batches: list[tuple], recipe: Recipe, generator: torch.Generator) -> list:
    """For each batch of members one of the reserve, as large, drawn with replacement; None each without a reserve."""
    if reserve is None:
        return [None] * len(batches)
    number = len(reserve.labels)
    drawn = [torch.randint(number, (len(index),), generator=generator) for index, _ in batches]
    return with_draws(reserve, drawn, recipe, generator)


def with_draws(points: Points, batches: list[torch.Tensor], recipe: Recipe, generator: torch.Generator) -> list[tuple]:
    """Each batch's points (B,) with a draw of the augmentation for each (B, 3), on the device."""
    sizes = [len(batch) for batch in batches]
    index = torch.cat(batches)
    number = len(index)
    kind = points.kind
    draws = kind.draw_augmentation(number, points.flip, generator) if recipe.augment else kind.no_augmentation(number)
    device = points.labels.device
    return list(zip(index.to(device).split(sizes), draws.to(device).split(sizes), strict=True))


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The learning rate after `epoch` (fractional): half a cosine, and with AdamW a linear warm-up before."""
    warmth = min(1.0, epoch / (WARM_UP * recipe.epochs)) if recipe.optimizer == "adamw" else 1.0
    return warmth * cosine(recipe.lr, epoch, recipe.epochs)


def cosine(lr: float, epoch: float, epochs: int) -> float:
    """The learning rate after `epoch` (fractional) of `epochs`: from lr to 0 along half a cosine."""
    return lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]) >> 1
