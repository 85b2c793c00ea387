"""A table in any CSV file: rows of numbers, with a header that names a label column.

Columns of very different size would make training fail, so every column is shifted and scaled to mean 0 and deviation
1. These are taken over all rows: members and non-members count alike, so that they tell nobody who was a member. A
table of zeros and ones alone stays as it is, like those of `data.tables`.
"""

from pathlib import Path

import numpy as np

from core import console
from core.errors import UserError, escape
from data.foreign.csv_files import read_csv


def read(file: Path, label_column: str | None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Features (N, F), uint8 for zeros and ones and float32 otherwise; labels (N,) int64; the classes that occur.

    Labels that are whole numbers are ordered as numbers, others as text. Prints a line that says how much there is.
    Raises UserError where the file is missing or damaged, or it is not clear which column holds the labels.
    """
    if not file.is_file():
        raise UserError(f"--data_dir {escape(file)} does not exist")
    records = read_csv(file, label_column)
    if records.kind != "features":
        raise UserError(f"{escape(file)} holds {records.described}: a table has columns of numbers beside its label")
    features = np.array(records.load(np.arange(len(records.labels))))
    are_bits = bool(np.isin(features, (0, 1)).all())
    classes, labels = np.unique(records.labels, return_inverse=True)
    scaled = "" if are_bits else "; each column scaled to mean 0 and deviation 1"
    console.say(f"{escape(file)}: {records.described} of {len(classes):,} classes{scaled}")
    features = features.astype(np.uint8) if are_bits else standardise(features)
    return features, labels.astype(np.int64), tuple(map(str, classes))


def standardise(features: np.ndarray) -> np.ndarray:
    """(N, F) float32 with mean 0 and deviation 1 in each column; a column of one value becomes 0."""
    values = features.astype(np.float64)
    deviation = values.std(axis=0)
    values -= values.mean(axis=0)
    return (values / np.where(deviation > 0, deviation, 1)).astype(np.float32)
