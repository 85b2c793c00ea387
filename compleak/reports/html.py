"""A page of blocks as one HTML file: figures inside, no scripts, nothing loaded from elsewhere.

Everything is escaped where it is put in (Jinja2's autoescape, and `inline` for a text's markup); only figures, which
this project draws, are put in as they are.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from compleak.reports.page import Block, Figure, Heading, Table

TEMPLATES = Path(__file__).with_name("templates")
MARKUP = re.compile(
    r"\\(?P<plain>[!-/:-@\[-`{-~])"
    r"|`(?P<code>[^`]+)`"
    r"|\*(?P<strong>[^*\s][^*]*)\*"
    r"|\[(?P<link>[^\]]+)\]\((?P<target>[^)\s]+)\)"
)
SAFE_TARGET = re.compile(r"https?://|#|(?![a-zA-Z][\w+.-]*:)")  # no `javascript:` and the like
NUMBERS = re.compile(r"[-+±\d.,\[\]%()\s]*")
LONG_CELL = 40  # characters
SVG_START = re.compile(r"<svg\b.*", re.S)
SVG_NAME = re.compile(r'(\bid="|xlink:href="#|href="#|url\(#)')


def to_html(blocks: Sequence[Block], figures: Mapping[str, str]) -> str:
    """The page. figures: the text of an SVG by the file's name, for each `Figure` among the blocks.

    The first heading of level 1 is the title of the window.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(inline=inline, cell_kind=cell_kind, anchor=anchor)
    title = next(block.text for block in blocks if isinstance(block, Heading) and block.level == 1)
    parts = [(type(block).__name__, block, _content(block, figures)) for block in blocks]
    return environment.get_template("page.html").render(title=unmarked(title), parts=parts)


def inline(text: str):
    """A text's `code`, *emphasis* and [links](target) as HTML; all else is escaped."""
    from markupsafe import Markup, escape

    text = text.replace(" %", "\N{NO-BREAK SPACE}%")
    pieces, end = [], 0
    for match in MARKUP.finditer(text):
        pieces += [escape(text[end : match.start()]), _element(match)]
        end = match.end()
    pieces.append(escape(text[end:]))
    return Markup("").join(pieces)


def _element(match: re.Match):
    from markupsafe import Markup, escape

    if match["plain"]:
        return escape(match["plain"])
    if match["code"]:
        return Markup("<code>{}</code>").format(match["code"])
    if match["strong"]:
        return Markup("<em>{}</em>").format(match["strong"])
    if SAFE_TARGET.match(match["target"]):
        return Markup('<a href="{}">{}</a>').format(match["target"], inline(match["link"]))
    return escape(match[0])


def unmarked(text: str) -> str:
    """A text without its markup, where HTML takes none: in a title or a description."""
    return MARKUP.sub(lambda match: match["plain"] or match["code"] or match["strong"] or match["link"], text)


def anchor(heading: str) -> str:
    """The name by which `[text](#name)` leads to a heading, as GitHub makes it."""
    letters = re.sub(r"[^\w\s-]", "", unmarked(heading).lower())
    return re.sub(r"\s", "-", letters)


def cell_kind(cell: str) -> str:
    """`number` (with its interval or not), which is not broken into lines, `prose`, which needs room, or neither."""
    if NUMBERS.fullmatch(cell):
        return "number"
    return "prose" if len(cell) > LONG_CELL else ""


def _content(block: Block, figures: Mapping[str, str]):
    """What the template needs beside the block itself."""
    from markupsafe import Markup

    if isinstance(block, Figure):
        svg = embedded(figures[block.file], Path(block.file).stem)
        return {"svg": Markup(svg), "description": unmarked(block.caption)}
    if isinstance(block, Table):
        return [[str(cell) for cell in line] for line in block.frame.itertuples(index=False)]
    return None


def embedded(svg: str, name: str) -> str:
    """An SVG file's text as an element of a page, on which its parts' names must differ from those of other figures."""
    element = SVG_START.search(svg)[0]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.S)
    return SVG_NAME.sub(rf"\g<1>{name}-", element)
