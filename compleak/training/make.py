"""From an assignment to a checkpoint: the same steps for an original model and for a compressed one."""

import itertools
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from compleak.runs import checkpoints
from compleak.runs.run import dataset
from compleak.runs.settings import ModelSettings
from compleak.training.assignment import Assignment
from compleak.training.evaluate import accuracy
from compleak.training.loop import Recipe, fit
from core.console import say
from core.errors import UserError
from core.provenance import provenance
from core.threads import threads_in_use, use_threads
from data.datasets import Dataset
from defenses import DEFENCES, Procedure


class Product(NamedTuple):
    """What is left of a trained network: the tensors to save, the model they make, and facts for meta.json."""

    tensors: dict[str, torch.Tensor]
    model: nn.Module
    facts: dict


class Source(NamedTuple):
    """In what an original and a compressed model differ."""

    made_from: dict  # beside recipe and defence
    new_procedure: Callable[[], Procedure]  # the training step of the defence, anew for each training
    earlier_privacy: list | None  # spent on the starting network: [] where it is fresh, None if trained without noise
    start: Callable[[], nn.Module]  # the network to train
    finish: Callable[[nn.Module], Product]  # from the trained network to what is saved
    describe: Callable[[dict], str]  # meta.json in words, for the line that is printed


def recipe_of(settings: ModelSettings, assignment: Assignment) -> Recipe:
    """The recipe of one model: the stage's, with the model's own seed. Only some kinds of input can be augmented."""
    augment = settings.augment and dataset(assignment.run).kind.augmentable
    return Recipe(settings.epochs, settings.lr, settings.batch_size, assignment.seed, augment)


def make_model(
    assignment: Assignment, recipe: Recipe | None, source: Source, *, device: torch.device, batch_size: int
) -> None:
    """Make one model and save it; do nothing where it is there, copy it where another run has made the same.

    Without a recipe the network that the source starts from is not trained, and no defence of training acts on it.
    """
    title, folder = assignment.title, assignment.folder
    made_from = {**source.made_from, **training_of(recipe, assignment)}
    if checkpoints.is_done(folder, made_from):
        say(f"{title}: done before, {folder}")
        return
    if assignment.run.defence.name and (twin := checkpoints.copy_identical_model(folder, made_from)):
        say(f"{title}: the same as {twin}, copied to {folder}")
        return

    started = time.monotonic()
    data = dataset(assignment.run)
    network = source.start()
    training_facts = {}
    if recipe is not None:
        training_facts = train_network(network, assignment, recipe, source, data, made_from, device)
    product = source.finish(network)
    check_finite(product.tensors, title)
    facts = {**product.facts, **training_facts, **accuracies(product.model, assignment, data, device, batch_size)}
    facts |= {"seconds": round(time.monotonic() - started, 1), **provenance(device)}
    meta = checkpoints.save(folder, product.tensors, made_from, facts)
    say(f"{title}: {source.describe(meta)}; {folder}")


def training_of(recipe: Recipe | None, assignment: Assignment) -> dict:
    """What a model's `made_from` says of its training; nothing where it is not trained."""
    return {} if recipe is None else {**recipe._asdict(), **assignment.defence_facts()}


def train_network(
    network: nn.Module,
    assignment: Assignment,
    recipe: Recipe,
    source: Source,
    data: Dataset,
    identity: dict,
    device: torch.device,
) -> dict:
    """Train the network in place: once, or in the way of its defence where that replaces the whole training.

    Such a defence may call `train` several times. Each call has a resume state of its own: a later training must not go
    on from the end of an earlier one.

    Returns facts for meta.json: the last epoch's loss and, with DP-SGD, the privacy spent.
    """
    members = on_device(data, assignment.members, device)
    reserve = None if assignment.reserve is None else on_device(data, assignment.reserve, device)
    trainings = itertools.count()

    def train(model: nn.Module, points: tuple[torch.Tensor, torch.Tensor]) -> dict:
        threads = threads_in_use()
        procedure = source.new_procedure()
        loss = fit(
            model,
            *points,
            recipe,
            flip=data.flip,
            kind=data.kind,
            device=device,
            resume=checkpoints.resume_file(assignment.folder, next(trainings)),
            identity=identity,
            desc=assignment.title,
            procedure=procedure,
            reserve=reserve,
        )
        use_threads(threads)  # a training that was stopped goes on with as many as it began with
        spent = procedure.account(len(points[1]), recipe.batch_size, recipe.epochs, source.earlier_privacy)
        return {"loss": loss, **spent}

    whole_training = DEFENCES[assignment.defence].whole_training if assignment.defence else None
    if whole_training is None:
        return train(network, members)
    argument = assignment.run.defence.argument
    return whole_training(train, network, members, reserve, argument=argument, seed=assignment.seed)


def on_device(data: Dataset, index, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The stored points and their labels at `index`."""
    points = torch.from_numpy(data.images[index]).to(device)
    return points, torch.from_numpy(data.labels[index]).to(device)


def accuracies(model: nn.Module, assignment: Assignment, data: Dataset, device: torch.device, batch_size: int) -> dict:
    """The model's accuracy on the points it was trained on, and on those held out."""
    parts = {"train_accuracy": assignment.members, "test_accuracy": assignment.held_out}
    return {
        name: accuracy(model, data.images[index], data.labels[index], device, batch_size, data.kind)
        for name, index in parts.items()
    }


def check_finite(tensors: dict[str, torch.Tensor], title: str) -> None:
    """UserError where a weight or a buffer is infinite: such a model would answer nonsense much later."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{title}: {name} is no longer finite after training: lower --lr")


def describe_privacy(facts: dict) -> str:
    """What DP-SGD guarantees, for the line that a stage prints; "" without it."""
    if "privacy" not in facts:
        return ""
    epsilon, delta = facts["privacy"]["epsilon"], facts["privacy"]["delta"]
    if epsilon is None:
        return "; no privacy guarantee: the original was trained on the same members without noise"
    return f"; epsilon {epsilon:.2f} at delta {delta:g}, while the seed is secret"
