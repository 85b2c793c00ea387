"""A run: one data set, split, network and seed. `train.py` writes `results/<run>/run.json`; later stages read it.

So the data's place, the split and the number of shadows are said once, to `train.py`. Flags given again are checked.
"""

import argparse
import functools
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

import models
from compleak import cli, paths
from compleak.checkpoints import refuse_difference
from core.errors import UserError
from core.files import read_json, stamp, write_json
from core.project import PROJECT
from data import datasets, splits
from defenses import DEFENCES

RUN_KEYS = {"dataset_name", "data_dir", "data", "images", "num_cls", "model_name", "width", "seed", "max_points"}
RUN_KEYS |= {"label_noise", "split", "shadow_num"}
LATER_KEYS = {"features": None, **cli.UNDEFENDED}  # what run.json files written before these keys existed mean


class Run(NamedTuple):
    """`config` is the content of run.json."""

    root: Path
    name: str
    config: dict

    @property
    def roles(self) -> list[str]:
        return paths.roles(self.config["shadow_num"])

    @property
    def dir(self) -> Path:
        return paths.run_dir(self.root, self.name)


def create(args: argparse.Namespace) -> Run:
    """Load the data, make the split and write run.json; an existing run must be the same but for more shadows."""
    named = cli.identity(args)
    if named["model_name"] not in models.NAMES:
        raise UserError(f"unknown model {named['model_name']!r}: choose from {', '.join(models.NAMES)}")
    _refuse_other_input(named["dataset_name"], named["model_name"])
    data = _load(named["dataset_name"], args.data_dir, args.root)
    classes = len(data.classes)
    if classes < 2:
        raise UserError(f"{named['dataset_name']} has {classes} class: at least 2 are needed")
    if args.num_cls not in (None, classes):
        raise UserError(f"--num_cls is {args.num_cls}, {named['dataset_name']} has {classes} classes: leave it out")
    config = {
        **named,
        "data_dir": _from_root(args),
        "data": data.fingerprint,
        "images": len(data.labels),
        "features": data.features,
        "num_cls": classes,
        **{key: getattr(args, key) for key in ("seed", "max_points", "label_noise", "shadow_num")},
        "split": _split_name(named["dataset_name"], args),
        **cli.defence(args),
    }
    run = Run(args.root, cli.run_name(args), config)
    file = run.dir / "run.json"
    if file.exists():
        found = _read_config(file)
        free = ("shadow_num", "data_dir")
        refuse_difference(file, *({key: c[key] for key in c if key not in free} for c in (found, config)))
        config["shadow_num"] = max(config["shadow_num"], found["shadow_num"])
    chosen(run, args.roles)  # these lines refuse what is wrong before anything is written
    defence = DEFENCES[config["defend"]].procedure if config["defend"] else None
    if defence:
        defence.check(network(run))
    whole = _whole_split(run)
    if defence and defence.needs_reserve:
        reserves(run)
    for index_file, part in zip(paths.index_files(run.root, config["split"]), whole, strict=True):
        splits.write_index(index_file, part)
    write_json(file, config)
    return run


def _refuse_other_input(dataset_name: str, model_name: str) -> None:
    """UserError where a network for images is to be trained on a table of features, or the other way round."""
    table = dataset_name in datasets.TABLES
    fitting = models.FOR_FEATURES if table else models.FOR_IMAGES
    if model_name not in fitting:
        kinds = ("a table of features", "images") if table else ("images", "tables of features")
        advice = f"use --model_name {' or '.join(fitting)}"
        raise UserError(f"{dataset_name} is {kinds[0]}, {model_name} a network for {kinds[1]}: {advice}")


def open_run(args: argparse.Namespace) -> Run:
    """The run that the flags name. UserError where train.py has not made it, or made it from something else."""
    name = cli.run_name(args)
    file = paths.run_dir(args.root, name) / "run.json"
    if not file.exists():
        command = f"python train.py {name_flags(cli.identity(args) | cli.defence(args), args.run_name, args.root)}"
        raise UserError(f"there is no run {name} in {file.parent.parent}: first {command}")
    config = _read_config(file)
    typed = ("dataset_name", "model_name", "width", "num_cls")
    given = {key: getattr(args, key) for key in typed if getattr(args, key) is not None}
    given |= cli.defence(args) if args.defend else {}
    refuse_difference(file, {key: config[key] for key in given}, given)
    if args.data_dir is not None:
        config["data_dir"] = _from_root(args)
    return Run(args.root, name, config)


def _read_config(file: Path) -> dict:
    config = read_json(file)
    if lacks := RUN_KEYS - config.keys():
        raise UserError(f"{file} lacks {', '.join(sorted(lacks))}: delete it and run train.py again")
    return {**LATER_KEYS, **config}


def chosen(run: Run, named: list[str] | None) -> list[tuple[int, str]]:
    """The models that --roles names, with their rows in the run, or all of it. UserError where it has none such."""
    if unknown := set(named or ()) - set(run.roles):
        raise UserError(f"--roles {min(unknown)}: this run has {' '.join(run.roles)}")
    return [(row, role) for row, role in enumerate(run.roles) if named is None or role in named]


def role_seed(run: Run, row: int) -> int:
    """A seed of its own for each model of the run: victim and shadows start and shuffle differently."""
    return int(np.random.SeedSequence([run.config["seed"], row]).generate_state(1)[0])


def dataset(run: Run) -> datasets.Dataset:
    """The run's data. UserError where it is no longer what the run was made from."""
    place = run.config["data_dir"]
    data = _load(run.config["dataset_name"], run.root / place if place else None, run.root)
    refuse_difference(run.dir / "run.json", {"data": run.config["data"]}, {"data": data.fingerprint})
    return data._replace(labels=_noisy(data.labels, len(data.classes), run.config))


def _load(name: str, place: Path | None, root: Path) -> datasets.Dataset:
    """The data set, read once in a process, however its place is spelt."""
    return datasets.load(name, Path(os.path.abspath(place)) if place else None, paths.downloads(root))


def _noisy(labels: np.ndarray, classes: int, config: dict) -> np.ndarray:
    """The labels with a share drawn anew, for members and non-members alike: wrong ones have to be memorised."""
    rng = np.random.default_rng([config["seed"], 20_000])  # splits use the numbers below
    drawn, replaced = rng.integers(classes, size=len(labels)), rng.random(len(labels)) < config["label_noise"]
    return np.where(replaced, drawn, labels)


def network(run: Run) -> nn.Module:
    """The run's network, freshly initialised. The caller seeds torch."""
    return models.build(*(run.config[key] for key in ("model_name", "num_cls", "width", "features")))


def split(run: Run) -> tuple[splits.Split, splits.Split]:
    """The run's split and its audit sets."""
    split_, audit = (splits.Split(whole.pairs[: len(run.roles)]) for whole in _whole_split(run))
    return split_, audit


def _whole_split(run: Run) -> tuple[splits.Split, splits.Split]:
    """The split and the audit sets of all shadows that the index files hold, which other runs may have more of."""
    files = paths.index_files(run.root, run.config["split"])
    numbers = (run.config[key] for key in ("images", "shadow_num", "seed", "max_points"))
    return _read_split(files, tuple(map(stamp, files)), *numbers)


@functools.lru_cache(maxsize=1)  # with many shadows most of a second, and each answer that is asked for needs it
def _read_split(files, stamps, images: int, shadow_num: int, seed: int, max_points: int | None):
    return splits.load_or_make(*files, images, shadow_num=shadow_num, seed=seed, max_points=max_points)


def reserves(run: Run) -> list[tuple[np.ndarray, np.ndarray]]:
    """`splits.make_reserve` of each model. UserError where there are too few points.

    The same for a model whose attacker is adaptive and one whose is not, so that they can share it.
    """
    made, audit = split(run)
    options = (run.config["images"], run.config["seed"])
    return [splits.make_reserve(made, audit, row, *options) for row in range(len(run.roles))]


def members_fingerprint(pair: splits.Pair) -> str:
    """Which points a model was trained on, as a short hash."""
    return splits.fingerprint(splits.Split([pair]))


def _from_root(args: argparse.Namespace) -> str | None:
    """--data_dir as seen from the root folder, so that a stage finds it whatever folder it is started in."""
    return os.path.relpath(args.data_dir, args.root) if args.data_dir else None


def _split_name(dataset_name: str, args: argparse.Namespace) -> str:
    """`<dataset>`, as the authors name it, with what departs from the default split."""
    seed = "" if args.seed == splits.DEFAULT_SEED else f"_seed{args.seed}"
    return dataset_name + seed + (f"_max{args.max_points}" if args.max_points else "")


def defence_of(run: Run, role: str, *, compressed: bool) -> str:
    """The defence that a model is trained with, "" for none: the victim's, and shadows' where they are adaptive."""
    defended = role == run.roles[0] or run.config["adaptive"]
    spared = run.config["undefended_original"] and not compressed
    return run.config["defend"] if defended and not spared else ""


def defence_said(run: Run) -> str:
    """The run's defence in words, "" where it has none."""
    config = run.config
    if not config["defend"]:
        return ""
    where = "in fine-tuning" if config["undefended_original"] else "throughout"
    attacker = "adaptive" if config["adaptive"] else "non-adaptive"
    return f"victim defended {where} by {config['defend']} {config['defend_arg']:g}, {attacker} attacker"


def train_command(run: Run) -> str:
    """The command that trains what is missing of a run, but for the recipe, which only who made it knows."""
    defaults = {"seed": splits.DEFAULT_SEED, "max_points": None, "label_noise": 0.0, "shadow_num": 1}
    changed = [f"--{key} {run.config[key]}" for key, default in defaults.items() if run.config[key] != default]
    changed += [f"--data_dir {os.path.abspath(run.root / place)}"] if (place := run.config["data_dir"]) else []
    return " ".join(["python train.py", name_flags(run.config, run.name, run.root), *changed])


def name_flags(named: dict, run_name: str | None, root: Path = PROJECT) -> str:
    """The flags that name a run again, for messages that quote a command."""
    flags = [f"--dataset_name {named['dataset_name']}", f"--model_name {named['model_name']}"]
    flags += [f"--width {named['width']:g}"] if named["width"] != 1 else []
    defence = {key: named.get(key, nothing) for key, nothing in cli.UNDEFENDED.items()}
    if defence["defend"]:
        flags += [f"--defend {defence['defend']} --defend_arg {defence['defend_arg']:g}"]
        flags += [f"--{key}" for key in ("adaptive", "undefended_original") if defence[key]]
    base = run_name and run_name.removesuffix(paths.defence_suffix(*defence.values()))
    flags += [f"--run_name {base}"] if base not in (None, cli.default_name(named)) else []
    flags += [f"--root {root}"] if root != PROJECT else []
    return " ".join(flags)
