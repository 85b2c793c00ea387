"""CompLeak-SR: attack with the original model and one compressed model together.

    python CompLeakSR.py --compress_degree 0.9 --dataset_name cifar10 --num_cls 10 --batch_size 128 \\
        --original --compress --model_name resnet18 --compress_name pruning
    python CompLeakSR.py --signals original.npz compressed.npz

Needs the models of train.py and of that compression; or the two signals files (docs/own-models.md).
Files without shadow models are attacked by somebody who knows half of the points (--attacker, docs/attacks.md).
Prints one table. SR.csv, SR_scores.npz, SR_p_values.npz and SR.json lie beside the compressed model's signals; for
--signals in original+compressed/ beside the first file; or in --out.
"""

from pathlib import Path

from compleak.audits.attack_stage import attack
from compleak.audits.flags import (
    add_attack_flags,
    add_variant_flags,
    attack_settings,
    parse_attack_flags,
    variant_from_flags,
)
from compleak.reports.cells import print_attack_table
from compleak.runs.flags import stage_parser
from compleak.runs.settings import AttackSettings
from core.console import run_script


def parse(argv=None) -> AttackSettings:
    parser = stage_parser(__doc__)
    group = add_variant_flags(parser)
    group.add_argument("--original", action="store_true", help="with the original model (always; the artifact's flag)")
    group.add_argument("--signals", type=Path, nargs=2, metavar=("ORIGINAL", "COMPRESSED"), help="attack these files")
    add_attack_flags(parser, "SR")
    args = parse_attack_flags(parser, argv)
    named = (args.original, args.compress, args.compress_name, args.compress_degree, args.pruner_name)
    if args.signals and any(named):
        parser.error("--signals names the models by itself: leave out --original, --compress, its flags, --pruner_name")
    if not args.signals and not args.compress:
        parser.error("say which pair to attack: --original --compress with its name and degree, or --signals")
    return attack_settings(args, "SR", variants=(variant_from_flags(args),), files=tuple(args.signals or ()))


def main(argv=None):
    table = attack(parse(argv))
    print_attack_table(table)
    return table


if __name__ == "__main__":
    run_script(main)
