"""The whole audit in one command: train, compress eight ways, attack (NR, SR, MR), one table and its figures.

    python reproduce.py                                                  # digits, three minutes, no download
    python reproduce.py --preset quick --dataset_name cifar10            # under an hour on two cores
    python reproduce.py --preset paper --dataset_name cifar10            # the paper's grid; wants a GPU

    python reproduce.py --shadow_num 8 --seeds 7 8 9                     # stronger attacks; the spread over trainings

    python reproduce.py --defences                                       # what defences cost, and what they leave
    python reproduce.py --jobs 4                                         # four stages at once on this machine
    python reproduce.py --engine ray --ray_address auto                  # the same stages as tasks on a Ray cluster

Runs the stages' own scripts, skipping what is done, so that it can be stopped and started at any time. A stage is one
model to make or one table to attack: victim, shadows and their compressions are made apart, as soon as what each is
made from is there. Where stages run elsewhere (--jobs, Ray), one that dies is tried again and one that fails leaves the
others alone.

Gives results/<run>/summary.md, summary.csv, models.csv, claims.csv and figures. <run> is <dataset>_<model>_<preset>;
for `paper`, which is nothing but the stages' defaults, it is <dataset>_<model>, the folder the stages use themselves.
With --seeds every seed has its run, <run>_seed<n>, and results/<run>_seeds says what they have in common.
With --defences there is a run for each defence and attacker, and results/defences/ compares them.
"""

import argparse
from pathlib import Path

import models
import train
from compleak import cli, engines, paths, runs
from compleak.audit import recipe_flag
from compleak.engines import Stage
from compleak.seeds import summarise_seeds
from compleak.summary import summarise
from compleak.techniques import TECHNIQUES
from compleak.tradeoff import summarise_defences
from core import arguments, console
from core.errors import UserError
from core.files import read_json, write_json
from data.splits import DEFAULT_SEED
from defenses import DEFENCES

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
    "compact": {
        "network": "--width 0.25 --batch_size 32",
        "train": "--max_points 1200 --epochs 15 --lr 0.05 --no_augment",
        "pruning": "--prune_epochs 3 --no_augment",
        "quantization": "--quantized_epochs 2 --no_augment",
        "clustering": "--epochs 2 --no_augment",
        "attack": "--sensitivity_draws 1",
    },
    "paper": {"network": "", "train": "", "pruning": "", "quantization": "", "clustering": "", "attack": ""},
}
DEGREES = [(name, degree) for name, technique in TECHNIQUES.items() for degree in technique.degrees]
DEFENDED_DEGREES = [("pruning", "0.6"), ("pruning", "0.9"), ("quantization", "int8"), ("clustering", "4")]
DEFENCE_GRID = ("ppb:1", "ppb:4", "ppb:16", "adv:0.3", "adv:1", "adv:3", "dp:0.1", "dp:0.3", "dp:1")
GROUP_NORM_TWIN = {"resnet18": "resnet18_gn"}  # the network that DP-SGD trains in place of one
ONLY_RAY = ("ray_address", "cpus_per_task", "gpus_per_task")
ENGINE = ("engine", "jobs", *ONLY_RAY)  # flags that say where stages run, not what they do


def parse(argv=None):
    # What is not typed is the preset's business; the data are the small ones.
    parser = cli.parser(__doc__, {"dataset_name": "digits", "run_name": "<dataset>_<model>[_w<width>]_<preset>"}
                        | dict.fromkeys(("width", "batch_size"), "the preset's"))  # fmt: skip
    parser.set_defaults(dataset_name="digits", batch_size=None)
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="smoke",
        help="smoke: minutes on digits; quick: an hour on CIFAR-10 and two cores; compact: a quarter of the width and "
        "1,200 members, for comparing defences on a CPU; paper: its grid, for a GPU (default: %(default)s)",
    )
    parser.add_argument(
        "--shadow_num", type=arguments.positive_int, default=1, help="shadow models (default: %(default)s)"
    )
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=arguments.seed, default=DEFAULT_SEED, help="of everything (default: %(default)s)")
    seeds.add_argument(
        "--seeds", type=arguments.seed, nargs="+", help="the whole audit once for each, and what differs between them"
    )
    parser.add_argument(
        "--keep",
        choices=("all", "signals"),
        default="all",
        help="signals: delete the shadows' weights once they have answered, for many shadows (default: %(default)s)",
    )
    parser.add_argument(
        "--defences",
        nargs="*",
        metavar="NAME:ARG",
        help=f"compare defences with none, each against a non-adaptive and an adaptive attacker, on the original and "
        f"four compressions (default: {' '.join(DEFENCE_GRID)})",
    )
    recipe_flag(parser)
    engine_flags(parser)
    args = parser.parse_args(argv)
    args.degrees = DEGREES if args.defences is None else DEFENDED_DEGREES
    if args.defences is not None:
        args.defences = [defence_of(text, parser) for text in args.defences or DEFENCE_GRID]
        if args.keep != "all" or any(getattr(args, key) != nothing for key, nothing in cli.UNDEFENDED.items()):
            parser.error(
                "--defences tries each defence and none, and shares models: leave their own flags and --keep out"
            )
    if args.engine == "ray" and args.jobs > 1:
        parser.error("--jobs is for one machine; --engine ray runs as many stages at once as the cluster has room for")
    if alone := [name for name in ONLY_RAY if args.engine != "ray" and getattr(args, name) != parser.get_default(name)]:
        parser.error(f"--{alone[0]} needs --engine ray")
    if args.seeds and len(set(args.seeds)) < 2:
        parser.error("--seeds wants two or more different seeds; for a single one there is --seed")
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
        "--jobs", type=arguments.positive_int, default=1, help="stages at once on this machine (default: %(default)s)"
    )
    group.add_argument("--ray_address", help="host:port, or auto for this machine's cluster (default: start one here)")
    group.add_argument(
        "--cpus_per_task",
        type=arguments.positive_int,
        default=1,
        help="cores and threads of a stage (default: %(default)s)",
    )
    group.add_argument(
        "--gpus_per_task",
        type=arguments.share_up_to_one,
        default=1.0,
        help="share of a GPU that a stage takes, where the cluster has any (default: %(default)s)",
    )


def plan(args) -> list[Stage]:
    """All stages of one run in order: the data, each model with what is made of it, the tables.

    What several stages would otherwise make at once, one makes before them: `data` the download and the split,
    `NR original` the blind control, each NR the answers that SR and MR read.
    """
    flags, roles = stage_flags(args), paths.roles(shadows(args))
    models = [stage for role in roles for stage in stages_of(role, flags, args.degrees, args.keep)]
    asked = [stage.name for stage in models if stage.script == "query"]
    attack = (*flags["attack"], "--recipe", args.recipe, "--skip_done")
    trained = tuple(f"train {role}" for role in roles)
    nr = [Stage("NR original", "CompLeakNR", (*attack, "--original"), (*trained, *asked))]
    sr = []
    for name, degree in args.degrees:
        variant = paths.variant_name(name, degree)
        which = (*attack, "--compress", "--compress_name", name, "--compress_degree", degree)
        made = tuple(f"compress {variant} {role}" for role in roles)
        nr.append(Stage(f"NR {variant}", "CompLeakNR", which, ("NR original", *made)))
        sr.append(Stage(f"SR {variant}", "CompLeakSR", (*which, "--original"), (f"NR {variant}",)))
    variants = () if args.degrees is DEGREES else ("--variants", *(paths.variant_name(*d) for d in args.degrees))
    mr = Stage("MR", "CompLeakMR", (*attack, *variants), tuple(stage.name for stage in sr))
    return [Stage("data", "train", (*flags["train"], "--roles")), *models, *nr, *sr, mr]


def stages_of(role: str, flags: dict[str, tuple[str, ...]], degrees: list[tuple], keep: str) -> list[Stage]:
    """What makes one model and its compressions and, where a shadow's weights are not kept, asks them first."""
    made = [Stage(f"train {role}", "train", (*flags["train"], "--roles", role), ("data",))]
    for name, degree in degrees:
        script, *degree_flag = TECHNIQUES[name].command(degree).split()
        argv = (*degree_flag, *flags[name], "--roles", role)
        variant = paths.variant_name(name, degree)
        made.append(Stage(f"compress {variant} {role}", module(script), argv, (f"train {role}",)))
    if keep == "signals" and role != paths.VICTIM:
        argv = (*flags["attack"], "--drop_weights", "--roles", role)
        made.append(Stage(f"query {role}", "query", argv, tuple(stage.name for stage in made)))
    return made


def stage_flags(args) -> dict[str, tuple[str, ...]]:
    """The flags one would type for each kind of stage: the preset's, then those given, which win."""
    preset = {key: flags.split() for key, flags in PRESETS[args.preset].items()}
    given = [*given_flags(args), "--run_name", base_name(args)]
    flags = {kind: (*preset["network"], *preset[kind], *given) for kind in preset if kind != "network"}
    flags["train"] += ("--shadow_num", str(args.shadow_num), "--seed", str(args.seed))
    flags["train"] += ("--data_dir", str(args.data_dir.absolute())) if args.data_dir else ()
    return flags


def shadows(args) -> int:
    """How many shadow models the run has: as asked for, or more where it has more already."""
    file = paths.run_dir(args.root, name_of(args)) / "run.json"
    return max(args.shadow_num, read_json(file).get("shadow_num", 0) if file.exists() else 0)


def module(script: str) -> str:
    """The name under which a script is imported: pruning/prune.py is pruning.prune."""
    return script.removesuffix(".py").replace("/", ".")


def given_flags(args) -> list[str]:
    """The flags that go to every stage, as they were given."""
    names = ("dataset_name", "model_name", "width", "num_cls", "device", "batch_size")
    given = [("--root", args.root.absolute()), *((f"--{name}", getattr(args, name)) for name in names)]
    given += [(f"--{name}", value or None) for name, value in cli.defence(args).items()]
    return [
        text
        for flag, value in given
        if value is not None
        for text in ((flag,) if value is True else (flag, str(value)))
    ]


def base_name(args) -> str:
    """The run's folder, but for its defence: as given, or made of data, network, width and preset."""
    default = cli.default_name(cli.identity(args))
    if args.run_name or args.preset == "paper":
        return args.run_name or default
    full = args.width == 1 and "--width" in PRESETS[args.preset]["network"]  # unnamed, it would be the preset's own
    return default + "_w1" * full + f"_{args.preset}"


def name_of(args) -> str:
    """The folder of a run, or of what the runs of --seeds have in common."""
    return cli.run_name(variation(args, run_name=base_name(args) + "_seeds" * bool(args.seeds)))


def refuse_unfit(args: argparse.Namespace) -> None:
    """UserError where a defence cannot train this network, before hours of other stages have run."""
    name = cli.identity(args)["model_name"]
    if args.defend and name in models.NAMES:
        features = 8 if name in models.FOR_FEATURES else None
        DEFENCES[args.defend].procedure.check(models.build(name, 2, 0.125, features))


def refuse_unequal(wanted: dict[str, argparse.Namespace]) -> None:
    """UserError where runs that are to be compared would differ in their shadow models, before any stage has run."""
    counts = {name: shadows(of_run) for name, of_run in wanted.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        advice = f"give --shadow_num {max(counts.values())}"
        raise UserError(f"runs with as many shadow models each are needed, these would have: {found}; {advice}")


def variation(args, **changes) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(args), **changes})


def runs_of(args) -> dict[str, argparse.Namespace]:
    """The runs that a command asks for, by folder: one, or one for each of --seeds, and of --defences."""
    found = {}
    for seed in dict.fromkeys(args.seeds or [args.seed]):
        for own in [args] if args.defences is None else defended(args):
            name = base_name(own) + (f"_seed{seed}" if args.seeds else "")
            of_run = variation(own, seed=seed, seeds=None, run_name=name)
            found[name_of(of_run)] = of_run
    return found


def defended(args) -> list[argparse.Namespace]:
    """The runs that compare defences: each undefended network, each defence, each again with an adaptive attacker."""
    found = {}
    for defend, argument in [("", None), *args.defences]:
        network = cli.identity(args)["model_name"]
        own = variation(args, model_name=GROUP_NORM_TWIN.get(network, network)) if defend == "dp" else args
        if own is not args and args.run_name:
            own = variation(own, run_name=f"{args.run_name}_gn")
        for adaptive in (False, True) if defend else (False,):
            for name, chosen in (("", None), (defend, argument)):
                of_run = variation(own, defend=name, defend_arg=chosen, adaptive=adaptive and bool(name))
                found.setdefault(name_of(of_run), of_run)
    return list(found.values())


def defence_of(text: str, parser) -> tuple[str, float]:
    """`ppb:4` as (name, argument); `ppb` has the default argument."""
    name, colon, argument = text.partition(":")
    try:
        default = DEFENCES[name].default
        return name, arguments.positive_float(argument) if colon else default
    except (KeyError, ValueError, argparse.ArgumentTypeError):
        parser.error(f"--defences {text}: expected {' or '.join(f'{n}:ARG' for n in DEFENCES)}, ARG a positive number")


def lender(args, role: str) -> str:
    """The run that has the same model: an adaptive attacker's victim, another attacker's undefended shadows."""
    if args.adaptive and role == paths.VICTIM:
        return name_of(variation(args, adaptive=False))
    alike = args.defend and not args.adaptive and role != paths.VICTIM
    return name_of(variation(args, defend="", defend_arg=None)) if alike else ""


def lend(stages: list[Stage], place: dict[str, str], wanted: dict[str, argparse.Namespace]) -> list[Stage]:
    """The same plan, but that a model waits for its twin in another run, to be copied from there."""
    names, patient = {stage.name for stage in stages}, []
    for stage in stages:
        own = stage.name.removeprefix(f"{place[stage.name]} ")
        twin = f"{lender(wanted[place[stage.name]], own.split()[-1])} {own}"
        waits = own.startswith(("train", "compress")) and twin in names
        patient.append(stage._replace(needs=(*stage.needs, twin)) if waits else stage)
    return patient


def engine(args):
    """What runs the stages, to be entered."""
    if args.engine == "ray":
        return engines.on_ray(args.ray_address, args.cpus_per_task, args.gpus_per_task)
    return engines.in_process() if args.jobs == 1 else engines.processes(args.jobs)


def main(argv=None) -> None:
    args = parse(argv)
    wanted = runs_of(args)
    for of_run in wanted.values():
        refuse_unfit(of_run)
    refuse_unequal(wanted)
    plans = {name: plan(of_run) for name, of_run in wanted.items()}
    stages, place = together(plans)
    stages = lend(stages, place, wanted)
    with console.progress(None, "stages", total=len(stages)) as bar, engine(args) as chosen:

        def ended(stage: Stage, seconds: float) -> None:
            name = place[stage.name]
            note(stage.name.removeprefix(f"{name} "), seconds, paths.run_dir(args.root, name) / "seconds.json")
            bar.update()

        engines.run_plan(stages, chosen, lambda stage: bar.set_description(stage.name), ended)
    made = [runs.open_run(train.parse(own[0].argv)) for own in plans.values()]
    settings = {**PRESETS[args.preset], "networks of SAMIA and MR": f"--recipe {args.recipe}"}
    if args.defences is not None:
        folder = paths.run_dir(args.root, "defences")
        console.say(summarise_defences(made, folder, args.command, settings))
        console.say(f"tables and figure are in {folder}")
        return
    texts, folders = [summarise(run, args.command, settings) for run in made], [run.dir for run in made]
    if args.seeds:
        folders.append(paths.run_dir(args.root, name_of(args)))
        texts.append(summarise_seeds(made, folders[-1], args.command))
    console.say(texts[-1])
    console.say(f"tables and figures are in {', '.join(map(str, folders))}")


def together(plans: dict[str, list[Stage]]) -> tuple[list[Stage], dict[str, str]]:
    """All runs' stages as one plan, and the run of each; of several runs, a stage's name starts with its run's.

    The runs read one data set: their `data` stages, which may have to fetch it, follow one another.
    """
    if len(plans) == 1:
        ((name, stages),) = plans.items()
        return stages, {stage.name: name for stage in stages}
    stages, place, before = [], {}, ()
    for name, (data, *others) in plans.items():
        stages.append(data._replace(name=f"{name} {data.name}", needs=before))
        before = (stages[-1].name,)
        for stage in others:
            needs = tuple(f"{name} {need}" for need in stage.needs)
            stages.append(stage._replace(name=f"{name} {stage.name}", needs=needs))
        place |= {f"{name} {stage.name}": name for stage in (data, *others)}
    return stages, place


def note(stage: str, seconds: float, file: Path) -> None:
    """Keep a stage's seconds, the most it took: a later run of the same command finds the work done."""
    noted = read_json(file) if file.exists() else {}
    write_json(file, {**noted, stage: max(round(seconds, 1), noted.get(stage, 0.0))})


def command(args, parser) -> str:
    """The command line that was typed, without what only says where."""
    silent = ("preset", "dataset_name", "root", "defences", "degrees", *ENGINE)
    shown = ["python reproduce.py", f"--preset {args.preset}", f"--dataset_name {args.dataset_name}"]
    for key, value in vars(args).items():
        if key not in silent and value != parser.get_default(key):
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            shown.append(f"--{key}" if value is True else f"--{key} {text}")
    if args.defences is not None:
        shown.append(" ".join(["--defences", *(f"{name}:{argument:g}" for name, argument in args.defences)]))
    return " ".join(shown)


if __name__ == "__main__":
    console.run_script(main)
