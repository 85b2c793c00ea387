"""Names of runs, and the commands that messages quote."""

import os
import re
import shlex
from pathlib import Path

from compleak.runs.settings import (
    DEFAULT_WIDTH,
    UNDEFENDED,
    DefenceSettings,
    RunSettings,
    TrainSettings,
)
from core.arguments import spelled
from core.errors import UserError
from core.project import PROJECT
from defenses import DEFENCES_OF_ANSWERS
from pruning.masks import DEFAULT, PRUNERS

PAGES_OVER_RUNS = ("_seeds", "_defences", "_early_stopping", "_tuning")  # endings of folders of several runs
OTHER_PRUNERS = tuple(f"_{pruner}" for pruner in PRUNERS if pruner != DEFAULT)
BEHIND_ANSWERS = tuple(  # as `AnswersSettings.folder_suffix` spells them
    f"_{name}{'_[0-9.e+-]+' if defence.argument else ''}(_adaptive)?" for name, defence in DEFENCES_OF_ANSWERS.items()
)
# A run whose name ends like this would share folders with a pruner's models of another run, with its tables behind a
# defence of answers, or with a page over several runs.
RESERVED_ENDINGS = re.compile(f"({'|'.join((*OTHER_PRUNERS, *PAGES_OVER_RUNS, *BEHIND_ANSWERS))})$")


def default_name(identity: dict) -> str:
    """The folder of a run without --run_name: `<dataset>_<model>`.

    `_w<width>` is added where the width is not 1, `_<size>px` where images are not as large as usual.
    """
    width = "" if identity["width"] == DEFAULT_WIDTH else f"_w{identity['width']:g}"
    size = f"_{identity['image_size']}px" if identity["image_size"] else ""
    return f"{identity['dataset_name']}_{identity['model_name']}{width}{size}"


def defence_suffix(defence: DefenceSettings) -> str:
    """What a defence adds to the name of a run: `_ppb_4`, `_ppb_4_adaptive`, `_dp_1_lr0.5_batch256_finetuning_lr1`."""
    if defence == UNDEFENDED:
        return ""
    lr = "" if defence.lr is None else f"_lr{defence.lr:g}"
    batch_size = "" if defence.batch_size is None else f"_batch{defence.batch_size}"
    finetuning_lr = "" if defence.finetuning_lr is None else f"_finetuning_lr{defence.finetuning_lr:g}"
    original = "_undefended_original" if defence.undefended_original else ""
    finetuning = "_undefended_finetuning" if defence.undefended_finetuning else ""
    adaptive = "_adaptive" if defence.adaptive else ""
    return f"_{defence.name}_{defence.argument:g}{lr}{batch_size}{finetuning_lr}{original}{finetuning}{adaptive}"


def name_of(settings: RunSettings) -> str:
    """The folder of the run that the settings mean. UserError where the name would share folders with others."""
    base = settings.run_name or default_name(settings.identity)
    name = base + defence_suffix(settings.defence)
    for candidate in (base, name):
        if ending := RESERVED_ENDINGS.search(candidate):
            raise UserError(
                f"a run cannot be called {candidate}: names that end in {ending[0]} are kept for other folders; give "
                "another --run_name"
            )
    return name


def flags_of(identity: dict, defence: DefenceSettings, run_name: str | None, root: Path) -> list[str]:
    """The flags that name a run again, one word each, for commands that messages quote.

    run_name: the run's folder or --run_name, with or without what the defence adds.
    """
    words = ["--dataset_name", identity["dataset_name"], "--model_name", identity["model_name"]]
    if identity["width"] != DEFAULT_WIDTH:
        words += ["--width", spelled(identity["width"])]
    if identity["image_size"]:
        words += ["--image_size", str(identity["image_size"])]
    if defence != UNDEFENDED:
        words += ["--defend", defence.name, "--defend_arg", spelled(defence.argument)]
        words += [] if defence.lr is None else ["--defend_lr", spelled(defence.lr)]
        words += [] if defence.batch_size is None else ["--defend_batch_size", str(defence.batch_size)]
        rate = defence.finetuning_lr
        words += [] if rate is None else ["--defend_finetuning_lr", spelled(rate)]
        words += ["--adaptive"] if defence.adaptive else []
        words += ["--undefended_original"] if defence.undefended_original else []
        words += ["--undefended_finetuning"] if defence.undefended_finetuning else []
    base = run_name.removesuffix(defence_suffix(defence)) if run_name else None
    if base not in (None, default_name(identity)):
        words += ["--run_name", base]
    if root != PROJECT:
        words += ["--root", str(root)]
    return words


def train_command(config: dict, name: str, root: Path) -> str:
    """The command that trains a run's models, but for the recipe, which run.json does not hold."""
    usual = {
        "seed": TrainSettings.seed,
        "max_points": TrainSettings.max_points,
        "layout": TrainSettings.layout,
        "label_noise": TrainSettings.label_noise,
        "shadow_num": TrainSettings.shadow_num,
    }
    words = ["python", "train.py", *flags_of(config, DefenceSettings.from_config(config), name, root)]
    for key, default in usual.items():
        if config[key] != default:
            words += ["--split" if key == "layout" else f"--{key}", str(config[key])]
    for key in ("label_column", "text_column", "min_class"):
        if config[key]:
            words += [f"--{key}", str(config[key])]
    for key in ("data_dir", "pretrained"):
        if config[key]:
            words += [f"--{key}", os.path.abspath(root / config[key])]
    return shlex.join(words)
