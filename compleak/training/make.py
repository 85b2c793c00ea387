"""From an assignment to a checkpoint: the same steps for an original model and for a compressed one."""

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import softmax
from torch import nn

from compleak.runs import checkpoints
from compleak.runs.flags import refuse_compiled_dp
from compleak.runs.roles import role_seed
from compleak.runs.run import dataset, split
from compleak.runs.run import network as fresh_network
from compleak.runs.settings import WEIGHT_DECAY, CompressSettings, DefenceSettings, ModelSettings, TrainSettings
from compleak.runs.variants import ORIGINAL
from compleak.training.assignment import Assignment
from compleak.training.evaluate import accuracy, ask
from compleak.training.finished import refuse_unlike_other_roles
from compleak.training.loop import Recipe, check_finite, fit
from core.console import say
from core.provenance import provenance
from core.threads import same_threads_afterwards
from data.datasets import Dataset
from defenses import DEFENCES, Procedure
from defenses.trainer import Pair, Trainer


class Product(NamedTuple):
    """What is left of a trained network: the tensors to save, the model they make, and facts for meta.json."""

    tensors: dict[str, torch.Tensor]
    model: nn.Module
    facts: dict


class Source(NamedTuple):
    """The steps that differ between making an original and making a compressed model."""

    made_from: dict  # beside recipe and defence
    new_procedure: Callable[[], Procedure]  # the training step of the defence, anew for each training
    earlier_privacy: list | None  # spent on the starting network: [] where it is fresh, None if trained without noise
    start: Callable[[], nn.Module]  # the network to train
    finish: Callable[[nn.Module], Product]  # from the trained network to what is saved
    describe: Callable[[dict], str]  # meta.json in words, for the line that is printed
    original_made_from: dict | None = None  # of the original that it starts from, None where it is one


def recipe_of(settings: ModelSettings, assignment: Assignment) -> Recipe:
    """The recipe of one model: the stage's, with the model's own seed, and what its defence has of its own.

    Only some kinds of input can be augmented. UserError where the defence does not go with the recipe.
    """
    augment = settings.augment and assignment.run.kind.augmentable
    recipe = Recipe(
        settings.epochs,
        settings.lr,
        settings.batch_size,
        assignment.seed,
        augment,
        weight_decay=WEIGHT_DECAY[settings.optimizer],
        optimizer=settings.optimizer,
        compiled=settings.compile,
    )
    if not assignment.defence:
        return recipe
    check_recipe(assignment.run.defence, settings.optimizer, settings.compile)
    return with_defence(recipe, assignment)


def check_recipe(defence: DefenceSettings, optimizer: str, compile: bool) -> None:
    """UserError where the defence does not go with how its models are to be trained."""
    refuse_compiled_dp(compile, [defence.name])
    DEFENCES[defence.name].step.check_recipe(defence.argument, optimizer, WEIGHT_DECAY[optimizer])


def with_defence(recipe: Recipe, assignment: Assignment) -> Recipe:
    """The recipe with the learning rates and batch size of a defence that has its own.

    In fine-tuning the stage's learning rate is scaled by `finetuning_lr` / 0.001, the default of pruning and of
    quantization, or, where only `lr` is given, by `lr` / 0.1, the default of training.
    """
    defence = assignment.run.defence
    if defence.batch_size is not None:
        recipe = recipe._replace(batch_size=defence.batch_size)
    if assignment.variant == ORIGINAL:
        return recipe if defence.lr is None else recipe._replace(lr=defence.lr)
    if defence.finetuning_lr is not None:
        return recipe._replace(lr=recipe.lr * defence.finetuning_lr / CompressSettings.lr)
    return recipe if defence.lr is None else recipe._replace(lr=recipe.lr * defence.lr / TrainSettings.lr)


def rate_flag(assignment: Assignment) -> str:
    """The flag to lower where a model's training diverges; in fine-tuning --lr also acts on a defence's own rate."""
    if not assignment.defence:
        return "--lr"
    defence = assignment.run.defence
    if assignment.variant == ORIGINAL:
        return "--lr" if defence.lr is None else "--defend_lr"
    return "--lr" if defence.finetuning_lr is None else "--defend_finetuning_lr"


def make_model(
    assignment: Assignment, recipe: Recipe | None, source: Source, *, device: torch.device, batch_size: int
) -> None:
    """Make one model and save it; do nothing where it is there.

    Of a run with a defence it is copied where another run has made the same. Without a recipe the network that the
    source starts from is not trained, and no defence of training acts on it. UserError where the run's other models are
    made by another recipe.
    """
    title, folder = assignment.title, assignment.folder
    made_from = made_from_of(source, recipe, assignment)
    if checkpoints.is_done(folder, made_from):
        say(f"{title}: done before, {folder}")
        return
    refuse_unlike_other_roles(assignment.run, assignment.variant, assignment.role, made_from)
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
    check_finite(product.tensors, title, checkpoints.resume_file(folder), rate_flag(assignment))
    facts = {**product.facts, **training_facts, **accuracies(product.model, assignment, data, device, batch_size)}
    facts |= {"seconds": round(time.monotonic() - started, 1), **provenance(device)}
    meta = checkpoints.save(folder, product.tensors, made_from, facts)
    say(f"{title}: {source.describe(meta)}; {folder}")


def made_from_of(source: Source, recipe: Recipe | None, assignment: Assignment) -> dict:
    """What a model is made from, as its meta.json says it."""
    return {**source.made_from, **training_of(recipe, assignment)}


def training_of(recipe: Recipe | None, assignment: Assignment) -> dict:
    """What a model's `made_from` says of its training; nothing where it is not trained."""
    if recipe is None:
        return {}
    facts = recipe._asdict()
    for name in ("compiled", "optimizer"):  # which models that were made before there was a choice do not say
        if facts[name] == Recipe._field_defaults[name]:
            del facts[name]
    return {**facts, **assignment.defence_facts()}


def make_part(assignment: Assignment, recipe: Recipe, source: Source, number: int, *, device: torch.device) -> None:
    """Make one part of the whole training of an original beforehand; nothing where the model is there or is copied."""
    parts = DEFENCES[assignment.defence].parts
    title = f"{assignment.title} {parts.name} {number}"
    made_from = made_from_of(source, recipe, assignment)
    folder = assignment.folder
    if checkpoints.is_done(folder, made_from) or checkpoints.copy_identical_model(folder, made_from):
        say(f"{title}: its model is done, {folder}")
        return
    refuse_unlike_other_roles(assignment.run, assignment.variant, assignment.role, made_from)
    data = dataset(assignment.run)
    trainer = trainer_of(assignment, recipe, source, data, made_from, device, title)
    members = on_device(data, assignment.members, device)
    parts.make(trainer, members, number, argument=assignment.run.defence.argument, seed=assignment.seed)
    say(f"{title}: done, {folder}")


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

    Returns facts for meta.json: the last epoch's loss and, with DP-SGD, the privacy spent.
    """
    members = on_device(data, assignment.members, device)
    trainer = trainer_of(assignment, recipe, source, data, identity, device, assignment.title)
    whole_training = DEFENCES[assignment.defence].whole_training if assignment.defence else None
    if whole_training is None:
        return trainer.train(network, members)
    reserve = reserve_on_device(assignment, data, device)
    argument = assignment.run.defence.argument
    return whole_training(trainer, network, members, reserve, argument=argument, seed=assignment.seed)


def trainer_of(
    assignment: Assignment,
    recipe: Recipe,
    source: Source,
    data: Dataset,
    identity: dict,
    device: torch.device,
    title: str,
) -> Trainer:
    """The means to train one model. identity: what the model is made from."""
    reserve = reserve_on_device(assignment, data, device)

    def train(model: nn.Module, points: Pair, number: int = 0) -> dict:
        procedure = source.new_procedure()
        resume = checkpoints.resume_file(assignment.folder, number)
        desc = f"{title}{f', training {number}' if number else ''}"
        with same_threads_afterwards():
            loss = fit(
                model,
                *points,
                recipe._replace(seed=numbered_seed(assignment, number)),
                flip=data.flip,
                kind=data.kind,
                device=device,
                resume=resume,
                identity=identity,
                desc=desc,
                procedure=procedure,
                reserve=reserve,
                rate_flag=rate_flag(assignment),
            )
        if number:  # the model itself is checked as it is saved
            check_finite(model.state_dict(), desc, resume, rate_flag(assignment))
        spent = procedure.account(len(points[1]), recipe.batch_size, recipe.epochs, source.earlier_privacy)
        return {"loss": loss, **spent}

    def new_network(number: int) -> nn.Module:
        torch.manual_seed(numbered_seed(assignment, number))
        return fresh_network(assignment.run)

    def ask_points(model: nn.Module, points: np.ndarray) -> np.ndarray:
        logits = ask(model, data.images[points], device, recipe.batch_size, kind=data.kind)
        return softmax(logits.astype(np.float64), axis=1)

    def forget(number: int) -> None:
        checkpoints.resume_file(assignment.folder, number).unlink(missing_ok=True)

    points = asked_points(assignment)
    is_original = source.original_made_from is None
    return Trainer(
        train=train,
        forget=forget,
        foreign_states=functools.partial(checkpoints.foreign_states, assignment.folder, identity),
        new_network=new_network,
        ask=ask_points,
        points=points,
        member_of=places_among(assignment.members, points),
        folder=assignment.folder if is_original else assignment.run.role_dir(ORIGINAL, assignment.role),
        identity=source.original_made_from or identity,
        is_original=is_original,
    )


def numbered_seed(assignment: Assignment, number: int) -> int:
    """The seed of a training and of a fresh network: number 0 has the model's own."""
    return role_seed(assignment.seed, number) if number else assignment.seed


def asked_points(assignment: Assignment) -> np.ndarray:
    """The model's members and all points of the audit, sorted."""
    whole, audit = split(assignment.run)
    return functools.reduce(
        np.union1d, [assignment.members, *audit.victim, *(i for pair in whole.shadows for i in pair)]
    )


def places_among(members: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N,) int64: the place of each point among the members (n,), -1 where it is none.

    points: (N,) sorted, the members among them.
    """
    places = np.full(len(points), -1)
    places[np.searchsorted(points, members)] = np.arange(len(members))
    return places


def reserve_on_device(assignment: Assignment, data: Dataset, device: torch.device) -> Pair | None:
    return None if assignment.reserve is None else on_device(data, assignment.reserve, device)


def on_device(data: Dataset, index, device: torch.device) -> Pair:
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


def describe_privacy(facts: dict) -> str:
    """What DP-SGD guarantees, for the line that a stage prints; "" without it."""
    if "privacy" not in facts:
        return ""
    epsilon, delta = facts["privacy"]["epsilon"], facts["privacy"]["delta"]
    if epsilon is None:
        return "; no privacy guarantee: a part of the training was without noise"
    return f"; epsilon {epsilon:.2f} at delta {delta:g}, while the seed is secret"
