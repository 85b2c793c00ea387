"""Arrays whose first axis counts the records: what kind of record they hold, and `.npz` files of them.

An `.npz` is a zip archive of `.npy` files. Before anything is inflated, the archive's directory and the header of each
array are looked at, and what they say must agree. Nothing is unpickled.
"""

import hashlib
import math
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

from core.errors import UserError, escape
from data.foreign.limits import check_inflated_size
from data.foreign.points import Load, Records, refuse_half_characters, row_names

INPUT_NAMES = ("x", "X", "images", "features", "data")
LABEL_NAMES = ("y", "Y", "labels", "targets")
LARGEST_INT64 = np.iinfo(np.int64).max


def read_npz(source: Path) -> Records:
    """The records of an `.npz` with inputs (`x`, `X`, `images`, `features` or `data`) and as many labels.

    Raises UserError where the file inflates too far, its parts contradict each other, or it holds Python objects.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            headers = _read_headers(archive, source)
            inputs, labels = _choose(headers, INPUT_NAMES, source), _choose(headers, LABEL_NAMES, source)
            values = _read_array(archive, headers[inputs], source)
            classes = _read_array(archive, headers[labels], source)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{escape(source)} is no complete .npz ({escape(str(error))}): save it again") from error
    left_out = sorted(set(headers) - {inputs, labels})
    notes = f"left out {', '.join(map(escape, left_out))}" if left_out else ""
    return array_records(source, values, to_labels(classes, f"{escape(source)}: {labels}"), notes)


class Header(NamedTuple):
    """What an archive says of one array."""

    member: str
    shape: tuple[int, ...]
    dtype: np.dtype


def _read_headers(archive: zipfile.ZipFile, source: Path) -> dict[str, Header]:
    """name -> header. UserError where the file inflates too far or an array is not as long as its header says."""
    members = archive.infolist()
    check_inflated_size(sum(member.file_size for member in members), source)
    return {member.filename.removesuffix(".npy"): _read_header(archive, member, source) for member in members}


def _read_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo, source: Path) -> Header:
    place = f"{escape(source)}: {escape(member.filename)}"
    with archive.open(member) as stream:
        try:
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read(stream)
        except ValueError as error:
            raise UserError(f"{place} is no array ({escape(str(error))}): save it with numpy.savez") from error
        begins = stream.tell()
    if dtype.hasobject:
        name = member.filename.removesuffix(".npy")
        raise UserError(f"{place} holds Python objects, which are not read: save numbers, or {name}.astype(str)")
    expected = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or begins + expected != member.file_size:
        raise UserError(
            f"{place} says that it holds {shape} of {dtype}, {expected:,} bytes, but has {member.file_size - begins:,}"
            ": save it again"
        )
    return Header(member.filename, shape, dtype)


def _choose(headers: dict[str, Header], names: tuple[str, ...], source: Path) -> str:
    """The one of `names` that the file holds."""
    present = [name for name in names if name in headers]
    if len(present) != 1:
        reason = f"holds {' and '.join(present)}" if present else f"holds none of {', '.join(names)}"
        raise UserError(
            f"{escape(source)} {reason} (it has: {', '.join(map(escape, headers)) or 'nothing'}): save one file for "
            "the members and one for the non-members, each with inputs x and labels y"
        )
    return present[0]


def _read_array(archive: zipfile.ZipFile, header: Header, source: Path) -> np.ndarray:
    try:
        with archive.open(header.member) as stream:
            return npy.read_array(stream, allow_pickle=False)
    except (ValueError, MemoryError) as error:
        reason = escape(str(error)) or type(error).__name__
        place = f"{escape(source)}: {escape(header.member)}"
        raise UserError(f"{place} cannot be read ({reason}): save it again") from error


def array_records(source: Path, inputs: np.ndarray, labels: np.ndarray, notes: str = "") -> Records:
    """Records from inputs (N, ...) and labels (N,) in memory; UserError where they are not usable."""
    if inputs.ndim == 0 or len(inputs) != len(labels):
        raise UserError(f"{escape(source)}: inputs of shape {inputs.shape} and {len(labels)} labels do not go together")
    if inputs.size == 0:
        raise UserError(f"{escape(source)} holds no records: its inputs have shape {inputs.shape}")
    kind, values = to_records(inputs, escape(source))
    names = row_names(len(values))
    digest = hashlib.sha256(f"{kind} {values.dtype.str} {values.shape} ".encode())
    digest.update(np.ascontiguousarray(values).data if kind != "text" else "\0".join(values).encode())
    described = describe(kind, values)
    return Records(kind, labels, names, _loader(values), (source,), digest.hexdigest(), described, notes)


def _loader(values: np.ndarray) -> Load:
    def load(index: np.ndarray) -> list:
        return [values[i] for i in index]

    return load


def describe(kind: str, values: np.ndarray) -> str:
    """How many records of which shape, in words."""
    count = f"{len(values):,}"
    if kind == "text":
        return f"{count} texts"
    if kind == "features":
        return f"{count} rows of {values.shape[1]:,} features"
    shape = " x ".join(map(str, values.shape[1:]))
    return f"{count} {kind} of {shape}" + ("" if kind == "images" else f" ({values.dtype})")


def to_records(inputs: np.ndarray, place: str) -> tuple[str, np.ndarray]:
    """The kind of the records (see `Points`) and their stored values (N, ...).

    uint8 (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W) are images; numbers (N, F) are features in float32; texts
    (N,), also as objects, are text; all else is kept as float32, uint8 or int64. UserError where a value is not finite.
    """
    if _are_texts(inputs):
        if inputs.ndim != 1:
            raise UserError(f"{place}: texts of shape {inputs.shape}, only one text a record is read")
        refuse_half_characters(inputs, place)
        return "text", inputs.astype(object)
    if inputs.dtype.kind not in "biuf":
        raise UserError(f"{place}: inputs are {inputs.dtype}, only numbers and texts are read")
    if inputs.dtype == np.uint8 and (images := _as_images(inputs)) is not None:
        return "images", images
    if inputs.ndim <= 2:
        return "features", _finite(inputs.reshape(len(inputs), -1), place)
    return "arrays", _as_stored(inputs, place)


def _are_texts(inputs: np.ndarray) -> bool:
    """Whether the inputs are texts; as objects they take no more memory than they have characters."""
    if inputs.dtype.kind != "O":
        return inputs.dtype.kind == "U"
    return all(isinstance(value, str) for value in inputs.flat)


def _as_images(inputs: np.ndarray) -> np.ndarray | None:
    """(N, H, W) or (N, H, W, 3) of uint8 values in the shape of images, None for all other shapes."""
    if inputs.ndim == 3:
        return inputs
    if inputs.ndim != 4:
        return None
    if inputs.shape[3] not in (1, 3) and inputs.shape[1] in (1, 3):
        inputs = inputs.transpose(0, 2, 3, 1)
    if inputs.shape[3] == 1:
        return inputs[..., 0]
    return inputs if inputs.shape[3] == 3 else None


def _as_stored(inputs: np.ndarray, place: str) -> np.ndarray:
    if inputs.dtype.kind == "f":
        return _finite(inputs, place)
    if inputs.dtype.kind == "b" or inputs.dtype == np.uint8:
        return inputs.astype(np.uint8)
    if inputs.dtype.kind == "u" and inputs.size and int(inputs.max()) > LARGEST_INT64:
        raise UserError(f"{place}: {inputs.max()} does not fit into 64 bits with a sign")
    return inputs.astype(np.int64)


def _finite(inputs: np.ndarray, place: str) -> np.ndarray:
    """float32; UserError that names the first row with a value that is not finite."""
    with np.errstate(over="ignore"):
        values = inputs.astype(np.float32)
    rows = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not rows.all():
        row = int(np.argmin(rows)) + 1
        raise UserError(f"{place}: row {row} has a value that is missing or not finite: remove or fill in such rows")
    return values


def to_labels(labels: np.ndarray, place: str) -> np.ndarray:
    """(N,) int64 where labels are whole numbers, else str. UserError for all else."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise UserError(f"{place} has shape {labels.shape}: give the number or name of one class a record, (N,)")
    if labels.dtype.kind == "U":
        refuse_half_characters(labels, place)
        return labels.astype(object)
    if labels.dtype.kind not in "biuf" or not _are_whole(labels):
        raise UserError(f"{place} holds something else than whole numbers and names: give one class a record")
    return labels.astype(np.int64)


def _are_whole(labels: np.ndarray) -> bool:
    return bool((np.isfinite(labels) & (np.abs(labels.astype(np.float64)) < 2**53) & (labels % 1 == 0)).all())
