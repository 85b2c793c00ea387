"""Reading a YAML file that anybody may have written, and checking its keys.

PyYAML's safe loader builds plain values only: texts, numbers, lists, mappings. What a task file has no use for is
refused here beside what is broken, each with its line: tags, a key that stands twice, aliases that grow without end,
nesting without end. Dates stay texts, and `2e-4` is a number, which PyYAML takes for a text.
"""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from core.errors import UserError

LARGEST_FILE = 1_000_000  # bytes
DEEPEST = 40  # lists and mappings within each other
MOST_VALUES = 20_000  # values of the file once every alias is written out
LONGEST_TEXT = 60  # characters of a value that a message shows
NUMBER = re.compile(r"[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+")
NOT_TEXT = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f\\ud800-\\udfff]")  # control codes and halves of characters
IN_WORDS = {
    dict: "a mapping (key: value)",
    list: "a list",
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "nothing",
}


class _Loader(yaml.SafeLoader):
    """The safe loader, without tags, without nesting that has no end, and without a key that stands twice."""

    depth = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            tag = _shown(event.tag.replace("tag:yaml.org,2002:", "!!"))
            _refuse(f"the tag {tag} has no place in a task file, of which nothing is run: delete the tag", event)
        self.depth += 1
        if self.depth > DEEPEST:
            _refuse(f"lists and mappings are nested more than {DEEPEST} deep", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_scalar_node(self, anchor):
        event = self.peek_event()
        if NOT_TEXT.search(event.value):
            _refuse(f"{_shown(event.value)} holds a character that no text holds", event)
        return super().compose_scalar_node(anchor)

    def construct_object(self, node, deep=False):
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:  # a number that Python does not read, such as 0x_
            raise _error(f"{_shown(node.value)} cannot be read as a number", node) from error

    def construct_mapping(self, node, deep=False):
        self.refuse_double_keys(node)
        return super().construct_mapping(node, deep=deep)

    def refuse_double_keys(self, node) -> None:
        keys = set()
        for key_node, _ in node.value:
            name = (key_node.tag, key_node.value) if isinstance(key_node, yaml.ScalarNode) else id(key_node)
            if name in keys:
                _refuse(f"the key {_shown(key_node.value)} stands twice", key_node)
            keys.add(name)


def _error(problem: str, place: yaml.Node | yaml.Event) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def _refuse(problem: str, place: yaml.Node | yaml.Event) -> None:
    raise _error(problem, place)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+0123456789"))


def read_yaml(file: Path) -> object:
    """The content of a YAML file with one document, as plain Python values; nothing in it is run.

    Raises UserError, one line with the number of the line in the file, where the file is missing, empty, too large,
    not UTF-8 or not YAML; where it holds a tag, a key twice, or a tab before a value; and where its aliases or its
    nesting would grow without end.
    """
    text = _read_text(file)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise UserError(f"{file} is empty: write the task into it")
        _refuse_growing_aliases(node)
        return loader.construct_document(node)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{file}, line {line}: a character that no text holds (number {error.character})") from error
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{file}, {_say_problem(error)}") from error


def _read_text(file: Path) -> str:
    if not file.is_file():
        raise UserError(f"{file} is not a file: give the path of a task file")
    if file.stat().st_size > LARGEST_FILE:
        raise UserError(f"{file} has more than {LARGEST_FILE:,} bytes: a task file is short, give another one")
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}, line {line}: not UTF-8 text: store the file as UTF-8") from error


class _Size(NamedTuple):
    values: int
    depth: int


def _refuse_growing_aliases(root: yaml.Node) -> None:
    """An alias stands for all that it names. A few lines of aliases of aliases would be billions of values."""
    sizes: dict[int, _Size | None] = {}  # None while a node's children are looked at

    def measure(node: yaml.Node) -> _Size:
        if id(node) not in sizes:
            sizes[id(node)] = None
            children = [measure(child) for child in _children(node)]
            depth = 1 + max((child.depth for child in children), default=0)
            sizes[id(node)] = _Size(1 + sum(child.values for child in children), depth)
        size = sizes[id(node)]
        if size is None:
            _refuse("an alias holds itself", node)
        if size.values > MOST_VALUES:
            _refuse(f"with its aliases written out it holds more than {MOST_VALUES:,} values", node)
        if size.depth > DEEPEST:
            _refuse(f"with its aliases written out it is nested more than {DEEPEST} deep", node)
        return size

    measure(root)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _say_problem(error: yaml.MarkedYAMLError) -> str:
    """`line 3: what is wrong`, in our words where the usual mistakes are concerned."""
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context
    if "'\\t'" in problem:
        problem = "a tab where YAML wants spaces: replace it by spaces"
    elif problem == "but found another document":
        problem = "a second document begins with ---: a task file holds one"
    return f"line {mark.line + 1}: {problem}"


def check_keys(content: dict, known: Mapping[str, type | tuple], where: str, required: Sequence[str] = ()) -> None:
    """UserError, one line that begins with `where`, unless a mapping of a task file has only keys that are known.

    known: for each key the type or types that its value may have. `float` takes whole numbers too, and neither `int`
    nor `float` takes true, false, infinity or NaN. required: the keys that must be there.
    """
    if not isinstance(content, dict):
        raise UserError(f"{where}: {IN_WORDS[dict]} is wanted here, not {_in_words(content)}")
    for key, value in content.items():
        if key not in known:
            raise UserError(f"{where}: there is no key {_shown(key)}; {_suggest(key, known)}")
        _check_type(value, known[key], f"{where}: {key}")
    missing = [key for key in required if key not in content]
    if missing:
        raise UserError(f"{where}: the key {missing[0]!r} is missing: add it")


def _suggest(key: object, known: Mapping[str, object]) -> str:
    nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]!r}?" if nearest else f"the keys are {', '.join(known)}"


def _check_type(value: object, wanted: type | tuple, where: str) -> None:
    types = wanted if isinstance(wanted, tuple) else (wanted,)
    if not any(_is_of(value, kind) for kind in types):
        names = " or ".join(IN_WORDS.get(kind, kind.__name__) for kind in types)
        raise UserError(f"{where} must be {names}, not {_in_words(value)}")


def _is_of(value: object, kind: type) -> bool:
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _in_words(value: object) -> str:
    """`a text ('abc')`; only the kind of a list or a mapping."""
    kind = IN_WORDS.get(type(value), type(value).__name__)
    return kind if value is None or isinstance(value, dict | list) else f"{kind} ({_shown(value)})"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."
