"""The tables of Shokri et al. 2017 (arXiv:1610.05820): rows of features with a class, from the authors' files.

    purchase100   dataset_purchase               label,f1,...,f600    labels 1..100    197,324 rows
    texas100      texas/100/feats and /labels    f1,...,f6169; label  labels 1..100     67,330 rows
    location      bangkok                        label,f1,...,f446    labels 1..30       5,010 rows

The files hold comma-separated numbers, quoted or not. They have no header; a first row without any number is taken for
one and skipped. They lie in `data/datasets/` or in `--data_dir`, either in the archive that the authors' page offers or
unpacked.
"""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import numpy as np
import pandas as pd

from core import console
from core.errors import UserError

SOURCE = "https://github.com/privacytrustlab/datasets"
ROWS = 5000  # parsed at a time: pandas takes eight bytes a value, and there can be 400 million


class Table(NamedTuple):
    """Where a table is in the authors' release. Of two files the second holds the labels, of one its first column."""

    archive: str
    files: tuple[PurePosixPath, ...]
    classes: int


TABLES = {
    "purchase100": Table("dataset_purchase.tgz", (PurePosixPath("dataset_purchase"),), 100),
    "texas100": Table("dataset_texas.tgz", (PurePosixPath("texas/100/feats"), PurePosixPath("texas/100/labels")), 100),
    "location": Table("dataset_location.tgz", (PurePosixPath("bangkok"),), 30),
}


def read(name: str, place: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Features (N, F), uint8 where they fit and float32 otherwise; labels (N,) int64; the classes that occur.

    place: the folder to look in, the archive, or the one file of a table that has one. Prints a line that says how much
    there is.
    Raises UserError that says what is wrong with which file and where to get it.
    """
    table = TABLES[name]
    files = _find_files(name, place)
    headers: list[bytes] = []
    try:
        features, labels = _read_parts(files, table, headers)
        _check(features, labels, table.classes)
    except Exception as error:  # a damaged file can fail in any way
        counted = "; rows are counted behind the header" if headers else ""
        raise UserError(f"{_joined(files)} cannot be used ({str(error).strip()}{counted}): {_advice(table)}") from error
    present, labels = np.unique(labels[:, 0], return_inverse=True)
    skipped = f"; skipped {len(headers)} header" if headers else ""
    counts = f"{len(features):,} rows of {features.shape[1]:,} features of {len(present)} classes"
    console.say(f"{_joined(files)}: {counts}{skipped}")
    return np.ascontiguousarray(features), labels.astype(np.int64), tuple(str(int(label)) for label in present)


def _advice(table: Table) -> str:
    return f"get {table.archive} from {SOURCE}; the archive or its {_joined(table.files)} will do"


def _joined(files: Iterable) -> str:
    return " and ".join(map(str, files))


def _find_files(name: str, place: Path) -> list[Path]:
    """The table's file or files in a folder, or the archive.

    Files are looked for under their whole path in the archive, then without its first folder, and so on.
    """
    table = TABLES[name]
    if place.is_file():
        if len(table.files) > 1 and not _is_archive([place]):
            raise UserError(f"{place} is one file, {name} needs {_joined(table.files)}: give their folder")
        return [place]
    for skipped in range(len(table.files[0].parts)):
        files = [place.joinpath(*file.parts[skipped:]) for file in table.files]
        missing = [file for file in files if not file.is_file()]
        if not missing:
            return files
        if len(missing) < len(files):
            raise UserError(f"{missing[0]} is missing: {_advice(table)}")
    if (place / table.archive).is_file():
        return [place / table.archive]
    reason = "" if place.exists() else ", which does not exist"
    raise UserError(f"{name} is not in {place}{reason}: {_advice(table)}")


def _is_archive(files: list[Path]) -> bool:
    """Whether this is an archive; a damaged one is known by its name."""
    return len(files) == 1 and (files[0].suffix in (".tgz", ".gz", ".tar") or tarfile.is_tarfile(files[0]))


def _read_parts(files: list[Path], table: Table, headers: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, F) and labels (M, 1), as the files have them. Headers that were skipped are added to `headers`."""
    if _is_archive(files):
        parts = _read_archive(files[0], table, headers)
    else:
        parts = [_read_file(file, headers) for file in files]
    if len(parts) == 2:
        return parts[0], parts[1]
    return parts[0][:, 1:], parts[0][:, :1]


def _read_file(file: Path, headers: list[bytes]) -> np.ndarray:
    with file.open("rb") as stream:
        return _read_numbers(stream, headers)


def _read_archive(archive: Path, table: Table, headers: list[bytes]) -> list[np.ndarray]:
    """The numbers of the table's files, read in one pass; nothing is unpacked to disk."""
    parts = {}
    with tarfile.open(archive) as entries:
        for entry in entries:
            path = PurePosixPath(entry.name)
            for file in table.files:
                if entry.isfile() and path.parts[-len(file.parts) :] == file.parts:
                    parts[file] = _read_numbers(entries.extractfile(entry), headers)
    for file in table.files:
        if file not in parts:
            raise ValueError(f"it holds no {file}")
    return [parts[file] for file in table.files]


def _read_numbers(stream: IO[bytes], headers: list[bytes]) -> np.ndarray:
    """(rows, columns), uint8 where all values fit, else float32. Raises ValueError that names a bad value's place."""
    first = next((line for line in stream if line.strip()), b"")
    if _is_header(first):
        headers.append(first)
    else:
        stream.seek(0)
    with pd.read_csv(stream, header=None, skipinitialspace=True, compression=None, chunksize=ROWS) as chunks:
        return np.concatenate([_to_array(chunk) for chunk in chunks])


def _is_header(line: bytes) -> bool:
    """Whether a file's first row holds texts and no number. Where it holds both, it is more likely damaged."""
    if not line:
        return False
    cells = pd.read_csv(io.BytesIO(line), header=None, dtype=str, encoding_errors="replace").iloc[0]
    return bool(cells.notna().any() and pd.to_numeric(cells, errors="coerce").isna().all())


def _to_array(chunk: pd.DataFrame) -> np.ndarray:
    """A chunk's values as `_read_numbers` returns them; the chunk's index holds the numbers of its rows, from 0."""
    _check_numbers(chunk)
    values = chunk.to_numpy(np.float32)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"row {chunk.index[row] + 1}, column {column + 1} is empty or not finite")
    small = values.clip(0, 255).astype(np.uint8)
    return small if (small == values).all() else values


def _check_numbers(chunk: pd.DataFrame) -> None:
    """ValueError that names the first value of the first column in which there is something else than numbers."""
    for column, kind in enumerate(chunk.dtypes):
        if kind.kind not in "iuf":
            numbers = pd.to_numeric(chunk[column], errors="coerce")
            row = int(numbers.isna().to_numpy().argmax())
            place = f"row {chunk.index[row] + 1}, column {column + 1}"
            advice = "; delete this row if it is a header" if chunk.index[row] == 0 else ""
            raise ValueError(f"{place} is {chunk[column].iloc[row]!r}, no number{advice}")


def _check(features: np.ndarray, labels: np.ndarray, classes: int) -> None:
    """ValueError unless there is a feature and, in every row, one label from 1 to `classes`."""
    if features.shape[1] < 1 or labels.shape[1] != 1:
        raise ValueError(f"{features.shape[1]} columns of features and {labels.shape[1]} of labels")
    if len(features) != len(labels):
        raise ValueError(f"{len(features)} rows of features and {len(labels)} labels")
    wrong = (labels[:, 0] < 1) | (labels[:, 0] > classes) | (labels[:, 0] % 1 != 0)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"row {row + 1} has the label {labels[row, 0]:g}, not one from 1 to {classes}")
