"""MR's first stage: membership probabilities of each compressed model, by SR2's forest on the original and that model.

SR leaves those of its pair in a file, and MR reads it. Without the original they come from the forest of `nasr2018`.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import attacks
from compleak.queries.signals_file import DAMAGED
from core.files import write_atomically

FIRST_STAGE_ROW = "SR2/random_forest"  # the row of SR that MR starts from


class PairFile(NamedTuple):
    """Where the first stage of one pair of models is kept, and what it follows from."""

    file: Path
    key: str


def pair_files(
    files: Sequence[Path | None],
    hashes: Sequence[str | None],
    seed: int,
    code: str,
    folder: Path | None,
    part: str = "",
) -> list[PairFile]:
    """Where the first stage of each compressed model is kept: in `folder`, or beside its signals where that is None.

    files: [original or None, *compressed]; hashes: of these files, in the same order; part: the name of the fit, "" of
    the only one.
    """
    ending = f"_{part}" if part else ""
    pairs = []
    for file, digest in zip(files[1:], hashes[1:], strict=True):
        place = (folder or file.parent) / f"{file.stem}_sr{ending}.npz"
        pairs.append(PairFile(place, f"{hashes[0]} {digest} {seed} {code}{ending}"))
    return pairs


def first_stage(original, compressed, pair: PairFile, seed: int) -> attacks.Membership:
    """The first stage of a pair, as it was left, or worked out now and left for the next table."""
    with contextlib.suppress(*DAMAGED), np.load(pair.file, allow_pickle=False) as kept:
        if str(kept["key"]) == pair.key:
            return attacks.Membership(kept["shadow"], kept["victim"])
    membership = attacks.membership(original, compressed, seed=seed)
    keep_first_stage(pair, membership)
    return membership


def keep_first_stage(pair: PairFile, membership: attacks.Membership) -> None:
    write_atomically(pair.file, lambda part: np.savez(part, key=np.array(pair.key), **membership._asdict()))
