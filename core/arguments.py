"""What all command lines share: a parser whose errors are one line, and the types of flags."""

import argparse
from pathlib import Path


class Parser(argparse.ArgumentParser):
    """argparse, but an error is one line that says what is wrong, without the usage."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def script_parser(doc: str) -> Parser:
    """A parser that shows the script's docstring and takes no abbreviated flags."""
    return Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)


def folder_name(text: str) -> str:
    """A name that becomes part of a folder's name and so must not contain a path."""
    if Path(text).name != text or text == "..":
        raise argparse.ArgumentTypeError(f"{text!r} is not a plain name: leave out slashes and '..'")
    return text


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def _decimal(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def positive_int(text: str) -> int:
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def whole_number(text: str) -> int:
    value = _whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return value


def positive_float(text: str) -> float:
    value = _decimal(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def not_negative(text: str) -> float:
    value = _decimal(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not 0 or a positive number")
    return value


def seed(text: str) -> int:
    value = _whole(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to {2**31 - 1}")
    return value


def share_below_one(text: str) -> float:
    value = _decimal(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to below 1")
    return value


def proper_share(text: str) -> float:
    value = _decimal(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def share_up_to_one(text: str) -> float:
    value = _decimal(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


def spelled(number: float) -> str:
    """A number as it is typed: the shortest form that reads back as the very same number."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))
