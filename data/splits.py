"""Who was trained on what: the split between victim and attacker, and the balanced audit sets (PROTOCOL §1).

Both are kept in the authors' layout, `[victim_train, victim_test, [(shadow_train, shadow_test), ...]]`, lists of ints
that index the data set with its training and test images joined. Their own files can be dropped in.
"""

import hashlib
import io
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.errors import UserError
from core.files import write_atomically

DEFAULT_SEED = 7
RESERVE_PART = 4  # a defence's reserve is this part of a model's members


class Pair(NamedTuple):
    """The points one model was trained on, and as many or fewer that it was not: int64 index arrays."""

    train: np.ndarray
    test: np.ndarray


class Split(NamedTuple):
    """One `Pair` for each model: row 0 is the victim, the others are the shadows."""

    pairs: list[Pair]

    @property
    def victim(self) -> Pair:
        return self.pairs[0]

    @property
    def shadows(self) -> list[Pair]:
        return self.pairs[1:]

    @property
    def pool(self) -> np.ndarray:
        """The attacker's points, sorted: all that any shadow was trained on or held out from."""
        return np.unique(np.concatenate([index for pair in self.shadows for index in pair]))


def make_split(n: int, shadow_num: int, seed: int, max_points: int | None = None) -> Split:
    """Split n images: victim members n/3, victim non-members n/6, pool n/2, re-split 2:1 by every shadow.

    `max_points` keeps at most that many members and that many non-members for each model (and a pool to match), so
    that a small audit keeps the protocol's balance. Shadow i's pair depends on (seed, i) only: asking for more
    shadows leaves the earlier ones as they were.
    """
    limit = max_points or n
    members, nonmembers = min(n // 3, limit), min(n // 6, limit)
    if nonmembers < 1:
        raise UserError(f"{n} points are too few to split: at least 6 are needed")
    order = np.random.default_rng([seed, 0]).permutation(n)
    victim = Pair(order[:members], order[n // 3 : n // 3 + nonmembers])
    pool = order[n // 3 + n // 6 :][: members + nonmembers]
    return Split(
        [victim, *(_resplit(pool, members / (members + nonmembers), [seed, 1 + i]) for i in range(shadow_num))]
    )


def _resplit(pool: np.ndarray, share: float, seed: list[int]) -> Pair:
    order = np.random.default_rng(seed).permutation(pool)
    cut = round(share * len(order))
    return Pair(order[:cut], order[cut:])


def make_audit(split: Split, seed: int) -> Split:
    """Balanced audit sets: from each pair equally many members and non-members, drawn at random."""

    def balanced(row: int, pair: Pair) -> Pair:
        rng = np.random.default_rng([seed, 10_000 + row])
        size = min(len(pair.train), len(pair.test))
        return Pair(*(rng.permutation(index)[:size] for index in pair))

    return Split([balanced(row, pair) for row, pair in enumerate(split.pairs)])


def make_reserve(split: Split, audit: Split, row: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What a model trains on, and a reserve: points not of its audit set that a defence may use beside these.

    The reserve is a quarter as large as the model's members; signals count it among them. It comes from images that no
    model has, half of which are the victim's and half the attacker's; where there are too few, from the model's members
    that are not audited, which it then does not train on. Raises UserError where those are too few as well.
    """
    train, wanted = split.pairs[row].train, len(split.pairs[row].train) // RESERVE_PART
    rng = np.random.default_rng([seed, 30_000])  # labels are drawn with the number below
    spare = rng.permutation(np.setdiff1d(np.arange(n), np.concatenate([np.concatenate(pair) for pair in split.pairs])))
    own = spare[: len(spare) // 2] if row == 0 else spare[len(spare) // 2 :]
    if len(own) >= wanted > 0:
        return train, own[:wanted]
    unaudited = np.flatnonzero(~np.isin(train, audit.pairs[row].train))
    if wanted == 0:
        raise UserError(f"{len(train)} members are too few for a defence's reserve: at least {RESERVE_PART} are needed")
    if len(unaudited) < wanted:
        raise UserError(
            f"a defence needs a reserve of {wanted} points and finds {len(unaudited)} of a model's members outside "
            f"its audit set and {len(own)} images that no model has: give a smaller --max_points"
        )
    return np.delete(train, unaudited[:wanted]), train[unaudited[:wanted]]


def check_split(split: Split, n: int, source: Path) -> None:
    """Refuse a split that breaks the threat model: overlap of victim and pool, or of a model's two sets."""
    for row, pair in enumerate(split.pairs):
        joined = np.concatenate(pair)
        if len(pair.train) == 0 or len(pair.test) == 0:
            raise UserError(f"{source}: model {row} has an empty set of members or non-members")
        if joined.min() < 0 or joined.max() >= n:
            raise UserError(
                f"{source} refers to point {joined.max()}, the data set has {n}: delete the file to split anew"
            )
        if len(np.unique(joined)) != len(joined):
            raise UserError(f"{source}: members and non-members of model {row} overlap or repeat")
    if split.shadows and np.intersect1d(np.concatenate(split.victim), split.pool).size:
        raise UserError(f"{source}: the victim's data and the attacker's pool overlap")


def check_audit(audit: Split, split: Split, source: Path) -> None:
    """Refuse audit sets that are unbalanced or not drawn from the split."""
    if len(audit.pairs) < len(split.pairs):
        raise UserError(
            f"{source} has {len(audit.shadows)} shadows, the split has {len(split.shadows)}: delete the file"
        )
    for row, (part, whole) in enumerate(zip(audit.pairs, split.pairs, strict=False)):
        if len(part.train) != len(part.test):
            raise UserError(f"{source}: the audit set of model {row} is not balanced")
        if not (np.isin(part.train, whole.train).all() and np.isin(part.test, whole.test).all()):
            raise UserError(
                f"{source}: the audit set of model {row} is not part of its split: delete the file to draw anew"
            )


def load_or_make(
    path: Path, audit_path: Path, n: int, *, shadow_num: int, seed: int, max_points: int | None
) -> tuple[Split, Split]:
    """All of the split and its audit sets that the files hold; what is missing (a file, further shadows) is made."""
    made = make_split(n, shadow_num, seed, max_points)
    split = read_index(path) if path.exists() else made
    if _of_other_data(split, made, n, seed, max_points):
        made_for = f" with --max_points {max_points}" if max_points else ""
        raise UserError(
            f"{path} is no split of this data set's {n} points{made_for}: delete it, or give the data another "
            f"--dataset_name"
        )
    if len(split.shadows) < shadow_num:
        if not _same(split, made):
            raise UserError(f"{path} holds {len(split.shadows)} shadow split(s), {shadow_num} were asked for")
        split = made
    check_split(split, n, path)
    audit = read_index(audit_path) if audit_path.exists() else make_audit(split, seed)
    if len(audit.pairs) < len(split.pairs) and _same(audit, make_audit(split, seed)):
        audit = make_audit(split, seed)
    check_audit(audit, split, audit_path)
    return split, audit


def _of_other_data(split: Split, made: Split, n: int, seed: int, max_points: int | None) -> bool:
    """Whether `make_split` made this for fewer points; with `max_points`, whenever it did not make it for these."""
    if max_points:
        return not _same(split, made)
    covered = sum(map(len, split.victim)) + (len(split.pool) if split.shadows else 0)
    fewer = range(max(covered, 6), min(covered + 6, n))  # a third and a sixth are rounded down
    return any(_same(split, make_split(count, len(split.shadows), seed)) for count in fewer)


def _same(fewer: Split, more: Split) -> bool:
    return all(
        np.array_equal(a, b) for p, q in zip(fewer.pairs, more.pairs, strict=False) for a, b in zip(p, q, strict=True)
    )


def fingerprint(split: Split) -> str:
    """A short hash of who is a member of what, for checkpoints and signals to name the split they belong to."""
    digest = hashlib.sha256()
    for pair in split.pairs:
        for index in pair:
            digest.update(np.asarray([len(index)], dtype="<i8").tobytes())
            digest.update(np.sort(index).astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def write_index(path: Path, split: Split) -> None:
    """Write the authors' layout; nothing happens where the file already holds exactly that."""
    victim, *shadows = [tuple(index.tolist() for index in pair) for pair in split.pairs]
    content = pickle.dumps([*victim, shadows], protocol=4)
    if not (path.exists() and path.read_bytes() == content):
        write_atomically(path, lambda part: part.write_bytes(content))


def read_index(path: Path) -> Split:
    """Read the authors' layout. Raises UserError for anything that is not lists, tuples and ints."""
    try:
        content = _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
        train, test, shadows = content
        pairs = [_pair(train, test), *(_pair(*shadow) for shadow in shadows)]
    except Exception as error:  # a damaged pickle can fail in any way
        raise UserError(f"{path} is not a split index ({error}): delete it to split anew") from error
    return Split(pairs)


def _pair(train: list[int], test: list[int]) -> Pair:
    for index in (train, test):
        if not isinstance(index, list | tuple) or not all(type(i) is int for i in index):
            raise TypeError("members and non-members must be lists of ints")
    return Pair(np.asarray(train, dtype=np.int64), np.asarray(test, dtype=np.int64))


class _PlainUnpickler(pickle.Unpickler):
    """Builds lists, tuples and ints and refuses to import anything, so that no index file can run code."""

    def find_class(self, module: str, name: str):
        raise pickle.UnpicklingError(f"it holds a {module}.{name}; only lists, tuples and ints are read")
