"""The image files `train/<class>/*` and `test/<class>/*` of a folder or a tar archive.

No file is passed over without a word: whatever is not read is noted with a reason, and what can only be a mistake, such
as a link to nothing or a damaged archive, raises an error.
"""

import bz2
import contextlib
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from core.errors import UserError, escape

SPLITS = ("train", "test")
SYSTEM_NAMES = {
    "__macosx",
    "@eadir",
    "$recycle.bin",
    "desktop.ini",
    "ehthumbs.db",
    "icon\r",
    "lost+found",
    "system volume information",
    "thumbs.db",
}
COMPRESSIONS = {  # how a file of each kind begins, and what reads it
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x5d\x00\x00": lzma.open,
}
READ_AT_ONCE = 1 << 20  # bytes

HIDDEN = "hidden or of the system"
OUTSIDE = "outside train/<class>/ and test/<class>/"
BELOW = "in a folder below a class"
LOOP = "linking back to a folder above"
EMPTY = "without an image"


class Notes:
    """Reasons, and the places to which each applies: why files were skipped, or what was changed in images."""

    def __init__(self) -> None:
        self.places: dict[str, dict[str, None]] = {}

    def add(self, reason: str, path: PurePosixPath | str) -> None:
        self.places.setdefault(reason, {})[escape(path)] = None

    def __str__(self) -> str:
        return ", ".join(self._describe(reason) for reason in self.places)

    def _describe(self, reason: str) -> str:
        places = list(self.places[reason])
        return f"{len(places):,} {reason} ({places[0]}{', ...' if len(places) > 1 else ''})"


class ImageFile(NamedTuple):
    """A file that counts as an image."""

    path: PurePosixPath  # as seen from the folder or in the archive
    origin: str  # where it really lies: two paths of one origin are one file
    content: bytes

    @property
    def place(self) -> tuple[bool, str, str]:
        """Whether it is a test image, its class and its name. Images are ordered by this."""
        split, label, name = self.path.parts[-3:]
        return split == "test", label, name


def image_files(source: Path, skipped: Notes) -> Iterator[ImageFile]:
    """Read all image files below a folder or in an archive, and note why the other files are skipped.

    Raises UserError where something cannot be read to its end.
    """
    read = _from_folder if source.is_dir() else _from_archive
    question = "may you read all of it" if source.is_dir() else "is it a complete tar archive"
    class_folders: set[PurePosixPath] = set()
    filled: set[PurePosixPath] = set()
    try:
        for file in read(source, skipped, class_folders):
            filled.add(file.path.parent)
            yield file
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{escape(source)} cannot be read ({escape(str(error))}): {question}?") from error
    for folder in sorted(class_folders - filled):
        skipped.add(EMPTY, folder)


def is_class_folder(path: PurePosixPath) -> bool:
    return len(path.parts) >= 2 and path.parts[-2] in SPLITS


def note_class_folder(path: PurePosixPath, class_folders: set[PurePosixPath]) -> None:
    if is_class_folder(path):
        class_folders.add(path)


def reason_to_skip(path: PurePosixPath) -> str | None:
    """Why a file at this path is not read, None where it counts as an image."""
    if is_class_folder(path.parent):
        return None
    return BELOW if any(part in SPLITS for part in path.parts[:-3]) else OUTSIDE


def is_hidden(name: str) -> bool:
    return (name.startswith(".") and name != "..") or name.casefold() in SYSTEM_NAMES


def hidden_part(path: PurePosixPath) -> PurePosixPath | None:
    """The first hidden folder on the way to a file, the file itself where it alone is hidden, or None."""
    for depth, name in enumerate(path.parts, start=1):
        if is_hidden(name):
            return PurePosixPath(*path.parts[:depth])
    return None


# Folders


def _from_folder(source: Path, skipped: Notes, class_folders: set[PurePosixPath]) -> Iterator[ImageFile]:
    for path, origin in walk(os.path.realpath(source), PurePosixPath(), (), skipped, class_folders):
        if reason := reason_to_skip(path):
            skipped.add(reason, path)
        elif not os.path.isfile(origin):
            kind = "no regular file" if os.path.exists(origin) else "a link to nothing"
            raise UserError(f"{escape(source)}: {escape(path)} is {kind}: remove it or put the image there")
        else:
            yield ImageFile(path, origin, Path(origin).read_bytes())


def walk(
    folder: str, path: PurePosixPath, above: tuple[str, ...], skipped: Notes, class_folders: set[PurePosixPath]
) -> Iterator[tuple[PurePosixPath, str]]:
    """The path and the origin of everything below a folder but folders; links to folders are followed.

    folder: its real place on disk; path: as seen from the source; above: the real places of the folders on the way.
    """
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = os.fsencode(entry.name).decode("utf-8", "surrogateescape")  # whatever encoding the locale has
        origin = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
        if is_hidden(name):
            skipped.add(HIDDEN, path / name)
        elif not os.path.isdir(origin):
            yield path / name, origin
        elif origin in (*above, folder):
            skipped.add(LOOP, path / name)
        else:
            note_class_folder(path / name, class_folders)
            yield from walk(origin, path / name, (*above, folder), skipped, class_folders)


# Archives


class StrictHeader(tarfile.TarInfo):
    """A header that is damaged or missing is an error. Python's own reader would take it for the archive's end."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"damaged or cut off: {error}") from error


STRICT = {"mode": "r:", "tarinfo": StrictHeader, "encoding": "utf-8"}  # how archives are opened


def _from_archive(source: Path, skipped: Notes, class_folders: set[PurePosixPath]) -> Iterator[ImageFile]:
    """One pass over the archive; nothing is unpacked to disk."""
    with decompressed(source) as stream, tarfile.open(fileobj=stream, **STRICT) as archive:
        for entry in archive:
            path = PurePosixPath(entry.name)
            if hidden := hidden_part(path):
                skipped.add(HIDDEN, hidden)
            elif entry.isdir():
                note_class_folder(path, class_folders)
            elif entry.isfile() and not reason_to_skip(path):
                yield ImageFile(path, str(path), archive.extractfile(entry).read())
            elif not entry.isfile() and any(part in SPLITS for part in path.parts):
                raise UserError(f"{escape(source)}: {escape(path)} is {kind_of_entry(entry)}")
            else:
                skipped.add(reason_to_skip(path) or OUTSIDE, path)
        check_end(stream)


def kind_of_entry(entry: tarfile.TarInfo) -> str:
    if entry.islnk() or entry.issym():
        return "a link: pack the files themselves, with tar --dereference --hard-dereference"
    return "no regular file: pack the archive without it"


@contextlib.contextmanager
def decompressed(source: Path) -> Iterator[IO[bytes]]:
    """The content without its compression; reading it to its end compares the checksums that gzip, bzip2, xz keep."""
    with source.open("rb") as file:
        start = file.read(max(map(len, COMPRESSIONS)))
        file.seek(0)
        openers = [opener for magic, opener in COMPRESSIONS.items() if start.startswith(magic)]
        opener = openers[0] if openers else contextlib.nullcontext
        with opener(file) as stream:
            yield stream


def check_end(stream: IO[bytes]) -> None:
    """Read what follows the mark of the archive's end. ReadError where that is anything but zeros."""
    while block := stream.read(READ_AT_ONCE):
        if block.strip(b"\0"):
            raise tarfile.ReadError("damaged: there is more behind its end mark")
