"""Train the original models: the victim and its shadow models.

    python train.py --dataset_name cifar10 --model_name resnet18 --num_cls 10 --lr 0.1 --epochs 100 --batch_size 128

Splits the data set between victim and attacker, then trains each model on its own members.
Gives results/<dataset>_<model>/{victim_model,shadow_model_0,...}/ and the split in data/<dataset>_data_index.pkl.
Costs, for 20,000 images and 100 epochs of ResNet-18, 2 million image passes a model. Stopped, it goes on when started
again.
"""

import models
from compleak.runs.flags import add_layout_flag, add_training_flags, model_options, stage_parser
from compleak.runs.settings import TrainSettings
from compleak.training.original import train_originals
from core import arguments
from core.console import run_script
from defenses import WITH_PARTS


def parse(argv=None) -> TrainSettings:
    parser = stage_parser(__doc__)
    add_training_flags(parser, "--epochs", epochs=TrainSettings.epochs, lr=TrainSettings.lr)
    parser.add_argument(
        "--slim_penalty",
        type=arguments.not_negative,
        default=TrainSettings.slim_penalty,
        help="weight of the L1 norm of batch norm's scales, for prune.py --pruner_name slim (default: %(default)s)",
    )
    parser.add_argument(
        "--part",
        type=arguments.whole_number,
        metavar="NUMBER",
        help=f"make only this part of the defended models: with --defend {'|'.join(WITH_PARTS)} one sub-model, so that "
        "several can be made side by side before the rest (default: everything)",
    )
    add_split_flags(parser)
    args = parser.parse_args(argv)
    settings = TrainSettings(
        **model_options(args),
        slim_penalty=args.slim_penalty,
        shadow_num=args.shadow_num,
        seed=args.seed,
        max_points=args.max_points,
        layout=args.split,
        label_noise=args.label_noise,
        part=args.part,
    )
    if settings.slim_penalty and args.defend:
        parser.error("--slim_penalty does not go with --defend: leave one of them out")
    if settings.slim_penalty and settings.run.identity["model_name"] in models.WITHOUT_BATCH_NORM:
        parser.error(f"--slim_penalty shrinks batch norm's scales, and {args.model_name} has none")
    return settings


def add_split_flags(parser) -> None:
    group = parser.add_argument_group("split")
    group.add_argument(
        "--shadow_num",
        type=arguments.positive_int,
        default=TrainSettings.shadow_num,
        help="shadow models (default: %(default)s)",
    )
    group.add_argument(
        "--seed",
        type=arguments.seed,
        default=TrainSettings.seed,
        help="of split, initial weights and order (default: %(default)s)",
    )
    add_layout_flag(group)
    group.add_argument(
        "--max_points", type=arguments.positive_int, help="members and non-members a model at most (default: all)"
    )
    group.add_argument(
        "--label_noise",
        type=arguments.share_below_one,
        default=TrainSettings.label_noise,
        help="share of all labels drawn anew, so that an easy data set has to be memorised (default: %(default)s)",
    )


def main(argv=None) -> None:
    train_originals(parse(argv))


if __name__ == "__main__":
    run_script(main)
