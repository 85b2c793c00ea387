"""The flags of `reproduce.py`, as settings."""

import argparse
import shlex
from dataclasses import replace

from compleak.audits.flags import add_again_flag, add_probe_flags, add_recipe_flag, asked_probes
from compleak.pipeline.presets import PRESETS
from compleak.pipeline.settings import DEFENDED_GRID, EngineSettings, PlanSettings, ReproduceSettings
from compleak.runs.flags import add_compile_flag, add_layout_flag, refuse_compiled_dp, run_settings, stage_parser
from compleak.runs.settings import UNDEFENDED, DefenceSettings
from compleak.runs.variants import PAPER_GRID, Variant, parse_compressed
from core import arguments
from data.splits import DEFAULT_SEED
from defenses import DEFENCES

DEFAULT_DEFENCES = ("ppb:1", "ppb:4", "ppb:16", "adv:0.3", "adv:1", "adv:3", "dp:0.1", "dp:0.3", "dp:1")
RAY_FLAGS = ("ray_address", "cpus_per_task", "gpus_per_task")
# The command that a page shows does not list these with the other flags: preset, data set and defences have places of
# their own in it, and the rest does not change any number.
UNSHOWN = ("preset", "dataset_name", "root", "defences", "engine", "jobs", "threads", "again", *RAY_FLAGS)


def reproduce_parser(doc: str) -> arguments.Parser:
    shown = {"dataset_name": "digits", "run_name": "<dataset>_<model>[_w<width>]_<preset>"}
    shown |= {"width": "the preset's", "batch_size": "the preset's"}
    parser = stage_parser(doc, shown)
    parser.set_defaults(dataset_name="digits", batch_size=None)  # what is not typed is the preset's business
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="smoke",
        help="smoke: minutes on digits; quick: an hour on CIFAR-10 and two cores; compact: a quarter of the width and "
        "1,200 members, for comparing defences on a CPU; half: half of width and epochs, with augmentation, for "
        "a day on a CPU; paper: its grid, for a GPU (default: %(default)s)",
    )
    parser.add_argument(
        "--shadow_num", type=arguments.positive_int, default=1, help="shadow models (default: %(default)s)"
    )
    add_layout_flag(parser)
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=arguments.seed, default=DEFAULT_SEED, help="of everything (default: %(default)s)")
    seeds.add_argument(
        "--seeds", type=arguments.seed, nargs="+", help="the whole audit once for each, and what differs between them"
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        metavar="VARIANT",
        help="compressed models, for example pruning_slim_0.6 quantization_int8 (default: the paper's eight; with "
        "--defences four of them)",
    )
    parser.add_argument(
        "--keep",
        choices=("all", "signals"),
        default="all",
        help="signals: delete shadow models' weights once they have answered, for many of them (default: %(default)s)",
    )
    parser.add_argument(
        "--defences",
        nargs="*",
        metavar="NAME:ARG",
        help="compare defences with none, each against a non-adaptive and an adaptive attacker, on the original and "
        f"four compressions (default: {' '.join(DEFAULT_DEFENCES)})",
    )
    add_compile_flag(parser)
    add_recipe_flag(parser)
    add_probe_flags(parser.add_argument_group("what models are asked"), usual="the preset's")
    add_again_flag(parser)
    add_engine_flags(parser)
    return parser


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
        defences = tuple(defence_of(text, parser) for text in args.defences or DEFAULT_DEFENCES)
    refuse_contradictions(args, parser)
    refuse_compiled_dp(args.compile, [args.defend, *(defence.name for defence in defences or ())])
    run = run_settings(args)
    if defences is not None and (args.keep != "all" or run.defence != UNDEFENDED):
        parser.error("--defences tries each defence and none, and shares models: leave their own flags and --keep out")
    plan = PlanSettings(
        run=replace(run, root=run.root.absolute(), data_dir=run.data_dir.absolute() if run.data_dir else None),
        preset=args.preset,
        device=args.device,
        batch_size=args.batch_size,
        threads=args.threads,
        shadow_num=args.shadow_num,
        seed=args.seed,
        layout=args.split,
        keep=args.keep,
        recipe=args.recipe,
        compile=args.compile,
        asked=asked_probes(args),
        again=args.again,
        variants=variants_of(args),
    )
    engine_names = ("engine", "jobs", *RAY_FLAGS)
    return ReproduceSettings(
        plan=plan,
        seeds=tuple(dict.fromkeys(args.seeds or ())),
        defences=defences,
        engine=EngineSettings(**{name: getattr(args, name) for name in engine_names}),
        command=shown_command(args, defences, parser),
    )


def variants_of(args: argparse.Namespace) -> tuple[Variant, ...]:
    """The compressed models of the audit. UserError for a name that is none."""
    if args.variants:
        return parse_compressed(args.variants)
    return PAPER_GRID if args.defences is None else DEFENDED_GRID


def refuse_contradictions(args: argparse.Namespace, parser: arguments.Parser) -> None:
    """End with one line where flags do not go together."""
    if args.engine == "ray" and args.jobs > 1:
        parser.error("--jobs is for one machine; --engine ray runs as many stages at once as the cluster has room for")
    for name in RAY_FLAGS:
        if args.engine != "ray" and getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name} needs --engine ray")
    if args.seeds and len(set(args.seeds)) < 2:
        parser.error("--seeds wants two or more different seeds; for a single one there is --seed")


def defence_of(text: str, parser: arguments.Parser) -> DefenceSettings:
    """`ppb:4` as a defence; `ppb` has the default argument."""
    name, colon, argument = text.partition(":")
    try:
        default = DEFENCES[name].default
        return DefenceSettings(name, arguments.positive_float(argument) if colon else default)
    except (KeyError, ValueError, argparse.ArgumentTypeError):
        expected = " or ".join(f"{name}:ARG" for name in DEFENCES)
        parser.error(f"--defences {text}: expected {expected}, ARG a positive number")


def shown_command(
    args: argparse.Namespace, defences: tuple[DefenceSettings, ...] | None, parser: arguments.Parser
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
        words += ["--defences", *(f"{defence.name}:{defence.argument:g}" for defence in defences)]
    return shlex.join(words)
