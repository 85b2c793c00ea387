"""CSV files with a header and a label column: rows of numbers, or one text a row.

The first row names the columns; row 1 is the first row of data. `.gz`, `.bz2` and `.xz` are read as they are.
"""

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from core.errors import UserError, escape
from data.foreign.arrays import array_records
from data.foreign.limits import open_inflated
from data.foreign.points import Records
from data.tables import ROWS

LABEL_COLUMNS = ("label", "class", "target", "y", "letter")
TEXT_COLUMN = "text"  # of the texts, where no other one is named
MEMBER_COLUMNS = ("member", "members", "ismember", "membership")  # in lower case without other characters
LARGEST_WHOLE = 2**53  # up to here float64 tells whole numbers apart
AS_WRITTEN = {  # only an empty cell is missing: "NA" and "None" can be the names of classes
    "keep_default_na": False,
    "na_values": [""],
    "skipinitialspace": True,
    "encoding": "utf-8-sig",
    "index_col": False,
    "low_memory": False,
}


def read_csv(source: Path, label_column: str | None, text_column: str | None = None) -> Records:
    """The records of a CSV file.

    Features are the numeric columns beside the label. The records are texts where the only other column holds text,
    where one that holds text is called `text`, or where `text_column` names one; further columns then do not count.

    Raises UserError where the label column is not clear, a value is missing or no number (naming row and column), or a
    column says who was a member.
    """
    with _errors_in_one_line(source):
        columns = _choose_columns(source, label_column, text_column)
        labels, values = _read_columns(source, columns)
    records = array_records(source, values, _to_labels(labels, columns.label, source))
    return records if columns.text else records._replace(columns=tuple(columns.features))


def holds_texts(source: Path, label_column: str | None, text_column: str | None) -> bool:
    """Whether `read_csv` gives texts, judged by the first rows. UserError as there."""
    with _errors_in_one_line(source):
        return _choose_columns(source, label_column, text_column).text


@contextlib.contextmanager
def _errors_in_one_line(source: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row with more cells than the header has
            yield
    except (ValueError, pd.errors.ParserWarning) as error:  # pandas' own errors are of these kinds
        raise UserError(f"{escape(source)} cannot be read as CSV ({escape(str(error).strip())})") from error


# Which columns


class Columns(NamedTuple):
    """What the columns are used for."""

    all: list[str]  # in the order of the file
    label: str
    features: list[str]
    text: bool  # the one feature is a column of text


def _choose_columns(source: Path, label_column: str | None, text_column: str | None) -> Columns:
    header = _read_header(source)
    _check_separator(header, source)
    _check_header(header, source)
    label = choose_label(header, label_column, source)
    if text_column is not None:
        check_text_column(header, label, text_column, source)
        return Columns(header, label, [text_column], text=True)
    others = [name for name in header if name != label]
    if not others:
        raise UserError(f"{escape(source)} has no column beside {escape(label)!r}: separate the columns by commas")
    if TEXT_COLUMN in others and _is_text(_first_rows(source, header)[TEXT_COLUMN]):
        return Columns(header, label, [TEXT_COLUMN], text=True)
    return Columns(header, label, others, _are_texts(source, header, others))


def _read_header(source: Path) -> list[str]:
    with open_inflated(source) as stream:
        row = pd.read_csv(stream, header=None, nrows=1, dtype=str, **AS_WRITTEN)
    return ["" if pd.isna(name) else str(name).strip() for name in row.iloc[0]]


def _check_separator(header: list[str], source: Path) -> None:
    """UserError where the first row is one name, and not that of the labels."""
    if len(header) == 1 and header[0] and header[0].casefold() not in LABEL_COLUMNS:
        raise UserError(
            f"{escape(source)}: the first row has one column, {escape(header[0])!r}: separate columns by commas"
        )


def _check_header(header: list[str], source: Path) -> None:
    for number, name in enumerate(header, start=1):
        if not name:
            raise UserError(
                f"{escape(source)}: column {number} has no name: remove it (pandas writes row numbers so, unless told "
                "index=False) or name it in the first row"
            )
        if header.count(name) > 1:
            raise UserError(f"{escape(source)}: two columns are called {escape(name)!r}: rename or remove one")
        if re.sub("[^a-z]", "", name.casefold()) in MEMBER_COLUMNS:
            raise UserError(
                f"{escape(source)}: column {escape(name)!r} says who was a member, which no model may be asked about: "
                "give members and non-members as two files without it"
            )


def check_text_column(header: list[str], label: str, text_column: str, source: Path) -> None:
    """UserError unless the column is there and is not the label's."""
    if text_column not in header or text_column == label:
        raise UserError(
            f"{escape(source)} has no column {text_column!r} beside the label {escape(label)!r}; it has {_list(header)}"
        )


def choose_label(header: list[str], label_column: str | None, source: Path) -> str:
    if label_column is not None:
        if label_column not in header:
            raise UserError(f"{escape(source)} has no column {label_column!r}; it has {_list(header)}")
        return label_column
    candidates = [name for name in header if name.casefold() in LABEL_COLUMNS]
    if len(candidates) == 1:
        return candidates[0]
    reason = f"{_list(candidates)} could" if candidates else f"none is called {', '.join(LABEL_COLUMNS)}; one must"
    raise UserError(
        f"{escape(source)}: which column holds the labels? {reason} be named with --label_column (label_column in a "
        f"task file). The first row names {_list(header)}"
    )


def _list(names: list[str]) -> str:
    return ", ".join(escape(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")


def _are_texts(source: Path, header: list[str], others: list[str]) -> bool:
    """Whether the columns beside the label are one column of text, judged by the first rows.

    UserError where text stands beside other columns.
    """
    sample = _first_rows(source, header)
    texts = [name for name in others if _is_text(sample[name])]
    if texts and len(others) > 1:
        raise UserError(
            f"{escape(source)}: column {escape(texts[0])!r} holds text, row 1 {_show(sample[texts[0]].iloc[0])}, but "
            "features must be numbers: remove it or write it as numbers; where it holds the texts to audit, call it "
            f"{TEXT_COLUMN} (train.py and reproduce.py also take --text_column)"
        )
    return bool(texts)


def _first_rows(source: Path, header: list[str]) -> pd.DataFrame:
    with open_inflated(source) as stream:
        return pd.read_csv(stream, nrows=ROWS, names=header, header=0, **AS_WRITTEN)


def _is_text(column: pd.Series) -> bool:
    """Whether most of a column's values are text; a damaged column of numbers has few."""
    if column.dtype.kind in "biuf":
        return False
    values = column.dropna()
    return len(values) > 0 and pd.to_numeric(values, errors="coerce").isna().mean() > 0.5


def _show(value) -> str:
    text = str(value)
    return repr(text if len(text) <= 40 else text[:37] + "...")


# Their values


def _read_columns(source: Path, columns: Columns) -> tuple[list[str], np.ndarray]:
    """Labels as they are written (N,), and float32 (N, F) or texts (N,) as objects."""
    texts = [columns.label, *columns.features] if columns.text else [columns.label]
    labels: list[str] = []
    parts = []
    options = {"names": columns.all, "header": 0, "dtype": dict.fromkeys(texts, str), "chunksize": ROWS}
    with open_inflated(source) as stream, pd.read_csv(stream, **options, **AS_WRITTEN) as chunks:
        for chunk in chunks:
            labels += _texts(chunk, columns.label).tolist()
            parts.append(_texts(chunk, columns.features[0]) if columns.text else _numbers(chunk, columns.features))
    if not labels:
        raise UserError(f"{escape(source)} holds a header and no records")
    return labels, np.concatenate(parts)


def _texts(chunk: pd.DataFrame, name: str) -> np.ndarray:
    """A column (n,) of str; ValueError that names the first row without one."""
    missing = chunk[name].isna().to_numpy()
    if missing.any():
        raise ValueError(f"row {chunk.index[missing.argmax()] + 1}, column {escape(name)!r} is empty")
    return chunk[name].to_numpy(dtype=object)


def _numbers(chunk: pd.DataFrame, names: list[str]) -> np.ndarray:
    """(n, F) float32; ValueError that names the first value of the first column that is missing or no number."""
    for name in names:
        column = chunk[name]
        numbers = column if column.dtype.kind in "biuf" else pd.to_numeric(column, errors="coerce")
        wrong = ~np.isfinite(numbers.to_numpy(np.float64))
        if wrong.any():
            row = int(wrong.argmax())
            value = "empty" if pd.isna(column.iloc[row]) else f"{_show(column.iloc[row])}, no finite number"
            raise ValueError(f"row {chunk.index[row] + 1}, column {escape(name)!r} is {value}")
    return np.column_stack([pd.to_numeric(chunk[name]).to_numpy(np.float32) for name in names])


def _to_labels(texts: list[str], name: str, source: Path) -> np.ndarray:
    """(N,) int64 where all labels are whole numbers, else str."""
    labels = np.array([text.strip() for text in texts], dtype=object)
    present, inverse = np.unique(labels, return_inverse=True)
    numbers = pd.to_numeric(pd.Series(present), errors="coerce").to_numpy(np.float64)  # NaN where a label is a name
    if np.isnan(numbers).any():
        return labels
    wrong = (np.abs(numbers) >= LARGEST_WHOLE) | (numbers % 1 != 0)
    if wrong.any():
        raise UserError(
            f"{escape(source)}: column {escape(name)!r} holds {escape(present[wrong.argmax()])}, a label is a whole "
            "number or a name: choose another label_column"
        )
    return numbers.astype(np.int64)[inverse]
