"""Writing and reading files. A file is either complete or missing, because every write is atomic."""

import hashlib
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

from core.errors import UserError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it, so that a kill never leaves half a file.

    Several processes on several machines may write the same file at once: each fills its own temporary file, and the
    last one to finish wins. Temporary files that dead processes of this machine left behind are deleted. UserError if
    the disk is full, a size limit is reached, or the folder cannot be written to.
    """
    make_folder(path.parent)
    host = platform.node().replace(".", "_")  # another machine may have a process of the same number
    part = path.with_name(f".{path.stem}.{host}-{os.getpid()}.tmp{path.suffix}")  # numpy would add a missing suffix
    for left in path.parent.glob(f".{path.stem}.{host}-*.tmp{path.suffix}"):
        process = left.name.split(".")[-3].removeprefix(f"{host}-")
        if process.isdigit() and not _alive(int(process)):
            left.unlink(missing_ok=True)
    try:
        write(part)
        part.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path} cannot be written ({reason}): make room there, or use another folder") from error
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8 whatever the locale, atomically."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def make_folder(folder: Path) -> None:
    """Make a folder and those above it. UserError if a file is in the way or writing is forbidden."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made ({error.strerror}): use another place") from error


def _alive(process: int) -> bool:
    """Whether the process that left a temporary file behind still runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run the stage that makes it again") from error
    return content


def is_refused(path: Path, read: Callable[[Path], object]) -> bool:
    """Whether the file is there and `read` raises UserError for it: it is damaged, or was made from something else."""
    if not path.exists():
        return False
    try:
        read(path)
    except UserError:
        return path.exists()  # it is no longer there where another process has just deleted it
    return False


def stamp(path: Path) -> tuple[int, int, int] | None:
    """Numbers that change whenever the file is written again; None if there is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
