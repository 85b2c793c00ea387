"""MNIST's idx files: `*-images-idx3-ubyte` with `*-labels-idx1-ubyte` beside it, either or both as `.gz`.

An idx file begins with 0, 0, 8 for unsigned bytes and the number of axes, then the length of each axis as four bytes,
largest first (http://yann.lecun.com/exdb/mnist/).
"""

import math
import re
import struct
from pathlib import Path

import numpy as np

from core.errors import UserError, escape
from data.foreign.arrays import array_records
from data.foreign.limits import check_inflated_size, open_inflated
from data.foreign.points import Records

IMAGES_NAME = re.compile(r"(?P<set>.*)images(?P<dot>[-.])idx3-ubyte(\.gz)?")
UNSIGNED_BYTES = b"\x00\x00\x08"


def is_images_file(file: Path) -> bool:
    return IMAGES_NAME.fullmatch(file.name) is not None


def read_idx(images: Path) -> Records:
    """Grey images (H, W) uint8 and their labels; UserError where a file is missing, damaged or of another kind."""
    labels_file = _labels_beside(images)
    pixels = _read_array(images, axes=3)
    labels = _read_array(labels_file, axes=1)
    if len(pixels) != len(labels):
        raise UserError(f"{escape(images)} holds {len(pixels):,} images, {labels_file.name} {len(labels):,} labels")
    return array_records(images, pixels, labels.astype(np.int64))._replace(files=(images, labels_file))


def _labels_beside(images: Path) -> Path:
    name = IMAGES_NAME.fullmatch(images.name)
    stem = f"{name['set']}labels{name['dot']}idx1-ubyte"
    for file in (images.with_name(stem), images.with_name(f"{stem}.gz")):
        if file.is_file():
            return file
    raise UserError(f"{escape(images)}: the labels are missing: put {escape(stem)} or {escape(stem)}.gz beside it")


def _read_array(file: Path, axes: int) -> np.ndarray:
    """uint8 of as many axes."""
    with open_inflated(file) as stream:
        start = stream.read(4)
        lengths = stream.read(4 * axes)
        if start != UNSIGNED_BYTES + bytes([axes]) or len(lengths) < 4 * axes:
            raise UserError(f"{escape(file)} is no idx file of bytes with {axes} axes: get it anew")
        shape = struct.unpack(f">{axes}I", lengths)
        check_inflated_size(math.prod(shape), file)
        content = stream.read(math.prod(shape) + 1)
    if len(content) != math.prod(shape):
        raise UserError(f"{escape(file)} says that it holds {shape} bytes and does not: get it anew")
    return np.frombuffer(content, np.uint8).reshape(shape)
