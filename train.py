"""Train the original models: the victim and its shadows.

    python train.py --dataset_name cifar10 --model_name resnet18 --num_cls 10 --lr 0.1 --epochs 100 --batch_size 128

Splits the data set between victim and attacker, then trains each model on its own members.
Gives results/<dataset>_<model>/{victim_model,shadow_model_0,...}/ and the split in data/<dataset>_data_index.pkl.
Costs, for 20,000 images and 100 epochs of ResNet-18, 2 million image passes a model. Stopped, it goes on when started
again.
"""

import time

import torch

import models
from compleak import checkpoints, cli, paths, runs
from compleak.defended import privacy_said, train_model, training_of
from compleak.training import Recipe, accuracy
from core import arguments, console, devices
from core.provenance import provenance
from data.splits import DEFAULT_SEED, Pair


def parse(argv=None):
    parser = cli.parser(__doc__)
    cli.training_flags(parser, "--epochs", epochs=100, lr=0.1)
    parser.add_argument(
        "--slim_penalty",
        type=arguments.not_negative,
        default=0.0,
        help="weight of the L1 norm of batch norm's scales, for prune.py --pruner_name slim (default: %(default)s)",
    )
    group = parser.add_argument_group("split")
    group.add_argument(
        "--shadow_num", type=arguments.positive_int, default=1, help="shadow models (default: %(default)s)"
    )
    group.add_argument(
        "--seed",
        type=arguments.seed,
        default=DEFAULT_SEED,
        help="of split, initial weights and order (default: %(default)s)",
    )
    group.add_argument(
        "--max_points", type=arguments.positive_int, help="members and non-members a model at most (default: all)"
    )
    group.add_argument(
        "--label_noise",
        type=arguments.share_below_one,
        default=0.0,
        help="share of all labels drawn anew, so that an easy data set has to be memorised (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    if args.slim_penalty and args.defend:
        parser.error("--slim_penalty does not go with --defend: leave one of them out")
    if args.slim_penalty and cli.identity(args)["model_name"] in models.WITHOUT_BATCH_NORM:
        parser.error(f"--slim_penalty shrinks batch norm's scales, and {args.model_name} has none")
    return args


def train_role(args, run: runs.Run, row: int, role: str, pair: Pair, device: torch.device) -> None:
    """Train one model on its members, with its defence, and save it with its accuracies."""
    data = runs.dataset(run)
    augment = not args.no_augment and data.features is None
    recipe = Recipe(args.epochs, args.lr, args.batch_size, runs.role_seed(run, row), augment)
    network = {key: run.config[key] for key in ("data", "label_noise", "model_name", "width", "num_cls")}
    training = training_of(run, row, recipe, paths.ORIGINAL, args.slim_penalty)
    members = runs.members_fingerprint(pair._replace(train=training.members))
    made_from = {**network, "members": members, **recipe._asdict(), **training.made_from}
    folder = paths.role_dir(run.root, run.name, paths.ORIGINAL, role)
    if checkpoints.is_done(folder, made_from):
        console.say(f"original {role}: done before, {folder}")
        return
    if run.config["defend"] and (twin := checkpoints.take_twin(folder, made_from)):
        console.say(f"original {role}: the same as {twin}, copied to {folder}")
        return

    started = time.monotonic()
    torch.manual_seed(recipe.seed)
    model = runs.network(run)
    options = {"device": device, "resume": folder / checkpoints.RESUME, "identity": made_from}
    facts = train_model(model, training, data, recipe, earlier=[], **options, desc=f"original {role}")
    on_members, on_others = (
        accuracy(model, data.images[index], data.labels[index], device, args.batch_size)
        for index in (training.members, pair.test)
    )
    facts |= {"train_accuracy": on_members, "test_accuracy": on_others}
    facts |= {"seconds": round(time.monotonic() - started, 1), **provenance(device)}
    meta = checkpoints.save(folder, {key: value.cpu() for key, value in model.state_dict().items()}, made_from, facts)
    size = checkpoints.megabytes(meta["bytes"])
    accuracies = f"accuracy {on_members:.2%} on members, {on_others:.2%} on others"
    console.say(f"original {role}: {accuracies}{privacy_said(facts)}; {size}; {folder}")


def main(argv=None) -> None:
    args = parse(argv)
    device, run = devices.choose(args.device), runs.create(args)
    split, _ = runs.split(run)
    for row, role in runs.chosen(run, args.roles):
        train_role(args, run, row, role, split.pairs[row], device)


if __name__ == "__main__":
    console.run_script(main)
