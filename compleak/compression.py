"""The compression stage, the same for all three techniques: prepare, fine-tune, pack, assert, save."""

import argparse
import time

import torch
from torch import nn

from compleak import checkpoints, paths, runs
from compleak.defended import privacy_said, train_model, training_of
from compleak.techniques import TECHNIQUES, parse_degree
from compleak.training import Recipe, accuracy
from core import console, devices
from core.errors import UserError
from core.provenance import provenance
from data.inputs import to_input
from data.splits import Pair

MAX_INT8_SHARE = 0.27  # of the float model's bytes (PROTOCOL §3); in narrow networks scales and biases weigh more
FEW_FEATURES = 8  # as they do where there are fewer than these
OF_A_ROLE = {"members", "seed", "original", "defend", "defend_arg", "reserve"}  # what the models of a run may differ in
CHECKED_IMAGES = 64  # inputs on which the saved model must give exactly the trained one's outputs


def compress(args: argparse.Namespace, technique: str, degree_text: str) -> None:
    """Compress the victim and every shadow of a run, or those of --roles, with the same settings."""
    degree_name, degree = parse_degree(technique, degree_text)
    variant = paths.variant_name(technique, degree_name)
    device, run = devices.choose(args.device), runs.open_run(args)
    pairs = runs.split(run)[0].pairs
    for row, role in runs.chosen(run, args.roles):
        _compress_role(args, run, variant, degree, row, role, pairs[row], device)


def _compress_role(args, run: runs.Run, variant: str, degree, row: int, role: str, pair: Pair, device) -> None:
    original = model_meta(run, paths.ORIGINAL, role)
    technique, degree_name = variant.split("_", 1)
    module, data = TECHNIQUES[technique].module, runs.dataset(run)
    augment = not args.no_augment and data.features is None
    recipe = Recipe(args.epochs, args.lr, args.batch_size, runs.role_seed(run, row), augment)
    made_from = {"original": original["sha256"], "technique": technique, "degree": degree_name, **recipe._asdict()}
    training = training_of(run, row, recipe, technique)
    made_from |= training.made_from
    folder = paths.role_dir(run.root, run.name, variant, role)
    if checkpoints.is_done(folder, made_from):
        console.say(f"{variant} {role}: done before, {folder}")
        return
    if run.config["defend"] and (twin := checkpoints.take_twin(folder, made_from)):
        console.say(f"{variant} {role}: the same as {twin}, copied to {folder}")
        return

    started = time.monotonic()
    weights = checkpoints.load(require(run, paths.ORIGINAL, role)).tensors
    source = load_tensors(run, paths.ORIGINAL, weights)
    prepared = module.prepare(source, degree)
    earlier = original.get("privacy", {}).get("history")
    options = {"device": device, "resume": folder / checkpoints.RESUME, "identity": made_from}
    trained = train_model(prepared, training, data, recipe, earlier=earlier, **options, desc=f"{variant} {role}")

    prepared.eval()
    tensors = module.pack(prepared)
    restored = load_tensors(run, variant, tensors).to(device, memory_format=torch.channels_last)
    if technique == "quantization" and run.config["width"] >= 1 and (data.features or FEW_FEATURES) >= FEW_FEATURES:
        share = _content(tensors) / _content(weights)
        assert share <= MAX_INT8_SHARE, f"the int8 model holds {share:.3f} of the float model's bytes"
    with devices.exact():
        images = torch.from_numpy(data.images[training.members[:CHECKED_IMAGES]]).to(device)
        held = module.verify(prepared, restored, degree, to_input(images))
    members, test = ((data.images[index], data.labels[index]) for index in (training.members, pair.test))
    before, after = original["test_accuracy"], accuracy(restored, *test, device, args.batch_size)
    facts = {
        "property": held,
        **trained,
        "test_accuracy_before": before,
        "test_accuracy": after,
        "train_accuracy": accuracy(restored, *members, device, args.batch_size),
        "seconds": round(time.monotonic() - started, 1),
        **provenance(device),
    }
    meta = checkpoints.save(folder, tensors, made_from, facts)
    old, new = original["bytes"], meta["bytes"]
    size = f"{checkpoints.megabytes(old)} -> {checkpoints.megabytes(new)} ({new / old:.2f}x)"
    console.say(
        f"{variant} {role}: {held}; test accuracy {before:.2%} -> {after:.2%}{privacy_said(facts)}; {size}; {folder}"
    )


def _content(tensors: dict[str, torch.Tensor]) -> int:
    """Bytes of all values."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def require(run: runs.Run, variant: str, role: str):
    """The folder of a finished checkpoint; UserError with the command that makes it."""
    folder = paths.role_dir(run.root, run.name, variant, role)
    if not (folder / checkpoints.META).exists():
        raise UserError(f"{folder} holds no finished checkpoint: first {make_command(run, variant)}")
    return folder


def make_command(run: runs.Run, variant: str) -> str:
    """The command line that makes a variant of this run."""
    if variant == paths.ORIGINAL:
        return runs.train_command(run)
    technique, degree = variant.split("_", 1)
    return f"python {TECHNIQUES[technique].command(degree)} {runs.name_flags(run.config, run.name, run.root)}"


def load_tensors(run: runs.Run, variant: str, tensors: dict) -> nn.Module:
    """The network of this run with a checkpoint's content in it, in eval mode, on the CPU."""
    model = runs.network(run)
    try:
        if variant == paths.ORIGINAL:
            model.load_state_dict(tensors)
            return model.eval()
        return TECHNIQUES[variant.split("_", 1)[0]].module.unpack(model, tensors).eval()
    except (ValueError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"a checkpoint of {run.name} {variant} does not fit {run.config['model_name']}: {reason}"
        ) from error


def load_model(run: runs.Run, variant: str, role: str) -> nn.Module:
    """A finished model in eval mode, checked against the original it was made from."""
    model_meta(run, variant, role)
    return load_tensors(run, variant, checkpoints.load(require(run, variant, role)).tensors)


def model_meta(run: runs.Run, variant: str, role: str) -> dict:
    """What `meta.json` says of a finished model.

    UserError where it was made from another original than the run's, or by another recipe than the victim.
    """
    found = checkpoints.load_meta(require(run, variant, role))
    _refuse_other_recipe(run, variant, role, found["made_from"])
    if variant != paths.ORIGINAL:
        original = model_meta(run, paths.ORIGINAL, role)
        folder = paths.role_dir(run.root, run.name, variant, role)
        wanted = {"original": original["sha256"]}
        checkpoints.refuse_difference(folder, {"original": found["made_from"].get("original")}, wanted)
    return found


def _refuse_other_recipe(run: runs.Run, variant: str, role: str, made_from: dict) -> None:
    """UserError where the victim, if it is there yet, was made with other settings than this role."""
    victim = run.roles[0]
    folder = paths.role_dir(run.root, run.name, variant, victim)
    if not (folder / checkpoints.META).exists():
        return
    victims = checkpoints.load_meta(folder)["made_from"]
    for key in sorted((made_from.keys() | victims.keys()) - OF_A_ROLE):
        if made_from.get(key) != victims.get(key):
            raise UserError(
                f"{run.name} {variant}: {role} was made with {key} {made_from.get(key)}, {victim} with "
                f"{victims.get(key)}: delete the one that is wrong and make it again with the other's settings"
            )
