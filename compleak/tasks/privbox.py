"""Reading PrivBox's task files as they stand: a list of attacks, each with `type`, `name` and `args`.

The folders that a task names hold plug-ins, as in PrivBox: one Python file with `get_dataset()` or `get_model()`, and
for a model at most one file of weights. They are the user's own code, which runs when the task does. Reading a task
file runs none of it; everything that can be checked without running it is checked here.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from attacks.ml_leak import Classifier
from compleak.tasks.yaml_files import check_keys, read_yaml
from core.errors import UserError

TYPE = "MEMBERSHIP_INFERENCE_ATTACK"
OF_PADDLE = (".pdparams", ".pdopt", ".pdmodel", ".pdiparams")
BATCH_SIZE = 128  # of BASELINE, which has no key for it
LARGEST_ANGLE = 180

SHADOW_KEYS = {
    "target_datasets": list,
    "target_model": str,
    "shadow_model": str,
    "shadow_datasets": list,
    "shadow_epoch": int,
    "shadow_lr": float,
    "classifier_epoch": int,
    "classifier_lr": float,
    "batch_size": int,
}
KEYS: Mapping[str, Mapping[str, type]] = {
    "BASELINE": {"test_datasets": list, "target_model": str},
    "ML-LEAK": {**SHADOW_KEYS, "topk": int},
    "LABEL-ONLY": {**SHADOW_KEYS, "attack_type": str, "r": int},
}
POSITIVE = ("shadow_epoch", "shadow_lr", "classifier_epoch", "classifier_lr", "batch_size", "topk", "r")


@dataclass(frozen=True)
class Plugin:
    """A folder with one Python file, and perhaps weights. PrivBox calls it by the name of that file."""

    folder: Path
    code: Path
    weights: Path | None = None

    @property
    def name(self) -> str:
        return self.code.stem


@dataclass(frozen=True)
class Shadow:
    """The shadow model of an attack and how it is trained: Adam on cross-entropy, without the folder's weights."""

    model: Plugin
    datasets: tuple[Plugin, Plugin]  # its members, others
    epochs: int
    lr: float


@dataclass(frozen=True)
class PrivBoxTask:
    """One entry of a task file."""

    attack: str  # a key of KEYS
    target: Plugin
    datasets: tuple[Plugin, Plugin]  # the target's members, others
    batch_size: int = BATCH_SIZE
    shadow: Shadow | None = None  # the last four are None for BASELINE,
    classifier: Classifier | None = None
    topk: int | None = None  # this one is ML-LEAK's,
    r: int | None = None  # and this one LABEL-ONLY's: degrees


def is_privbox(content: object) -> bool:
    """Whether the content of a task file is of PrivBox's form: a list. This project's own form is a mapping."""
    return isinstance(content, list)


def read_privbox(file: Path) -> list[PrivBoxTask]:
    """The tasks of a file, each checked; nothing of theirs is run.

    Paths are relative to the working directory, as in PrivBox, or else to the file's folder. Raises UserError, one line
    that names the entry, for a key that is unknown, missing or of a wrong value, and for a folder that is missing or
    holds something else than a plug-in.
    """
    content = read_yaml(file)
    if not is_privbox(content) or not content:
        raise UserError(f"{file} is not a task file of PrivBox: it begins with `- type: {TYPE}`")
    return [read_entry(entry, f"{file}, entry {number}", file) for number, entry in enumerate(content, start=1)]


def read_entry(entry: dict, where: str, file: Path) -> PrivBoxTask:
    check_keys(entry, {"type": str, "name": str, "args": dict}, where, ("type", "name", "args"))
    refuse_unknown(entry["type"], (TYPE,), f"{where}: type")
    attack = entry["name"]
    refuse_unknown(attack, KEYS, f"{where}: name")
    args = entry["args"]
    where = f"{where} ({attack})"
    check_keys(args, KEYS[attack], where, tuple(KEYS[attack]))
    check_values(args, where)
    target = model_plugin(args["target_model"], file, f"{where}: target_model")
    if attack == "BASELINE":
        return PrivBoxTask(attack, target, read_datasets(args, "test_datasets", file, where))
    return PrivBoxTask(
        attack,
        target,
        read_datasets(args, "target_datasets", file, where),
        batch_size=args["batch_size"],
        shadow=read_shadow(args, file, where),
        classifier=Classifier(
            epochs=args["classifier_epoch"],
            lr=args["classifier_lr"],
            batch_size=args["batch_size"],
            early_stopping=attack == "ML-LEAK",
        ),
        topk=args.get("topk"),
        r=args.get("r"),
    )


def refuse_unknown(value: str, known, where: str) -> None:
    if value not in known:
        nearest = difflib.get_close_matches(value.upper(), known, n=1, cutoff=0.5)
        advice = f"did you mean {nearest[0]}?" if nearest else f"use {' or '.join(known)}"
        raise UserError(f"{where} is {value!r}; {advice}")


def check_values(args: dict, where: str) -> None:
    for key in POSITIVE:
        if key in args and args[key] <= 0:
            raise UserError(f"{where}: {key} is {args[key]}; it must be larger than 0")
    if args.get("attack_type", "r") != "r":
        raise UserError(f"{where}: attack_type is {args['attack_type']!r}; PrivBox knows r alone, which is rotation")
    if args.get("r", 1) > LARGEST_ANGLE:
        raise UserError(f"{where}: r is {args['r']}; it is an angle of at most {LARGEST_ANGLE} degrees")


def read_shadow(args: dict, file: Path, where: str) -> Shadow:
    return Shadow(
        model_plugin(args["shadow_model"], file, f"{where}: shadow_model"),
        read_datasets(args, "shadow_datasets", file, where),
        args["shadow_epoch"],
        args["shadow_lr"],
    )


def read_datasets(args: dict, key: str, file: Path, where: str) -> tuple[Plugin, Plugin]:
    """The members' and the others' data set of a task."""
    texts = args[key]
    if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: {key} must be a list of two folders, [member data set, non-member data set]")
    members, others = (plugin_in(find_folder(text, file, f"{where}: {key}"), f"{where}: {key}") for text in texts)
    if members.folder == others.folder:
        raise UserError(f"{where}: {key} names {texts[0]} twice: members and non-members are different points")
    return members, others


def model_plugin(text: str, file: Path, where: str) -> Plugin:
    """A model's plug-in, with its weights where the folder holds some."""
    from models.foreign.plugin import PADDLE, WEIGHTS

    folder = find_folder(text, file, where)
    content = sorted(folder.iterdir())
    paddle = [path for path in content if path.suffix in OF_PADDLE]
    if paddle:
        raise UserError(f"{where}: {paddle[0]}: these {PADDLE}")
    weights = [path for path in content if path.suffix in WEIGHTS]
    if len(weights) > 1:
        names = ", ".join(path.name for path in weights)
        raise UserError(f"{where}: {folder} holds {len(weights)} files of weights ({names}): leave one")
    plugin = plugin_in(folder, where)
    return Plugin(folder, plugin.code, weights[0] if weights else None)


def plugin_in(folder: Path, where: str) -> Plugin:
    """The plug-in of a folder, without weights."""
    code = sorted(folder.glob("*.py"))
    if len(code) != 1:
        names = f" ({', '.join(path.name for path in code)})" if code else ""
        raise UserError(f"{where}: {folder} holds {len(code)} Python files{names}: exactly one is wanted")
    return Plugin(folder, code[0])


def find_folder(text: str, file: Path, where: str) -> Path:
    """The folder of that name, from the working directory or else from the task file's folder."""
    folder = next((base / text for base in (Path(), file.parent) if (base / text).is_dir()), None)
    if folder is None:
        raise UserError(f"{where}: there is no folder {text}, neither in {Path.cwd()} nor in {file.parent}")
    return folder.resolve()
