"""Images of a folder or a tar: `train/<class>/*` and `test/<class>/*`, as one array of 32x32 RGB pixels."""

import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from core.errors import UserError

SIDE = 32  # pixels; what the networks are built for (PROTOCOL §2)


def read(source: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images (N, 32, 32, 3) uint8, labels (N,) int64 and the classes, ordered by split, class and file name.

    Raises UserError where there are no images, one cannot be read, or two have the same split, class and name.
    """
    if not source.exists():
        raise UserError(f"--data_dir {source} does not exist")
    read = _folder_files(source) if source.is_dir() else _tar_files(source)
    found: dict[tuple[bool, str, str], np.ndarray] = {}
    try:
        for path, content in tqdm(read, desc=f"reading {source.name}", unit=" images", disable=None, leave=False):
            split, label, name = path.parts[-3:]
            key = (split == "test", label, name)
            if key in found:
                raise UserError(f"{source} holds two images {split}/{label}/{name}: rename or remove one, {path}")
            found[key] = _decode(content, path)
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{source} cannot be read ({error}): is it a complete tar archive or folder?") from error
    if not found:
        raise UserError(f"{source} holds no train/<class>/* and test/<class>/* images")
    keys = sorted(found)
    classes = tuple(sorted({label for _, label, _ in keys}))
    number = {label: i for i, label in enumerate(classes)}
    labels = np.array([number[label] for _, label, _ in keys], dtype=np.int64)
    return np.stack([found[key] for key in keys]), labels, classes


def _is_image(path: PurePosixPath) -> bool:
    return len(path.parts) >= 3 and path.parts[-3] in ("train", "test") and not path.name.startswith(".")


def _folder_files(source: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    for file in sorted(source.rglob("*")):
        path = PurePosixPath(file.relative_to(source).as_posix())
        if file.is_file() and _is_image(path):
            yield path, file.read_bytes()


def _tar_files(source: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    with tarfile.open(source, "r|*") as archive:  # a stream: one pass, nothing unpacked to disk
        for entry in archive:
            path = PurePosixPath(entry.name)
            if entry.isfile() and _is_image(path):
                yield path, archive.extractfile(entry).read()


def _decode(content: bytes, path: PurePosixPath) -> np.ndarray:
    try:
        image = Image.open(io.BytesIO(content)).convert("RGB")
    except Exception as error:  # Pillow's decoders raise many kinds
        raise UserError(f"{path} is not an image ({error}): remove it or replace it") from error
    if image.size != (SIDE, SIDE):
        image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image)
