"""The data set that `get_dataset()` of a user's Python file returns, in the manner of a torch `Dataset`."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from core import console
from core.errors import UserError, escape
from core.plugins import import_plugin, modules_beside
from data.foreign.arrays import describe, to_records
from data.foreign.points import Load, Records, digest_of, row_names
from data.pictures import to_rgb

FUNCTION = "get_dataset"
FETCHED_TWICE = 16  # records that show before the work begins whether a transform is random


class Record(NamedTuple):
    """One point of the user's data set."""

    kind: str
    value: np.ndarray | str
    label: int


def read_plugin(file: Path) -> Records:
    """All records of the user's data set, each fetched once and not kept; `load` fetches them again.

    A tensor is what the user's own transform gave: of kind "arrays", to which no preprocessing is applied.

    Raises UserError where a record is not (x, y), the records are of several kinds or shapes, or a record is not the
    same when it is fetched again, which a random transform would cause.
    """
    console.say(f"{escape(file)}: its {FUNCTION}() is run, which is your own code")
    dataset = import_plugin(file, FUNCTION)()
    with modules_beside(file.parent):
        first, labels, digests = _read_all(dataset, file)
    load = _loader(dataset, digests, file)
    load(np.arange(min(len(digests), FETCHED_TWICE)))
    digest = hashlib.sha256(first.kind.encode() + b"".join(digests)).hexdigest()
    names = row_names(len(labels))
    return Records(first.kind, labels, names, load, (file,), digest, _describe(first, len(labels)))


def _read_all(dataset, file: Path) -> tuple[Record, np.ndarray, list[bytes]]:
    """The first record, and every record's label (N,) int64 and digest."""
    digests = []
    labels = []
    n = _length(dataset, file)
    first = _fetch(dataset, 0, file)
    for row in console.progress(range(n), f"reading {file.name}"):
        record = _fetch(dataset, row, file)
        _check_alike(first, record, row, file)
        digests.append(digest_of(record.value))
        labels.append(record.label)
    return first, np.array(labels, dtype=np.int64), digests


def _length(dataset, file: Path) -> int:
    try:
        length = len(dataset)
    except Exception as error:  # whatever the user's class raises
        raise UserError(f"{escape(file)}: {FUNCTION}() returns no data set with a length ({error})") from error
    if length == 0:
        raise UserError(f"{escape(file)}: {FUNCTION}() returns a data set without records")
    return length


def _fetch(dataset, row: int, file: Path) -> Record:
    place = f"{escape(file)}: row {row + 1}"
    try:
        record = dataset[row]
    except Exception as error:  # whatever the user's class raises
        raise UserError(f"{place} cannot be fetched ({type(error).__name__}: {escape(str(error))})") from error
    if not isinstance(record, tuple | list) or len(record) != 2:
        raise UserError(f"{place} is {type(record).__name__}, not (x, y): return an input and the number of its class")
    value, label = record
    return Record(*_to_value(value, place), _to_label(label, place))


def _to_value(value, place: str) -> tuple[str, np.ndarray | str]:
    """The kind and the raw value."""
    if isinstance(value, str):
        return "text", value
    if isinstance(value, Image.Image):
        return "images", np.asarray(to_rgb(value))
    if hasattr(value, "detach"):  # a tensor
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()  # numpy has no bfloat16
        return "arrays", _to_array(value, place, is_tensor=True)
    if not isinstance(value, np.ndarray):
        raise UserError(f"{place}: x is {type(value).__name__}: return a tensor, an array, a PIL image or a text")
    kind, _ = to_records(value[None], place)
    return kind, _to_array(value, place, is_tensor=False)


def _to_array(value: np.ndarray, place: str, is_tensor: bool) -> np.ndarray:
    """One record as `to_records` stores it; a tensor keeps its shape."""
    if not is_tensor:
        return to_records(value[None], place)[1][0]
    flat = to_records(value.reshape(1, 1, 1, 1, -1), place)[1]
    return flat.reshape(value.shape)


def _to_label(label, place: str) -> int:
    try:
        number = label.item() if hasattr(label, "item") else label
    except (ValueError, RuntimeError):  # several values
        number = None
    if isinstance(number, bool) or not isinstance(number, int):
        raise UserError(f"{place}: y is {escape(repr(label))[:40]}: return the number of one class")
    return number


def _check_alike(first: Record, record: Record, row: int, file: Path) -> None:
    if record.kind != first.kind:
        raise UserError(f"{escape(file)}: row 1 is of kind {first.kind}, row {row + 1} of kind {record.kind}")
    if first.kind in ("features", "arrays") and record.value.shape != first.value.shape:
        shapes = f"{first.value.shape}, row {row + 1} {record.value.shape}"
        raise UserError(f"{escape(file)}: row 1 has shape {shapes}: give all records one shape")


def _loader(dataset, digests: list[bytes], file: Path) -> Load:
    def load(index: np.ndarray) -> list:
        with modules_beside(file.parent):
            values = [_fetch(dataset, row, file).value for row in index.tolist()]
        for row, value in zip(index.tolist(), values, strict=True):
            if digest_of(value) != digests[row]:
                raise UserError(
                    f"{escape(file)}: row {row + 1} is not the same when it is fetched again: return the data set "
                    "without random transforms, as the model is evaluated"
                )
        return values

    return load


def _describe(first: Record, n: int) -> str:
    if first.kind in ("images", "text"):
        return f"{n:,} {'images' if first.kind == 'images' else 'texts'}"
    return describe(first.kind, np.broadcast_to(first.value, (n, *first.value.shape)))
