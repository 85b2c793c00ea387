"""Every data set as one array in memory: `digits`, torchvision's, a folder or tar of images, or a table of features."""

import functools
import hashlib
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from core.errors import UserError
from data import tables

SIDE = 32  # pixels; what the networks are built for (PROTOCOL §2)
CIFAR_PARTS = ({"train": True}, {"train": False})
SVHN_PARTS = ({"split": "train"}, {"split": "test"})
TORCHVISION = {  # name -> (class, what makes its two parts, what torchvision downloads)
    "cifar10": ("CIFAR10", CIFAR_PARTS, "cifar-10-python.tar.gz"),
    "cifar100": ("CIFAR100", CIFAR_PARTS, "cifar-100-python.tar.gz"),
    "svhn": ("SVHN", SVHN_PARTS, "train_32x32.mat and test_32x32.mat"),
}
TABLES = tuple(tables.TABLES)
NAMES = ("digits", *TORCHVISION, *TABLES)
NO_FLIP = {"digits", "svhn", *TABLES}  # a mirrored digit is not that digit


class Dataset(NamedTuple):
    """Training and test images joined, in that order: the pool that `splits` divides. Or the rows of a table."""

    images: np.ndarray  # (N, 32, 32, 3) uint8; of a table (N, F) uint8 or float32
    labels: np.ndarray  # (N,) int64
    classes: tuple[str, ...]
    flip: bool  # whether horizontal flips keep the label
    fingerprint: str  # of pixels and labels

    @property
    def features(self) -> int | None:
        """F of a table, None where there are images. Nothing but images can be augmented or shown."""
        return self.images.shape[1] if self.images.ndim == 2 else None


@functools.lru_cache(maxsize=1)
def load(name: str, data_dir: Path | None, downloads: Path) -> Dataset:
    """The data set called `name`, from `data_dir` or from where the name is known to live.

    `data_dir` is a folder or tar of images or, for a table, what holds its file or files.

    Raises UserError where the name is unknown, a download fails or a file is damaged.
    """
    if name in TABLES:
        images, labels, classes = tables.read(name, Path(data_dir or downloads))
    elif data_dir is not None:
        images, labels, classes = _read_images(Path(data_dir))
    elif name == "digits":
        images, labels, classes = _digits()
    elif name in TORCHVISION:
        images, labels, classes = _torchvision(name, downloads)
    else:
        raise UserError(f"unknown data set {name!r}: choose from {', '.join(NAMES)}, or give --data_dir FOLDER_OR_TAR")
    digest = hashlib.sha256(np.ascontiguousarray(images).data)
    digest.update(labels.tobytes())
    return Dataset(images, labels, classes, name not in NO_FLIP, digest.hexdigest()[:16])


def _digits() -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    gray = (digits.images * (255 / 16)).round().astype(np.uint8)  # (1797, 8, 8), values 0..16 in the package
    large = gray.repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)
    return np.repeat(large[..., None], 3, axis=3), digits.target.astype(np.int64), tuple("0123456789")


def _torchvision(name: str, downloads: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    import torchvision

    class_name, options, files = TORCHVISION[name]
    make = getattr(torchvision.datasets, class_name)
    try:
        parts = [make(str(downloads), **part, download=True) for part in options]
    except Exception as error:  # torchvision raises URLError, RuntimeError, OSError, tarfile errors...
        raise UserError(
            f"{name} could not be downloaded ({error}): put {files} into {downloads}, or use --dataset_name digits "
            "(no download), or --data_dir with a folder or tar of train/<class>/* and test/<class>/*"
        ) from error
    if name == "svhn":  # channels first, and digits for classes
        images = np.ascontiguousarray(np.concatenate([part.data for part in parts]).transpose(0, 2, 3, 1))
        return images, np.concatenate([part.labels for part in parts]).astype(np.int64), tuple("0123456789")
    images = np.concatenate([part.data for part in parts])
    labels = np.concatenate([np.asarray(part.targets, dtype=np.int64) for part in parts])
    return images, labels, tuple(parts[0].classes)


def _read_images(source: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images of `train/<class>/*` and `test/<class>/*`, ordered by split, class and name whatever the order on disk."""
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
