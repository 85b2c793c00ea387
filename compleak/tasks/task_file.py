"""Reading a task file: YAML, checked key by key before anything is done. Paths start from the file's own folder.

name: my_classifier
models:
  original: original.onnx
  int8: {file: int8.onnx, output: logits}
members: data/train
nonmembers: data/test
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path

import attacks
from compleak.queries.answer_files import is_signals_file
from compleak.queries.probes import PROBES
from compleak.runs.flags import answers_of_text
from compleak.runs.settings import AnswersSettings
from compleak.tasks.points import FEWEST
from compleak.tasks.task import LIMITS, RUN_PREFIX, ModelEntry, ShadowEntry, ShadowTraining, Task
from compleak.tasks.yaml_files import check_keys
from core.errors import UserError
from data.foreign import Preprocessing
from data.views import MOST_VIEWS

NUMBER = (int, float)
KEYS = {
    "name": str,
    "models": (dict, list),
    "members": str,
    "nonmembers": str,
    "data": str,
    "label_column": str,
    "classes": list,
    "preprocessing": dict,
    "attacker": str,
    "shadows": (list, dict),
    "references": list,
    "answers": str,
    "adaptive": bool,
    "attacks": dict,
    "release": dict,
    "seed": int,
    "max_points": int,
    "sensitivity_draws": int,
    "queries": int,
    "label_queries": int,
    "noise_repeats": int,
    "boundary_points": int,
    "no_flip": bool,
    "recipe": str,
    "batch_size": int,
    "fail_above": str,
    "redact": bool,
    "accept_low_accuracy": bool,
    "out": str,
}
MODEL_KEYS = {"file": str, "input": str, "output": str, "weights": str}
SHADOW_KEYS = {"models": dict, "members": str, "nonmembers": str, "audited": str, "data": str}
TRAINING_KEYS = {"data": str, "count": int, "epochs": int, "lr": NUMBER, "batch_size": int, "optimizer": str}
PREPROCESSING_KEYS = {
    "size": (int, list),
    "resize": int,
    "mean": (*NUMBER, list),
    "std": (*NUMBER, list),
    "range": list,
    "layout": str,
    "channels": str,
    "resample": str,
    "flatten": bool,
}
CHOICES = {
    "attacker": ("known_half", "shadows"),
    "recipe": ("fast", "paper"),
    "fail_above": LIMITS,
    "optimizer": ("adam", "sgd"),
    "layout": ("NCHW", "NHWC"),
    "channels": ("RGB", "BGR", "grey"),
    "resample": ("nearest", "bilinear", "bicubic"),
}
ASKED = ("sensitivity_draws", "queries", "label_queries", "noise_repeats", "boundary_points")
PLAIN = ("seed", "max_points", *ASKED, "no_flip", "recipe", "batch_size")
AT_LEAST = {"seed": 0, **dict.fromkeys(ASKED, 0), "batch_size": 1, "count": 1, "epochs": 1}
ENDINGS = (".onnx", ".pt2", ".tflite", ".py", ".npz", ".csv")  # of models: a name such as `bert-v1.0` keeps its dots
LARGEST_SEED = 2**31 - 1  # as of --seed
AT_MOST = {"queries": MOST_VIEWS, "label_queries": MOST_VIEWS}


def task_from_content(content: dict, folder: Path, where: str, command: str) -> Task:
    """The task that a task file's content means, its paths starting from `folder`.

    where: what messages call the file. UserError, in one line, for whatever is wrong with the content.
    """
    check_keys(content, KEYS, where, required=("models",))
    check_values(content, where)
    models = read_models(content["models"], folder, where)
    names = [model.name for model in models]
    shadows = content.get("shadows", [])
    training = read_training(shadows, folder, where) if isinstance(shadows, dict) else None
    entries = () if training else tuple(read_shadow(entry, names, folder, where) for entry in shadows)
    if content.get("attacker") == "shadows" and not (entries or training or bring_shadows(models, content)):
        raise UserError(f"{where}: attacker is shadows, but there are none: list them under shadows:")
    return Task(
        models=models,
        name=content.get("name") or models[0].name,
        command=command,
        members=path_of(content, "members", folder),
        nonmembers=path_of(content, "nonmembers", folder),
        data=path_of(content, "data", folder),
        label_column=content.get("label_column"),
        classes=tuple(map(str, content["classes"])) if "classes" in content else None,
        preprocessing=read_preprocessing(content.get("preprocessing", {}), where),
        attacker=content.get("attacker"),
        shadows=entries,
        shadow_training=training,
        references=tuple(read_reference(entry, names, folder, where) for entry in content.get("references", [])),
        answers=read_defence_of_answers(content, where),
        attacks=read_attacks(content.get("attacks", {}), where),
        release={str(key): str(value) for key, value in content.get("release", {}).items()},
        fail_above=content.get("fail_above"),
        redact=content.get("redact", False),
        accept_low_accuracy=content.get("accept_low_accuracy", False),
        out=path_of(content, "out", folder),
        **{key: content[key] for key in PLAIN if key in content},
    )


def check_values(content: Mapping, where: str) -> None:
    """UserError where a value is none of its choices, too small or too large."""
    for key, choices in CHOICES.items():
        if key in content and content[key] not in choices:
            raise UserError(f"{where}: {key} is {content[key]!r}: use {' or '.join(choices)}")
    for key, least in AT_LEAST.items():
        if key in content and content[key] < least:
            raise UserError(f"{where}: {key} is {content[key]}: {least} is the least")
    check_max_points(content, where)
    if content.get("seed", 0) > LARGEST_SEED:
        raise UserError(f"{where}: seed is {content['seed']}: {LARGEST_SEED} is the most")
    for key, most in AT_MOST.items():
        if key in content and content[key] > most:
            raise UserError(f"{where}: {key} is {content[key]}: there are {most} crops and flips")
    for probe in PROBES.values():
        if 0 < content.get(probe.flag, 0) < probe.least:
            raise UserError(
                f"{where}: {probe.flag} is {content[probe.flag]}: {probe.least} is the least, or 0 for none"
            )
    if "lr" in content and not 0 < content["lr"] < float("inf"):
        raise UserError(f"{where}: lr is {content['lr']}: a positive number is needed")


def check_max_points(content: Mapping, where: str) -> None:
    """UserError where so few points are to be audited that an attack could not learn from half of them."""
    most = content.get("max_points", 2 * FEWEST)
    if most < 2 * FEWEST:
        kinds = f"{max(most, 0) // 2} members and {max(most, 0) // 2} non-members"
        raise UserError(f"{where}: max_points {most} leaves {kinds}: {2 * FEWEST} is the least")


def path_of(content: Mapping, key: str, folder: Path) -> Path | None:
    return folder / content[key] if key in content else None


def bring_shadows(models: Sequence[ModelEntry], content: Mapping) -> bool:
    """Whether the models may come with shadow models of their own: those of a signals file, or of a run."""
    runs_points = "members" not in content and "data" not in content
    return any(runs_points if model.is_of_run else is_signals_file(model.path) for model in models)


def read_models(content: dict | list, folder: Path, where: str) -> tuple[ModelEntry, ...]:
    """The models to audit, by name in a mapping or named after their files in a list. UserError where there is none."""
    if not content:
        raise UserError(f"{where}: models is empty: name the original first, then its compressed versions")
    if isinstance(content, dict):
        return tuple(read_model(str(name), entry, folder, where) for name, entry in content.items())
    places = [entry["file"] if isinstance(entry, dict) and "file" in entry else entry for entry in content]
    names = short_names([str(place) for place in places], folder)
    return tuple(read_model(name, entry, folder, where) for name, entry in zip(names, content, strict=True))


def read_model(name: str, entry: str | dict, folder: Path, where: str) -> ModelEntry:
    if Path(name).name != name or name in ("", ".", ".."):
        raise UserError(f"{where}: {name!r} cannot name a model, since a folder is called after it: use a plain name")
    if isinstance(entry, str):
        entry = {"file": entry}
    if not isinstance(entry, dict):
        raise UserError(f"{where}: model {name} is {entry!r}: a path is needed, or a mapping with file: PATH")
    check_keys(entry, MODEL_KEYS, f"{where}, model {name}", required=("file",))
    if entry["file"] in ("", RUN_PREFIX):
        raise UserError(f"{where}: the path of a model is {entry['file']!r}: give its file, its folder or run:<run>")
    place = entry["file"] if entry["file"].startswith(RUN_PREFIX) else str(folder / entry["file"])
    return ModelEntry(name, place, entry.get("input"), entry.get("output"), path_of(entry, "weights", folder))


def short_names(places: Sequence[str], folder: Path) -> list[str]:
    """The names of these files without their endings; where two are the same, with those of folders above them."""
    parts = [name_parts(place, folder) for place in places]
    for depth in range(1, 1 + max(map(len, parts))):
        names = ["_".join(part[-depth:]).strip("/_") for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError("a model is named twice: give every version once, or name them in a task file")


def name_parts(place: str, folder: Path) -> tuple[str, ...]:
    """The names of a model's file, without its ending, and of the folders above it."""
    path = Path(place.removeprefix(RUN_PREFIX))
    if place.startswith(RUN_PREFIX):
        return path.parts or (place,)
    if path.name in ("", ".."):  # such as `.`, which has a name only where it lies
        path = Path(os.path.abspath(folder / path))
    return (path.with_suffix("") if path.suffix.lower() in ENDINGS else path).parts


def read_shadow(entry: dict, names: Sequence[str], folder: Path, where: str) -> ShadowEntry:
    where = f"{where}, shadows"
    if not isinstance(entry, dict):
        raise UserError(f"{where}: {entry!r} is no mapping with models: and members:")
    check_keys(entry, SHADOW_KEYS, where, required=("models", "members"))
    models = versions_of(entry["models"], names, folder, where)
    return ShadowEntry(models, *(path_of(entry, key, folder) for key in ("members", "nonmembers", "audited", "data")))


def versions_of(content: Mapping, names: Sequence[str], folder: Path, where: str) -> dict[str, ModelEntry]:
    """A file for each audited model. UserError where one is missing or goes with none."""
    if missing := [name for name in names if name not in content]:
        raise UserError(f"{where}: models lacks {missing[0]}: every audited model needs the same version of it")
    if unknown := [str(name) for name in content if name not in names]:
        raise UserError(f"{where}: {unknown[0]} is no audited model: they are {', '.join(names)}")
    return {name: read_model(name, content[name], folder, where) for name in names}


def read_reference(entry: str | dict, names: Sequence[str], folder: Path, where: str) -> dict[str, ModelEntry]:
    """A model that never saw the points: one file for all versions, or one for each by name."""
    where = f"{where}, references"
    if isinstance(entry, dict) and "file" not in entry:
        return versions_of(entry, names, folder, where)
    return {name: read_model(name, entry, folder, where) for name in names}


def read_training(content: dict, folder: Path, where: str) -> ShadowTraining:
    where = f"{where}, shadows"
    check_keys(content, {"train": dict}, where, required=("train",))
    recipe = content["train"]
    check_keys(recipe, TRAINING_KEYS, f"{where}, train", required=("data",))
    check_values(recipe, f"{where}, train")
    return ShadowTraining(**{**recipe, "data": folder / recipe["data"]})


def read_preprocessing(content: dict, where: str) -> Preprocessing:
    where = f"{where}, preprocessing"
    check_keys(content, PREPROCESSING_KEYS, where)
    check_values(content, where)
    stated = dict(content)
    for key in ("mean", "std"):
        if key in stated:
            stated[key] = numbers(stated[key], where, key)
    if "range" in stated:
        stated["range"] = numbers(stated["range"], where, "range", (2,))
    if "size" in stated:
        size = numbers(stated["size"], where, "size", (1, 2))
        if not all(edge.is_integer() for edge in size):
            raise UserError(f"{where}: size is {content['size']!r}: whole numbers are needed")
        stated["size"] = (int(size[0]), int(size[-1]))
    return Preprocessing(**stated)


def numbers(value, where: str, key: str, counts: Sequence[int] = (1, 3)) -> tuple[float, ...]:
    """One number or a list of them as a tuple. UserError where they are not numbers, or not as many as needed."""
    values = value if isinstance(value, list) else [value]
    if len(values) not in counts or not all(isinstance(number, NUMBER) and isfinite(number) for number in values):
        raise UserError(f"{where}: {key} is {value!r}: {' or '.join(map(str, counts))} numbers are needed")
    return tuple(map(float, values))


def read_defence_of_answers(content: dict, where: str) -> AnswersSettings:
    """What is done to answers, and whether the attacker knows it. UserError where there is no such defence."""
    try:
        answers = answers_of_text(content.get("answers", "none"))
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{where}: answers: {error}") from error
    if content.get("adaptive") and not answers.name:
        raise UserError(f"{where}: adaptive: an attacker who knows the defence of answers needs one: state answers too")
    return replace(answers, adaptive=content.get("adaptive", False))


def read_attacks(content: dict, where: str) -> dict[str, tuple[str, ...]]:
    """The attacks to run in a scenario, by its name; the usual ones where nothing is stated."""
    where = f"{where}, attacks"
    check_keys(content, dict.fromkeys(attacks.KNOWN, list), where)
    for scenario, names in content.items():
        known = {row.name for row in attacks.KNOWN[scenario]}
        if unknown := [str(name) for name in names if not isinstance(name, str) or name not in known]:
            raise UserError(f"{where}: {scenario} knows no attack {unknown[0]}: {', '.join(sorted(known))}")
    return {scenario: tuple(names) for scenario, names in content.items()}
