"""Images from the place that --data_dir names, in any of the forms that are read.

These are a folder or tar of train/<class>/* and test/<class>/*, one of <class>/* without such a split, and MNIST's idx
files: one of images, or a folder with one or two of them, each with its labels beside it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from core import console
from core.errors import UserError, escape
from data import pictures
from data.foreign.idx_files import is_images_file, read_idx
from data.foreign.image_folders import class_folders, read_image_archive, read_image_folder
from data.foreign.points import Records


def read(place: Path, side: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images (N, side, side, 3) uint8, labels (N,) int64 and the classes that occur.

    Prints a line that says how many there are, what was skipped or changed, and why.
    Raises UserError where there are no images, or some cannot be read.
    """
    if not place.exists():
        raise UserError(f"--data_dir {escape(place)} does not exist")
    if idx_files := _idx_files(place):
        return _join(place, [read_idx(file) for file in idx_files], side)
    try:
        return pictures.read(place, side)
    except pictures.NoSplit:
        if place.is_dir() and not class_folders(place):
            raise
    reader = read_image_folder if place.is_dir() else read_image_archive
    return _join(place, [reader(place)], side)


def _idx_files(place: Path) -> list[Path]:
    """The idx files of images at this place, those for training first. UserError where they are more than two sets.

    Of a file that is there compressed and unpacked, as torchvision leaves it, the unpacked one counts.
    """
    candidates = sorted(place.iterdir() if place.is_dir() else [place], reverse=True)
    by_name = {file.name.removesuffix(".gz"): file for file in candidates if is_images_file(file)}
    files = list(by_name.values())
    if len(files) > 2:
        names = ", ".join(escape(file.name) for file in files)
        raise UserError(f"{escape(place)} holds {len(files)} sets of idx files ({names}): give one or two")
    return sorted(files, key=lambda file: ("train" not in file.name, file.name))


def _join(place: Path, parts: Sequence[Records], side: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The images of several sources under each other, with one numbering of classes."""
    images = [image for part in parts for image in _resized(part, side)]
    classes, labels = np.unique(np.concatenate([part.labels for part in parts]), return_inverse=True)
    counts = " and ".join(part.described for part in parts)
    notes = [part.notes for part in parts if part.notes]
    console.say("; ".join([f"{escape(place)}: {counts} of {len(classes):,} classes, as {side}x{side}", *notes]))
    return np.stack(images), labels.astype(np.int64), tuple(map(str, classes))


def _resized(part: Records, side: int) -> list[np.ndarray]:
    """The images of one source, each (side, side, 3) uint8. They are decoded one by one: large ones need much room."""
    index = console.progress(range(len(part.labels)), f"reading {part.files[0].name}")
    return [pictures.resize(Image.fromarray(part.load(np.array([i]))[0]), side) for i in index]
