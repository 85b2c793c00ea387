"""Which reader reads a source, and how two sources are read with one numbering of classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core import console
from core.errors import UserError
from data.foreign.arrays import read_npz
from data.foreign.idx_files import is_images_file, read_idx
from data.foreign.image_folders import class_folders, read_image_archive, read_image_folder
from data.foreign.plugin_datasets import read_plugin
from data.foreign.points import Points, Records, to_points
from data.image_files import escape, is_hidden

CSV_ENDINGS = tuple(f".csv{ending}" for ending in ("", ".gz", ".bz2", ".xz"))
TAR_ENDINGS = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
READ = (
    "a folder or tar of class folders, an .npz, a .csv (also .gz, .bz2, .xz), a *-images-idx3-ubyte file, or a .py "
    "with get_dataset()"
)


def read_points(source: Path, *, label_column: str | None = None, classes: Sequence[str] | None = None) -> Points:
    """The records of one source, whatever its kind; prints a line that says what there is and what was skipped.

    label_column: of a CSV file; classes: the names of the classes in the order of the model's outputs, where this is
    not the sorted order (see `to_points`).

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
    if parts[0].kind != parts[1].kind:
        raise UserError(
            f"members are {parts[0].described}, non-members are {parts[1].described}: give both as one kind, or they "
            "are told apart by it"
        )
    points = _number_and_say(parts, classes)
    if points[0].fingerprint == points[1].fingerprint:
        raise UserError(f"{escape(members)} and {escape(nonmembers)} hold the same records: give two sources")
    return points[0], points[1]


def _number_and_say(parts: Sequence[Records], classes: Sequence[str] | None) -> list[Points]:
    points = to_points(parts, classes)
    for part, numbered in zip(parts, points, strict=True):
        console.say(_describe(part, numbered))
    return points


def _describe(part: Records, points: Points) -> str:
    """What was read, in one line."""
    present = len(np.unique(points.labels))
    total = len(points.classes)
    count = f"{total:,} classes" if present == total else f"{present:,} of {total:,} classes"
    line = f"{escape(part.files[0])}: {part.described} of {count}"
    if part.labels.dtype.kind == "i" and present < total and 0 not in points.labels and points.classes[0] == "0":
        line += "; no label is 0, so label 1 means the model's second output; if it means the first, name the classes"
    return f"{line}; {part.notes}" if part.notes else line


def _read(source: Path, label_column: str | None) -> Records:
    if not source.exists():
        raise UserError(f"{escape(source)} does not exist: give {READ}")
    if source.is_dir():
        source = _file_of_folder(source)
    name = source.name.casefold()
    if name.endswith(CSV_ENDINGS):
        from data.foreign.csv_files import read_csv  # it imports pandas, which other sources need not

        return read_csv(source, label_column)
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
    if class_folders(folder):
        return folder
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not is_hidden(file.name)]
    for kind, matches in (
        ("sets of idx files", [file for file in files if is_images_file(file)]),
        ("Python files", [file for file in files if file.suffix == ".py"]),
    ):
        if len(matches) > 1:
            names = ", ".join(escape(file.name) for file in matches)
            raise UserError(f"{escape(folder)} holds {len(matches)} {kind} ({names}): give one of these files")
        if matches:
            return matches[0]
    return folder
