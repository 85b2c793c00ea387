"""The exception whose message is written for users, and what makes other texts fit into such a message."""

import contextlib
from pathlib import PurePath

LONGEST_REASON = 300  # characters of another library's message that are shown


class UserError(Exception):
    """A mistake that the user can correct. The message says in one line what was wrong and what to do."""


def escape(path: PurePath | str) -> str:
    """The path for people to read: bytes that are not UTF-8 and characters that cannot be printed as escapes."""
    text = str(path)
    with contextlib.suppress(UnicodeEncodeError):  # halves of characters, which stand for no byte
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(error: BaseException) -> str:
    """Another library's message without its line breaks, shortened."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."
