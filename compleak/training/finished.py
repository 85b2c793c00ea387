"""Finished models: found, checked against what they must have been made from, and loaded."""

import shlex
from pathlib import Path

from torch import nn

from compleak.runs import checkpoints
from compleak.runs.names import train_command
from compleak.runs.roles import VICTIM
from compleak.runs.run import Run, network
from compleak.runs.variants import ORIGINAL, Variant
from core.errors import UserError

# in what the models of a run may differ
OF_A_ROLE = {"members", "seed", "original", "defend", "defend_arg", "reserve", "calibration"}


def load_model(run: Run, variant: Variant, role: str) -> nn.Module:
    """A finished model in eval mode, checked as `model_meta` does."""
    model_meta(run, variant, role)
    return fill_network(run, variant, checkpoints.load(finished_folder(run, variant, role)).tensors)


def model_meta(run: Run, variant: Variant, role: str) -> dict:
    """The meta.json of a finished model.

    UserError where it was made from another original than the run's, or by another recipe than the victim.
    """
    folder = finished_folder(run, variant, role)
    meta = checkpoints.load_meta(folder)
    refuse_other_recipe(run, variant, role, meta["made_from"])
    if variant != ORIGINAL:
        original = model_meta(run, ORIGINAL, role)
        stated = {"original": meta["made_from"].get("original")}
        checkpoints.refuse_difference(folder, stated, {"original": original["sha256"]})
    return meta


def finished_folder(run: Run, variant: Variant, role: str) -> Path:
    """The folder of a finished checkpoint; UserError with the command that makes it."""
    folder = run.role_dir(variant, role)
    if not checkpoints.is_finished(folder):
        raise UserError(f"{folder} holds no finished checkpoint: first {make_command(run, variant)}")
    return folder


def make_command(run: Run, variant: Variant) -> str:
    """The command line that makes a variant of this run."""
    if variant == ORIGINAL:
        return train_command(run.config, run.name, run.root)
    return f"python {variant.command} {shlex.join(run.name_flags())}"


def fill_network(run: Run, variant: Variant, tensors: dict) -> nn.Module:
    """The run's network with these tensors in it, in eval mode, on the CPU. UserError where they do not fit."""
    model = network(run)
    try:
        if variant == ORIGINAL:
            model.load_state_dict(tensors)
            return model.eval()
        return variant.module.unpack(model, tensors).eval()
    except (ValueError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"a checkpoint of {run.name} {variant} does not fit {run.config['model_name']}: {reason}"
        ) from error


def recipe_of_defence(run: Run) -> set[str]:
    """The settings of training for which the run's defence has values of its own."""
    own = {"lr": run.defence.lr, "batch_size": run.defence.batch_size}
    return {key for key, value in own.items() if value is not None}


def refuse_other_recipe(run: Run, variant: Variant, role: str, made_from: dict) -> None:
    """UserError where the victim, if it is there yet, was made with other settings than this role."""
    folder = run.role_dir(variant, VICTIM)
    if not checkpoints.is_finished(folder):
        return
    victims = checkpoints.load_meta(folder)["made_from"]
    may_differ = OF_A_ROLE
    if made_from.get("defend") != victims.get("defend"):
        may_differ = OF_A_ROLE | recipe_of_defence(run)
    for key in sorted((made_from.keys() | victims.keys()) - may_differ):
        if made_from.get(key) != victims.get(key):
            raise UserError(
                f"{run.name} {variant}: {role} was made with {key} {made_from.get(key)}, {VICTIM} with "
                f"{victims.get(key)}: delete the one that is wrong and make it again with the other's settings"
            )
