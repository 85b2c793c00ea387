"""The flags that name a run and a defence, and those of every stage that trains, as settings."""

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from compleak.runs.settings import (
    AS_THEY_ARE,
    DEFAULT_DATASET,
    DEFAULT_MODEL,
    DEFAULT_WIDTH,
    OPTIMIZERS,
    UNDEFENDED,
    AnswersSettings,
    CompressSettings,
    DefenceSettings,
    RunSettings,
    TrainSettings,
)
from compleak.runs.variants import Variant, compressed_variant
from core import arguments
from core.errors import UserError
from core.project import PROJECT
from data import splits
from data.pictures import SIDE
from defenses import DEFENCES, DEFENCES_OF_ANSWERS, DefenceOfAnswers
from pruning import masks

SETTINGS_OF_A_DEFENCE = {  # flags that need --defend -> the setting
    "--defend_arg": "argument",
    "--defend_lr": "lr",
    "--defend_batch_size": "batch_size",
    "--defend_finetuning_lr": "finetuning_lr",
    "--adaptive": "adaptive",
    "--undefended_original": "undefended_original",
    "--undefended_finetuning": "undefended_finetuning",
}
SHOWN_DEFAULTS = {
    "dataset_name": DEFAULT_DATASET,
    "model_name": DEFAULT_MODEL,
    "width": f"{DEFAULT_WIDTH:g}",
    "batch_size": "128",
    "run_name": "<dataset>_<model>[_w<width>][_<size>px]",
}


def stage_parser(doc: str, defaults: dict[str, str] | None = None) -> arguments.Parser:
    """A parser that shows the script's docstring, with the flags of every stage: which run, and where.

    defaults: what the help says of flags whose default the script changes.
    """
    shown = {**SHOWN_DEFAULTS, **(defaults or {})}
    parser = arguments.script_parser(doc)
    run = parser.add_argument_group("which run")
    add_data_flags(run, shown)
    add_network_flags(run, shown)
    run.add_argument(
        "--run_name",
        type=arguments.folder_name,
        help=f"folder under results/, to which a defence adds its name (default: {shown['run_name']})",
    )
    add_defence_flags(parser)
    add_machine_flags(parser, shown["batch_size"])
    return parser


def add_data_flags(run, shown: dict[str, str]) -> None:
    """Which data. run: the group of flags; shown: what the help says of defaults."""
    run.add_argument(
        "--dataset_name",
        type=arguments.folder_name,
        help="digits, cifar10, cifar100, fashion_mnist, svhn, purchase100, texas100, location, or any name with "
        "--data_dir, such as wordnet "
        f"(default: {shown['dataset_name']})",
    )
    run.add_argument(
        "--data_dir",
        type=Path,
        help="images: a folder or tar archive of train/<class>/* and test/<class>/*, or of <class>/*, or a folder of "
        "idx files; a table or texts: a .csv file (also .gz, .xz), texts also .jsonl; of purchase100, texas100 and "
        "location their folder, archive or file (default: data/datasets/)",
    )
    run.add_argument(
        "--image_size",
        type=arguments.positive_int,
        help=f"height and width in pixels to which images are resized (default: {SIDE})",
    )
    run.add_argument("--label_column", help="of a table or of texts (default: the one called label, class, ...)")
    run.add_argument(
        "--text_column", help="of a file of texts (default: the only one beside the labels; text in .jsonl)"
    )
    run.add_argument("--min_class", type=arguments.positive_int, help="leave out classes with fewer points")


def add_network_flags(run, shown: dict[str, str]) -> None:
    """Which network. run: the group of flags; shown: what the help says of defaults."""
    run.add_argument(
        "--model_name",
        help="resnet18, resnet18_gn (group norm), vgg16_bn, mobilenetv2 or densenet121; mlp for tables; bert or gpt2 "
        "for texts "
        f"(default: {shown['model_name']})",
    )
    run.add_argument(
        "--width",
        type=arguments.positive_float,
        help=f"width multiplier of the network (default: {shown['width']})",
    )
    run.add_argument(
        "--pretrained",
        type=Path,
        help="folder with config.json, tokenizer.json and .safetensors, from which bert or gpt2 takes its weights "
        "(default: trained from scratch)",
    )
    run.add_argument(
        "--num_cls",
        type=arguments.positive_int,
        help="number of classes; checked against the data (default: the data's)",
    )


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
        "--defend", choices=tuple(DEFENCES), metavar="|".join(DEFENCES), default="", help="trained into the models"
    )
    meanings = [f"{name}: {defence.argument} (default: {defence.default:g})" for name, defence in DEFENCES.items()]
    group.add_argument("--defend_arg", type=arguments.positive_float, help="; ".join(meanings))
    group.add_argument(
        "--defend_lr",
        type=arguments.positive_float,
        help="learning rate of defended originals; without --defend_finetuning_lr it also scales that of defended "
        "fine-tuning (default: as without a defence)",
    )
    group.add_argument(
        "--defend_batch_size",
        type=arguments.positive_int,
        help="batch size of defended training and fine-tuning (default: as without a defence)",
    )
    group.add_argument(
        "--defend_finetuning_lr",
        type=arguments.positive_float,
        help="learning rate of defended fine-tuning, if the stage's --lr is the usual "
        f"{CompressSettings.lr:g}; in a stage with another --lr, that --lr times this / {CompressSettings.lr:g}: a "
        f"hundredth in clustering (default: the stage's --lr, multiplied by --defend_lr / {TrainSettings.lr:g} where "
        "--defend_lr is given)",
    )
    group.add_argument(
        "--adaptive",
        action="store_true",
        help="the attacker knows the defence and trains the shadow models with it (default: trains them without)",
    )
    spared = group.add_mutually_exclusive_group()
    spared.add_argument(
        "--undefended_original",
        action="store_true",
        help="train the original without the defence, and use the defence only while fine-tuning compressed models",
    )
    spared.add_argument(
        "--undefended_finetuning",
        action="store_true",
        help="train the original with the defence, and fine-tune compressed models without it",
    )


def add_answers_flag(group) -> None:
    defences = DEFENCES_OF_ANSWERS.items()
    meanings = [f"{name}: {described(defence)}" for name, defence in defences if defence.argument]
    group.add_argument(
        "--answers",
        type=answers_of_text,
        default=AS_THEY_ARE,
        metavar="|".join([*(name + ":NUMBER" * bool(defence.argument) for name, defence in defences), "none"]),
        help="attack the answers as this defence lets people see them. The NUMBER of each: "
        f"{'; '.join(meanings)}. With --adaptive the shadow models' answers are defended, too (default: none)",
    )


def described(defence: DefenceOfAnswers) -> str:
    return defence.argument if defence.default is None else f"{defence.argument} (default: {defence.default:g})"


def answers_of_text(text: str) -> AnswersSettings:
    """What `topk:3`, `memguard` or `none` means. ArgumentTypeError where it means nothing."""
    name, colon, number = text.partition(":")
    if name not in (*DEFENCES_OF_ANSWERS, "none"):
        names = ", ".join(DEFENCES_OF_ANSWERS)
        raise argparse.ArgumentTypeError(f"no defence of answers {name!r}: choose from {names}, none")
    takes_number = name != "none" and DEFENCES_OF_ANSWERS[name].argument
    if colon and not takes_number:
        raise argparse.ArgumentTypeError(f"{name} takes no number: leave out {colon}{number}")
    if name == "none":
        return AS_THEY_ARE
    if colon and not number:
        raise argparse.ArgumentTypeError(f"no number follows {text}: state {takes_number}, for example {name}:3")
    return AnswersSettings(name, number_of_answers(name, number))


def number_of_answers(name: str, number: str) -> float | None:
    """The argument of a defence of answers; "": its default. ArgumentTypeError for one without meaning."""
    defence = DEFENCES_OF_ANSWERS[name]
    if not number:
        if defence.argument and defence.default is None:
            raise argparse.ArgumentTypeError(f"{name} needs a number, {defence.argument}: for example {name}:3")
        return defence.default
    try:
        argument = defence.read(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{number!r} is not {defence.argument}") from None
    if argument > defence.most:
        raise argparse.ArgumentTypeError(f"{name}:{number} hides nothing: give {defence.most:g} or less")
    return argument


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
        "--optimizer",
        choices=OPTIMIZERS,
        default="sgd",
        help="sgd with momentum, or adamw with warm-up, which bert and gpt2 need (default: %(default)s)",
    )
    group.add_argument(
        "--no_augment",
        action="store_true",
        help="train without random crop and flip; tables of features and texts are never augmented",
    )
    add_compile_flag(group)
    add_roles_flag(group)


def add_layout_flag(group) -> None:
    group.add_argument(
        "--split",
        choices=splits.LAYOUTS,
        default=splits.COMPLEAK,
        help="who gets which points: compleak, a third and a sixth for the victim, half for the attacker; selena, "
        "10 %% and 75 %% for the victim, 15 %% for the attacker, and for data sets of 197,324, 67,330 or 60,000 points "
        "the sizes in the SELENA paper; online, the victim as with compleak, and shadow models trained on its points, "
        "too, for the row upper_bound (default: %(default)s)",
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
        image_size=None if args.image_size == SIDE else args.image_size,
        num_cls=args.num_cls,
        label_column=args.label_column,
        text_column=args.text_column,
        min_class=args.min_class,
        pretrained=args.pretrained,
        run_name=args.run_name,
        defence=defence_settings(args),
        root=args.root,
    )


def defence_settings(args: argparse.Namespace) -> DefenceSettings:
    """The defence that was typed, the default of its argument filled in. UserError for its flags without --defend."""
    settings = DefenceSettings(
        name=args.defend,
        argument=args.defend_arg,
        adaptive=args.adaptive,
        undefended_original=args.undefended_original,
        undefended_finetuning=args.undefended_finetuning,
        lr=args.defend_lr,
        batch_size=args.defend_batch_size,
        finetuning_lr=args.defend_finetuning_lr,
    )
    if args.defend:
        return with_argument(settings)
    answers = getattr(args, "answers", None)  # a flag of the attack scripts, which --adaptive goes with as well
    given = [flag for flag, key in SETTINGS_OF_A_DEFENCE.items() if getattr(settings, key) != getattr(UNDEFENDED, key)]
    if answers and answers.name and "--adaptive" in given:
        given.remove("--adaptive")
    if given:
        names = "|".join(DEFENCES)
        if answers and given[0] == "--adaptive":
            names += f" or --answers {'|'.join(DEFENCES_OF_ANSWERS)}"
        raise UserError(f"{given[0]} needs a defence: give --defend {names}, or leave {given[0]} out")
    return UNDEFENDED


def with_argument(defence: DefenceSettings) -> DefenceSettings:
    """The defence with its argument, the default where none was given. UserError for one that is too large."""
    known = DEFENCES[defence.name]
    argument = known.default if defence.argument is None else defence.argument
    if argument > known.most:
        raise UserError(f"{defence.name} {argument:g}: the argument ({known.argument}) is at most {known.most:g}")
    return replace(defence, argument=argument)


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
        "optimizer": args.optimizer,
        "augment": not args.no_augment,
        "compile": args.compile,
    }
