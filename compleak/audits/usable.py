"""Selects the audit points that have a reference model, and counts copies among them."""

from typing import TypeVar

import numpy as np

from attacks.common.references import known_outsiders, reference_count
from compleak.audits.halves import one_of_each_group
from compleak.queries.signals_file import Record, attacker_view
from core.console import say

Name = TypeVar("Name")  # of a record: its file, or its variant
COPIES = 0.05  # the share of the audited points from which copies are worth a line


def with_references(records: dict[Name, Record]) -> dict[Name, Record]:
    """The records without the audited points that have no reference model, which no calibrated attack can score.

    The records describe the same points. Where too few points of a model would be left, the records stay as they are,
    and the attacks that need references are left out instead.
    """
    record = next(iter(records.values()))
    lacking = points_without_reference(record)
    audit = record.audit & ~lacking
    if not lacking.any() or not has_both_kinds(record, audit):
        return records
    say(
        f"left out: {count_lacking(lacking, audit)}, since every model is known or assumed to have trained on them; a "
        "model that was not would be their reference"
    )
    return {name: record._replace(audit=audit) for name, record in records.items()}


def without_copies(records: dict[Name, Record], seed: int) -> dict[Name, Record]:
    """The records in whose shadow models' audit sets no two points are copies of each other.

    The records describe the same points. Attacks are fitted on these audit sets. A fit that saw a copy of a point knows
    the point: `calibrated` then read an AUC of 0.8 on a shadow model that leaks nothing, and its threshold accused
    accordingly. Which copy stays is drawn for all shadow models at once, so that none learns from a copy that another
    one is judged on. Where too few points of a model would be left, the records stay as they are, with a warning.
    """
    record = next(iter(records.values()))
    audit = record.audit.copy()
    audit[1:] &= one_copy(record, seed)
    before, after = (int(audited[1:].any(axis=0).sum()) for audited in (record.audit, audit))
    if after == before:
        return records
    copies = f"of {before} points of the shadow models {after} are distinct"
    if not has_both_kinds(record, audit):
        say(f"{copies}, too few to learn from one of each: copies give each other away, so trust no threshold here")
        return records
    say(f"{copies}: the attacks learn from one of each")
    return {name: record._replace(audit=audit) for name, record in records.items()}


def one_copy(record: Record, seed: int) -> np.ndarray:
    """(N,) bool: a random one of each group of copies among the points on which shadow models are audited."""
    points = np.flatnonzero(record.audit[1:].any(axis=0))
    group = None if record.group is None else record.group[points]
    drawn = np.zeros(record.audit.shape[1], dtype=bool)
    drawn[points] = one_of_each_group(group, len(points), seed)
    return drawn


def count_lacking(lacking: np.ndarray, audit: np.ndarray) -> str:
    """How many audited points lack a reference, in words; both (R, N) bool, `audit` those that remain."""
    victim = f"{lacking[0].sum()} audited points of the victim"
    return f"{victim} and {lacking[1:].sum()} of the shadow models" if audit[1:].any() else victim


def points_without_reference(record: Record) -> np.ndarray:
    """(R, N) bool: audited points of a model for which no other model is known not to have trained on them."""
    count = reference_count(known_outsiders(attacker_view(record)))
    return record.audit & (count == 0)


def has_both_kinds(record: Record, remaining: np.ndarray) -> bool:
    """Whether two members and two non-members remain of each audit set of the record. remaining: (R, N) bool.

    A model that has no audit set in the record is a reference. A shadow model of which no point remains is none: the
    attacks would have nothing to be fitted on.
    """
    models = record.audit.any(axis=1)
    pairs = zip(record.member[models], remaining[models], strict=True)
    return all(min(count_of(member, audit)) >= 2 for member, audit in pairs)


def count_of(member: np.ndarray, audit: np.ndarray) -> tuple[int, int]:
    """Audited members and audited non-members of one model, (N,) bool each."""
    return int((member & audit).sum()), int((~member & audit).sum())


def copies_in_words(record: Record) -> str | None:
    """A warning where more than COPIES of the victim's audited points are copies of another one; None elsewhere.

    Intervals and tests count each point by itself. Copies are answered alike, so the intervals are then too narrow.
    """
    if record.group is None:
        return None
    _, sizes = np.unique(record.group[record.audit[0]], return_counts=True)
    copies = int(sizes[sizes > 1].sum())
    if copies <= COPIES * sizes.sum():
        return None
    return (
        f"{copies} of {sizes.sum()} audited points are copies of another one, {len(sizes)} are distinct: intervals and "
        "tests count every copy as a further point and are too sure; audit one of each"
    )
