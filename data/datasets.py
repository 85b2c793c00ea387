"""Every data set as one array in memory: `digits`, torchvision's, images of one's own, a table, or texts."""

import functools
import gzip
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core import console
from core.errors import UserError
from core.files import write_atomically
from data import csv_tables, image_sets, tables, texts
from data.foreign.sources import CSV_ENDINGS
from data.inputs import FEATURES, IMAGES, TEXT, InputKind
from data.pictures import SIDE, resize_all

CIFAR_PARTS = ({"train": True}, {"train": False})
SVHN_PARTS = ({"split": "train"}, {"split": "test"})
TORCHVISION = {  # name -> (class, what makes its two parts, what torchvision downloads)
    "cifar10": ("CIFAR10", CIFAR_PARTS, "cifar-10-python.tar.gz"),
    "cifar100": ("CIFAR100", CIFAR_PARTS, "cifar-100-python.tar.gz"),
    "fashion_mnist": ("FashionMNIST", CIFAR_PARTS, "its four files, FashionMNIST/raw/*-ubyte.gz,"),
    "svhn": ("SVHN", SVHN_PARTS, "train_32x32.mat and test_32x32.mat"),
}
TABLES = tuple(tables.TABLES)
NAMES = ("digits", *TORCHVISION, *TABLES)
NO_FLIP = {"digits", "svhn", *TABLES}  # a mirrored digit is not that digit

Points = tuple[np.ndarray, np.ndarray, tuple[str, ...]]  # inputs as read (N, ...), labels (N,) int64, names of classes


class Reading(NamedTuple):
    """How a data set is read; None leaves the choice to the reader."""

    label_column: str | None = None  # of a CSV file, or of other texts
    text_column: str | None = None
    min_class: int | None = None  # classes with fewer points are left out
    image_size: int | None = None  # height and width that images get


AS_IT_IS = Reading()


class Dataset(NamedTuple):
    """Training and test points joined, in that order: the points that `splits` divides."""

    images: np.ndarray  # (N, S, S, 3) uint8, S = --image_size; tables (N, F) uint8 or float32; tokens (N, length) int32
    labels: np.ndarray  # (N,) int64
    classes: tuple[str, ...]
    flip: bool  # whether horizontal flips keep the label
    fingerprint: str  # of inputs and labels
    kind: InputKind
    texts: np.ndarray | None = None  # (N,) of str, from which tokens were made

    @property
    def as_read(self) -> np.ndarray:
        """(N, ...) what a person would see of the points: texts, or the stored values."""
        return self.images if self.texts is None else self.texts

    def with_tokens(self, tokenizer: str) -> "Dataset":
        """The same texts, stored as tokens."""
        return self._replace(images=self.kind.encode(tokenizer, self.images), texts=self.images)

    @property
    def features(self) -> int | None:
        """The number of features of a table, None where there are images."""
        return self.kind.count_features(self.images)


def is_csv(data_dir: Path | None) -> bool:
    return data_dir is not None and data_dir.name.casefold().endswith(CSV_ENDINGS)


def kind_of(name: str, data_dir: Path | None = None, reading: Reading = AS_IT_IS) -> InputKind:
    """The kind of input that the data set called `name` holds, whether or not it can be loaded."""
    if name in TABLES:
        return FEATURES
    columns = reading.label_column, reading.text_column
    if name == texts.WORDNET or (data_dir is not None and texts.holds_texts(data_dir, *columns)):
        return TEXT
    return FEATURES if is_csv(data_dir) else IMAGES


@functools.lru_cache(maxsize=1)
def load(name: str, data_dir: Path | None, downloads: Path, reading: Reading = AS_IT_IS) -> Dataset:
    """The data set called `name`, from `data_dir` or, for None, from `downloads` or the web.

    `data_dir` holds images (`data.image_sets`), a table (its file or files, or a CSV file) or is a file of texts. Texts
    come without tokens: `images` holds the texts until `with_tokens` is called.

    Raises UserError where the name is unknown, a download fails or a file is damaged.
    """
    data_dir = None if data_dir is None else Path(data_dir)
    kind = kind_of(name, data_dir, reading)
    inputs, labels, classes = _without_small_classes(_read(name, kind, data_dir, downloads, reading), reading.min_class)
    digest = hashlib.sha256("\0".join(inputs).encode() if kind is TEXT else np.ascontiguousarray(inputs).data)
    digest.update(labels.tobytes())
    flip = kind is IMAGES and name not in NO_FLIP
    return Dataset(inputs, labels, classes, flip, digest.hexdigest()[:16], kind)


def _read(name: str, kind: InputKind, data_dir: Path | None, downloads: Path, reading: Reading) -> Points:
    if kind is TEXT:
        return _read_texts(name, data_dir, reading)
    if reading.label_column is not None and (name in TABLES or not is_csv(data_dir)):
        raise UserError(f"--label_column {reading.label_column!r} is for a table or texts in --data_dir: leave it out")
    if name in TABLES:
        return tables.read(name, data_dir or downloads)
    if is_csv(data_dir):
        return csv_tables.read(data_dir, reading.label_column)
    side = reading.image_size or SIDE
    if data_dir is not None:
        return image_sets.read(data_dir, side)
    if name not in ("digits", *TORCHVISION):
        known = ", ".join(NAMES)
        raise UserError(f"unknown data set {name!r}: choose from {known}, or give --data_dir FOLDER_OR_TAR_OR_CSV")
    images, labels, classes = _digits() if name == "digits" else _torchvision(name, downloads)
    return resize_all(images, side), labels, classes


def _read_texts(name: str, data_dir: Path | None, reading: Reading) -> Points:
    if data_dir is None:
        raise UserError(f"{name} is not downloaded: give --data_dir with the .csv or .jsonl file that holds it")
    return texts.read(Path(data_dir), reading.label_column, reading.text_column)


def _without_small_classes(points: Points, least: int | None) -> Points:
    """The points of the classes with at least so many; classes are numbered anew. UserError where none is left."""
    inputs, labels, classes = points
    counts = np.bincount(labels, minlength=len(classes))
    large = np.flatnonzero(counts >= (least or 0))
    if len(large) == len(classes):
        return points
    if len(large) == 0:
        raise UserError(f"no class has {least} points, the largest has {counts.max()}: give a smaller --min_class")
    remaining = np.isin(labels, large)
    left_out = f"{len(classes) - len(large)} smaller ones left out"
    console.say(f"{remaining.sum():,} points of {len(large)} classes with {least} points or more; {left_out}")
    return inputs[remaining], np.searchsorted(large, labels[remaining]), tuple(classes[i] for i in large)


def _digits() -> Points:
    from sklearn.datasets import load_digits

    digits = load_digits()
    gray = (digits.images * (255 / 16)).round().astype(np.uint8)  # (1797, 8, 8), values 0..16 in the package
    large = gray.repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)
    return np.repeat(large[..., None], 3, axis=3), digits.target.astype(np.int64), tuple("0123456789")


def _torchvision(name: str, downloads: Path) -> Points:
    parts = _download(name, downloads)
    images = np.concatenate([np.asarray(part.data) for part in parts])
    if name == "svhn":  # channels come first, and classes are digits without names
        images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        return images, np.concatenate([part.labels for part in parts]).astype(np.int64), tuple("0123456789")
    labels = np.concatenate([np.asarray(part.targets, dtype=np.int64) for part in parts])
    return images, labels, tuple(parts[0].classes)


def unpack_idx_files(folder: Path) -> None:
    """Unpack compressed idx files that somebody put there, as torchvision does only with files packed as the authors'.

    Packed anew, the same files have other checksums. Those that are unpacked already stay.
    """
    for archive in folder.glob("*-ubyte.gz"):
        unpacked = archive.with_suffix("")
        if not unpacked.exists():
            content = gzip.decompress(archive.read_bytes())
            write_atomically(unpacked, lambda part, content=content: part.write_bytes(content))


def _download(name: str, downloads: Path) -> list:
    """The two parts of one of torchvision's data sets, downloaded where they are not there yet."""
    import torchvision

    class_name, options, files = TORCHVISION[name]
    make_part = getattr(torchvision.datasets, class_name)
    try:
        unpack_idx_files(downloads / class_name / "raw")
        return [make_part(str(downloads), **part, download=True) for part in options]
    except Exception as error:  # torchvision raises URLError, RuntimeError, OSError, tarfile errors...
        raise UserError(
            f"{name} could not be downloaded ({error}): put {files} into {downloads}, or use --dataset_name digits "
            "(no download), or --data_dir with a folder or tar of train/<class>/* and test/<class>/*"
        ) from error
