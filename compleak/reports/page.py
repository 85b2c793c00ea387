"""A page is a list of blocks. `to_markdown` turns it into a text as GitHub shows it, `html.to_html` into one file.

Line breaks within a text are spaces. A text may hold `code`, *emphasis* and [links](target) in Markdown's spelling, and
no other markup. What users name (models, classes, files) is put into a text by `escaped`, so that it is no markup.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2  # 1 is the page's title


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """A command to copy."""

    text: str


@dataclass(frozen=True)
class Table:
    """A frame whose cells are shown as they are; `reports.cells` makes them."""

    frame: pd.DataFrame
    tones: Mapping[str, str] = field(default_factory=dict)  # cells that stand out, by their text, with their TONES


@dataclass(frozen=True)
class Figure:
    file: str  # beside the page
    caption: str


@dataclass(frozen=True)
class Callout:
    """A word or two in bold and a sentence, which nobody should overlook."""

    title: str
    text: str
    tone: str  # of TONES


Block = Heading | Text | Bullets | Code | Table | Figure | Callout
TONES = ("good", "fair", "bad", "unknown")  # how what stands out is coloured
LONGEST_NAME = 80  # characters
MARKUP = re.compile(r"([\\`*_\[\]<>|&#~$!])")


def printable(name: str, longest: int = LONGEST_NAME) -> str:
    """A user's name on one line, with a mark in place of what cannot be shown (such as control codes).

    A name of more than `longest` characters loses its middle: names often differ at their ends.
    """
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(name))
    if len(shown) <= longest:
        return shown
    tail = longest // 2
    return f"{shown[: longest - tail - 1]}…{shown[-tail:]}"


def escaped(name: str) -> str:
    """A user's name as part of a text or a cell: markup in it is shown and not obeyed."""
    return MARKUP.sub(r"\\\1", printable(name))


def to_markdown(blocks: Sequence[Block]) -> str:
    """The page as GitHub's Markdown."""
    return "\n\n".join(_RENDERERS[type(block)](block) for block in blocks) + "\n"


def markdown_table(frame: pd.DataFrame) -> str:
    """A GitHub table."""
    lines = [frame.columns, ["---"] * len(frame.columns), *frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _fenced(code: Code) -> str:
    """Between fences that are longer than any in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code.text)), default=0))
    return f"{fence}bash\n{code.text}\n{fence}"


_RENDERERS = {
    Heading: lambda heading: f"{'#' * heading.level} {heading.text}",
    Text: lambda text: _one_line(text.text),
    Bullets: lambda bullets: "\n".join(f"- {_one_line(item)}" for item in bullets.items),
    Code: _fenced,
    Table: lambda table: markdown_table(table.frame),
    Figure: lambda figure: f"![{_one_line(figure.caption)}]({figure.file})",
    Callout: lambda callout: f"> **{callout.title}**: {_one_line(callout.text)}",
}
