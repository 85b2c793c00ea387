"""Train the original models of a run: the victim and its shadow models."""

import functools

import torch
from torch import nn

from compleak.runs import checkpoints
from compleak.runs.create import create_run
from compleak.runs.roles import selected_roles
from compleak.runs.run import Run, network
from compleak.runs.settings import DefenceSettings, TrainSettings
from compleak.runs.variants import ORIGINAL
from compleak.training.assignment import Assignment, assign
from compleak.training.finished import refuse_unlike_other_roles
from compleak.training.make import Product, Source, describe_privacy, made_from_of, make_model, make_part, recipe_of
from core import devices
from core.console import say
from core.errors import UserError
from core.threads import threads_for_stage, use_threads
from defenses import DEFENCES, WITH_PARTS

NETWORK_KEYS = ("data", "label_noise", "model_name", "width", "num_cls")  # of run.json: what the network is
TEXT_KEYS = ("tokenizer", "weights")  # the same of texts alone


def train_originals(settings: TrainSettings) -> None:
    """Create the run where it is not there, and make the original models of the settings' roles, or a part of each."""
    device = devices.choose(settings.device)
    use_threads(threads_for_stage(settings.threads))
    if settings.part is not None:
        check_part(settings.run.defence, settings.part)
    run = create_run(settings, functools.partial(refuse_other_models, settings))
    for role in selected_roles(run.roles, settings.roles):
        assignment = assign(run, ORIGINAL, role)
        recipe = recipe_of(settings, assignment)
        source = original_source(assignment, settings.slim_penalty)
        if settings.part is None:
            make_model(assignment, recipe, source, device=device, batch_size=settings.batch_size)
        elif assignment.defence:
            make_part(assignment, recipe, source, settings.part, device=device)
        else:
            say(f"{assignment.title}: not defended without --adaptive, so there is no part to make")


def refuse_other_models(settings: TrainSettings, run: Run) -> None:
    """UserError where originals of the run are there that other settings have made than these."""
    for role in selected_roles(run.roles, settings.roles):
        assignment = assign(run, ORIGINAL, role)
        source = original_source(assignment, settings.slim_penalty)
        made_from = made_from_of(source, recipe_of(settings, assignment), assignment)
        if checkpoints.is_finished(assignment.folder):
            stated = checkpoints.load_meta(assignment.folder)["made_from"]
            checkpoints.refuse_difference(assignment.folder, stated, made_from)
        else:
            refuse_unlike_other_roles(run, ORIGINAL, role, made_from)


def check_part(defence: DefenceSettings, number: int) -> None:
    """UserError where the defence's training has no part of this number."""
    parts = DEFENCES[defence.name].parts if defence.name else None
    if parts is None:
        raise UserError(f"--part is for {' or '.join(f'--defend {name}' for name in WITH_PARTS)}: leave it out")
    if number >= (count := parts.count(defence.argument)):
        raise UserError(f"--part {number}: {parts.name}s have the numbers 0 to {count - 1}")


def original_source(assignment: Assignment, slim_penalty: float) -> Source:
    """An original starts from a freshly initialised network and is saved as it is."""
    config = assignment.run.config
    made_from = {key: config[key] for key in NETWORK_KEYS}
    made_from |= {key: config[key] for key in TEXT_KEYS if config[key] is not None}
    made_from["members"] = assignment.members_fingerprint()
    if slim_penalty:
        made_from["slim_penalty"] = slim_penalty

    def start() -> nn.Module:
        torch.manual_seed(assignment.seed)
        return network(assignment.run)

    def finish(model: nn.Module) -> Product:
        tensors = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
        return Product(tensors, model, {})

    new_procedure = functools.partial(assignment.new_procedure, slim_penalty)
    return Source(made_from, new_procedure, [], start, finish, describe)


def describe(meta: dict) -> str:
    """An original's meta.json in words."""
    accuracies = f"accuracy {meta['train_accuracy']:.2%} on members, {meta['test_accuracy']:.2%} on others"
    return f"{accuracies}{describe_privacy(meta)}; {checkpoints.megabytes(meta['bytes'])}"
