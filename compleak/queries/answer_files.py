"""Answers that are already there: a model's logits or probabilities for each point, as `.npz` or `.csv`.

    .npz   answers (N, C), also called logits, probabilities, scores or predictions; labels (N,); member (N,) of 0 and 1
    .csv   a row a point: the columns label and member, and one column a class, in the order of the classes

Labels and membership may be left out where the task names the data: the answers are then about all members in their
order, followed by all non-members. A signals file (three axes of logits) is none of these; see `is_signals_file`.
"""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from compleak.queries.signals_file import DAMAGED
from core.errors import UserError

SUFFIXES = (".npz", ".csv")
ANSWERS = ("answers", "logits", "probabilities", "probs", "scores", "predictions")
LABELS = ("labels", "label", "y")
MEMBER = ("member", "members", "is_member")
LARGEST_LABEL = 2**31
MOST_BYTES = 16 * 2**30  # of an array that is read; more is a damaged or hostile file


class AnswerFile(NamedTuple):
    """What a file of answers holds."""

    answers: np.ndarray  # (N, C) or (N,)
    labels: np.ndarray | None  # (N,) int64
    member: np.ndarray | None  # (N,) bool


def is_answer_file(path: Path) -> bool:
    return path.suffix in SUFFIXES


def is_signals_file(path: Path) -> bool:
    """Whether this is a file of the answers of several models, or of one, with audit sets (PROTOCOL §4)."""
    if path.suffix != ".npz" or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return {"logits.npy", "audit.npy"} <= set(archive.namelist())
    except DAMAGED:  # it only ends like an archive; `read_answers` says so
        return False


def read_answers(path: Path) -> AnswerFile:
    """Read and check a file of answers. UserError, in one line, for what is wrong with it."""
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    arrays = read_csv(path) if path.suffix == ".csv" else read_npz(path)
    answers = first_of(arrays, ANSWERS)
    if answers is None:
        raise UserError(f"{path} holds {', '.join(arrays) or 'nothing'}: an array called answers, (N, C), is needed")
    if answers.size == 0 or answers.ndim == 0:
        raise UserError(f"{path}: answers has shape {answers.shape}: an array (N, C), a row for each point, is needed")
    labels, member = first_of(arrays, LABELS), first_of(arrays, MEMBER)
    for name, array in (("labels", labels), ("member", member)):
        if array is not None and array.shape != answers.shape[:1]:
            raise UserError(f"{path}: {name} has shape {array.shape}, answers {answers.shape}: one value a point")
    return AnswerFile(answers, whole_numbers(labels, path), zeros_and_ones(member, path))


def first_of(arrays: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    return next((arrays[name] for name in names if name in arrays), None)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            largest = max((entry.file_size for entry in archive.infolist()), default=0)
        if largest > MOST_BYTES:
            raise UserError(f"{path} unpacks to {largest / 2**30:,.0f} GiB: that is no file of answers")
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in (*ANSWERS, *LABELS, *MEMBER) if name in content}
    except (*DAMAGED, TypeError, MemoryError) as error:
        raise UserError(f"{path} is not a readable .npz file ({error})") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise UserError(f"{path}: {name} is no array: save the file with numpy.savez")
    return arrays


def read_csv(path: Path) -> dict[str, np.ndarray]:
    """The columns of a table; all but labels and membership are answers."""
    try:
        frame = pd.read_csv(path)
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable table ({error})") from error
    if str(frame.columns[0]).startswith("Unnamed"):
        raise UserError(f"{path}: the first column has no name; pandas writes row numbers so: to_csv(..., index=False)")
    if frame.empty:
        raise UserError(f"{path} holds no points: it needs a row for each point below the names of the columns")
    columns = {str(name).strip().lower(): name for name in frame.columns}
    arrays = {name: frame[columns[name]].to_numpy() for name in (*LABELS, *MEMBER) if name in columns}
    scores = frame.drop(columns=[columns[name] for name in arrays])
    wrong = [str(name) for name in scores if scores[name].dtype.kind not in "iuf"]
    if wrong or scores.empty:
        raise UserError(f"{path}: column {wrong[0] if wrong else '?'} holds no numbers: one column of scores a class")
    return {**arrays, "answers": scores.to_numpy(np.float64)}


def whole_numbers(labels: np.ndarray | None, path: Path) -> np.ndarray | None:
    if labels is None:
        return None
    are_numbers = labels.dtype.kind in "iuf" and np.isfinite(labels).all()
    if not are_numbers or (labels != np.round(labels)).any() or labels.min() < 0 or labels.max() > LARGEST_LABEL:
        raise UserError(f"{path}: labels must be numbers of classes, from 0")
    return labels.astype(np.int64)


def zeros_and_ones(member: np.ndarray | None, path: Path) -> np.ndarray | None:
    if member is None:
        return None
    if member.dtype.kind not in "biuf" or not np.isin(member, (0, 1)).all():
        raise UserError(f"{path}: member must be 1 for a point that the model was trained on, else 0")
    return member.astype(bool)
