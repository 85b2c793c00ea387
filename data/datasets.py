"""Every data set as one array in memory: `digits`, torchvision's, a folder or tar of images, or a table of features."""

import functools
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.errors import UserError
from data import pictures, tables
from data.inputs import FEATURES, IMAGES, InputKind
from data.pictures import SIDE

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

Points = tuple[np.ndarray, np.ndarray, tuple[str, ...]]  # stored inputs (N, ...), labels (N,) int64, names of classes


class Dataset(NamedTuple):
    """Training and test points joined, in that order: the points that `splits` divides."""

    images: np.ndarray  # (N, 32, 32, 3) uint8; of a table (N, F) uint8 or float32
    labels: np.ndarray  # (N,) int64
    classes: tuple[str, ...]
    flip: bool  # whether horizontal flips keep the label
    fingerprint: str  # of inputs and labels
    kind: InputKind

    @property
    def features(self) -> int | None:
        """The number of features of a table, None where there are images."""
        return self.kind.count_features(self.images)


def kind_of(name: str) -> InputKind:
    """The kind of input that the data set called `name` holds, whether or not it can be loaded."""
    return FEATURES if name in TABLES else IMAGES


@functools.lru_cache(maxsize=1)
def load(name: str, data_dir: Path | None, downloads: Path) -> Dataset:
    """The data set called `name`, from `data_dir` or, for None, from `downloads` or the web.

    `data_dir` is a folder or tar of images or, for a table, what holds its file or files.

    Raises UserError where the name is unknown, a download fails or a file is damaged.
    """
    inputs, labels, classes = _read(name, data_dir, downloads)
    digest = hashlib.sha256(np.ascontiguousarray(inputs).data)
    digest.update(labels.tobytes())
    return Dataset(inputs, labels, classes, name not in NO_FLIP, digest.hexdigest()[:16], kind_of(name))


def _read(name: str, data_dir: Path | None, downloads: Path) -> Points:
    if name in TABLES:
        return tables.read(name, Path(data_dir or downloads))
    if data_dir is not None:
        return pictures.read(Path(data_dir))
    if name == "digits":
        return _digits()
    if name in TORCHVISION:
        return _torchvision(name, downloads)
    raise UserError(f"unknown data set {name!r}: choose from {', '.join(NAMES)}, or give --data_dir FOLDER_OR_TAR")


def _digits() -> Points:
    from sklearn.datasets import load_digits

    digits = load_digits()
    gray = (digits.images * (255 / 16)).round().astype(np.uint8)  # (1797, 8, 8), values 0..16 in the package
    large = gray.repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)
    return np.repeat(large[..., None], 3, axis=3), digits.target.astype(np.int64), tuple("0123456789")


def _torchvision(name: str, downloads: Path) -> Points:
    parts = _download(name, downloads)
    images = np.concatenate([part.data for part in parts])
    if name == "svhn":  # channels come first, and classes are digits without names
        images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        return images, np.concatenate([part.labels for part in parts]).astype(np.int64), tuple("0123456789")
    labels = np.concatenate([np.asarray(part.targets, dtype=np.int64) for part in parts])
    return images, labels, tuple(parts[0].classes)


def _download(name: str, downloads: Path) -> list:
    """The two parts of one of torchvision's data sets, downloaded where they are not there yet."""
    import torchvision

    class_name, options, files = TORCHVISION[name]
    make_part = getattr(torchvision.datasets, class_name)
    try:
        return [make_part(str(downloads), **part, download=True) for part in options]
    except Exception as error:  # torchvision raises URLError, RuntimeError, OSError, tarfile errors...
        raise UserError(
            f"{name} could not be downloaded ({error}): put {files} into {downloads}, or use --dataset_name digits "
            "(no download), or --data_dir with a folder or tar of train/<class>/* and test/<class>/*"
        ) from error
