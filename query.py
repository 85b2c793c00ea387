"""Ask models about every point of the audit: the answers are all that attacks ever see.

    python query.py --dataset_name cifar10 --model_name resnet18 --roles shadow_model_3 --drop_weights

The attack scripts ask by themselves what has not been asked. This stage asks model by model, as soon as one has been
trained and compressed, so that with many shadows its weights need not be kept: --drop_weights leaves of each shadow
what meta.json says. 64 shadows of ResNet-18 and their eight compressions are then 2 GB rather than 10.
Gives answers.npz beside each checkpoint, which the first attack on a variant joins in signals.npz.
"""

from compleak import checkpoints, cli, paths, runs, signals
from compleak.techniques import COMPRESSED, parse_variants
from core import console, devices


def parse(argv=None):
    parser = cli.parser(__doc__)
    group = parser.add_argument_group("what to ask")
    cli.roles_flag(group)
    group.add_argument(
        "--variants", nargs="*", default=COMPRESSED, metavar="VARIANT", help="with the original (default: all eight)"
    )
    signals.draws_flag(group)
    group.add_argument("--drop_weights", action="store_true", help="delete shadows' weights once they have answered")
    args = parser.parse_args(argv)
    args.variants = [paths.ORIGINAL, *parse_variants(args.variants)]
    return args


def main(argv=None) -> None:
    args = parse(argv)
    device, run = devices.choose(args.device), runs.open_run(args)
    for _, role in runs.chosen(run, args.roles):
        for variant in args.variants:
            signals.ask_ahead(run, variant, role, device, args.batch_size, args.sensitivity_draws)
        if args.drop_weights and role != run.roles[0]:
            for variant in args.variants:
                checkpoints.drop_weights(paths.role_dir(run.root, run.name, variant, role))
        console.say(f"{role}: asked as {len(args.variants)} variants")


if __name__ == "__main__":
    console.run_script(main)
