"""Images in a folder of class folders, or in a tar archive of one.

`<source>/<class>/**/<file>`: an image belongs to the first folder on its way. Pixels are taken as they are stored, in
colour (`data.pictures` says what is left out of account and named).
"""

import hashlib
import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from core import console
from core.errors import UserError, escape
from data.foreign.limits import GIB
from data.foreign.points import Load, Records
from data.image_files import (
    EMPTY,
    HIDDEN,
    STRICT,
    Notes,
    check_end,
    decompressed,
    hidden_part,
    is_hidden,
    kind_of_entry,
    walk,
)
from data.pictures import note_changes, to_rgb

SPLITS = {
    "train",
    "test",
    "val",
    "valid",
    "validation",
}  # a folder that holds only these has no class folders
PYTHON_CACHE = "__pycache__"
LARGE_FILE = GIB  # bytes; a file of this size is opened only where its name ends as an image's
HELD = 4 * GIB  # of the images in an archive, which stay in memory

OUTSIDE = "outside the class folders"
NO_IMAGE = "of another kind than images"


class StoredImage(NamedTuple):
    """An image file that is opened where it lies, or the content that an archive held."""

    path: PurePosixPath  # inside the source; its first part is the class
    place: Path | bytes

    def read(self) -> bytes:
        return self.place if isinstance(self.place, bytes) else self.place.read_bytes()

    def size(self) -> int:
        return len(self.place) if isinstance(self.place, bytes) else self.place.stat().st_size

    def has_ending_of_image(self) -> bool:
        """Whether the name ends as an image's, or has no ending."""
        return not self.path.suffix or self.path.suffix.lower() in Image.registered_extensions()


def class_folders(source: Path) -> list[str]:
    """The names of the folders that can be class folders."""
    entries = [entry.name for entry in os.scandir(source) if entry.is_dir()]
    return [name for name in entries if not is_hidden(name) and name != PYTHON_CACHE]


def read_image_folder(source: Path) -> Records:
    """The images below the class folders of `source`, ordered by path.

    Raises UserError where there are none, one is damaged, or `source` holds splits instead of classes.
    """
    folders = class_folders(source)
    _refuse_splits(folders, source, "give")
    skipped = Notes()
    return _to_records(source, _from_folder(source, skipped), folders, skipped)


def read_image_archive(source: Path) -> Records:
    """The images of a tar archive, compressed or not, of class folders; folders that hold all of these are left out.

    Raises UserError as `read_image_folder` does, and where the images take more than 4 GiB.
    """
    skipped = Notes()
    try:
        images = sorted(_from_archive(source, skipped), key=lambda image: image.path.parts)
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise UserError(
            f"{escape(source)} cannot be read ({escape(str(error))}): is it a complete tar archive?"
        ) from error
    images = _without_common_folders(images)
    folders = sorted({image.path.parts[0] for image in images})
    _refuse_splits(folders, source, "unpack it and give")
    return _to_records(source, images, folders, skipped)


def _refuse_splits(folders: list[str], source: Path, way_out: str) -> None:
    """UserError where the folders are splits; the way out is the beginning of the advice."""
    names = {name.casefold() for name in folders}
    if names and (names <= SPLITS or {"train", "test"} <= names):
        raise UserError(
            f"{escape(source)} holds {', '.join(sorted(folders))} instead of class folders: {way_out} the folder of "
            "the members and the folder of the non-members, such as data/train and data/test"
        )


# Where image files come from


def _from_folder(source: Path, skipped: Notes) -> Iterator[StoredImage]:
    try:
        for path, origin in walk(os.path.realpath(source), PurePosixPath(), (), skipped, set()):
            if not os.path.isfile(origin):
                kind = "no regular file" if os.path.exists(origin) else "a link to nothing"
                raise UserError(f"{escape(source)}: {escape(path)} is {kind}: remove it or put the image there")
            if len(path.parts) == 1 or PYTHON_CACHE in path.parts:
                skipped.add(OUTSIDE, path)
            else:
                yield StoredImage(path, Path(origin))
    except OSError as error:
        raise UserError(f"{escape(source)} cannot be read ({escape(str(error))}): may you read all of it?") from error


def _from_archive(source: Path, skipped: Notes) -> Iterator[StoredImage]:
    """One pass over the archive; nothing is unpacked to disk."""
    size = 0
    with decompressed(source) as stream, tarfile.open(fileobj=stream, **STRICT) as archive:
        for entry in archive:
            path = PurePosixPath(entry.name)
            if hidden := hidden_part(path):
                skipped.add(HIDDEN, hidden)
            elif entry.isfile():
                size += entry.size
                _check_archive_size(size, source)
                yield StoredImage(path, archive.extractfile(entry).read())
            elif not entry.isdir():
                raise UserError(f"{escape(source)}: {escape(path)} is {kind_of_entry(entry)}")
        check_end(stream)


def _check_archive_size(size: int, source: Path) -> None:
    if size > HELD:
        raise UserError(
            f"{escape(source)} holds more than the {HELD / GIB:g} GiB that are read from an archive: unpack it and "
            "give the folder"
        )


def _without_common_folders(images: list[StoredImage]) -> list[StoredImage]:
    """The images without the folders that all class folders lie in."""
    while len({image.path.parts[0] for image in images}) == 1 and all(len(image.path.parts) > 2 for image in images):
        images = [StoredImage(PurePosixPath(*image.path.parts[1:]), image.place) for image in images]
    return images


# What is in them


def _to_records(source: Path, files: Iterable[StoredImage], folders: list[str], skipped: Notes) -> Records:
    """The records of those files that are images; `folders` names the classes, also those without an image."""
    changed = Notes()
    images, digest = _collect_images(source, files, skipped, changed)
    labels = [image.path.parts[0] for image in images.values()]
    empty = sorted(set(folders) - set(labels))
    for name in empty:
        skipped.add(EMPTY, name)
    left_out = f"skipped {skipped}" if skipped.places else ""
    if not images:
        raise UserError(f"{escape(source)} holds no images in class folders, <class>/<image>; {left_out or 'no files'}")
    return Records(
        kind="images",
        labels=np.array(labels, dtype=object),
        names=tuple(images),
        load=_loader(list(images.values())),
        files=(source,),
        digest=digest,
        described=f"{len(images):,} images",
        notes="; ".join(note for note in (str(changed), left_out) if note),
        empty_classes=tuple(empty),
    )


def _collect_images(
    source: Path, files: Iterable[StoredImage], skipped: Notes, changed: Notes
) -> tuple[dict[str, StoredImage], str]:
    """name -> image, and the sha256 of all names and contents."""
    digest = hashlib.sha256()
    images: dict[str, StoredImage] = {}
    for file in console.progress(files, f"reading {source.name}"):
        content = _read_candidate(file)
        if len(file.path.parts) == 1:
            skipped.add(OUTSIDE, file.path)
        elif content is None or not _is_image(content, file, changed):
            skipped.add(NO_IMAGE, file.path)
        else:
            _check_names(file.path, images, source)
            images[escape(file.path)] = file
            digest.update(hashlib.sha256(content).digest())
    digest.update("\0".join(images).encode())
    return images, digest.hexdigest()


def _read_candidate(file: StoredImage) -> bytes | None:
    """The content of what may be an image, None where a file is too large to look into."""
    return _read(file) if file.has_ending_of_image() or file.size() < LARGE_FILE else None


def _check_names(path: PurePosixPath, images: dict[str, StoredImage], source: Path) -> None:
    """UserError where a class could not be written in tables and pages, or a name occurs twice."""
    if escape(path.parts[0]) != path.parts[0]:
        raise UserError(
            f"{escape(source)}: the name of the class folder {escape(path.parts[0])} is not UTF-8 or has characters "
            "that cannot be printed: rename it"
        )
    if escape(path) in images:
        raise UserError(f"{escape(source)} holds two images {escape(path)}: rename or remove one")


def _read(image: StoredImage) -> bytes:
    try:
        return image.read()
    except OSError as error:
        raise UserError(f"{escape(image.path)} cannot be read ({error.strerror}): remove it or replace it") from error


def _is_image(content: bytes, file: StoredImage, changed: Notes) -> bool:
    """Whether a file is an image; what `to_rgb` leaves out or converts is noted.

    Only the file's beginning is decoded here. UserError where it is damaged: where Pillow does not know the content,
    although the name is an image's.
    """
    try:
        image = Image.open(io.BytesIO(content))
        _check_size(image)
        note_changes(image, file.path, changed)
    except UnidentifiedImageError as error:
        if not file.has_ending_of_image():
            return False
        raise _damage(content, file.path, "of no known format") from error
    except Exception as error:  # Pillow's decoders raise many kinds
        raise _damage(content, file.path, escape(str(error))) from error
    return True


def _check_size(image: Image.Image) -> None:
    """ValueError where few bytes stand for an image that takes much memory."""
    if image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are more than the {Image.MAX_IMAGE_PIXELS:,} allowed")


def _damage(content: bytes, path: PurePosixPath, reason: str) -> UserError:
    reason = reason if content else "the file is empty"
    return UserError(f"{escape(path)} is not an image ({reason}): remove it or replace it")


def _loader(images: list[StoredImage]) -> Load:
    def load(index: np.ndarray) -> list[np.ndarray]:
        return [decode(images[i]) for i in index]

    return load


def decode(image: StoredImage) -> np.ndarray:
    """The pixels (H, W, 3) uint8; UserError that names the file where it is damaged."""
    content = _read(image)
    try:
        return np.asarray(to_rgb(Image.open(io.BytesIO(content))))
    except Exception as error:  # Pillow's decoders raise many kinds
        raise _damage(content, image.path, escape(str(error))) from error
