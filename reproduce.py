"""The whole audit in one command: train, compress eight ways, attack (NR, SR, MR), one table and its figures.

    python reproduce.py                                                  # digits, three minutes, no download
    python reproduce.py --preset quick --dataset_name cifar10            # about an hour on two cores
    python reproduce.py --preset paper --dataset_name cifar10            # the paper's grid; wants a GPU

Runs the stages' own scripts in one process, skipping what is done, so that it can be stopped and started at any time.
Gives results/<run>/summary.md, summary.csv, models.csv, claims.csv and figures. <run> is <dataset>_<model>_<preset>;
for `paper`, which is nothing but the stages' defaults, it is <dataset>_<model>, the folder the stages use themselves.
"""

import time
from collections.abc import Callable
from pathlib import Path
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
        "attack": "",
    },
    "quick": {
        "network": "",
        "train": "--max_points 5000 --epochs 12 --batch_size 64 --lr 0.05 --no_augment",
        "pruning": "--prune_epochs 2 --batch_size 64 --no_augment",
        "quantization": "--quantized_epochs 1 --batch_size 64 --no_augment",
        "clustering": "--epochs 1 --batch_size 64 --no_augment",
        "attack": "--sensitivity_draws 1",
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
    # What is not typed is the preset's business; the data are the small ones.
    parser.set_defaults(dataset_name="digits", batch_size=None)
    parser.add_argument("--preset", choices=PRESETS, default="smoke", help="how much of it (default: %(default)s)")
    parser.add_argument("--shadow_num", type=cli.positive_int, default=1, help="shadow models (default: %(default)s)")
    parser.add_argument("--seed", type=cli.seed, default=DEFAULT_SEED, help="of everything (default: %(default)s)")
    args = parser.parse_args(argv)
    args.command = command(args, parser)
    return args


def plan(args, run_name: str) -> list[Stage]:
    """All stages in order, each with the flags one would type: the preset's, then those given, which win."""
    preset = {key: flags.split() for key, flags in PRESETS[args.preset].items()}
    given = [*given_flags(args), "--run_name", run_name]

    def flags(stage: str) -> list[str]:
        return [*preset["network"], *preset[stage], *given]

    size = ["--shadow_num", str(args.shadow_num), "--seed", str(args.seed)]
    data = ["--data_dir", str(args.data_dir)] if args.data_dir else []
    stages = [Stage("train", train.main, [*flags("train"), *size, *data])]
    attack = [*flags("attack"), "--skip_done"]
    compressed = []
    for name, technique in TECHNIQUES.items():
        for degree in technique.degrees:
            variant = paths.variant_name(name, degree)
            argv = [*flags(name), *technique.command(degree).split()[1:]]
            stages.append(Stage(f"compress {variant}", SCRIPTS[name], argv))
            compressed.append((variant, ["--compress", "--compress_name", name, "--compress_degree", degree]))
    stages += [Stage("NR original", CompLeakNR.main, [*attack, "--original"])]
    stages += [Stage(f"NR {variant}", CompLeakNR.main, [*attack, *which]) for variant, which in compressed]
    stages += [
        Stage(f"SR {variant}", CompLeakSR.main, [*attack, *which, "--original"]) for variant, which in compressed
    ]
    return [*stages, Stage("MR", CompLeakMR.main, attack)]


def given_flags(args) -> list[str]:
    """The flags that go to every stage, as they were given."""
    names = ("dataset_name", "model_name", "width", "num_cls", "root", "device", "batch_size")
    given = [(f"--{name}", getattr(args, name)) for name in names]
    return [text for flag, value in given if value is not None for text in (flag, str(value))]


def name_of(args) -> str:
    """The run's folder: as given, or made of data, network, width and preset."""
    default = cli.default_name(cli.identity(args))
    return args.run_name or (default if args.preset == "paper" else f"{default}_{args.preset}")


def main(argv=None) -> None:
    args = parse(argv)
    name = name_of(args)
    stages = plan(args, name)
    with cli.progress(None, "stages", total=len(stages)) as bar:
        for stage in stages:
            bar.set_description(stage.name)
            timed(stage, paths.run_dir(args.root, name) / "seconds.json")
            bar.update()
    run = runs.open_run(train.parse(stages[0].argv))
    cli.say(summarise(run, args.command, PRESETS[args.preset]))
    cli.say(f"tables and figures are in {run.dir}")


def timed(stage: Stage, file: Path) -> None:
    """Run a stage and note its seconds, once: a later run of the same command finds the work done."""
    started = time.monotonic()
    stage.main(stage.argv)
    seconds = read_json(file) if file.exists() else {}
    write_json(file, {stage.name: round(time.monotonic() - started, 1), **seconds})


def command(args, parser) -> str:
    """The command line that was typed, without what only says where."""
    shown = ["python reproduce.py", f"--preset {args.preset}", f"--dataset_name {args.dataset_name}"]
    for key, value in vars(args).items():
        if key not in ("preset", "dataset_name", "root") and value != parser.get_default(key):
            shown.append(f"--{key} {value}")
    return " ".join(shown)


if __name__ == "__main__":
    cli.run(main)
