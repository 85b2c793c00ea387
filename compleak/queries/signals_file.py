"""The signals file: what all models of a variant answered, and all that an attack ever sees.

Format (PROTOCOL §4), which any framework can write; R models (row 0 the victim, then shadow models and references), N
points, C classes:

    logits       (R, N, C) float32   before the softmax
    labels       (N,) int64          class of each point
    member       (R, N) bool         the model was trained on the point
    audit        (R, N) bool         the point is in that model's balanced audit set

and optionally an array for each probe (`compleak.queries.probes`)

    sensitivity  (R, N, C) float32     mean |softmax f(x + e u) - softmax f(x)| / e, NaN outside the audit sets
    augmented    (R, N, Q, C) float16  log-posteriors of Q views of each point, NaN for unaudited members
    correct      (R, N, Q) bool        whether the labels of Q views are right, False outside the audit sets
    noise        (R, N, L) float32     share of noisy copies with the right label, NaN outside the audit sets
    boundary     (R, N, 2) float32     distances to the decision boundary, NaN where they were not measured

and two arrays about the points:

    group        (N,) int64          points with the same number are copies of each other
    columns      (N, F) float32      what the points look like, for the control that asks no model

A row after the first whose audit set is empty is a reference: a model that is known not to have trained on the points
where its `member` is False. Files that this project writes hold two more arrays: `points`, which images of the data set
the points are, and `source`, what the answers follow from (JSON).
"""

import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import EllipsisType
from typing import NamedTuple

import numpy as np

from attacks import Signals
from compleak.queries import file_checks
from compleak.queries.probes import PROBES
from core import console
from core.errors import UserError
from core.files import write_atomically

# What reading a missing or damaged .npz may raise; RuntimeError if it seems encrypted or of another version.
DAMAGED = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)
FEW_COPIES = 0.05  # of the victim's points may have the content of a point that the attacker drew
SEE_README = "see docs/own-models.md for the format"


class Record(NamedTuple):
    """The content of a signals file, with the victim's membership: for the metrics, not for attacks."""

    logits: np.ndarray  # (R, N, C) float32
    labels: np.ndarray  # (N,) int64
    member: np.ndarray  # (R, N) bool
    audit: np.ndarray  # (R, N) bool
    probes: dict[str, np.ndarray]  # by the probe's name
    group: np.ndarray | None = None  # (N,) int64
    columns: np.ndarray | None = None  # (N, F) float32

    @property
    def truth(self) -> np.ndarray:
        """(A,) bool: which of the victim's audit points, in file order, are members."""
        return self.member[0, self.audit[0]]


class Answers(NamedTuple):
    """What one model answered: its row of a signals file."""

    logits: np.ndarray  # (N, C) float32
    probes: dict[str, np.ndarray]  # by the probe's name, (N, ...) each


def attacker_view(record: Record) -> Signals:
    """What the attacker knows: the record with -1 for the victim's membership that the attacker does not know.

    The attacker knows that the points of the shadow models lie outside the victim's data, so 0 stays 0 there. Of any
    other point the attacker knows nothing, although the file may say that the victim was not trained on it.
    """
    member = record.member.astype(np.int8)
    member[0, ~attackers_points(record)] = -1
    return Signals(record.logits, record.labels, member, record.audit, record.probes, record.columns)


def attackers_points(record: Record) -> np.ndarray:
    """(N,) bool: the points that the attacker drew from outside the victim's data.

    They are what the shadow models were trained on or are audited on. Where many of them are points of the victim, as
    in the layout of LiRA's authors, the attacker drew from the victim's own data and knows of no point to lie outside;
    a few may be copies of each other.
    """
    shadows = record.audit.any(axis=1)
    shadows[0] = False
    drawn = (record.member[shadows] | record.audit[shadows]).any(axis=0)
    of_victim = record.audit[0] | record.member[0]
    shares_data = (drawn & of_victim).sum() > FEW_COPIES * of_victim.sum()
    return drawn & ~of_victim & ~shares_data


def write(path: Path, arrays: dict[str, np.ndarray], source: dict) -> None:
    """Write arrays by name, and `source`, what they follow from."""
    content = {**arrays, "source": np.array(json.dumps(source))}
    write_atomically(path, lambda part: np.savez_compressed(part, **content))


def read_source(path: Path) -> dict | None:
    """What a file was made from; None if it is missing, damaged or does not say: it is then made again."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return json.loads(str(file["source"]))
    except DAMAGED:
        return None


def points(path: Path) -> np.ndarray:
    """(N,) int64: which images of the data set the points are. Only files that this project wrote say so.

    UserError where the array is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["points"]
    except DAMAGED as error:
        raise UserError(f"{path} is damaged ({error}): delete it, and the models are asked again") from error


def read_rows(path: Path, rows: Sequence[int | EllipsisType | None]) -> list[Answers | None]:
    """The answers in these rows of a file; None gives None. `...` is the whole of a file that holds one model.

    UserError where an array is missing or damaged.
    """
    if all(row is None for row in rows):
        return [None] * len(rows)
    try:
        with np.load(path, allow_pickle=False) as file:
            logits = file["logits"]
            probes = {name: file[name] for name in PROBES if name in file}
    except DAMAGED as error:
        raise UserError(f"{path} is damaged ({error}): delete it, and the models are asked again") from error

    def read(row) -> Answers:
        return Answers(logits[row], {name: array[row] for name, array in probes.items()})

    return [None if row is None else read(row) for row in rows]


def load(path: Path) -> Record:
    """Read and check a signals file, ours or anybody's. The UserError names in one line what is wrong with it."""
    arrays = _read_arrays(path)
    probes = {name: arrays.pop(name) for name in PROBES if name in arrays}
    doubt = file_checks.find_doubt(arrays["logits"])
    if doubt:
        console.say(f"{path}: {doubt}")
    return Record(**arrays, probes=probes)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the format that a file holds, checked."""
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is not a complete .npz file: {SEE_README}")
    try:
        with np.load(path, allow_pickle=False) as file:
            names = file.files
            known = (*file_checks.ARRAYS, *file_checks.ARRAYS_OF_POINTS, *PROBES)
            arrays = {name: _read_array(path, file, name) for name in known if name in file}
    except (*DAMAGED, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a readable signals file ({error}): {SEE_README}") from error
    problem = file_checks.find_problem(arrays, names)
    if problem:
        raise UserError(f"{path}: {problem}; {SEE_README}")
    return arrays


def _read_array(path: Path, file, name: str) -> np.ndarray:
    """One array of an open file, in the byte order of this machine, the only one that torch takes."""
    try:
        array = file[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise UserError(
            f"{path}: {name} holds Python objects: store np.array({name}.tolist()); {SEE_README}"
        ) from error
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def same_points(records: list[Record], names: list[str]) -> None:
    """UserError unless all records describe models with the same roles on the same points."""
    for record, name in zip(records[1:], names[1:], strict=True):
        if record.logits.shape != records[0].logits.shape:
            raise UserError(f"{names[0]} and {name} differ in the shape of logits: they are not signals of one run")
        for key in ("labels", "member", "audit", "group"):
            if not np.array_equal(getattr(record, key), getattr(records[0], key)):
                raise UserError(f"{names[0]} and {name} differ in {key}: they are not signals of one run")
