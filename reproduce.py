"""The whole audit in one command: train, compress eight ways, attack (NR, SR, MR), one table and its figures.

    python reproduce.py                                                  # digits, three minutes, no download
    python reproduce.py --preset quick --dataset_name cifar10            # under an hour on two cores
    python reproduce.py --preset paper --dataset_name cifar10            # the paper's grid; wants a GPU

    python reproduce.py --jobs 4                                         # four stages at once on this machine
    python reproduce.py --engine ray --ray_address auto                  # the same stages as tasks on a Ray cluster

Runs the stages' own scripts, skipping what is done, so that it can be stopped and started at any time. A stage is one
model to make or one table to attack: victim, shadows and their compressions are made apart, as soon as what each is
made from is there. Where stages run elsewhere (--jobs, Ray), one that dies is tried again and one that fails leaves the
others alone.

Gives results/<run>/summary.md, summary.csv, models.csv, claims.csv and figures. <run> is <dataset>_<model>_<preset>;
for `paper`, which is nothing but the stages' defaults, it is <dataset>_<model>, the folder the stages use themselves.
"""

from pathlib import Path

import train
from compleak import cli, engines, paths, runs
from compleak.audit import recipe_flag
from compleak.engines import Stage
from compleak.files import read_json, write_json
from compleak.summary import summarise
from compleak.techniques import TECHNIQUES
from data.splits import DEFAULT_SEED

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
ONLY_RAY = ("ray_address", "cpus_per_task", "gpus_per_task")
ENGINE = ("engine", "jobs", *ONLY_RAY)  # flags that say where stages run, not what they do


def parse(argv=None):
    parser = cli.parser(__doc__)
    # What is not typed is the preset's business; the data are the small ones.
    parser.set_defaults(dataset_name="digits", batch_size=None)
    parser.add_argument("--preset", choices=PRESETS, default="smoke", help="how much of it (default: %(default)s)")
    parser.add_argument("--shadow_num", type=cli.positive_int, default=1, help="shadow models (default: %(default)s)")
    parser.add_argument("--seed", type=cli.seed, default=DEFAULT_SEED, help="of everything (default: %(default)s)")
    recipe_flag(parser)
    engine_flags(parser)
    args = parser.parse_args(argv)
    if args.engine == "ray" and args.jobs > 1:
        parser.error("--jobs is for one machine; --engine ray runs as many stages at once as the cluster has room for")
    if alone := [name for name in ONLY_RAY if args.engine != "ray" and getattr(args, name) != parser.get_default(name)]:
        parser.error(f"--{alone[0]} needs --engine ray")
    args.command = command(args, parser)
    return args


def engine_flags(parser) -> None:
    group = parser.add_argument_group("where stages run")
    group.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help='this machine, or a Ray cluster, which needs pip install ".[ray]" (default: %(default)s)',
    )
    group.add_argument(
        "--jobs", type=cli.positive_int, default=1, help="stages at once on this machine (default: %(default)s)"
    )
    group.add_argument("--ray_address", help="host:port, or auto for this machine's cluster (default: start one here)")
    group.add_argument(
        "--cpus_per_task", type=cli.positive_int, default=1, help="cores and threads of a stage (default: %(default)s)"
    )
    group.add_argument(
        "--gpus_per_task",
        type=cli.whole_or_share,
        default=1.0,
        help="share of a GPU that a stage takes, where the cluster has any (default: %(default)s)",
    )


def plan(args, run_name: str) -> list[Stage]:
    """All stages in order, each with the flags one would type: the preset's, then those given, which win.

    What several stages would otherwise make at once, one makes before them: `data` the download and the split,
    `NR original` the blind control, each NR the answers that SR and MR read.
    """
    preset = {key: flags.split() for key, flags in PRESETS[args.preset].items()}
    given = [*given_flags(args), "--run_name", run_name]

    def flags(stage: str) -> tuple[str, ...]:
        return (*preset["network"], *preset[stage], *given)

    roles = paths.roles(shadows(args, run_name))
    attack = (*flags("attack"), "--recipe", args.recipe, "--skip_done")
    models = training(args, flags("train"), roles)
    nr = [Stage("NR original", "CompLeakNR", (*attack, "--original"), tuple(f"train {role}" for role in roles))]
    sr = []
    for name, technique in TECHNIQUES.items():
        for degree in technique.degrees:
            variant, (script, *options) = paths.variant_name(name, degree), technique.command(degree).split()
            made = compression(variant, module(script), (*flags(name), *options), roles)
            which = (*attack, "--compress", "--compress_name", name, "--compress_degree", degree)
            models += made
            nr.append(Stage(f"NR {variant}", "CompLeakNR", which, ("NR original", *(stage.name for stage in made))))
            sr.append(Stage(f"SR {variant}", "CompLeakSR", (*which, "--original"), (f"NR {variant}",)))
    return [*models, *nr, *sr, Stage("MR", "CompLeakMR", attack, tuple(stage.name for stage in sr))]


def compression(variant: str, script: str, argv: tuple[str, ...], roles: list[str]) -> list[Stage]:
    """The stages that compress the victim and each shadow, all alike."""
    return [Stage(f"compress {variant} {role}", script, (*argv, "--roles", role), (f"train {role}",)) for role in roles]


def training(args, argv: tuple[str, ...], roles: list[str]) -> list[Stage]:
    """The stages of train.py: data and split, then each model."""
    argv += ("--shadow_num", str(args.shadow_num), "--seed", str(args.seed))
    argv += ("--data_dir", str(args.data_dir.absolute())) if args.data_dir else ()
    models = [Stage(f"train {role}", "train", (*argv, "--roles", role), ("data",)) for role in roles]
    return [Stage("data", "train", (*argv, "--roles")), *models]


def shadows(args, run_name: str) -> int:
    """How many shadow models the run has: as asked for, or more where it has more already."""
    file = paths.run_dir(args.root, run_name) / "run.json"
    return max(args.shadow_num, read_json(file).get("shadow_num", 0) if file.exists() else 0)


def module(script: str) -> str:
    """The name under which a script is imported: pruning/prune.py is pruning.prune."""
    return script.removesuffix(".py").replace("/", ".")


def given_flags(args) -> list[str]:
    """The flags that go to every stage, as they were given."""
    names = ("dataset_name", "model_name", "width", "num_cls", "device", "batch_size")
    given = [("--root", args.root.absolute()), *((f"--{name}", getattr(args, name)) for name in names)]
    return [text for flag, value in given if value is not None for text in (flag, str(value))]


def name_of(args) -> str:
    """The run's folder: as given, or made of data, network, width and preset."""
    default = cli.default_name(cli.identity(args))
    return args.run_name or (default if args.preset == "paper" else f"{default}_{args.preset}")


def engine(args):
    """What runs the stages, to be entered."""
    if args.engine == "ray":
        return engines.on_ray(args.ray_address, args.cpus_per_task, args.gpus_per_task)
    return engines.in_process() if args.jobs == 1 else engines.processes(args.jobs)


def main(argv=None) -> None:
    args = parse(argv)
    name = name_of(args)
    stages = plan(args, name)
    with cli.progress(None, "stages", total=len(stages)) as bar, engine(args) as chosen:

        def ended(stage: Stage, seconds: float) -> None:
            note(stage, seconds, paths.run_dir(args.root, name) / "seconds.json")
            bar.update()

        engines.run_plan(stages, chosen, lambda stage: bar.set_description(stage.name), ended)
    run = runs.open_run(train.parse(stages[0].argv))
    cli.say(
        summarise(run, args.command, {**PRESETS[args.preset], "networks of SAMIA and MR": f"--recipe {args.recipe}"})
    )
    cli.say(f"tables and figures are in {run.dir}")


def note(stage: Stage, seconds: float, file: Path) -> None:
    """Keep a stage's seconds, the most it took: a later run of the same command finds the work done."""
    noted = read_json(file) if file.exists() else {}
    write_json(file, {**noted, stage.name: max(round(seconds, 1), noted.get(stage.name, 0.0))})


def command(args, parser) -> str:
    """The command line that was typed, without what only says where."""
    silent = ("preset", "dataset_name", "root", *ENGINE)
    shown = ["python reproduce.py", f"--preset {args.preset}", f"--dataset_name {args.dataset_name}"]
    for key, value in vars(args).items():
        if key not in silent and value != parser.get_default(key):
            shown.append(f"--{key} {value}")
    return " ".join(shown)


if __name__ == "__main__":
    cli.run(main)
