"""Labelled texts from a CSV or JSON Lines file: one text a row, as strings."""

from pathlib import Path

import numpy as np

from core import console
from core.errors import UserError, escape
from data.foreign import csv_files
from data.foreign.json_lines import read_json_lines
from data.foreign.sources import CSV_ENDINGS, JSON_LINES_ENDINGS

WORDNET = "wordnet"  # definitions of WordNet 3.0 with the lexicographer file of each, named so that it is known as text


def holds_texts(place: Path, label_column: str | None, text_column: str | None) -> bool:
    """Whether this is a file that `read` reads. UserError where it is a damaged CSV file."""
    if place.name.casefold().endswith(JSON_LINES_ENDINGS):
        return True
    is_csv = place.name.casefold().endswith(CSV_ENDINGS) and place.is_file()
    return is_csv and csv_files.holds_texts(place, label_column, text_column)


def read(
    file: Path, label_column: str | None, text_column: str | None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Texts (N,) of str, labels (N,) int64, and the classes that occur, in sorted order; prints how many there are.

    Raises UserError where the file is missing or damaged, or it is not clear which column holds the texts or labels.
    """
    if not file.is_file():
        raise UserError(f"{escape(file)} does not exist: give --data_dir a .csv or .jsonl file of texts and labels")
    reader = csv_files.read_csv if file.name.casefold().endswith(CSV_ENDINGS) else read_json_lines
    records = reader(file, label_column, text_column)
    if records.kind != "text":
        raise UserError(f"{escape(file)} holds {records.described}, no texts: name the column with --text_column")
    classes, labels = np.unique(records.labels, return_inverse=True)
    texts = np.array(records.load(np.arange(len(labels))), dtype=object)
    console.say(f"{escape(file)}: {records.described} of {len(classes):,} classes")
    return texts, labels.astype(np.int64), tuple(map(str, classes))
