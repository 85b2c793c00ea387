"""JSON Lines with a text and a label in each line: `{"text": "...", "label": "..."}`. Row 1 is the first line.

`.gz`, `.bz2` and `.xz` are read as they are; empty lines are skipped.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from core.errors import UserError, escape
from data.foreign.arrays import array_records, to_labels
from data.foreign.csv_files import TEXT_COLUMN, check_text_column, choose_label
from data.foreign.limits import open_inflated
from data.foreign.points import HALF_CHARACTER, Records


def read_json_lines(source: Path, label_column: str | None, text_column: str | None = None) -> Records:
    """The texts and labels of a JSON Lines file; the first line says which keys there are.

    Raises UserError where a line is no object, a text is no string, or a label is neither a string nor a whole number.
    """
    text_key = text_column or TEXT_COLUMN
    texts: list[str] = []
    labels: list[str | int] = []
    label_key = None
    for place, row in _rows(source):
        if label_key is None:
            label_key = choose_label([key for key in row if key != text_key], label_column, source)
            check_text_column(list(row), label_key, text_key, source)
        texts.append(_value(row, text_key, str, place))
        labels.append(_value(row, label_key, str | int, place))
    if not texts:
        raise UserError(f"{escape(source)} holds no records")
    return array_records(source, np.array(texts, dtype=object), _numbers_or_names(labels, label_key, source))


def _numbers_or_names(labels: list[str | int], key: str, source: Path) -> np.ndarray:
    """(N,) int64 where all labels are whole numbers, else names as objects."""
    if any(isinstance(label, str) for label in labels):
        return np.array(list(map(str, labels)), dtype=object)
    return to_labels(np.array(labels), f"{escape(source)}: {escape(key)}")


def _rows(source: Path) -> Iterator[tuple[str, dict]]:
    """Each line's place in words and its object."""
    with open_inflated(source) as stream:
        for number, line in enumerate(stream, start=1):
            place = f"{escape(source)}: row {number}"
            if line.strip():
                yield place, _parse(line, place)


def _parse(line: bytes, place: str) -> dict:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is no JSON ({escape(str(error))}): write one object a line") from error
    if not isinstance(row, dict):
        raise UserError(f"{place} is no JSON object: write one object a line")
    return row


def _value(row: dict, key: str, kind, place: str):
    value = row.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = "a text" if kind is str else "a name or a whole number"
        raise UserError(f"{place}: {escape(key)!r} is {escape(repr(value))}, not {wanted}")
    if isinstance(value, str) and HALF_CHARACTER.search(value):
        raise UserError(f"{place}: {escape(key)!r} holds half of a character: remove or repair such texts")
    return value
