"""How far a compressed file may inflate: a few megabytes of zeros can stand for more than a machine's memory."""

import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from core.errors import UserError, escape
from data.image_files import decompressed

GIB = 1 << 30  # bytes
LARGEST = 16 * GIB  # of what a file inflates to
LARGE = GIB  # from here on it may be at most GROWTH times the file
GROWTH = 200  # sparse tables of zeros and ones reach about 20


def check_inflated_size(inflated: int, file: Path) -> None:
    """UserError where a file inflates to `inflated` bytes and this is more than data can be expected to take."""
    size = file.stat().st_size
    if inflated > LARGEST:
        reason = f"more than the {LARGEST / GIB:g} GiB that are read"
    elif inflated > LARGE and inflated > GROWTH * size:
        reason = f"more than {GROWTH} times its size"
    else:
        return
    raise UserError(
        f"{escape(file)} inflates to {inflated / GIB:.3g} GiB or more, {reason}: if you trust it, unpack it or save it "
        "without compression, in parts"
    )


class LimitedReader(io.RawIOBase):
    """Reads a stream and raises UserError as soon as it has given more than `check_inflated_size` lets pass."""

    def __init__(self, stream: IO[bytes], file: Path) -> None:
        self.stream = stream
        self.file = file
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        block = self.stream.read(len(buffer))
        self.count += len(block)
        check_inflated_size(self.count, self.file)
        buffer[: len(block)] = block
        return len(block)


@contextmanager
def open_inflated(file: Path) -> Iterator[io.BufferedReader]:
    """The content of a file that is plain or compressed by gzip, bzip2 or xz.

    Raises UserError where it is damaged or inflates too far, also while the block that uses it reads.
    """
    try:
        with decompressed(file) as stream:
            yield io.BufferedReader(LimitedReader(stream, file), 1 << 20)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{escape(file)} cannot be read ({escape(str(error))}): is it complete?") from error
