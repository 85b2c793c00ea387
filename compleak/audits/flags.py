"""The flags of the attack scripts, as settings."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import attacks
from compleak.audits.attackers import ATTACKERS
from compleak.queries.probes import PROBES
from compleak.runs.flags import add_answers_flag, add_pruner_flag, pruning_variant, stage_options
from compleak.runs.settings import AttackSettings
from compleak.runs.variants import ORIGINAL, TECHNIQUES, Variant, compressed_variant
from core import arguments
from core.console import say
from core.errors import UserError

# Flags that say which run is attacked.
WHICH_RUN = (
    *("dataset_name", "data_dir", "image_size", "label_column", "text_column", "min_class"),
    *("model_name", "width", "pretrained", "num_cls", "run_name"),
)


def add_variant_flags(parser: argparse.ArgumentParser):
    """The flags that name a compressed model, in a group to which a script adds its own."""
    group = parser.add_argument_group("what to attack")
    group.add_argument("--compress", action="store_true", help="attack a compressed model, named by the next two flags")
    group.add_argument("--compress_name", choices=tuple(TECHNIQUES), help="technique")
    group.add_argument("--compress_degree", help="0.6 0.7 0.8 0.9 (pruning), int8 (quantization), 4 8 16 (clustering)")
    add_pruner_flag(group)
    return group


def add_probe_flags(group, usual: str = "what the answers at hand have") -> None:
    """A flag for each probe: how much is asked beside the plain answer."""
    for probe in PROBES.values():
        group.add_argument(
            f"--{probe.flag}",
            type=arguments.whole_number,
            metavar="NUMBER",
            help=f"{probe.help} (default: {usual}, else {probe.default_amount})",
        )


def asked_probes(args: argparse.Namespace) -> dict[str, int]:
    """How much is asked of each probe whose flag was given, by the probe's name.

    UserError where that is too much or too little.
    """
    given = {name: getattr(args, probe.flag) for name, probe in PROBES.items()}
    asked = {name: amount for name, amount in given.items() if amount is not None}
    for name, amount in asked.items():
        if amount > (most := PROBES[name].most):
            raise UserError(f"--{PROBES[name].flag} {amount} is more than there are: {most} at most")
        if 0 < amount < (least := PROBES[name].least):
            raise UserError(f"--{PROBES[name].flag} {amount} is too few to judge an attack: {least} at least, or 0")
    return asked


def parse_attack_flags(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags of an attack script. Names those that were typed although they say nothing about signals files."""
    args = parser.parse_args(argv)
    of_a_run = (*(probe.flag for probe in PROBES.values()), *WHICH_RUN)  # None unless they were typed
    unused = [f"--{flag}" for flag in of_a_run if getattr(args, flag) is not None]
    if args.signals and unused:
        say(f"not used, because --signals names models that have answered already: {', '.join(unused)}")
    return args


def add_recipe_flag(group) -> None:
    group.add_argument(
        "--recipe",
        choices=("fast", "paper"),
        default="fast",
        help="training of the networks of samia, rapid, nn, dsq, selena_adaptive, MR and seqmia_versions: fast, AdamW "
        "for a few epochs, or paper, the authors' SGD or Adam for 100 or 150 (default: %(default)s)",
    )


def add_again_flag(group) -> None:
    group.add_argument(
        "--again", action="store_true", help="attack anew where a table of the same signals and settings is there"
    )


def add_attack_flags(parser: argparse.ArgumentParser, scenario: str) -> None:
    group = parser.add_argument_group("attack")
    known = attack_names(attacks.KNOWN[scenario])
    usual = attack_names(attacks.USUAL[scenario])
    on_request = ", ".join(name for name in known if name not in usual)
    default = f"all but {on_request}" if on_request else "all"
    group.add_argument(
        "--attacks",
        type=lambda text: named_attacks(text, known),
        metavar="NAME[,NAME...]",
        help=f"rows of the table: {', '.join(known)} (default: {default})",
    )
    group.add_argument(
        "--attacker",
        choices=ATTACKERS,
        help="whose membership is known: shadow models', or half of the victim's own points, judged on the other half "
        "(default: shadows where there are shadow models)",
    )
    add_answers_flag(group)
    if scenario == "NR":
        group.add_argument(
            "--upper_bound",
            action="store_true",
            help="one more row, where the signals hold models that trained on the audited points: no attack, but what "
            "an auditor can know at best (default: for a run of train.py --split online, unless --attacks names rows)",
        )
    group.add_argument(
        "--out",
        type=Path,
        help="folder for the table and scores (default: beside the run's signals; for --signals FILE, a folder named "
        "after the files beside them)",
    )
    group.add_argument("--seed", type=arguments.seed, help="of the attacks and the bootstrap (default: the run's)")
    add_probe_flags(group)
    add_recipe_flag(group)
    add_again_flag(group)
    group.add_argument("--skip_done", action="store_true", help="accepted, and always on: see --again")


def attack_names(rows: Sequence[attacks.Attack]) -> list[str]:
    """The names of these attacks, each once."""
    return list(dict.fromkeys(row.name for row in rows))


def named_attacks(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """The names that are listed, separated by commas, in the table's order."""
    asked = {name.strip() for name in text.split(",")}
    if unknown := sorted(asked.difference(known)):
        raise argparse.ArgumentTypeError(f"no attack {unknown[0]!r} here: choose from {', '.join(known)}")
    return tuple(name for name in known if name in asked)


def variant_from_flags(args: argparse.Namespace) -> Variant:
    """The variant that the flags of `add_variant_flags` mean; without them the original.

    UserError where one of them is missing or goes with another technique.
    """
    if not args.compress:
        if args.compress_name or args.compress_degree or args.pruner_name:
            raise UserError("--compress_name, --compress_degree and --pruner_name need --compress")
        return ORIGINAL
    if not args.compress_name or not args.compress_degree:
        raise UserError("--compress needs --compress_name and --compress_degree, for example pruning and 0.6")
    if args.compress_name == "pruning":
        return pruning_variant(args.pruner_name, args.compress_degree)
    if args.pruner_name:
        raise UserError(f"--pruner_name goes with --compress_name pruning, not {args.compress_name}")
    return compressed_variant(args.compress_name, args.compress_degree)


def attack_settings(args: argparse.Namespace, scenario: str, **target) -> AttackSettings:
    """The settings of an attack script; `target` says which models: variants, files, with_original."""
    return AttackSettings(
        **stage_options(args),
        scenario=scenario,
        attacks=args.attacks,
        attacker=args.attacker,
        answers=replace(args.answers, adaptive=args.adaptive) if args.answers.name else args.answers,
        out=args.out,
        seed=args.seed,
        asked=asked_probes(args),
        recipe=args.recipe,
        again=args.again,
        upper_bound=getattr(args, "upper_bound", False),
        **target,
    )
