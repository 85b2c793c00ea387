"""Create a run: load the data, make the split, write run.json."""

import models
from compleak.runs import names, places
from compleak.runs.checkpoints import refuse_difference
from compleak.runs.roles import selected_roles
from compleak.runs.run import Run, load_dataset, network, path_from_root, read_config, reserve_of, whole_split
from compleak.runs.settings import DefenceSettings, TrainSettings
from core.errors import UserError
from core.files import write_json
from data import datasets, index_files, splits
from data.inputs import KINDS
from defenses import DEFENCES

CHANGEABLE = ("shadow_num", "data_dir")  # what may differ when train.py is run again


def create_run(settings: TrainSettings) -> Run:
    """The run of these settings, its run.json and index files written.

    A run that is there already must be the same but for more shadow models. UserError for whatever is wrong, before
    anything is written.
    """
    named = settings.run.identity
    check_network(named["dataset_name"], named["model_name"])
    name = names.name_of(settings.run)
    data = load_dataset(named["dataset_name"], settings.run.data_dir, settings.run.root)
    check_classes(data, named["dataset_name"], settings.run.num_cls)
    run = Run(settings.run.root, name, config_of(settings, data))
    if run.file.exists():
        earlier = read_config(run.file)
        refuse_difference(run.file, *(without(CHANGEABLE, config) for config in (earlier, run.config)))
        run.config["shadow_num"] = max(run.config["shadow_num"], earlier["shadow_num"])
    selected_roles(run.roles, settings.roles)
    split, audit = whole_split(run)
    check_defence(run)
    write_run(run, split, audit)
    return run


def config_of(settings: TrainSettings, data: datasets.Dataset) -> dict:
    """The content of run.json."""
    return {
        **settings.run.identity,
        "data_dir": path_from_root(settings.run),
        "data": data.fingerprint,
        "images": len(data.labels),
        "features": data.features,
        "num_cls": len(data.classes),
        "seed": settings.seed,
        "max_points": settings.max_points,
        "layout": settings.layout,
        "label_noise": settings.label_noise,
        "shadow_num": settings.shadow_num,
        "split": split_name(settings),
        **settings.run.defence.as_config(),
    }


def split_name(settings: TrainSettings) -> str:
    """`<dataset>`, as the authors name the index files, with what departs from the default split."""
    seed = "" if settings.seed == splits.DEFAULT_SEED else f"_seed{settings.seed}"
    limit = f"_max{settings.max_points}" if settings.max_points else ""
    layout = "" if settings.layout == splits.COMPLEAK else f"_{settings.layout}"
    return settings.run.identity["dataset_name"] + layout + seed + limit


def check_network(dataset_name: str, model_name: str) -> None:
    """UserError for an unknown network, or for one that takes another kind of input than the data are."""
    if model_name not in models.NAMES:
        raise UserError(f"unknown model {model_name!r}: choose from {', '.join(models.NAMES)}")
    kind = datasets.kind_of(dataset_name)
    taken = KINDS[models.NETWORKS[model_name].takes]
    if taken.name != kind.name:
        advice = f"use --model_name {' or '.join(models.names_for(kind.name))}"
        raise UserError(f"{dataset_name} is {kind.one_set}, {model_name} a network for {taken.sets}: {advice}")


def check_classes(data: datasets.Dataset, dataset_name: str, num_cls: int | None) -> None:
    """UserError where there is nothing to classify, or --num_cls says something else than the data."""
    classes = len(data.classes)
    if classes < 2:
        raise UserError(f"{dataset_name} has {classes} class: at least 2 are needed")
    if num_cls not in (None, classes):
        raise UserError(f"--num_cls is {num_cls}, {dataset_name} has {classes} classes: leave it out")


def check_defence(run: Run) -> None:
    """UserError where the run's defence cannot train its network, or finds too few points for a reserve."""
    if not run.defence.name:
        return
    check_argument(run.defence)
    step = DEFENCES[run.defence.name].step
    step.check(network(run))
    if step.needs_reserve:
        for row in range(len(run.roles)):
            reserve_of(run, row)


def check_argument(defence: DefenceSettings) -> None:
    """UserError where the defence cannot be had like this."""
    parts = DEFENCES[defence.name].parts
    if parts is None:
        return
    parts.count(defence.argument)
    if defence.undefended_original:
        raise UserError(
            f"--undefended_original does not go with --defend {defence.name}: what its fine-tuning needs is made when "
            "the original is trained with it"
        )


def without(keys, config: dict) -> dict:
    return {key: value for key, value in config.items() if key not in keys}


def write_run(run: Run, split: splits.Split, audit: splits.Split) -> None:
    """Write the two index files, and run.json last."""
    files = places.index_files(run.root, run.config["split"])
    for file, part in zip(files, (split, audit), strict=True):
        index_files.write_index(file, part.pairs)
    write_json(run.file, run.config)
