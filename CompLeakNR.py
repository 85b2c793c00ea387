"""CompLeak-NR: attack one model, the original or a compressed one, with every attack and its calibrated form.

    python CompLeakNR.py --model_name resnet18 --dataset_name cifar10 --num_cls 10 --batch_size 128 --original
    python CompLeakNR.py --compress_degree 0.6 --dataset_name cifar10 --num_cls 10 --batch_size 128 \\
        --compress --compress_name pruning --model_name resnet18
    python CompLeakNR.py --signals my_model.npz
    python CompLeakNR.py --signals my_model.npz --attacks samia,nn,nn_top3,nn_cls,threshold

Needs the models of train.py and, with --compress, of that compression; or any signals file (README, "Bring your own
model"). Prints one table, of the usual attacks or of those that --attacks names; NR.csv, NR_scores.npz and NR.json lie
beside the signals, or in --out.
"""

from pathlib import Path

from compleak import cli, paths, report, runs
from compleak.audit import attack_flags, audit, run_signals, variant_flags, variant_from_flags
from core import console


def parse(argv=None):
    parser = cli.parser(__doc__)
    what = variant_flags(parser)
    what.add_argument("--original", action="store_true", help="attack the original model")
    what.add_argument("--signals", type=Path, metavar="FILE", help="attack the model that this file describes")
    attack_flags(parser, "NR")
    args = parser.parse_args(argv)
    if sum([args.original, args.compress, args.signals is not None]) != 1:
        parser.error("say what to attack: --original, or --compress with its name and degree, or --signals FILE")
    if args.signals and (args.compress_name or args.compress_degree or args.pruner_name):
        parser.error("--signals names the model by itself: leave out --compress_name, --compress_degree, --pruner_name")
    return args


def main(argv=None):
    args = parse(argv)
    if args.signals:
        table = audit("NR", {args.signals.stem: [args.signals]}, args, args.out or args.signals.parent, None)
    else:
        variant, run = variant_from_flags(args), runs.open_run(args)
        files = run_signals(args, run, [variant])
        table = audit("NR", {variant: files}, args, args.out or paths.variant_dir(run.root, run.name, variant), run)
    report.show(table)
    return table


if __name__ == "__main__":
    console.run_script(main)
