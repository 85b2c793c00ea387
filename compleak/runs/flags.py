"""The flags that name a run and a defence, and those of every stage that trains, as settings."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from compleak.runs.settings import (
    DEFAULT_DATASET,
    DEFAULT_MODEL,
    DEFAULT_WIDTH,
    UNDEFENDED,
    DefenceSettings,
    RunSettings,
)
from compleak.runs.variants import Variant, compressed_variant
from core import arguments
from core.errors import UserError
from core.project import PROJECT
from data import splits
from defenses import DEFENCES
from pruning import masks

SHOWN_DEFAULTS = {
    "dataset_name": DEFAULT_DATASET,
    "model_name": DEFAULT_MODEL,
    "width": f"{DEFAULT_WIDTH:g}",
    "batch_size": "128",
    "run_name": "<dataset>_<model>[_w<width>]",
}


def stage_parser(doc: str, defaults: dict[str, str] | None = None) -> arguments.Parser:
    """A parser that shows the script's docstring, with the flags of every stage: which run, and where.

    defaults: what the help says of flags whose default the script changes.
    """
    shown = {**SHOWN_DEFAULTS, **(defaults or {})}
    parser = arguments.script_parser(doc)
    run = parser.add_argument_group("which run")
    run.add_argument(
        "--dataset_name",
        type=arguments.folder_name,
        help="digits, cifar10, cifar100, svhn, purchase100, texas100, location, or any name with --data_dir "
        f"(default: {shown['dataset_name']})",
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
        f"(default: {shown['model_name']})",
    )
    run.add_argument(
        "--width",
        type=arguments.positive_float,
        help=f"width multiplier of the network (default: {shown['width']})",
    )
    run.add_argument(
        "--num_cls",
        type=arguments.positive_int,
        help="number of classes; checked against the data (default: the data's)",
    )
    run.add_argument(
        "--run_name",
        type=arguments.folder_name,
        help=f"folder under results/, to which a defence adds its name (default: {shown['run_name']})",
    )
    add_defence_flags(parser)
    add_machine_flags(parser, shown["batch_size"])
    return parser


def add_machine_flags(parser: argparse.ArgumentParser, batch_size: str) -> None:
    where = parser.add_argument_group("where")
    where.add_argument(
        "--root", type=Path, default=PROJECT, help="folder that holds data/ and results*/ (default: the project's)"
    )
    where.add_argument("--device", help="cuda, cpu, ... (default: CUDA where there is one, else the CPU)")
    where.add_argument(
        "--batch_size", type=arguments.positive_int, default=128, help=f"images a step (default: {batch_size})"
    )
    where.add_argument(
        "--threads",
        type=arguments.positive_int,
        help="processor threads (default: OMP_NUM_THREADS, or as many as cores are free when the stage begins)",
    )


def add_defence_flags(parser: argparse.ArgumentParser) -> None:
    """A defence is part of a run: each stage is told of it, and its name is part of the run's folder."""
    group = parser.add_argument_group("which defence the run has")
    group.add_argument(
        "--defend", choices=("", *DEFENCES), metavar="|".join(DEFENCES), default="", help="trained into the models"
    )
    meanings = [f"{name}: {defence.argument} (default: {defence.default:g})" for name, defence in DEFENCES.items()]
    group.add_argument("--defend_arg", type=arguments.positive_float, help="; ".join(meanings))
    group.add_argument(
        "--adaptive",
        action="store_true",
        help="the attacker knows the defence and trains the shadow models with it (default: trains them without)",
    )
    spared = group.add_mutually_exclusive_group()
    spared.add_argument(
        "--undefended_original",
        action="store_true",
        help="defend fine-tuning after compression alone, as where an existing model is compressed",
    )
    spared.add_argument(
        "--undefended_finetuning",
        action="store_true",
        help="defend the original alone, as where a defended model is compressed with a stock recipe",
    )


def add_training_flags(parser: argparse.ArgumentParser, epochs_flag: str, epochs: int, lr: float) -> None:
    """The flags of every stage that trains; each keeps the name that the artifact's users know for its epochs."""
    group = parser.add_argument_group("training")
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
    add_compile_flag(group)
    add_roles_flag(group)


def add_layout_flag(group) -> None:
    group.add_argument(
        "--split",
        choices=splits.LAYOUTS,
        default=splits.COMPLEAK,
        help="who gets how many points: compleak, a third and a sixth for the victim, half for the attacker; selena, "
        "10 %% and 75 %% for the victim, 15 %% for the attacker (default: %(default)s)",
    )


def add_compile_flag(group) -> None:
    group.add_argument(
        "--compile",
        action="store_true",
        help="train with torch.compile: quicker steps after a minute or two of compiling, other last bits "
        "(default: without)",
    )


def refuse_compiled_dp(compile: bool, defences: Iterable[str]) -> None:
    """UserError where DP-SGD would have to be compiled: its gradients of single points are taken by other means."""
    if compile and "dp" in defences:
        raise UserError("--compile does not go with the defence dp: leave one of them out")


def add_roles_flag(group) -> None:
    group.add_argument(
        "--roles",
        nargs="*",
        metavar="ROLE",
        help="victim_model shadow_model_0 ...: only these models, or none (default: all of the run)",
    )


def add_pruner_flag(group) -> None:
    group.add_argument(
        "--pruner_name", choices=tuple(masks.PRUNERS), help=f"what pruning removes (default: {masks.DEFAULT})"
    )


def pruning_variant(pruner: str | None, sparsity: str) -> Variant:
    """The variant that --pruner_name (None where it was not given) and a sparsity mean. UserError for two pruners."""
    if pruner and any(sparsity.startswith(f"{name}_") for name in masks.PRUNERS):
        raise UserError(f"--pruner_name {pruner} goes with a sparsity, not with {sparsity}: name the pruner once")
    degree = sparsity if pruner in (None, masks.DEFAULT) else f"{pruner}_{sparsity}"
    return compressed_variant("pruning", degree)


def run_settings(args: argparse.Namespace) -> RunSettings:
    """Which run the flags mean."""
    return RunSettings(
        dataset_name=args.dataset_name,
        data_dir=args.data_dir,
        model_name=args.model_name,
        width=args.width,
        num_cls=args.num_cls,
        run_name=args.run_name,
        defence=defence_settings(args),
        root=args.root,
    )


def defence_settings(args: argparse.Namespace) -> DefenceSettings:
    """The defence that was typed, the default of its argument filled in. UserError for its flags without --defend."""
    if args.defend:
        argument = args.defend_arg or DEFENCES[args.defend].default
        undefended = (args.undefended_original, args.undefended_finetuning)
        return DefenceSettings(args.defend, argument, args.adaptive, *undefended)
    if args.defend_arg is not None or args.adaptive or args.undefended_original or args.undefended_finetuning:
        raise UserError(
            "--defend_arg, --adaptive, --undefended_original and --undefended_finetuning need --defend "
            + "|".join(DEFENCES)
        )
    return UNDEFENDED


def stage_options(args: argparse.Namespace) -> dict:
    """What `StageSettings` of any stage take from the flags."""
    return {
        "run": run_settings(args),
        "device": args.device,
        "batch_size": args.batch_size,
        "threads": args.threads,
    }


def model_options(args: argparse.Namespace) -> dict:
    """What `ModelSettings` of any stage that trains take from the flags. UserError where they do not go together."""
    refuse_compiled_dp(args.compile, [args.defend])
    return {
        **stage_options(args),
        "roles": None if args.roles is None else tuple(args.roles),
        "epochs": args.epochs,
        "lr": args.lr,
        "augment": not args.no_augment,
        "compile": args.compile,
    }
