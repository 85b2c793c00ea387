"""Which reader reads a source, and how two sources are read with one numbering of classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core import console
from core.errors import UserError, escape
from data.foreign.arrays import read_npz
from data.foreign.idx_files import is_images_file, read_idx
from data.foreign.image_folders import class_folders, read_image_archive, read_image_folder
from data.foreign.json_lines import read_json_lines
from data.foreign.plugin_datasets import FUNCTION, read_plugin
from data.foreign.points import Points, Records, to_points
from data.image_files import is_hidden

COMPRESSED = ("", ".gz", ".bz2", ".xz")
CSV_ENDINGS = tuple(f".csv{ending}" for ending in COMPRESSED)
JSON_LINES_ENDINGS = tuple(f".jsonl{ending}" for ending in COMPRESSED)
TAR_ENDINGS = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
READ = (
    "a folder or tar of class folders, an .npz, a .csv or .jsonl (also .gz, .bz2, .xz), a *-images-idx3-ubyte file, or "
    "a .py with get_dataset()"
)


def read_points(source: Path, *, label_column: str | None = None, classes: Sequence[str] | None = None) -> Points:
    """The records of one source, whatever its kind; prints a line that says what there is and what was skipped.

    label_column: of a CSV or JSON Lines file; classes: the names of the classes in the order of the model's outputs,
    where this is not the sorted order (see `to_points`).

    Raises UserError where the source is of no kind that is read, damaged, or does not fit what is said of it.
    """
    return _number_and_say([_read(Path(source), label_column)], classes)[0]


def read_pair(
    members: Path, nonmembers: Path, *, label_column: str | None = None, classes: Sequence[str] | None = None
) -> tuple[Points, Points]:
    """Members and non-members with one numbering of classes; a class that only one of them has is numbered as well.

    Raises UserError as `read_points` does, and where both are the same source or of two kinds.
    """
    sources = Path(members), Path(nonmembers)
    if sources[0].resolve() == sources[1].resolve():
        raise UserError(f"members and non-members are both {escape(members)}: give two sources")
    parts = [_read(source, label_column) for source in sources]
    _check_alike(*parts)
    points = _number_and_say(parts, classes)
    if points[0].fingerprint == points[1].fingerprint:
        raise UserError(f"{escape(members)} and {escape(nonmembers)} hold the same records: give two sources")
    return points[0], points[1]


def _check_alike(members: Records, nonmembers: Records) -> None:
    """UserError where the records of two sources cannot reach a model by one path."""
    forms = [(part.kind, _form(part)) for part in (members, nonmembers)]
    if forms[0] != forms[1]:
        raise UserError(
            f"members are {members.described}, non-members are {nonmembers.described}: give both in one form, or "
            "they are told apart by it"
        )
    if members.columns and nonmembers.columns and members.columns != nonmembers.columns:
        pairs = enumerate(zip(members.columns, nonmembers.columns, strict=True), start=1)
        number, (one, other) = next((number, names) for number, names in pairs if names[0] != names[1])
        raise UserError(
            f"feature {number} is {escape(one)!r} in {escape(members.files[0])}, but {escape(other)!r} in "
            f"{escape(nonmembers.files[0])}: give both the same columns in the same order"
        )


def _form(part: Records) -> tuple | None:
    """The shape and type that all records of this source have; None where each has its own."""
    if part.kind in ("images", "text"):
        return None
    record = part.load(np.array([0]))[0]
    return record.shape, record.dtype


def _number_and_say(parts: Sequence[Records], classes: Sequence[str] | None) -> list[Points]:
    points = to_points(parts, classes)
    warning = _warn_of_numbering(parts, points[0].classes) if classes is None else ""
    for part, numbered in zip(parts, points, strict=True):
        console.say("; ".join(text for text in (_count(part, numbered), warning, part.notes) if text))
    return points


def _warn_of_numbering(parts: Sequence[Records], classes: tuple[str, ...]) -> str:
    """What users may have meant otherwise, where they did not name the classes."""
    are_numbers = parts[0].labels.dtype.kind == "i"
    if are_numbers and all(part.labels.min() > 0 for part in parts):
        return "no label is 0, so label 1 means the model's second output; if it means the first, name the classes"
    if not are_numbers and list(classes) != sorted(classes):
        return "classes are numbered as numbers, 2 before 10; torchvision's ImageFolder has 10 before 2"
    return ""


def _count(part: Records, points: Points) -> str:
    present = len(np.unique(points.labels))
    total = len(points.classes)
    count = f"{total:,} classes" if present == total else f"{present:,} of {total:,} classes"
    return f"{escape(part.files[0])}: {part.described} of {count}"


def _read(source: Path, label_column: str | None) -> Records:
    if not source.exists():
        raise UserError(f"{escape(source)} does not exist: give {READ}")
    if source.is_dir():
        source = _file_of_folder(source)
    name = source.name.casefold()
    if name.endswith(CSV_ENDINGS):
        from data.foreign.csv_files import read_csv  # it imports pandas, which other sources need not

        return read_csv(source, label_column)
    if name.endswith(JSON_LINES_ENDINGS):
        return read_json_lines(source, label_column)
    if label_column is not None:
        raise UserError(f"{escape(source)} is no CSV file: leave out label_column {label_column!r}")
    if source.is_dir():
        return read_image_folder(source)
    if is_images_file(source):
        return read_idx(source)
    if name.endswith(TAR_ENDINGS):
        return read_image_archive(source)
    reader = {".npz": read_npz, ".py": read_plugin}.get(source.suffix.casefold())
    if reader is None:
        raise UserError(f"{escape(source)} is of no kind that is read: give {READ}")
    return reader(source)


def _file_of_folder(folder: Path) -> Path:
    """The one idx or Python file that a folder without class folders holds; else the folder itself."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not is_hidden(file.name)]
    python_files = [file for file in files if file.suffix == ".py"]
    if class_folders(folder):
        _refuse_data_set_beside_folders(folder, python_files)
        return folder
    for kind, matches in (("sets of idx files", list(filter(is_images_file, files))), ("Python files", python_files)):
        if len(matches) > 1:
            names = ", ".join(escape(file.name) for file in matches)
            raise UserError(f"{escape(folder)} holds {len(matches)} {kind} ({names}): give one of these files")
        if matches:
            return matches[0]
    return folder


def _refuse_data_set_beside_folders(folder: Path, python_files: list[Path]) -> None:
    """UserError where a folder could be class folders as well as a data set in Python."""
    for file in python_files:
        if f"def {FUNCTION}(" in file.read_text(encoding="utf-8", errors="replace"):
            raise UserError(
                f"{escape(folder)} holds folders and {escape(file.name)} with {FUNCTION}(): give {escape(file)}, or "
                "move it away if the folders are class folders"
            )
