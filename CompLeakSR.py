"""CompLeak-SR: attack with the original model and one compressed model together.

    python CompLeakSR.py --compress_degree 0.9 --dataset_name cifar10 --num_cls 10 --batch_size 128 \\
        --original --compress --model_name resnet18 --compress_name pruning
    python CompLeakSR.py --signals original.npz compressed.npz

Needs the models of train.py and of that compression; or the two signals files (README, "Bring your own model").
Prints one table; SR.csv, SR_scores.npz and SR.json lie beside the compressed model's signals, or in --out.
"""

from pathlib import Path

from compleak import cli, paths, report, runs
from compleak.audit import attack_flags, audit, run_signals, variant_flags, variant_from_flags
from core import console


def parse(argv=None):
    parser = cli.parser(__doc__)
    what = variant_flags(parser)
    what.add_argument("--original", action="store_true", help="with the original model (always; the artifact's flag)")
    what.add_argument("--signals", type=Path, nargs=2, metavar=("ORIGINAL", "COMPRESSED"), help="attack these files")
    attack_flags(parser, "SR")
    args = parser.parse_args(argv)
    named = (args.original, args.compress, args.compress_name, args.compress_degree, args.pruner_name)
    if args.signals and any(named):
        parser.error("--signals names the models by itself: leave out --original, --compress, its flags, --pruner_name")
    if not args.signals and not args.compress:
        parser.error("say which pair to attack: --original --compress with its name and degree, or --signals")
    return args


def main(argv=None):
    args = parse(argv)
    if args.signals:
        original, compressed = args.signals
        table = audit("SR", {compressed.stem: [original, compressed]}, args, args.out or compressed.parent, None)
    else:
        variant, run = variant_from_flags(args), runs.open_run(args)
        files = run_signals(args, run, [paths.ORIGINAL, variant])
        table = audit("SR", {variant: files}, args, args.out or paths.variant_dir(run.root, run.name, variant), run)
    report.show(table)
    return table


if __name__ == "__main__":
    console.run_script(main)
