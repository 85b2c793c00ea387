"""Who is trained on what: the split between victim and attacker, the balanced audit sets (PROTOCOL §1), reserves.

`load_or_make` gives the split and the audit sets of a run: those of its index files, or new ones.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.errors import UserError
from data.index_files import read_index

DEFAULT_SEED = 7
LEAST = 2  # members, and as many non-members, that an audit needs of every model; signals files demand it
LEAST_POINTS = 6 * LEAST  # of a data set: the victim's non-members are a sixth of it
LEAST_ONLINE = 16  # shadow models: with fewer, some points have none that did not train on them
LAYOUTS = COMPLEAK, SELENA, ONLINE = ("compleak", "selena", "online")  # which points victim and shadow models get
SELENA_SIZES = {  # members and reference points of Tang et al. 2022, by the points of the data set
    197_324: (19_732, 29_599),  # Purchase100
    67_330: (10_000, 20_199),  # Texas100
    60_000: (50_000, 5_000),  # CIFAR-100, and other sets of this size, such as CIFAR-10
}
RESERVE_PART = 4  # a model has this many times as many members as points in its defence's reserve

# Each use of randomness has a stream of its own, [seed, number]. `compleak` draws noisy labels from stream 20,000.
VICTIM_STREAM = 0
SHADOW_STREAM = 1  # of the first shadow; the others follow
AUDIT_STREAM = 10_000  # of the victim; the shadows follow
RESERVE_STREAM = 30_000


class Pair(NamedTuple):
    """The points that one model was trained on, and points that it was not trained on: int64 index arrays."""

    train: np.ndarray
    test: np.ndarray


class Split(NamedTuple):
    """One `Pair` for each model: row 0 is the victim, the others are the shadow models."""

    pairs: list[Pair]

    @property
    def victim(self) -> Pair:
        return self.pairs[0]

    @property
    def shadows(self) -> list[Pair]:
        return self.pairs[1:]

    @property
    def pool(self) -> np.ndarray:
        """All members and non-members of the shadow models, sorted: the attacker's; with `online` also the victim's."""
        return np.unique(np.concatenate([index for pair in self.shadows for index in pair]))


def make_split(n: int, shadow_num: int, seed: int, max_points: int | None = None, layout: str = COMPLEAK) -> Split:
    """Split n points at random between victim and attacker.

    compleak: victim members n/3, victim non-members n/6, pool n/2, re-split 2:1 by every shadow model.
    selena: victim members 10 %, victim non-members 75 %, pool 15 %, re-split 1:1; where `SELENA_SIZES` has so many
    points, the sizes of the paper.
    online: the victim as with compleak, and shadow models as large as the victim, each drawn anew from all of these
    points, the victim's among them (the online attack of Carlini et al. 2022, algorithm 1). Each draw is independent of
    the others, so that the members of one shadow model tell nothing of another's.

    `max_points` keeps at most that many members and that many non-members for each model, and a pool of as many points
    as these, so that a small audit keeps the protocol's balance. The pair of shadow model i depends on (seed, i) only:
    whoever asks for more shadow models gets the earlier ones as they were.

    Raises UserError where there are too few points.
    """
    limit = max_points or n
    all_members, all_nonmembers = sizes_of_victim(n, layout)
    members = min(all_members, limit)
    nonmembers = min(all_nonmembers, limit)
    if n < LEAST_POINTS:
        raise UserError(f"{n} points are too few to split: at least {LEAST_POINTS} are needed")
    if limit < LEAST:
        raise UserError(f"--max_points {max_points} is too small: every model needs {LEAST} members and {LEAST} others")
    order = np.random.default_rng([seed, VICTIM_STREAM]).permutation(n)
    victim = Pair(order[:members], order[all_members : all_members + nonmembers])
    pool = order[all_members + all_nonmembers :][: members + nonmembers]
    points = np.concatenate([*victim, pool]) if layout == ONLINE else pool
    trained = round(len(pool) / 2) if layout == SELENA else members
    shadows = (_draw_pair(points, trained, len(pool), [seed, SHADOW_STREAM + i]) for i in range(shadow_num))
    return Split([victim, *shadows])


def sizes_of_victim(n: int, layout: str) -> tuple[int, int]:
    """How many members and non-members the victim has at most; the pool has the rest of the n points."""
    if layout != SELENA:
        return n // 3, n // 6
    members, references = SELENA_SIZES.get(n, (n // 10, 3 * n // 20))
    return members, n - members - references


def _draw_pair(points: np.ndarray, members: int, count: int, seed: list[int]) -> Pair:
    """`count` of the points, drawn at random, this many of them as members and the others as non-members."""
    order = np.random.default_rng(seed).permutation(points)
    return Pair(order[:members], order[members:count])


def make_audit(split: Split, seed: int) -> Split:
    """Balanced audit sets: from each pair equally many members and non-members, drawn at random."""

    def balanced(row: int, pair: Pair) -> Pair:
        rng = np.random.default_rng([seed, AUDIT_STREAM + row])
        size = min(len(pair.train), len(pair.test))
        return Pair(*(rng.permutation(index)[:size] for index in pair))

    return Split([balanced(row, pair) for row, pair in enumerate(split.pairs)])


def make_reserve(split: Split, audit: Split, row: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The points that one model trains on, and its reserve: further points that its defence may use.

    The reserve is a quarter as large as the model's members and shares no point with its audit set. Where it is taken
    from the members, signals files still call its points members.

    Points that belong to no model are taken first: half of them are for the victim, half for the shadow models. Where
    these are too few, the reserve is taken from the model's non-members outside its audit set, and where those are too
    few from its members outside its audit set; the model does not train on them then.

    Raises UserError where those are too few as well.
    """
    train, test = split.pairs[row]
    wanted = len(train) // RESERVE_PART
    if wanted == 0:
        raise UserError(f"{len(train)} members are too few for a defence's reserve: at least {RESERVE_PART} are needed")
    unused = _unused_points(split, row, n, seed)
    if len(unused) >= wanted:
        return train, unused[:wanted]
    others = test[~np.isin(test, audit.pairs[row].test)]
    if len(others) >= wanted:
        return train, others[:wanted]
    unaudited = np.flatnonzero(~np.isin(train, audit.pairs[row].train))
    if len(unaudited) < wanted:
        raise UserError(
            f"a defence needs a reserve of {wanted} points, but only {len(unaudited)} of a model's members and "
            f"{len(others)} of its non-members are outside its audit set and only {len(unused)} points belong to no "
            "model: give a smaller --max_points"
        )
    return np.delete(train, unaudited[:wanted]), train[unaudited[:wanted]]


def _unused_points(split: Split, row: int, n: int, seed: int) -> np.ndarray:
    """The victim's half (row 0) or the shadow models' half of the points that belong to no model, in random order."""
    used = np.concatenate([index for pair in split.pairs for index in pair])
    unused = np.random.default_rng([seed, RESERVE_STREAM]).permutation(np.setdiff1d(np.arange(n), used))
    half = len(unused) // 2
    return unused[:half] if row == 0 else unused[half:]


def check_split(split: Split, n: int, source: Path, layout: str = COMPLEAK) -> None:
    """UserError where the victim's points and the pool overlap, or a model's two sets overlap or are too small.

    n: the number of points of the data set. With the layout online the victim's points belong to the pool.
    """
    for row, pair in enumerate(split.pairs):
        _check_pair(pair, row, n, source)
    if layout != ONLINE and split.shadows and np.intersect1d(np.concatenate(split.victim), split.pool).size:
        raise UserError(f"{source}: the victim's data and the attacker's pool overlap")


def _check_pair(pair: Pair, row: int, n: int, source: Path) -> None:
    joined = np.concatenate(pair)
    if min(map(len, pair)) < LEAST:
        raise UserError(f"{source}: model {row} has {_sizes(pair)}, an audit needs at least {LEAST} of each")
    if joined.min() < 0 or joined.max() >= n:
        raise UserError(
            f"{source} refers to point {joined.max()}, the data set has {n}: give this data another --dataset_name, or "
            "move the file away to split anew"
        )
    if len(np.unique(joined)) != len(joined):
        raise UserError(f"{source}: members and non-members of model {row} overlap or repeat")


def _sizes(pair: Pair) -> str:
    return f"{len(pair.train)} members and {len(pair.test)} non-members"


def check_audit(audit: Split, split: Split, source: Path) -> None:
    """UserError where audit sets are unbalanced or not drawn from the split."""
    if len(audit.pairs) < len(split.pairs):
        raise UserError(
            f"{source} has {len(audit.shadows)} shadows, the split has {len(split.shadows)}: move the file away to "
            "draw audit sets anew"
        )
    for row, (part, whole) in enumerate(zip(audit.pairs, split.pairs, strict=False)):
        if len(part.train) != len(part.test) or len(part.train) < LEAST:
            raise UserError(
                f"{source}: the audit set of model {row} has {_sizes(part)}, it needs as many of each and at least "
                f"{LEAST}"
            )
        if not (np.isin(part.train, whole.train).all() and np.isin(part.test, whole.test).all()):
            raise UserError(
                f"{source}: the audit set of model {row} is not part of its split: move the file away to draw anew"
            )


def load_or_make(
    path: Path,
    audit_path: Path,
    n: int,
    *,
    shadow_num: int,
    seed: int,
    max_points: int | None,
    layout: str = COMPLEAK,
) -> tuple[Split, Split]:
    """The split in the index file `path` and the audit sets in `audit_path`, of all shadow models that they hold.

    What is missing, a file or further shadow models, is made as `make_split` and `make_audit` make it. Nothing is
    written. n: the number of points of the data set.

    Raises UserError where a file is damaged, belongs to other data or breaks the threat model.
    """
    split = _load_or_make_split(path, n, shadow_num, seed, max_points, layout)
    check_split(split, n, path, layout)
    audit = _load_or_make_audit(audit_path, split, seed)
    check_audit(audit, split, audit_path)
    return split, audit


def _load_or_make_split(path: Path, n: int, shadow_num: int, seed: int, max_points: int | None, layout: str) -> Split:
    new = make_split(n, shadow_num, seed, max_points, layout)
    if not path.exists():
        return new
    split = _read_split(path)
    if _is_of_other_data(split, new, n, seed, max_points, layout):
        limit = f" with --max_points {max_points}" if max_points else ""
        other = "leave out --max_points, " if max_points else ""
        raise UserError(
            f"{path} is no split of this data set's {n} points{limit}: {other}give the data another --dataset_name, or "
            "move the file away to split anew"
        )
    if len(split.shadows) >= shadow_num:
        return split
    if not _agree(split, new):
        raise UserError(
            f"{path} holds {len(split.shadows)} shadow split(s), {shadow_num} were asked for: give --shadow_num "
            f"{len(split.shadows)}"
        )
    return new


def _load_or_make_audit(path: Path, split: Split, seed: int) -> Split:
    new = make_audit(split, seed)
    audit = _read_split(path) if path.exists() else new
    return new if len(audit.pairs) < len(split.pairs) and _agree(audit, new) else audit


def _read_split(path: Path) -> Split:
    return Split([Pair(*pair) for pair in read_index(path)])


def _is_of_other_data(split: Split, new: Split, n: int, seed: int, max_points: int | None, layout: str) -> bool:
    """Whether `make_split` made this for fewer points; with `max_points`, whenever it did not make it for these."""
    if max_points:
        return not _agree(split, new)
    of_victim = sum(map(len, split.victim))
    covered = 2 * of_victim if layout == ONLINE else of_victim + (len(split.pool) if split.shadows else 0)
    fewer = range(max(covered, LEAST_POINTS), min(covered + 6, n))  # a third and a sixth are rounded down
    return any(_agree(split, make_split(count, len(split.shadows), seed, layout=layout)) for count in fewer)


def _agree(one: Split, other: Split) -> bool:
    """Whether the models that both splits have are given the same points in the same order."""
    return all(
        np.array_equal(a.train, b.train) and np.array_equal(a.test, b.test)
        for a, b in zip(one.pairs, other.pairs, strict=False)
    )


def fingerprint(split: Split) -> str:
    """A short hash of every model's members and non-members: checkpoints and signals name their split by it."""
    digest = hashlib.sha256()
    for pair in split.pairs:
        for index in pair:
            digest.update(np.asarray([len(index)], dtype="<i8").tobytes())
            digest.update(np.sort(index).astype("<i8").tobytes())
    return digest.hexdigest()[:16]
