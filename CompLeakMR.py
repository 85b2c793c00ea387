"""CompLeak-MR: attack with several compressed models together, with or without the original.

    python CompLeakMR.py --dataset_name cifar10 --model_name resnet18
    python CompLeakMR.py --signals original.npz compressed_1.npz compressed_2.npz

Needs all eight compressed models (or those named with --variants); or signals files (README, "Bring your own model").
Attacks with all of them, then with each technique's family alone. CompLeakMR.ipynb is the same with a figure.
Prints one table; MR.csv, MR_scores.npz and MR.json lie beside the original's signals, or in --out.
"""

from pathlib import Path

from compleak import cli, paths, report, runs
from compleak.audit import attack_flags, audit, run_signals
from compleak.techniques import COMPRESSED, parse_variants
from core import console
from core.errors import UserError


def parse(argv=None):
    parser = cli.parser(__doc__)
    what = parser.add_argument_group("what to attack")
    what.add_argument(
        "--variants",
        nargs="+",
        metavar="VARIANT",
        help="for example pruning_0.6 clustering_4 (default: all eight)",
    )
    what.add_argument(
        "--without_original", action="store_true", help="the attacker has no access to the original model"
    )
    what.add_argument(
        "--signals",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="ORIGINAL COMPRESSED... (no ORIGINAL with --without_original)",
    )
    attack_flags(parser, "MR")
    args = parser.parse_args(argv)
    if args.signals and args.variants:
        parser.error("--signals names the models by itself: leave out --variants")
    args.variants = parse_variants(args.variants or COMPRESSED)
    return args


def families(variants: list[str]) -> dict[str, list[str]]:
    """All variants together, then those of each technique where that is not all."""
    groups = {"all": list(variants)}
    for variant in variants:
        groups.setdefault(variant.split("_", 1)[0], []).append(variant)
    return {name: group for name, group in groups.items() if name == "all" or len(group) < len(variants)}


def main(argv=None):
    args = parse(argv)
    if args.signals:
        original, *compressed = [None, *args.signals] if args.without_original else args.signals
        if not compressed:
            raise UserError("--signals needs the original's file and at least one compressed model's")
        table = audit("MR", {"all": [original, *compressed]}, args, args.out or args.signals[0].parent, None)
    else:
        run, first = runs.open_run(args), [] if args.without_original else [paths.ORIGINAL]
        files = dict(zip([*first, *args.variants], run_signals(args, run, [*first, *args.variants]), strict=True))
        original = files.get(paths.ORIGINAL)
        jobs = {name: [original, *(files[v] for v in group)] for name, group in families(args.variants).items()}
        table = audit("MR", jobs, args, args.out or run.dir, run)
    report.show(table)
    return table


if __name__ == "__main__":
    console.run_script(main)
