"""Create a run: load the data, make the split and, for texts, the tokenizer, write run.json."""

from collections.abc import Callable

import numpy as np

import models
from compleak.runs import names, places, pretrained, tokenizers
from compleak.runs.checkpoints import refuse_difference
from compleak.runs.roles import selected_roles
from compleak.runs.run import Run, load_dataset, network, path_from_root, path_of, read_config, reserve_of, whole_split
from compleak.runs.settings import DEFAULT_WIDTH, DefenceSettings, RunSettings, TrainSettings
from core.errors import UserError, escape
from core.files import write_json, write_text
from data import datasets, index_files, splits, tokens
from data.inputs import IMAGES, KINDS, PATCHES
from data.pictures import SIDE
from defenses import DEFENCES

CHANGEABLE = ("shadow_num", "data_dir", "pretrained")  # what may differ when train.py is run again
FROM_TOKENIZER = ("features", "tokenizer")  # of texts: what is known once there is a tokenizer


def create_run(settings: TrainSettings, check: Callable[[Run], None] | None = None) -> Run:
    """The run of these settings, its run.json and index files written.

    A run that is there already must be the same but for more shadow models. UserError for whatever is wrong, before
    anything is written; `check` may raise it as well.
    """
    named = settings.run.identity
    check_network(settings.run)
    check_online(settings)
    name = names.name_of(settings.run)
    data = load_dataset(named["dataset_name"], settings.run.data_dir, settings.run.root, settings.run.reading)
    check_classes(data, named["dataset_name"], settings.run.num_cls)
    run = Run(settings.run.root, name, config_of(settings, data))
    earlier = read_config(run.file) if run.file.exists() else None
    if earlier is not None:
        refuse_other_split(run, earlier)
        changeable = (*CHANGEABLE, *FROM_TOKENIZER)
        refuse_difference(run.file, *(without(changeable, config) for config in (earlier, run.config)))
        run.config["shadow_num"] = max(run.config["shadow_num"], earlier["shadow_num"])
    selected_roles(run.roles, settings.roles)
    split, audit = whole_split(run)
    tokenizer = None
    if data.kind.encode is not None:
        outside = np.setdiff1d(split.pool, np.concatenate(split.victim))
        tokenizer = tokenizer_for(run, earlier, data.images[outside])
        run.config.update({"features": tokens.count(tokenizer), "tokenizer": tokenizers.fingerprint(tokenizer)})
    check_defence(run, split)
    if check is not None:
        check(run)
    write_run(run, split, audit, tokenizer)
    return run


def tokenizer_for(run: Run, earlier: dict | None, pool: np.ndarray) -> str:
    """The tokenizer that the run has already, or one that is trained on the attacker's texts, `pool`, and no others.

    earlier: the content of the run's run.json, if there is one; without it a tokenizer that lies there may be made from
    another split.
    """
    file = places.tokenizer_file(run.root, run.name)
    if earlier is not None and file.exists():
        return tokenizers.read(file, earlier["tokenizer"])
    tokenizer = tokenizers.make(run.config["model_name"], pool, path_of(run, "pretrained"))
    if earlier is not None:
        present = {"tokenizer": tokenizers.fingerprint(tokenizer)}
        refuse_difference(run.file, {"tokenizer": earlier["tokenizer"]}, present)
    return tokenizer


def config_of(settings: TrainSettings, data: datasets.Dataset) -> dict:
    """The content of run.json."""
    return {
        **settings.run.identity,
        "data_dir": path_from_root(settings.run, "data_dir"),
        **settings.run.reading._asdict(),
        "pretrained": path_from_root(settings.run, "pretrained"),
        "weights": pretrained.fingerprint(settings.run.pretrained),
        "tokenizer": None,
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


def check_online(settings: TrainSettings) -> None:
    """UserError where the shadow models of --split online are too few, or not made as the victim is."""
    if settings.layout != splits.ONLINE:
        return
    if settings.shadow_num < splits.LEAST_ONLINE:
        raise UserError(
            f"--split online needs --shadow_num {splits.LEAST_ONLINE} or more: each point must have a shadow model "
            "that trained on it and one that did not"
        )
    defence = settings.run.defence
    if defence.name and not defence.adaptive:
        raise UserError("--split online compares the victim with shadow models made like it: add --adaptive")
    if defence.name and DEFENCES[defence.name].step.needs_reserve:
        raise UserError(f"--split online does not go with --defend {defence.name}: no points are left for its reserve")


def refuse_other_split(run: Run, earlier: dict) -> None:
    """UserError where the run that is there has another --split, or cannot get more shadow models."""
    if earlier["layout"] != run.config["layout"]:
        raise UserError(
            f"{run.file} is of a run with --split {earlier['layout']}: give the one with --split "
            f"{run.config['layout']} another --run_name"
        )
    if earlier["layout"] == splits.ONLINE and earlier["shadow_num"] != run.config["shadow_num"]:
        raise UserError(
            f"{run.file} has {earlier['shadow_num']} shadow models. With --split online their number decides which "
            "points are asked about: use the same number, or another --run_name"
        )


def check_network(settings: RunSettings) -> None:
    """UserError for an unknown network, or for one that takes another kind of input or larger images than the data."""
    dataset_name, model_name = settings.identity["dataset_name"], settings.identity["model_name"]
    if model_name not in models.NAMES:
        raise UserError(f"unknown model {model_name!r}: choose from {', '.join(models.NAMES)}")
    if settings.data_dir is not None and not settings.data_dir.exists():
        raise UserError(f"--data_dir {escape(settings.data_dir)} does not exist")
    kind = datasets.kind_of(dataset_name, settings.data_dir, settings.reading)
    taken = KINDS[models.NETWORKS[model_name].takes]
    if taken.name != kind.name:
        advice = f"use --model_name {' or '.join(models.names_for(kind.name))}"
        raise UserError(f"{dataset_name} is {kind.one_set}, {model_name} a network for {taken.sets}: {advice}")
    if settings.pretrained is not None:
        pretrained.check(settings.pretrained, model_name)
        if settings.identity["width"] != DEFAULT_WIDTH:
            raise UserError(f"--pretrained: the folder's {model_name} has a size of its own, so leave --width out")
    if kind is IMAGES:
        check_size(model_name, settings.image_size or SIDE)
    elif settings.image_size is not None:
        raise UserError(f"{dataset_name} is {kind.one_set}, --image_size is for images: leave it out")


def check_size(model_name: str, side: int) -> None:
    """UserError where images are too small for the network or for the control that looks at them without a model."""
    network = models.NETWORKS[model_name]
    if side < network.least_side:
        raise UserError(
            f"{model_name} halves images {network.halvings} times: --image_size must be at least {network.least_side}"
        )
    if side < PATCHES:
        raise UserError(f"--image_size must be at least {PATCHES}, not {side}")


def check_classes(data: datasets.Dataset, dataset_name: str, num_cls: int | None) -> None:
    """UserError where there is nothing to classify, or --num_cls says something else than the data."""
    classes = len(data.classes)
    if classes < 2:
        raise UserError(f"{dataset_name} has {classes} class: at least 2 are needed")
    if num_cls not in (None, classes):
        raise UserError(f"--num_cls is {num_cls}, {dataset_name} has {classes} classes: leave it out")


def check_defence(run: Run, split: splits.Split) -> None:
    """UserError where the run's defence cannot train its network, or has too few points for its parts or a reserve."""
    if not run.defence.name:
        return
    check_argument(run.defence)
    if parts := DEFENCES[run.defence.name].parts:
        for role, pair in zip(run.roles, split.pairs, strict=False):
            if run.defence.defends(role):
                parts.check(run.defence.argument, len(pair.train))
    step = DEFENCES[run.defence.name].step
    step.check(network(run))
    if step.needs_reserve:
        for row, role in enumerate(run.roles):
            if run.defence.defends(role):
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


def write_run(run: Run, split: splits.Split, audit: splits.Split, tokenizer: str | None) -> None:
    """Write the two index files and the tokenizer, if there is one, and run.json last."""
    if tokenizer is not None:
        write_text(places.tokenizer_file(run.root, run.name), tokenizer)
    files = places.index_files(run.root, run.config["split"])
    for file, part in zip(files, (split, audit), strict=True):
        index_files.write_index(file, part.pairs)
    write_json(run.file, run.config)
