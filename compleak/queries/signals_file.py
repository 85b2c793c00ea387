"""The signals file: what all models of a variant answered, and all that an attack ever sees.

Format (PROTOCOL §4), which any framework can write; R models (row 0 the victim, then the shadows), N points, C classes:

    logits       (R, N, C) float32   before the softmax
    labels       (N,) int64          class of each point
    member       (R, N) bool         the model was trained on the point
    audit        (R, N) bool         the point is in that model's balanced audit set

and optionally an array for each probe (`compleak.queries.probes`), today

    sensitivity  (R, N, C) float32   mean |softmax f(x + e u) - softmax f(x)| / e, NaN outside the audit sets

Files that this project writes hold two more arrays: `points`, which images of the data set the points are, and
`source`, what the answers follow from (JSON).
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
from compleak.queries.probes import PROBES
from core.errors import UserError
from core.files import write_atomically

# What reading a missing or damaged .npz may raise; RuntimeError if it seems encrypted or of another version.
DAMAGED = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)
ARRAYS = ("logits", "labels", "member", "audit")
SEE_README = "see the README for the format of signals"


class Record(NamedTuple):
    """The content of a signals file, with the victim's membership: for the metrics, not for attacks."""

    logits: np.ndarray  # (R, N, C) float32
    labels: np.ndarray  # (N,) int64
    member: np.ndarray  # (R, N) bool
    audit: np.ndarray  # (R, N) bool
    probes: dict[str, np.ndarray]  # by the probe's name

    @property
    def truth(self) -> np.ndarray:
        """(A,) bool: which of the victim's audit points, in file order, are members."""
        return self.member[0, self.audit[0]]


class Answers(NamedTuple):
    """What one model answered: its row of a signals file."""

    logits: np.ndarray  # (N, C) float32
    probes: dict[str, np.ndarray]  # by the probe's name, (N, ...) each


def attacker_view(record: Record) -> Signals:
    """What the attacker knows: the record with the victim's membership withheld (-1) on its audit points.

    The attacker knows that the pool lies outside the victim's data, so 0 stays 0 there.
    """
    member = record.member.astype(np.int8)
    member[0, record.audit[0] | record.member[0]] = -1
    return Signals(record.logits, record.labels, member, record.audit, record.probes)


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
    """(N,) int64: which images of the data set the points are. Only files that this project wrote say so."""
    with np.load(path, allow_pickle=False) as file:
        return file["points"]


def read_rows(path: Path, rows: Sequence[int | EllipsisType | None]) -> list[Answers | None]:
    """The answers in these rows of a file; None gives None. `...` is the whole of a file that holds one model."""
    if all(row is None for row in rows):
        return [None] * len(rows)
    with np.load(path, allow_pickle=False) as file:
        logits = file["logits"]
        probes = {name: file[name] for name in PROBES if name in file}

    def read(row) -> Answers:
        return Answers(logits[row], {name: array[row] for name, array in probes.items()})

    return [None if row is None else read(row) for row in rows]


def load(path: Path) -> Record:
    """Read and check a signals file, ours or anybody's. The UserError names in one line what is wrong with it."""
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is not a complete .npz file: {SEE_README}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*ARRAYS, *PROBES) if name in file}
    except (*DAMAGED, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a readable signals file ({error}): {SEE_README}") from error
    problem = find_problem(arrays)
    if problem:
        raise UserError(f"{path}: {problem}; {SEE_README}")
    probes = {name: arrays.pop(name) for name in PROBES if name in arrays}
    return Record(**arrays, probes=probes)


def same_points(records: list[Record], names: list[str]) -> None:
    """UserError unless all records describe models with the same roles on the same points."""
    for record, name in zip(records[1:], names[1:], strict=True):
        if record.logits.shape != records[0].logits.shape:
            raise UserError(f"{names[0]} and {name} differ in the shape of logits: they are not signals of one run")
        for key in ("labels", "member", "audit"):
            if not np.array_equal(getattr(record, key), getattr(records[0], key)):
                raise UserError(f"{names[0]} and {name} differ in {key}: they are not signals of one run")


def find_problem(arrays: dict[str, np.ndarray]) -> str | None:
    """What is wrong with the arrays of a signals file, or None: what the first check that finds something says."""
    for check in CHECKS:
        problem = check(arrays)
        if problem:
            return problem
    return None


def _find_missing_array(arrays: dict[str, np.ndarray]) -> str | None:
    missing = set(ARRAYS) - arrays.keys()
    return f"the array {sorted(missing)[0]} is missing" if missing else None


def _find_wrong_type(arrays: dict[str, np.ndarray]) -> str | None:
    kinds = {"logits": "f", "labels": "iu", "member": "b", "audit": "b"}
    for name, kind in kinds.items():
        if arrays[name].dtype.kind not in kind:
            return f"{name} has type {arrays[name].dtype}"
    return None


def _find_wrong_shape(arrays: dict[str, np.ndarray]) -> str | None:
    shape = arrays["logits"].shape
    if len(shape) != 3 or shape[2] < 2:
        return f"logits has shape {shape}, expected (models, points, classes)"
    for name, expected in {"labels": shape[1:2], "member": shape[:2], "audit": shape[:2]}.items():
        if arrays[name].shape != expected:
            return f"{name} has shape {arrays[name].shape}, expected {expected}"
    if 0 in shape[:2]:
        return f"logits has shape {shape}: there is no model or no point"
    return None


def _find_infinite_logits(arrays: dict[str, np.ndarray]) -> str | None:
    return None if np.isfinite(arrays["logits"]).all() else "logits holds values that are not finite"


def _find_unknown_class(arrays: dict[str, np.ndarray]) -> str | None:
    labels, classes = arrays["labels"], arrays["logits"].shape[2]
    if labels.min() < 0 or labels.max() >= classes:
        return f"labels holds classes outside 0..{classes - 1}"
    return None


def _find_unbalanced_audit(arrays: dict[str, np.ndarray]) -> str | None:
    for model, audit in enumerate(arrays["audit"]):
        members = int(arrays["member"][model, audit].sum())
        size = int(audit.sum())
        if members < 2 or 2 * members != size:
            return (
                f"the audit set of model {model} has {members} members of {size} points, expected half and at least 2"
            )
    return None


def _find_probe_problem(arrays: dict[str, np.ndarray]) -> str | None:
    for name, probe in PROBES.items():
        problem = probe.find_problem(arrays[name], arrays["logits"], arrays["audit"]) if name in arrays else None
        if problem:
            return problem
    return None


# In this order: each check may rely on what those before it have made sure of.
CHECKS = (
    _find_missing_array,
    _find_wrong_type,
    _find_wrong_shape,
    _find_infinite_logits,
    _find_unknown_class,
    _find_unbalanced_audit,
    _find_probe_problem,
)
