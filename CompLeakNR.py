"""CompLeak-NR: attack one model, the original or a compressed one, with every attack and its calibrated form.

    python CompLeakNR.py --model_name resnet18 --dataset_name cifar10 --num_cls 10 --batch_size 128 --original
    python CompLeakNR.py --compress_degree 0.6 --dataset_name cifar10 --num_cls 10 --batch_size 128 \\
        --compress --compress_name pruning --model_name resnet18
    python CompLeakNR.py --signals my_model.npz
    python CompLeakNR.py --signals my_model.npz --attacks samia,nn,nn_top3,nn_cls,threshold

Needs the models of train.py and, with --compress, of that compression; or any signals file (docs/own-models.md).
A file without shadow models is attacked by somebody who knows half of the points (--attacker, docs/attacks.md).
Prints one table, of the usual attacks or of those that --attacks names. NR.csv, NR_scores.npz, NR_p_values.npz
and NR.json lie beside the run's signals; for --signals my_model.npz in my_model/ beside it; or in --out.
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
    group.add_argument("--original", action="store_true", help="attack the original model")
    group.add_argument("--signals", type=Path, metavar="FILE", help="attack the model that this file describes")
    add_attack_flags(parser, "NR")
    args = parse_attack_flags(parser, argv)
    if sum([args.original, args.compress, args.signals is not None]) != 1:
        parser.error("say what to attack: --original, or --compress with its name and degree, or --signals FILE")
    if args.signals and (args.compress_name or args.compress_degree or args.pruner_name):
        parser.error("--signals names the model by itself: leave out --compress_name, --compress_degree, --pruner_name")
    files = (args.signals,) if args.signals else ()
    return attack_settings(args, "NR", variants=(variant_from_flags(args),), files=files)


def main(argv=None):
    table = attack(parse(argv))
    print_attack_table(table)
    return table


if __name__ == "__main__":
    run_script(main)
