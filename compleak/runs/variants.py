"""A variant: the original model, or one compression of it at one degree.

A variant is written `original`, `pruning_0.6`, `pruning_slim_0.6`, `quantization_int8_static` or `clustering_4`:
folders, tables and flags spell it this way. `parse_variant` and `str` are the only two places that know the spelling.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from clustering import kmeans
from core.errors import UserError
from pruning import masks
from quantization import degrees

# A technique is a module that offers parse_degree, EXPECTED_DEGREE and command for its degrees, and prepare, pack,
# unpack and verify. Each degree of quantization has another module for these four.
TECHNIQUES = {"pruning": masks, "quantization": degrees, "clustering": kmeans}


@dataclass(frozen=True)
class Variant:
    """`technique` is "original", or a key of TECHNIQUES with the degree as folders spell it."""

    technique: str
    degree: str = ""

    def __str__(self) -> str:
        return f"{self.technique}_{self.degree}" if self.degree else self.technique

    @property
    def module(self):
        """The module that compresses in this way; only compressed variants have one."""
        quantization = self._quantization
        return TECHNIQUES[self.technique] if quantization is None else quantization.module

    @property
    def is_fine_tuned(self) -> bool:
        """Whether the model is trained after or while it is compressed; only of compressed variants."""
        return self._quantization is None or self._quantization.is_fine_tuned

    @property
    def needs_calibration(self) -> bool:
        """Whether the module's `calibrate` must measure input ranges; only of compressed variants."""
        return self._quantization is not None and self._quantization.needs_calibration

    @property
    def largest_share(self) -> float | None:
        """The largest share of the original's bytes that a model of full width may have; None where it varies."""
        return None if self._quantization is None else self._quantization.largest_share

    @property
    def _quantization(self) -> degrees.Degree | None:
        return degrees.DEGREES[self.degree] if self.technique == "quantization" else None

    @property
    def parsed_degree(self) -> Any:
        """The degree in the form that the technique's `prepare` takes."""
        return TECHNIQUES[self.technique].parse_degree(self.degree)

    @property
    def command(self) -> str:
        """The script and the flags that compress in this way."""
        return TECHNIQUES[self.technique].command(self.parsed_degree)


ORIGINAL = Variant("original")
PAPER_GRID = (
    Variant("pruning", "0.6"),
    Variant("pruning", "0.7"),
    Variant("pruning", "0.8"),
    Variant("pruning", "0.9"),
    Variant("quantization", "int8"),
    Variant("clustering", "4"),
    Variant("clustering", "8"),
    Variant("clustering", "16"),
)  # the paper's eight compressed models; many more degrees exist


def compressed_variant(technique: str, degree: str) -> Variant:
    """The variant of a technique at a degree, spelled as folders spell it. UserError where there is no such degree."""
    module = TECHNIQUES[technique]
    try:
        parsed = module.parse_degree(degree)
    except ValueError:
        raise UserError(f"{degree!r} is no degree of {technique}: expected {module.EXPECTED_DEGREE}") from None
    return Variant(technique, str(parsed))


def parse_variant(text: str) -> Variant:
    """`original` or a compressed variant from its name. UserError where the name is neither."""
    if text == str(ORIGINAL):
        return ORIGINAL
    technique, _, degree = text.partition("_")
    if technique not in TECHNIQUES:
        examples = ", ".join(map(str, PAPER_GRID[::3]))
        raise UserError(f"{text!r} is no compressed variant: for example {examples}, pruning_slim_0.6")
    return compressed_variant(technique, degree)


def parse_compressed(texts: Iterable[str]) -> tuple[Variant, ...]:
    """Compressed variants from their names, each once, in the order given. UserError where one is none."""
    variants = dict.fromkeys(map(parse_variant, texts))
    if ORIGINAL in variants:
        raise UserError("the original is no compressed variant: leave it out")
    return tuple(variants)


def in_paper_order(variants: Iterable[Variant]) -> list[Variant]:
    """The original first, then the paper's grid in its order, then all others by technique and degree."""
    known = [ORIGINAL, *PAPER_GRID]
    place = {variant: number for number, variant in enumerate(known)}
    return sorted(set(variants), key=lambda variant: (place.get(variant, len(known)), str(variant)))
