"""Records of anybody's data with their classes, as every reader of a source gives them."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.errors import UserError, escape

MOST_CLASSES = 100_000  # labels that are numbers stand for themselves up to here
BATCH = 256  # records decoded at a time
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # a surrogate, which JSON may spell alone
WHOLE_NUMBER = re.compile("-?[0-9]{1,18}")

Load = Callable[[np.ndarray], list]


class Points(NamedTuple):
    """The labelled records of one source.

    kind is one of
        images    (H, W, 3) or (H, W) uint8 of any size
        features  (F,) float32
        arrays    any other shape, all of one: float32, uint8 or int64, given as they are
        text      str
    """

    kind: str
    labels: np.ndarray  # (N,) int64: a record's index in `classes`
    classes: tuple[str, ...]  # names in the order of their numbers
    names: tuple[str, ...]  # of the records: the path inside the source, or "row 17"; the first data row is row 1
    load: Load  # indices (n,) -> the raw values of these records in that order, decoded now; UserError names a record
    files: tuple[Path, ...]  # the files or the folder that were read
    fingerprint: str  # sha256 of names, labels and content, wherever the source lies


class Records(NamedTuple):
    """What a reader gives: records whose labels are not yet numbered together with those of another source."""

    kind: str
    labels: np.ndarray  # (N,) int64 where labels are whole numbers, else str
    names: tuple[str, ...]
    load: Load
    files: tuple[Path, ...]
    digest: str  # sha256 of names and content, without labels
    described: str  # "60 images", what the line about this source begins with
    notes: str = ""  # what was skipped or changed, for the same line
    empty_classes: tuple[str, ...] = ()  # classes that the source names without a record of them
    columns: tuple[str, ...] = ()  # the names of the features, where the source has names


def row_names(n: int) -> tuple[str, ...]:
    return tuple(f"row {row}" for row in range(1, n + 1))


def to_points(parts: Sequence[Records], classes: Sequence[str] | None) -> list[Points]:
    """The points of each source with one numbering of classes for all of them.

    Without `classes`, labels that are whole numbers from 0 on stand for themselves, and all other labels are numbered
    in sorted order, whole numbers as numbers. With `classes`, a label is one of these names, or its index in them.

    Raises UserError where a label is not among `classes`, or some sources have names and others have numbers.
    """
    names = _unique_names(classes) if classes is not None else _name_classes(parts)
    numbers = [_number_labels(part, names, parts) for part in parts]
    return [_to_point_set(part, labels, names) for part, labels in zip(parts, numbers, strict=True)]


def _to_point_set(part: Records, labels: np.ndarray, classes: tuple[str, ...]) -> Points:
    digest = hashlib.sha256(part.digest.encode())
    digest.update("\0".join(map(str, part.labels.tolist())).encode())
    return Points(part.kind, labels, classes, part.names, part.load, part.files, digest.hexdigest())


def _unique_names(classes: Sequence[str]) -> tuple[str, ...]:
    names = tuple(str(name) for name in classes)
    if not names:
        raise UserError("the list of classes is empty: name the classes in the order of the model's outputs")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"the list of classes names {name!r} twice: name each class once")
    return names


def _are_numbers(part: Records) -> bool:
    return part.labels.dtype.kind == "i"


def _name_classes(parts: Sequence[Records]) -> tuple[str, ...]:
    """The classes where the user has not named them."""
    if all(_are_numbers(part) and part.labels.min() >= 0 for part in parts):
        largest = max(int(part.labels.max()) for part in parts)
        if largest >= MOST_CLASSES:
            raise UserError(
                f"{escape(parts[0].files[0])}: label {largest} is too large for the number of a class: name the "
                "classes in the order of the model's outputs"
            )
        return tuple(map(str, range(largest + 1)))
    _check_one_kind_of_label(parts)
    labels = {str(label) for part in parts for label in np.unique(part.labels)}
    return tuple(sorted(labels.union(*(part.empty_classes for part in parts)), key=natural_order))


def _check_one_kind_of_label(parts: Sequence[Records]) -> None:
    if len({_are_numbers(part) for part in parts}) > 1:
        examples = " and ".join(f"{part.labels[0]} in {escape(part.files[0])}" for part in parts)
        raise UserError(
            f"labels are names and numbers ({examples}): name the classes in the order of the model's outputs"
        )


def natural_order(name: str) -> tuple[int, int, str]:
    """Sorts whole numbers as numbers and before other names."""
    number = WHOLE_NUMBER.fullmatch(name)
    return (0, int(name), name) if number else (1, 0, name)


def _number_labels(part: Records, classes: tuple[str, ...], parts: Sequence[Records]) -> np.ndarray:
    """(N,) int64."""
    present, inverse = np.unique(part.labels, return_inverse=True)
    numbers = {name: number for number, name in enumerate(classes)}
    if _are_numbers(part) and not _name_all_numbers(parts, numbers):
        numbers = {str(number): number for number in range(len(classes))}
    for label in [*present, *part.empty_classes]:
        if str(label) not in numbers:
            listed = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
            raise UserError(
                f"{escape(part.files[0])}: {escape(str(label))!r} is not among the {len(classes)} classes ({listed}): "
                "correct the list of classes or the data"
            )
    return np.array([numbers[str(label)] for label in present], dtype=np.int64)[inverse.reshape(-1)]


def _name_all_numbers(parts: Sequence[Records], numbers: dict[str, int]) -> bool:
    """Whether every label that is a number is also the name of a class, such as 1 to 30."""
    labels = {str(label) for part in parts if _are_numbers(part) for label in np.unique(part.labels)}
    return labels <= set(numbers)


def refuse_half_characters(texts: Iterable[str], place: str) -> None:
    """UserError where a text holds half of a character, which no file in UTF-8 and no tokenizer takes."""
    for row, text in enumerate(texts, start=1):
        if not text.isascii() and HALF_CHARACTER.search(text):
            raise UserError(f"{place}: row {row} holds half of a character: remove or repair such texts")


def content_digests(points: Points, index: np.ndarray, progress: Callable | None = None) -> list[bytes]:
    """The sha256 of the decoded content of each of these records: equal content, equal digest, whatever the label.

    A colour image that is grey throughout has the digest of the same grey image.
    index: (n,) int64; progress: called as `core.console.progress`, with an iterable, a description and a total.
    """
    starts: Iterable[int] = range(0, len(index), BATCH)
    if progress is not None:
        starts = progress(starts, "comparing records", len(starts))
    return [digest_of(value) for start in starts for value in points.load(index[start : start + BATCH])]


def digest_of(value: np.ndarray | str) -> bytes:
    """The sha256 of one raw value."""
    if isinstance(value, str):
        return hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()
    array = np.ascontiguousarray(_without_equal_channels(value))
    return hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()).digest()


def _without_equal_channels(value: np.ndarray) -> np.ndarray:
    """(H, W) of an image (H, W, 3) with three equal channels, and every other array as it is."""
    is_colour = value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] == 3
    if is_colour and (value[..., 0] == value[..., 1]).all() and (value[..., 0] == value[..., 2]).all():
        return value[..., 0]
    return value


def read_list(file: Path, points: Points) -> np.ndarray:
    """The records that a text file lists, one a line, by number (from 0) or by name: (n,) int64 in the file's order.

    Raises UserError where a line is no record of these points, repeats another, or there is none.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{escape(file)} cannot be read ({error}): give a text file with one record a line") from error
    numbers = {name: number for number, name in enumerate(points.names)}
    first_lines: dict[int, int] = {}
    for number, line in enumerate(lines, start=1):
        if line:
            record = _find_record(line, numbers, f"{escape(file)}, line {number}")
            if record in first_lines:
                raise UserError(f"{escape(file)}: lines {first_lines[record]} and {number} are one record: remove one")
            first_lines[record] = number
    if not first_lines:
        raise UserError(f"{escape(file)} lists no record: write one record a line")
    return np.array(list(first_lines), dtype=np.int64)


def _find_record(line: str, numbers: dict[str, int], place: str) -> int:
    """The number of the record that a line names."""
    if line in numbers:
        return numbers[line]
    if not WHOLE_NUMBER.fullmatch(line):
        raise UserError(f"{place}: {escape(line)!r} is no record, the first one is called {next(iter(numbers))!r}")
    if not 0 <= int(line) < len(numbers):
        raise UserError(f"{place}: {line} is no record, numbers run from 0 to {len(numbers) - 1}")
    return int(line)
