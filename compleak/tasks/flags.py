"""The flags of `audit.py`. Each is a key of the task file; a flag that is given wins over the file."""

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from compleak.queries.probes import PROBES
from compleak.runs.flags import add_answers_flag, add_machine_flags
from compleak.tasks.privbox import PrivBoxTask, is_privbox, read_privbox
from compleak.tasks.task import LIMITS, RUN_PREFIX, Task
from compleak.tasks.task_file import ASKED, CHOICES, task_from_content
from compleak.tasks.yaml_files import read_yaml
from core import arguments
from core.errors import UserError

TASK_SUFFIXES = (".yaml", ".yml")
SHORT_FORM = "the command line"
PATHS = ("members", "nonmembers", "data", "out")
PLAIN = ("name", "label_column", "attacker", "seed", "max_points", "recipe", "batch_size", *ASKED, "no_flip")
PLAIN = (*PLAIN, "adaptive", "fail_above", "redact", "accept_low_accuracy")
OF_PREPROCESSING = ("size", "resize", "mean", "std", "range", "layout", "channels", "resample", "flatten")


def audit_parser(doc: str) -> argparse.ArgumentParser:
    parser = arguments.script_parser(doc)
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="the original and its compressed versions; or a task file (.yaml)"
    )
    add_data_flags(parser)
    add_preprocessing_flags(parser)
    add_attacker_flags(parser)
    add_report_flags(parser)
    add_machine_flags(parser, "128")
    parser.set_defaults(batch_size=None, answers=None)  # a task file may state them
    return parser


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--members", metavar="DATA", help="points that the models were trained on")
    group.add_argument("--nonmembers", metavar="DATA", help="points of the same kind that they were not trained on")
    group.add_argument("--data", metavar="DATA", help="all points; --members and --nonmembers are then lists of them")
    group.add_argument("--label_column", metavar="NAME", help="of CSV files (default: label, class, target or y)")
    group.add_argument("--classes", nargs="+", metavar="NAME", help="in the order of the models' outputs")
    group.add_argument("--max_points", type=arguments.positive_int, help="audit at most so many points, 8 or more")
    group.add_argument("--input", metavar="NAME", help="which input of the models, where there are several")
    group.add_argument("--output", metavar="NAME", help="which output of the models, where there are several")
    group.add_argument(
        "--accept_low_accuracy", action="store_true", help="go on where the original is near chance on these data"
    )


def add_preprocessing_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("preprocessing (default: what lies beside the model, else pixels from 0 to 1)")
    group.add_argument("--size", nargs="+", type=int, metavar="PIXELS", help="height and width, or one for both")
    group.add_argument(
        "--resize", type=int, metavar="PIXELS", help="of the shortest edge, before a central crop to size"
    )
    group.add_argument("--mean", nargs="+", type=float, help="one, or one a channel")
    group.add_argument("--std", nargs="+", type=float, help="one, or one a channel")
    group.add_argument("--range", nargs=2, type=float, metavar=("LOW", "HIGH"), help="what pixels 0 and 255 become")
    for name in ("layout", "channels", "resample"):
        group.add_argument(f"--{name}", choices=CHOICES[name])
    group.add_argument("--flatten", action="store_true", default=None, help="an image becomes one row")


def add_attacker_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("attacker")
    group.add_argument(
        "--attacker",
        choices=CHOICES["attacker"],
        help="known_half: knows half of the points; shadows: has shadow models, which a task file names "
        "(default: shadows where there are any)",
    )
    group.add_argument("--references", nargs="+", metavar="MODEL", help="models that never saw any of the points")
    add_answers_flag(group)
    group.add_argument(
        "--adaptive", action="store_true", default=None, help="the attacker knows the defence that --answers names"
    )
    group.add_argument("--recipe", choices=CHOICES["recipe"], help="training of the attacks' networks")
    group.add_argument("--sensitivity_draws", type=arguments.whole_number, help="noise draws for SAMIA (default: 0)")
    for name in ("augmented", "correct", "noise", "boundary"):
        probe = PROBES[name]
        group.add_argument(f"--{probe.flag}", type=arguments.whole_number, help=f"{probe.help} (default: 0)")
    group.add_argument(
        "--no_flip", action="store_true", default=None, help="ask about no mirrored images: they are of another class"
    )
    group.add_argument("--seed", type=arguments.seed, help="of draws, attacks and the bootstrap (default: 7)")
    group.add_argument("--again", action="store_true", help="attack anew where tables of the same answers are there")


def add_report_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("report")
    group.add_argument("--name", type=arguments.folder_name, help="of the audit (default: the original's)")
    group.add_argument("--out", metavar="DIR", help="folder for everything (default: results/audits/<name>)")
    group.add_argument(
        "--fail_above", choices=LIMITS, help="exit with code 1 unless the level is shown not to be higher"
    )
    group.add_argument("--redact", action="store_true", default=None, help="leave out which records are exposed")


def tasks_of(doc: str, argv=None) -> tuple[Task, ...]:
    """What a command line asks for: one task; of a PrivBox file one for each audited model.

    UserError where something is wrong with it.
    """
    args = audit_parser(doc).parse_args(argv)
    command = shlex.join(["python", "audit.py", *(sys.argv[1:] if argv is None else argv)])
    tasks = list(read_tasks(args, content_of_flags(args), command))
    return tuple(
        replace(task, threads=args.threads, device=args.device, root=args.root, again=args.again) for task in tasks
    )


def read_tasks(args: argparse.Namespace, stated: dict, command: str) -> Iterator[Task]:
    """The tasks of a task file, or of the command line alone. stated: the flags as a task file would spell them."""
    file = Path(args.models[0])
    if file.suffix not in TASK_SUFFIXES:
        models = with_chosen_tensors(args.models, args)
        yield task_from_content({"models": models, **stated}, Path(), SHORT_FORM, command)
        return
    if len(args.models) > 1:
        raise UserError(f"{file} is a task file, which names its models: leave out {args.models[1]}")
    content = read_yaml(file)
    stated = with_absolute_paths(stated)
    if is_privbox(content):
        yield from privbox_tasks(read_privbox(file), file, stated, args, command)
        return
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no mapping: a task has keys such as models:, members: and nonmembers:")
    merged = {"name": file.stem, **content, **stated}
    if "models" in merged:
        merged["models"] = with_chosen_tensors(merged["models"], args)
    if "preprocessing" in stated and isinstance(content.get("preprocessing"), dict):
        merged["preprocessing"] = {**content["preprocessing"], **stated["preprocessing"]}
    yield task_from_content(merged, file.parent, str(file), command)


def privbox_tasks(
    attacks: Sequence[PrivBoxTask], file: Path, stated: dict, args: argparse.Namespace, command: str
) -> Iterator[Task]:
    """A task for each model and pair of data sets that PrivBox's attacks are about, with those attacks."""
    if stated.get("answers", "none") != "none":
        raise UserError(
            f"{file}: PrivBox's attacks ask the model itself: leave out --answers, or audit without this file"
        )
    subjects: dict[tuple, list[PrivBoxTask]] = {}
    for attack in attacks:
        subjects.setdefault((attack.target, attack.datasets), []).append(attack)
    for number, ((target, (members, nonmembers)), of_subject) in enumerate(subjects.items()):
        name = file.stem if len(subjects) == 1 else f"{file.stem}_{number}"
        models = with_chosen_tensors({target.name: str(target.folder.absolute())}, args)
        content = {"name": name, **stated, "models": models}
        content |= {"members": str(members.folder.absolute()), "nonmembers": str(nonmembers.folder.absolute())}
        if "out" in stated and len(subjects) > 1:
            content["out"] = str(Path(stated["out"]) / name)
        task = task_from_content(content, Path(), str(file), command)
        yield replace(task, privbox=tuple(of_subject), privbox_file=file)


def with_chosen_tensors(models: list | dict, args: argparse.Namespace) -> list | dict:
    """The models as a task file would spell them, with the input and the output that the flags choose."""
    chosen = {key: getattr(args, key) for key in ("input", "output") if getattr(args, key)}
    if isinstance(models, dict):
        return {name: with_keys(entry, chosen) for name, entry in models.items()}
    return [with_keys(entry, chosen) for entry in models] if isinstance(models, list) else models


def with_keys(entry: str | dict, chosen: dict) -> str | dict:
    """A model's entry with these keys; what is no entry stays as it is, and is refused later."""
    if isinstance(entry, str):
        entry = {"file": entry}
    return {**entry, **chosen} if isinstance(entry, dict) else entry


def content_of_flags(args: argparse.Namespace) -> dict:
    """The flags that were given, as a task file would spell them."""
    given = {key: getattr(args, key) for key in (*PATHS, *PLAIN)}
    content = {key: value for key, value in given.items() if value is not None and value is not False}  # but 0 is said
    for key in ("classes", "references"):
        if getattr(args, key):
            content[key] = getattr(args, key)
    if args.answers is not None:
        content["answers"] = str(args.answers)
    preprocessing = {key: getattr(args, key) for key in OF_PREPROCESSING if getattr(args, key) is not None}
    return {**content, "preprocessing": preprocessing} if preprocessing else content


def with_absolute_paths(content: dict) -> dict:
    """Flags' paths start from the folder one is in, a task file's from its own."""
    paths = {key: os.path.abspath(content[key]) for key in PATHS if key in content}
    if "references" in content:
        places = content["references"]
        paths["references"] = [place if place.startswith(RUN_PREFIX) else os.path.abspath(place) for place in places]
    return {**content, **paths}
