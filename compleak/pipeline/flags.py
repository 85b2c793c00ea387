"""The flags of `reproduce.py`, as settings."""

import argparse
import shlex
from dataclasses import replace
from pathlib import Path

from compleak.audits.flags import add_again_flag, add_probe_flags, add_recipe_flag, asked_probes
from compleak.pipeline.presets import PRESETS
from compleak.pipeline.settings import DEFENDED_GRID, EngineSettings, PlanSettings, ReproduceSettings
from compleak.runs.flags import (
    add_compile_flag,
    add_layout_flag,
    answers_of_text,
    refuse_compiled_dp,
    run_settings,
    stage_parser,
    with_argument,
)
from compleak.runs.settings import UNDEFENDED, AnswersSettings, DefenceSettings, RunSettings, TrainSettings
from compleak.runs.variants import PAPER_GRID, Variant, parse_compressed
from core import arguments
from data.splits import DEFAULT_SEED, ONLINE
from defenses import DEFENCES, DEFENCES_OF_ANSWERS

DEFAULT_DEFENCES = ("ppb:1", "ppb:4", "ppb:16", "adv:0.3", "adv:1", "adv:3", "dp:0.1", "dp:0.3", "dp:1")
PARTS_OF_A_DEFENCE = {  # behind its name, separated by colons
    "argument": arguments.positive_float,
    "lr": arguments.positive_float,
    "batch_size": arguments.positive_int,
    "finetuning_lr": arguments.positive_float,
}
TUNED_RATES = (0.6, 2, 6, 20, 60)  # times the usual learning rate of training
TUNED_BATCHES = (1, 4, 16)  # times the usual batch size
RAY_FLAGS = ("ray_address", "cpus_per_task", "gpus_per_task")
# The command that a page shows does not list these with the other flags: preset, data set and defences have places of
# their own in it, and the rest does not change any number.
UNSHOWN = ("preset", "dataset_name", "root", "defences", "engine", "jobs", "threads", "again", *RAY_FLAGS)


def reproduce_parser(doc: str) -> arguments.Parser:
    shown = {"dataset_name": "digits", "run_name": "<dataset>_<model>[_w<width>][_<size>px]_<preset>"}
    shown |= {"width": "the preset's", "batch_size": "the preset's"}
    parser = stage_parser(doc, shown)
    parser.set_defaults(dataset_name="digits", batch_size=None)  # what is not typed is the preset's business
    add_audit_flags(parser)
    add_command_flags(parser)
    add_compile_flag(parser)
    add_recipe_flag(parser)
    add_probe_flags(parser.add_argument_group("what models are asked"), usual="the preset's")
    add_again_flag(parser)
    add_engine_flags(parser)
    return parser


def add_audit_flags(parser: argparse.ArgumentParser) -> None:
    """What every audit is told: how large it is, its seeds, its compressed models, and what it leaves."""
    group = parser.add_argument_group("what to audit")
    group.add_argument(
        "--preset",
        choices=PRESETS,
        default="smoke",
        help="smoke: minutes on digits; quick: an hour on CIFAR-10 and two cores; compact: a quarter of the width and "
        "1,200 members, for comparing defences on a CPU; broad: the same with 2,500, for many data sets and networks; "
        "text: for bert and gpt2; "
        "half: half of width and epochs, with augmentation, for a day on a CPU; paper: its grid, for a GPU (default: "
        "%(default)s)",
    )
    group.add_argument(
        "--shadow_num", type=arguments.positive_int, default=1, help="shadow models (default: %(default)s)"
    )
    add_layout_flag(group)
    seeds = group.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=arguments.seed, default=DEFAULT_SEED, help="of everything (default: %(default)s)")
    seeds.add_argument(
        "--seeds", type=arguments.seed, nargs="+", help="the whole audit once for each, and what differs between them"
    )
    group.add_argument(
        "--variants",
        nargs="+",
        metavar="VARIANT",
        help="compressed models, for example pruning_slim_0.6 quantization_int8 (default: the paper's eight; with "
        "--defences and --tune_defence four of them)",
    )
    group.add_argument(
        "--finetuning_epochs",
        type=arguments.positive_int,
        help="epochs of fine-tuning after each compression (default: the preset's)",
    )
    group.add_argument(
        "--keep",
        choices=("all", "signals"),
        default="all",
        help="signals: delete shadow models' weights once they have answered, for many of them; with --no_attacks the "
        "victim's too (default: %(default)s)",
    )
    group.add_argument(
        "--no_attacks",
        action="store_true",
        help="make and ask the models and stop there; the same command without this flag attacks them later, also on "
        "another machine",
    )


def add_command_flags(parser: argparse.ArgumentParser) -> None:
    """What is done in place of the one usual audit."""
    group = parser.add_argument_group("in place of the usual audit")
    group.add_argument(
        "--defences",
        nargs="*",
        metavar="NAME:ARG",
        help="compare defences with none, each against a non-adaptive and an adaptive attacker, on the original and "
        "four compressions; NAME alone has its default argument, NAME:ARG:LR:BATCH:FINETUNING_LR its own --defend_lr, "
        "--defend_batch_size and --defend_finetuning_lr; with --undefended_finetuning each defence is there once more "
        f"with plain fine-tuning (default: {' '.join(DEFAULT_DEFENCES)})",
    )
    group.add_argument(
        "--early_stopping",
        action="store_true",
        help="accuracy against leakage of the original at ten snapshots of one undefended training, in place of the "
        "usual audit; defences that --defences has compared stand beside them",
    )
    group.add_argument(
        "--tune_defence",
        nargs="+",
        metavar="NAME:ARG:LR:BATCH:FINETUNING_LR",
        help="train the first shadow model with each of these, in place of the usual audit, and name the one that does "
        f"best on points of the attacker's pool that it was not trained on; NAME:ARG alone tries "
        f"{', '.join(map(str, TUNED_RATES))} times the usual learning rate with {', '.join(map(str, TUNED_BATCHES))} "
        "times the usual batch size; candidates with a FINETUNING_LR are compressed, too, and the mean accuracy of the "
        "original and its compressed versions counts",
    )
    group.add_argument(
        "--compare",
        nargs="+",
        type=Path,
        default=[],
        metavar="RUN",
        help="run nothing: write a page over the finished runs in these folders, of any data sets and networks, beside "
        "the first one (--run_name: its name; default: comparison)",
    )


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where stages run")
    group.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help='this machine, or a Ray cluster, which needs pip install ".[ray]" (default: %(default)s)',
    )
    group.add_argument(
        "--jobs", type=arguments.positive_int, default=1, help="stages at once on this machine (default: %(default)s)"
    )
    group.add_argument("--ray_address", help="host:port, or auto for this machine's cluster (default: start one here)")
    group.add_argument(
        "--cpus_per_task",
        type=arguments.positive_int,
        default=1,
        help="cores and threads of a stage (default: %(default)s)",
    )
    group.add_argument(
        "--gpus_per_task",
        type=arguments.share_up_to_one,
        default=1.0,
        help="share of a GPU that a stage takes, where the cluster has any (default: %(default)s)",
    )


def reproduce_settings(parser: arguments.Parser, argv=None) -> ReproduceSettings:
    """What the command line asks for; a bad one ends in one line and exit code 2."""
    args = parser.parse_args(argv)
    defences = None
    if args.defences is not None:
        named = [text for text in args.defences or DEFAULT_DEFENCES if text != "none"]  # none is always there
        defences = tuple(defence_of(text, "--defences", parser) for text in named)
    refuse_contradictions(args, parser)
    refuse_compiled_dp(args.compile, [args.defend, *(defence.name for defence in defences or ())])
    plain_finetuning = defences is not None and args.undefended_finetuning
    if plain_finetuning:
        args.undefended_finetuning = False  # it is no setting of one run here
    run = run_settings(args)
    refuse_beside_comparison(args, run, defences, plain_finetuning, parser)
    plan = PlanSettings(
        run=with_absolute_paths(run),
        preset=args.preset,
        device=args.device,
        batch_size=args.batch_size,
        finetuning_epochs=args.finetuning_epochs,
        threads=args.threads,
        shadow_num=args.shadow_num,
        seed=args.seed,
        layout=args.split,
        keep=args.keep,
        attacks=not args.no_attacks,
        recipe=args.recipe,
        compile=args.compile,
        asked=asked_probes(args),
        again=args.again,
        variants=variants_of(args),
    )
    engine_names = ("engine", "jobs", *RAY_FLAGS)
    return ReproduceSettings(
        compare=tuple(args.compare),
        plan=plan,
        seeds=tuple(dict.fromkeys(args.seeds or ())),
        defences=defences,
        plain_finetuning=plain_finetuning,
        early_stopping=args.early_stopping,
        tuned=tuned_defences(args, plan, parser),
        engine=EngineSettings(**{name: getattr(args, name) for name in engine_names}),
        command=shown_command(args, defences, plain_finetuning, parser),
    )


def tuned_defences(
    args: argparse.Namespace, plan: PlanSettings, parser: arguments.Parser
) -> tuple[DefenceSettings, ...]:
    """The candidates of --tune_defence: those named with learning rate and batch size, or a grid of both."""
    candidates = []
    for text in args.tune_defence or ():
        defence = defence_of(text, "--tune_defence", parser)
        if isinstance(defence, AnswersSettings):
            parser.error(f"--tune_defence {text}: a defence of answers is not trained")
        candidates += candidates_of(defence, plan)
    compressed = [candidate.finetuning_lr is not None for candidate in candidates]
    if any(compressed) and not all(compressed):
        parser.error("--tune_defence: name a FINETUNING_LR for all candidates, or for none")
    if any(compressed) and not any(variant.is_fine_tuned for variant in plan.variants):
        parser.error("--tune_defence with a FINETUNING_LR: none of these --variants is fine-tuned")
    for name in ("variants", "finetuning_epochs"):
        if candidates and getattr(args, name) and not any(compressed):
            parser.error(
                f"--tune_defence compresses no model without NAME:ARG:LR:BATCH:FINETUNING_LR: leave out --{name}"
            )
    return tuple(candidates)


def candidates_of(defence: DefenceSettings, plan: PlanSettings) -> list[DefenceSettings]:
    """The defence with the learning rate and batch size that were named, else with each rate and size of the grid."""
    usual = {"lr": TrainSettings.lr, "batch_size": TrainSettings.batch_size, **plan.stages.settings("train")}
    batch_size = plan.batch_size or usual["batch_size"]
    if defence.lr is not None:
        return [replace(defence, batch_size=defence.batch_size or batch_size)]
    rates = [float(f"{usual['lr'] * times:.6g}") for times in TUNED_RATES]  # 0.06, and not 0.06000000000000001
    sizes = [batch_size * times for times in TUNED_BATCHES]
    return [replace(defence, lr=rate, batch_size=size) for rate in rates for size in sizes]


def with_absolute_paths(run: RunSettings) -> RunSettings:
    """The same run, wherever a stage is started."""
    given = {name: getattr(run, name) for name in ("root", "data_dir", "pretrained")}
    return replace(run, **{name: path.absolute() for name, path in given.items() if path is not None})


def variants_of(args: argparse.Namespace) -> tuple[Variant, ...]:
    """The compressed models of the audit. UserError for a name that is none."""
    if args.variants:
        return parse_compressed(args.variants)
    return PAPER_GRID if args.defences is None and not args.tune_defence else DEFENDED_GRID


def refuse_beside_comparison(
    args: argparse.Namespace,
    run: RunSettings,
    defences: tuple[DefenceSettings | AnswersSettings, ...] | None,
    plain_finetuning: bool,
    parser: arguments.Parser,
) -> None:
    """End with one line where flags do not go with comparing several runs: of defences, snapshots or candidates."""
    if defences is not None and (args.keep != "all" or run.defence != UNDEFENDED):
        parser.error("--defences tries each defence and none, and shares models: leave their own flags and --keep out")
    if defences == ():
        parser.error("--defences none compares nothing: name a defence, such as ppb:4, or leave the flag out")
    is_trained = any(isinstance(defence, DefenceSettings) for defence in defences or ())
    if plain_finetuning and not is_trained:
        parser.error(
            "--undefended_finetuning is for defences that are trained in, such as ppb:4, and --defences names none: "
            "leave it out"
        )
    if (is_trained or args.early_stopping) and args.split == ONLINE:
        parser.error(
            "--defences and --early_stopping also try attackers without the defence, and with --split online every "
            "shadow model has it: leave out --split online"
        )
    if args.early_stopping and args.keep != "all":
        parser.error("--early_stopping shares models between its runs: leave --keep out")
    if (args.early_stopping or args.tune_defence) and run.defence != UNDEFENDED:
        parser.error("--early_stopping and --tune_defence have runs of their own: leave out --defend")


def refuse_contradictions(args: argparse.Namespace, parser: arguments.Parser) -> None:
    """End with one line where flags do not go together."""
    if args.engine == "ray" and args.jobs > 1:
        parser.error("--jobs is for one machine; --engine ray runs as many stages at once as the cluster has room for")
    for name in RAY_FLAGS:
        if args.engine != "ray" and getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name} needs --engine ray")
    commands = ("defences", "early_stopping", "tune_defence", "compare")
    asked = [name for name in commands if getattr(args, name) != parser.get_default(name)]
    if len(asked) > 1:
        parser.error(f"--{asked[0]} and --{asked[1]} are two commands: give them one after the other")
    for name in ("variants", "finetuning_epochs"):
        if getattr(args, name) and (args.early_stopping or args.compare):
            parser.error(f"--early_stopping and --compare compress no model: leave out --{name}")
    if args.no_attacks and (args.tune_defence or args.compare):
        parser.error("--tune_defence and --compare attack nothing: leave out --no_attacks")
    if args.tune_defence and args.split == ONLINE:
        parser.error("--tune_defence must not train on the victim's points: leave out --split online")
    if args.tune_defence and args.seeds:
        parser.error("--tune_defence chooses once: give it a --seed")
    if args.compare and args.seeds:
        parser.error("--compare reads finished runs, of several seeds too: leave --seeds out")
    if args.seeds and len(set(args.seeds)) < 2:
        parser.error("--seeds wants two or more different seeds; for a single one there is --seed")


def defence_of(text: str, flag: str, parser: arguments.Parser) -> DefenceSettings | AnswersSettings:
    """`ppb:4` or `dp:1:0.5:256:1` as a defence; `ppb` has the default argument."""
    name, *numbers = text.split(":")
    try:
        if name in DEFENCES_OF_ANSWERS:
            return answers_of_text(text)
        if name not in DEFENCES:
            names = ", ".join((*DEFENCES, *DEFENCES_OF_ANSWERS))
            raise argparse.ArgumentTypeError(f"there is no defence {name!r}: choose from {names}")
        if len(numbers) > len(PARTS_OF_A_DEFENCE):
            raise ValueError
        parts = zip(PARTS_OF_A_DEFENCE.items(), numbers, strict=False)
        return with_argument(DefenceSettings(name, **{part: read(number) for (part, read), number in parts}))
    except argparse.ArgumentTypeError as error:
        parser.error(f"{flag} {text}: {error}")
    except ValueError:
        parser.error(f"{flag} {text}: expected NAME:ARG:LR:BATCH:FINETUNING_LR, or its beginning, in positive numbers")


def spelled(defence: DefenceSettings | AnswersSettings) -> str:
    """A defence as it is typed behind --defences."""
    if isinstance(defence, AnswersSettings):
        return str(defence)
    numbers = [getattr(defence, part) for part in PARTS_OF_A_DEFENCE]
    return ":".join([defence.name, *(arguments.spelled(number) for number in numbers if number is not None)])


def shown_command(
    args: argparse.Namespace,
    defences: tuple[DefenceSettings | AnswersSettings, ...] | None,
    plain_finetuning: bool,
    parser: arguments.Parser,
) -> str:
    """The command line that was typed, without what only says where stages run."""
    words = ["python", "reproduce.py", "--preset", args.preset, "--dataset_name", args.dataset_name]
    for name, value in vars(args).items():
        if name in UNSHOWN or value == parser.get_default(name):
            continue
        words.append(f"--{name}")
        if value is not True:
            words += map(str, value if isinstance(value, list) else [value])
    if defences is not None:
        words += ["--defences", *(map(spelled, defences) if defences else ["none"])]
        words += ["--undefended_finetuning"] if plain_finetuning else []
    return shlex.join(words)
