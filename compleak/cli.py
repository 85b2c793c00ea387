"""What all scripts share: flags that mean the same everywhere, one-line errors, quiet progress."""

import argparse
from pathlib import Path

from compleak import paths
from core import arguments
from core.errors import UserError
from core.project import PROJECT
from defenses import DEFENCES

DEFAULTS = {"dataset_name": "cifar10", "model_name": "resnet18", "width": 1.0}  # of the flags that name a run
UNDEFENDED = {"defend": "", "defend_arg": None, "adaptive": False, "undefended_original": False}  # these name it too


def parser(doc: str, defaults: dict[str, str] | None = None) -> argparse.ArgumentParser:
    """A parser that shows the script's docstring, with the flags that say which run is meant and where it lives.

    defaults: what the help says of flags whose default the script changes.
    """
    usual = {**DEFAULTS, "width": "1", "batch_size": "128", "run_name": "<dataset>_<model>[_w<width>]"}
    said = {**usual, **(defaults or {})}
    made = arguments.script_parser(doc)
    run = made.add_argument_group("which run")
    run.add_argument(
        "--dataset_name",
        type=arguments.folder_name,
        help="digits, cifar10, cifar100, svhn, purchase100, texas100, location, or any name with --data_dir "
        f"(default: {said['dataset_name']})",
    )
    run.add_argument(
        "--data_dir",
        type=Path,
        help="folder or tar archive of train/<class>/* and test/<class>/* images; "
        "of purchase100, texas100 and location the folder, archive or file (default: data/datasets/)",
    )
    run.add_argument(
        "--model_name",
        help="resnet18, resnet18_gn (group norm), vgg16_bn or mobilenetv2; mlp for purchase100, texas100 and location "
        f"(default: {said['model_name']})",
    )
    run.add_argument(
        "--width", type=arguments.positive_float, help=f"width multiplier of the network (default: {said['width']})"
    )
    run.add_argument(
        "--num_cls",
        type=arguments.positive_int,
        help="number of classes; checked against the data (default: the data's)",
    )
    run.add_argument(
        "--run_name",
        type=arguments.folder_name,
        help=f"folder under results/, to which a defence adds its name (default: {said['run_name']})",
    )
    defence_flags(made)
    where = made.add_argument_group("where")
    where.add_argument(
        "--root",
        type=Path,
        default=PROJECT,
        help="folder that holds data/ and results*/ (default: the project's)",
    )
    where.add_argument("--device", help="cuda, cpu, ... (default: CUDA where there is one, else the CPU)")
    where.add_argument(
        "--batch_size", type=arguments.positive_int, default=128, help=f"images a step (default: {said['batch_size']})"
    )
    return made


def defence_flags(made: argparse.ArgumentParser) -> None:
    """A defence is part of a run: each stage is told of it, and its name is part of the run's folder."""
    group = made.add_argument_group("which defence the run has")
    group.add_argument(
        "--defend", choices=("", *DEFENCES), metavar="|".join(DEFENCES), default="", help="trained into the models"
    )
    arguments = "; ".join(f"{name}: {d.argument} (default: {d.default:g})" for name, d in DEFENCES.items())
    group.add_argument("--defend_arg", type=arguments.positive_float, help=arguments)
    group.add_argument(
        "--adaptive",
        action="store_true",
        help="the attacker knows the defence and trains his shadows with it (default: he assumes none)",
    )
    group.add_argument(
        "--undefended_original",
        action="store_true",
        help="defend fine-tuning after compression alone, as where an existing model is compressed",
    )


def training_flags(made: argparse.ArgumentParser, epochs_flag: str, epochs: int, lr: float) -> None:
    """The flags of every stage that trains; each keeps the name the artifact's users know for its epochs."""
    group = made.add_argument_group("training")
    group.add_argument(
        epochs_flag,
        dest="epochs",
        type=arguments.positive_int,
        default=epochs,
        help="passes over the members (default: %(default)s)",
    )
    group.add_argument(
        "--lr", type=arguments.positive_float, default=lr, help="learning rate, cosine to 0 (default: %(default)s)"
    )
    group.add_argument(
        "--no_augment",
        action="store_true",
        help="train without random crop and flip; tables of features are never augmented",
    )
    roles_flag(group)


def roles_flag(group) -> None:
    group.add_argument(
        "--roles",
        nargs="*",
        metavar="ROLE",
        help="victim_model shadow_model_0 ...: only these models, or none (default: all of the run)",
    )


def identity(args: argparse.Namespace) -> dict:
    """Data set, network and width as typed, else the defaults. What was not typed stays None in `args`."""
    typed = {key: getattr(args, key) for key in DEFAULTS}
    return {key: DEFAULTS[key] if value is None else value for key, value in typed.items()}


def defence(args: argparse.Namespace) -> dict:
    """The defence as typed, its argument's default filled in. UserError for flags that lack --defend."""
    typed = {key: getattr(args, key) for key in UNDEFENDED}
    if not args.defend:
        if typed != UNDEFENDED:
            raise UserError(f"--defend_arg, --adaptive and --undefended_original need --defend {'|'.join(DEFENCES)}")
        return typed
    return {**typed, "defend_arg": args.defend_arg or DEFENCES[args.defend].default}


def default_name(named: dict) -> str:
    """The folder of a run that has no --run_name."""
    width = "" if named["width"] == 1 else f"_w{named['width']:g}"
    return f"{named['dataset_name']}_{named['model_name']}{width}"


def run_name(args: argparse.Namespace) -> str:
    return (args.run_name or default_name(identity(args))) + paths.defence_suffix(*defence(args).values())
