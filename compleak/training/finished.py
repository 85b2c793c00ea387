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

KEYS_THAT_DIFFER_BY_ROLE = {"members", "seed", "original", "defend", "defend_arg", "reserve", "calibration"}


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


def recipe_of_defence(run: Run, variant: Variant) -> set[str]:
    """The settings of a model's training for which the run's defence has values of its own."""
    defence = run.defence
    rates = [defence.lr] if variant == ORIGINAL else [defence.lr, defence.finetuning_lr]
    own = {"lr": rates, "batch_size": [defence.batch_size]}
    return {key for key, values in own.items() if any(value is not None for value in values)}


def refuse_other_recipe(run: Run, variant: Variant, role: str, made_from: dict) -> None:
    """UserError where the victim, if it is there yet, was made with other settings than this role."""
    if difference := differing_setting(run, variant, VICTIM, made_from):
        key, victims = difference
        raise UserError(
            f"{run.name} {variant}: {role} was made with {key} {made_from.get(key)}, {VICTIM} with "
            f"{victims}: delete the one that is wrong and make it again with the other's settings"
        )


def refuse_unlike_other_roles(run: Run, variant: Variant, role: str, made_from: dict) -> None:
    """UserError where this role's model, not made yet, would be made by another recipe than one that is there."""
    for other in run.roles:
        if other == role:
            continue
        if difference := differing_setting(run, variant, other, made_from):
            key, theirs = difference
            raise UserError(
                f"{run.name} {variant}: {other} was made with {key} {theirs}, not {made_from.get(key)}: use "
                f"the same settings for {role}, another --run_name, or delete {run.role_dir(variant, other)}"
            )


def differing_setting(run: Run, variant: Variant, role: str, made_from: dict) -> tuple[str, object] | None:
    """The first setting in which this role's model, if it is there yet, differs from what another is made from.

    Returns the setting's name and its value in this role's model; None where nothing differs.
    """
    folder = run.role_dir(variant, role)
    if not checkpoints.is_finished(folder):
        return None
    theirs = checkpoints.load_meta(folder)["made_from"]
    may_differ = KEYS_THAT_DIFFER_BY_ROLE
    if made_from.get("defend") != theirs.get("defend"):
        may_differ = may_differ | recipe_of_defence(run, variant)
    keys = sorted((made_from.keys() | theirs.keys()) - may_differ)
    return next(((key, theirs.get(key)) for key in keys if made_from.get(key) != theirs.get(key)), None)
