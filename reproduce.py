"""The whole audit in one command: train, compress eight ways, attack (NR, SR, MR), one table and its figures.

    python reproduce.py                                                  # digits, two minutes, no download
    python reproduce.py --preset quick --dataset_name cifar10            # an hour on two cores
    python reproduce.py --preset paper --dataset_name cifar10            # the paper's grid; wants a GPU

Runs the stages' own scripts in one process, skipping what is done, so that it can be stopped and started at any time.
Gives results/<run>/summary.md, summary.csv, models.csv, claims.csv and figures. <run> is <dataset>_<model>_<preset>;
for `paper`, which is nothing but the stages' defaults, it is <dataset>_<model>, the folder the stages use themselves.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import CompLeakMR
import CompLeakNR
import CompLeakSR
import train
from clustering import clustering
from compleak import cli, paths, runs
from compleak.files import read_json, write_json
from compleak.summary import summarise
from compleak.techniques import TECHNIQUES
from data.splits import DEFAULT_SEED
from pruning import prune
from quantization import qat

PRESETS = {  # named sets of the stages' own flags
    "smoke": {
        "network": "--width 0.25 --batch_size 32",
        "train": "--epochs 30 --no_augment --label_noise 0.2",
        "pruning": "--prune_epochs 3 --no_augment",
        "quantization": "--quantized_epochs 3 --no_augment",
        "clustering": "--epochs 3 --no_augment",
        "attack": "--samia_recipe fast",
    },
    "quick": {
        "network": "",
        "train": "--max_points 5000 --epochs 14 --batch_size 64 --lr 0.05 --no_augment",
        "pruning": "--prune_epochs 2 --batch_size 64 --no_augment",
        "quantization": "--quantized_epochs 1 --batch_size 64 --no_augment",
        "clustering": "--epochs 1 --batch_size 64 --no_augment",
        "attack": "--samia_recipe fast --sensitivity_draws 1",
    },
    "paper": {"network": "", "train": "", "pruning": "", "quantization": "", "clustering": "", "attack": ""},
}
SCRIPTS = {"pruning": prune.main, "quantization": qat.main, "clustering": clustering.main}


class Stage(NamedTuple):
    """One command line of the audit: a script's main and its arguments."""

    name: str
    main: Callable
    argv: list[str]


def parse(argv=None):
    parser = cli.parser(__doc__)
    parser.set_defaults(dataset_name="digits", batch_size=None, width=None)
    parser.add_argument("--preset", choices=PRESETS, default="smoke", help="how much of it (default: %(default)s)")
    parser.add_argument("--shadow_num", type=cli.positive_int, default=1, help="shadow models (default: %(default)s)")
    parser.add_argument("--seed", type=cli.seed, default=DEFAULT_SEED, help="of everything (default: %(default)s)")
    return parser.parse_args(argv)


def plan(args, run_name: str) -> list[Stage]:
    """All stages in order, each with the flags one would type."""
    preset = {key: flags.split() for key, flags in PRESETS[args.preset].items()}
    common = [*preset["network"], *given_flags(args), "--run_name", run_name]
    size = ["--shadow_num", str(args.shadow_num), "--seed", str(args.seed)]
    data = ["--data_dir", str(args.data_dir)] if args.data_dir else []
    stages = [Stage("train", train.main, [*common, *preset["train"], *size, *data])]
    attack = [*common, *preset["attack"], "--skip_done"]
    compressed = []
    for name, technique in TECHNIQUES.items():
        for degree in technique.degrees:
            variant = paths.variant_name(name, degree)
            flags = technique.command(degree).split()[1:]
            stages.append(Stage(f"compress {variant}", SCRIPTS[name], [*common, *preset[name], *flags]))
            compressed.append((variant, ["--compress", "--compress_name", name, "--compress_degree", degree]))
    stages += [Stage("NR original", CompLeakNR.main, [*attack, "--original"])]
    stages += [Stage(f"NR {variant}", CompLeakNR.main, [*attack, *flags]) for variant, flags in compressed]
    stages += [
        Stage(f"SR {variant}", CompLeakSR.main, [*attack, *flags, "--original"]) for variant, flags in compressed
    ]
    return [*stages, Stage("MR", CompLeakMR.main, attack)]


def given_flags(args) -> list[str]:
    """The flags that go to every stage, as they were given."""
    names = ("dataset_name", "model_name", "width", "num_cls", "root", "device", "batch_size")
    given = [(f"--{name}", getattr(args, name)) for name in names]
    return [text for flag, value in given if value is not None for text in (flag, str(value))]


def main(argv=None) -> None:
    args = parse(argv)
    width = f"_w{args.width:g}" if args.width else ""
    default = f"{args.dataset_name}_{args.model_name}{width}"
    name = args.run_name or (default if args.preset == "paper" else f"{default}_{args.preset}")
    seconds_file = paths.run_dir(args.root, name) / "seconds.json"
    stages = plan(args, name)
    with cli.progress(None, "stages", total=len(stages)) as bar:
        for stage in stages:
            bar.set_description(stage.name)
            started = time.monotonic()
            stage.main(stage.argv)
            seconds = read_json(seconds_file) if seconds_file.exists() else {}
            seconds[stage.name] = round(seconds.get(stage.name, 0) + time.monotonic() - started, 1)
            write_json(seconds_file, seconds)
            bar.update()
    train_args = train.parse(stages[0].argv)
    text = summarise(runs.open_run(train_args), command(args))
    cli.say(text)
    cli.say(f"tables and figures are in {paths.run_dir(args.root, name)}")


def command(args) -> str:
    """The command line that was given, without what only says where."""
    made = (
        f"python reproduce.py --preset {args.preset} --dataset_name {args.dataset_name} --model_name {args.model_name}"
    )
    options = {"width": args.width, "run_name": args.run_name, "seed": args.seed, "shadow_num": args.shadow_num}
    shown = {key: value for key, value in options.items() if value not in (None, DEFAULT_SEED if key == "seed" else 1)}
    data = f" --data_dir {args.data_dir}" if args.data_dir else ""
    return " ".join([made, *(f"--{key} {value}" for key, value in shown.items())]) + data


if __name__ == "__main__":
    cli.run(main)
