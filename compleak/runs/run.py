"""A run: one data set, one split, one network and one seed.

`train.py` writes `results/<run>/run.json`, and every later stage reads it: the data's place, the split and the number
of shadow models are said once, to `train.py`. Flags that are given again are checked.
"""

import functools
import glob
import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

import models
from compleak.runs import checkpoints, names, places, pretrained, tokenizers
from compleak.runs.roles import VICTIM, roles_of
from compleak.runs.settings import UNDEFENDED, DefenceSettings, RunSettings
from compleak.runs.variants import ORIGINAL, TECHNIQUES, Variant, compressed_variant, in_paper_order
from core.errors import UserError
from core.files import read_json, stamp
from data import datasets, splits
from data.inputs import KINDS, InputKind

REQUIRED_KEYS = {"dataset_name", "data_dir", "data", "images", "num_cls", "model_name", "width", "seed", "max_points"}
REQUIRED_KEYS |= {"label_noise", "split", "shadow_num"}
READING_KEYS = datasets.Reading._fields
OF_TEXTS = {"pretrained": None, "weights": None, "tokenizer": None}
# What a run.json means that was written before these keys.
LATER_KEYS = {
    "features": None,
    "layout": splits.COMPLEAK,
    **dict.fromkeys(READING_KEYS),
    **OF_TEXTS,
    **UNDEFENDED.as_config(),
}
CHECKED_KEYS = ("dataset_name", "model_name", "width", "num_cls", *READING_KEYS)


@dataclass(frozen=True)
class Run:
    """`name` is the run's folder under results/; `config` is the content of its run.json."""

    root: Path
    name: str
    config: dict

    @property
    def dir(self) -> Path:
        return places.run_dir(self.root, self.name)

    @property
    def file(self) -> Path:
        return self.dir / "run.json"

    @property
    def roles(self) -> list[str]:
        return roles_of(self.config["shadow_num"])

    @property
    def defence(self) -> DefenceSettings:
        return DefenceSettings.from_config(self.config)

    @property
    def kind(self) -> InputKind:
        """The kind of input that its network takes."""
        return KINDS[models.NETWORKS[self.config["model_name"]].takes]

    def row_of(self, role: str) -> int:
        return self.roles.index(role)

    def role_dir(self, variant: Variant, role: str) -> Path:
        return places.role_dir(self.root, self.name, variant, role)

    def signals_file(self, variant: Variant) -> Path:
        return places.signals_file(self.root, self.name, variant)

    def name_flags(self) -> list[str]:
        """The flags that name this run again."""
        return names.flags_of(self.config, self.defence, self.name, self.root)


def open_run(settings: RunSettings) -> Run:
    """The run that the settings name. UserError where train.py has not made it, or made it from something else."""
    name = names.name_of(settings)
    file = places.run_dir(settings.root, name) / "run.json"
    if not file.exists():
        words = names.flags_of(settings.identity, settings.defence, settings.run_name, settings.root)
        command = shlex.join(["python", "train.py", *words])
        raise UserError(f"there is no run {name} in {file.parent.parent}: first {command}")
    config = read_config(file)
    typed = {key: getattr(settings, key) for key in CHECKED_KEYS if getattr(settings, key) is not None}
    if settings.defence != UNDEFENDED:
        typed |= settings.defence.as_config()
    checkpoints.refuse_difference(file, {key: config[key] for key in typed}, typed)
    if settings.pretrained is not None:
        refuse_other_pretrained(file, config, settings.pretrained)
    for key in ("data_dir", "pretrained"):
        if getattr(settings, key) is not None:
            config[key] = path_from_root(settings, key)
    return Run(settings.root, name, config)


def refuse_other_pretrained(file: Path, config: dict, folder: Path) -> None:
    """UserError where the folder of --pretrained holds other weights than those that the run started from."""
    pretrained.check(folder, config["model_name"])
    checkpoints.refuse_difference(file, {"weights": config["weights"]}, {"weights": pretrained.fingerprint(folder)})


def read_config(file: Path) -> dict:
    """The content of a run.json, of any age. UserError where it lacks a key."""
    config = read_json(file)
    if lacks := REQUIRED_KEYS - config.keys():
        raise UserError(f"{file} lacks {', '.join(sorted(lacks))}: delete it and run train.py again")
    return {**LATER_KEYS, **config}


def path_from_root(settings: RunSettings, key: str) -> str | None:
    """--data_dir or --pretrained as seen from the root folder, so that stages started in any folder find it."""
    path = getattr(settings, key)
    return os.path.relpath(path, settings.root) if path else None


def path_of(run: Run, key: str) -> Path | None:
    """Where the run's data_dir or pretrained network lies; the root folder need not be there yet."""
    return Path(os.path.normpath(run.root / run.config[key])) if run.config[key] else None


def dataset(run: Run) -> datasets.Dataset:
    """The run's data, labels as they are trained on and texts as tokens.

    UserError where data or tokenizer are no longer what they were.
    """
    config = run.config
    place = path_of(run, "data_dir")
    reading = datasets.Reading(*(config[key] for key in READING_KEYS))
    data = load_dataset(config["dataset_name"], place, run.root, reading)
    checkpoints.refuse_difference(run.file, {"data": config["data"]}, {"data": data.fingerprint})
    if data.kind.encode is not None:
        data = load_tokens(tokenizer_of(run), config["dataset_name"], place, run.root, reading)
    return data._replace(labels=noisy_labels(data.labels, len(data.classes), config))


def load_dataset(name: str, place: Path | None, root: Path, reading: datasets.Reading) -> datasets.Dataset:
    """The data set, read once in a process, however its place is spelt."""
    return datasets.load(name, Path(os.path.abspath(place)) if place else None, places.downloads(root), reading)


def tokenizer_of(run: Run) -> str:
    """The tokenizer of a run on texts, as JSON. UserError where it is missing or another one."""
    return tokenizers.read(places.tokenizer_file(run.root, run.name), run.config["tokenizer"])


@functools.lru_cache(maxsize=1)
def load_tokens(
    tokenizer: str, name: str, place: Path | None, root: Path, reading: datasets.Reading
) -> datasets.Dataset:
    """A data set of texts as tokens, made once in a process."""
    return load_dataset(name, place, root, reading).with_tokens(tokenizer)


def noisy_labels(labels: np.ndarray, classes: int, config: dict) -> np.ndarray:
    """Labels (N,), a share of them drawn anew, for members and non-members alike: wrong ones can only be memorised."""
    rng = np.random.default_rng([config["seed"], 20_000])  # splits use the numbers below
    drawn = rng.integers(classes, size=len(labels))
    replaced = rng.random(len(labels)) < config["label_noise"]
    return np.where(replaced, drawn, labels)


def network(run: Run) -> nn.Module:
    """The run's network, freshly initialised. The caller seeds torch."""
    config = run.config
    sizes = config["num_cls"], config["width"], config["features"]
    return models.build(config["model_name"], *sizes, path_of(run, "pretrained"))


def split(run: Run) -> tuple[splits.Split, splits.Split]:
    """The run's split, and the audit sets drawn from it."""
    whole, audit = whole_split(run)
    count = len(run.roles)
    return splits.Split(whole.pairs[:count]), splits.Split(audit.pairs[:count])


def whole_split(run: Run) -> tuple[splits.Split, splits.Split]:
    """Split and audit sets of all shadow models that the index files hold; another run may have more than this one."""
    files = places.index_files(run.root, run.config["split"])
    config = run.config
    stamps = tuple(map(stamp, files))
    sizes = {key: config[key] for key in ("shadow_num", "seed", "max_points", "layout")}
    return _read_split(files, stamps, config["images"], **sizes)


@functools.lru_cache(maxsize=1)  # with many shadow models it takes most of a second, and every query needs it
def _read_split(files, stamps, images: int, **sizes):
    return splits.load_or_make(*files, images, **sizes)


def reserve_of(run: Run, row: int) -> tuple[np.ndarray, np.ndarray]:
    """What the model in this row trains on, and the reserve of its defence: `splits.make_reserve`.

    Both are the same whether or not the attacker is adaptive, so that runs can share models. UserError where there are
    too few points.
    """
    whole, audit = split(run)
    return splits.make_reserve(whole, audit, row, run.config["images"], run.config["seed"])


def defence_in_words(run: Run) -> str:
    """The run's defence in words, "" where it has none."""
    defence = run.defence
    if defence == UNDEFENDED:
        return ""
    where = "throughout"
    if defence.undefended_original:
        where = "in fine-tuning alone"
    if defence.undefended_finetuning:
        where = "in the original's training alone"
        defence = replace(defence, finetuning_lr=None)  # it has no part in plain fine-tuning
    attacker = "adaptive" if defence.adaptive else "non-adaptive"
    recipe = f" ({defence.recipe})" if defence.recipe else ""
    return f"victim defended {where} by {defence.name} {defence.argument:g}{recipe}, {attacker} attacker"


def finished_variants(run: Run) -> list[Variant]:
    """The variants whose victim is finished, in the paper's order, whichever degrees they have."""
    variants = [ORIGINAL] if checkpoints.is_finished(run.role_dir(ORIGINAL, VICTIM)) else []
    for technique in TECHNIQUES:
        for folder in (run.root / f"results_{technique}").glob(f"{glob.escape(run.name)}_*"):
            variants += _variant_in(run, technique, folder.name.removeprefix(f"{run.name}_"))
    return in_paper_order(variants)


def _variant_in(run: Run, technique: str, degree: str) -> list[Variant]:
    """The finished variant in `results_<technique>/<run>_<degree>/`; none where the folder is another run's."""
    try:
        variant = compressed_variant(technique, degree)
    except UserError:
        return []
    is_own = variant.degree == degree and checkpoints.is_finished(run.role_dir(variant, VICTIM))
    return [variant] if is_own else []
