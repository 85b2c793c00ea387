"""CompLeak-MR: attack with several compressed models together, with or without the original.

    python CompLeakMR.py --dataset_name cifar10 --model_name resnet18
    python CompLeakMR.py --signals original.npz compressed_1.npz compressed_2.npz

Needs all eight compressed models (or those named with --variants); or signals files (docs/own-models.md).
Files without shadow models are attacked by somebody who knows half of the points (--attacker, docs/attacks.md).
Attacks with all of them, then with each technique's family alone. CompLeakMR.ipynb is the same with a figure.
Prints one table. MR.csv, MR_scores.npz, MR_p_values.npz and MR.json lie beside the original's signals; for --signals in
a folder named after the files beside the first; or in --out.
"""

from pathlib import Path

from compleak.audits.attack_stage import attack
from compleak.audits.flags import add_attack_flags, attack_settings, parse_attack_flags
from compleak.reports.cells import print_attack_table
from compleak.runs.flags import stage_parser
from compleak.runs.settings import AttackSettings
from compleak.runs.variants import PAPER_GRID, parse_compressed
from core.console import run_script


def parse(argv=None) -> AttackSettings:
    parser = stage_parser(__doc__)
    group = parser.add_argument_group("what to attack")
    group.add_argument(
        "--variants",
        nargs="+",
        metavar="VARIANT",
        help="for example pruning_0.6 clustering_4 (default: the paper's eight)",
    )
    group.add_argument("--without_original", action="store_true", help="the attacker does not have the original model")
    group.add_argument(
        "--signals",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="ORIGINAL COMPRESSED... (no ORIGINAL with --without_original)",
    )
    add_attack_flags(parser, "MR")
    args = parse_attack_flags(parser, argv)
    if args.signals and args.variants:
        parser.error("--signals names the models by itself: leave out --variants")
    if args.signals and len(args.signals) < 2 and not args.without_original:
        parser.error("--signals needs the original's file and at least one compressed model's")
    return attack_settings(
        args,
        "MR",
        variants=parse_compressed(args.variants) if args.variants else PAPER_GRID,
        files=tuple(args.signals or ()),
        with_original=not args.without_original,
    )


def main(argv=None):
    table = attack(parse(argv))
    print_attack_table(table)
    return table


if __name__ == "__main__":
    run_script(main)
