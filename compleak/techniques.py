"""The three compressions and their degrees as data, for every stage that loops over them or reads one from a flag."""

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NamedTuple

from clustering import kmeans
from compleak.paths import variant_name
from core.errors import UserError
from pruning import masks
from quantization import int8


class Technique(NamedTuple):
    """`module` offers prepare, pack, unpack and verify; `parse` turns a degree's text into what they take."""

    module: ModuleType
    parse: Callable[[str], Any]
    degrees: tuple[str, ...]  # the paper's
    expected: str  # what any degree looks like
    command: Callable[[str], str]  # the stage's script and the flag that sets this degree


def _clusters(text: str) -> int:
    value = int(text)
    if value not in kmeans.CLUSTERS:
        raise ValueError
    return value


def _int8(text: str) -> str:
    if text != "int8":
        raise ValueError
    return text


def _clustering_command(degree: str) -> str:
    return f"clustering/clustering.py --bit {kmeans.CLUSTERS.index(int(degree)) + 1}"


TECHNIQUES = {
    "pruning": Technique(
        masks,
        masks.parse,
        ("0.6", "0.7", "0.8", "0.9"),
        "a sparsity between 0 and 1 of at most six digits, or slim_0.7 for another pruner than l1unstructure",
        lambda degree: masks.parse(degree).command(),
    ),
    "quantization": Technique(int8, _int8, ("int8",), "int8", "quantization/qat.py --degree {}".format),
    "clustering": Technique(
        kmeans,
        _clusters,
        ("4", "8", "16"),
        f"a number of clusters 2, 4, ..., {kmeans.CLUSTERS[-1]}",
        _clustering_command,
    ),
}
COMPRESSED = tuple(variant_name(name, degree) for name, technique in TECHNIQUES.items() for degree in technique.degrees)


def parse_variants(texts: Iterable[str]) -> list[str]:
    """Compressed variants' names as folders spell them, each once."""
    return list(dict.fromkeys(map(parse_variant, texts)))


def parse_variant(text: str) -> str:
    """A compressed variant's name as folders spell it; UserError where it is none."""
    name, _, degree = text.partition("_")
    if name not in TECHNIQUES:
        raise UserError(
            f"{text!r} is no compressed variant: for example {', '.join(COMPRESSED[::3])}, pruning_slim_0.6"
        )
    return variant_name(name, parse_degree(name, degree)[0])


def parse_degree(name: str, text: str) -> tuple[str, Any]:
    """The degree as folders spell it and as the technique takes it; UserError where it is none of the technique's."""
    try:
        degree = TECHNIQUES[name].parse(text)
    except ValueError:
        raise UserError(f"{text!r} is no degree of {name}: expected {TECHNIQUES[name].expected}") from None
    return str(degree), degree


def pruner_flag(group) -> None:
    pruners = tuple(masks.PRUNERS)
    group.add_argument("--pruner_name", choices=pruners, help=f"what pruning removes (default: {masks.DEFAULT})")


def pruning_degree(pruner: str | None, sparsity: str) -> str:
    """The degree's text of --pruner_name (None where it was not given) and a sparsity, to be parsed."""
    if pruner and any(sparsity.startswith(f"{name}_") for name in masks.PRUNERS):
        raise UserError(f"--pruner_name {pruner} goes with a sparsity, not with {sparsity}: name the pruner once")
    return sparsity if pruner in (None, masks.DEFAULT) else f"{pruner}_{sparsity}"
