"""Which points an audit asks about, whose members they are, and which of them are copies of each other.

All sources of a task (members, non-members, data of shadow models) are joined to one list of points. Each model has a
row: the audited model first, then the shadow models. A row says on which points the model was trained, and which are in
its audit set: equal numbers of members and others, drawn at random where there are more of one kind.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from compleak.tasks.task import ShadowEntry, Task
from core.console import progress, say
from core.errors import UserError
from data.foreign import Points, content_digests, read_list, read_pair, read_points, summarise
from data.inputs import FEATURES
from defenses import DEFENCES_OF_ANSWERS

FEWEST = 4  # of each kind; two halves of them must hold two each
FEW_COPIES = 0.05  # of a table's rows may be equal by chance
TABLES = ("features", "arrays")
OF_DEFENCE = 4  # one of so many non-members is kept for a defence of answers that must know some
AT_ONCE = 256  # records that are read together


class Source(NamedTuple):
    """Records of one source, and the digest of each record's content."""

    points: Points
    digests: list[bytes]


class Role(NamedTuple):
    """One model's points, as positions in the joined list: all that it was trained on, and its audit set."""

    members: np.ndarray
    audited: np.ndarray


class AuditPoints(NamedTuple):
    """The joined list of N points."""

    kind: str
    origin: np.ndarray  # (N, 2) int64: number of the source, and of the record in it
    sources: tuple[Points, ...]
    labels: np.ndarray  # (N,) int64
    classes: tuple[str, ...]
    digests: list[bytes]  # (N,) of the records' content
    member: np.ndarray  # (R, N) bool
    audit: np.ndarray  # (R, N) bool
    order: np.ndarray  # (N,) the order in which every model is asked
    notes: tuple[str, ...]  # what people should know of the points

    def names(self) -> list[str]:
        """(N,) what each record is called."""
        return [self.sources[source].names[record] for source, record in self.origin]

    def load(self, positions: np.ndarray) -> list:
        """The raw values of the points at these positions."""
        values: list = [None] * len(positions)
        for number, source in enumerate(self.sources):
            places = np.flatnonzero(self.origin[positions, 0] == number)
            for place, value in zip(places, source.load(self.origin[positions[places], 1]), strict=True):
                values[place] = value
        return values

    def audited_truth(self) -> tuple[np.ndarray, np.ndarray]:
        """(A,) labels and (A,) bool membership of the audited model's points."""
        audited = self.audit[0]
        return self.labels[audited], self.member[0, audited]

    def groups(self) -> np.ndarray:
        """(N,) int64: copies of each other have the same number."""
        numbers = {digest: number for number, digest in enumerate(dict.fromkeys(self.digests))}
        return np.array([numbers[digest] for digest in self.digests], dtype=np.int64)

    def fingerprint(self) -> str:
        """A short hash of all contents and of the order of asking: what answers follow from, beside the model."""
        digest = hashlib.sha256(b"".join(self.digests))
        digest.update(self.order.tobytes())
        return digest.hexdigest()[:16]

    def columns(self) -> np.ndarray:
        """(N, F) float32: what the points look like, for the control that sees no model."""
        starts = progress(range(0, len(self.labels), AT_ONCE), "summarising points")
        parts = [summarise(self.load(np.arange(i, min(i + AT_ONCE, len(self.labels)))), self.kind) for i in starts]
        columns = np.concatenate(parts)
        return FEATURES.summarise(columns) if self.kind in ("features", "arrays") else columns


def with_digests(points: Points) -> Source:
    """The source with all records' digests, which takes one pass over it."""
    return Source(points, content_digests(points, np.arange(len(points.labels)), progress))


class Joined:
    """The list of points while it grows."""

    def __init__(self) -> None:
        self.sources: list[Source] = []
        self.origin: list[tuple[int, int]] = []
        self.position_of: dict[bytes, int] = {}  # of the first point with this content

    def add_source(self, source: Source) -> int:
        self.sources.append(source)
        return len(self.sources) - 1

    def add(self, source: int, record: int) -> int:
        """Append a record; returns its position."""
        self.origin.append((source, int(record)))
        self.position_of.setdefault(self.sources[source].digests[record], len(self.origin) - 1)
        return len(self.origin) - 1

    def position(self, source: int, record: int) -> int:
        """The position of a record's content, which is appended where it is new."""
        known = self.position_of.get(self.sources[source].digests[record])
        return self.add(source, record) if known is None else known


def points_of(task: Task) -> AuditPoints:
    """The points of a task, read from its sources. UserError where the sources cannot be used."""
    return points_of_lists(task) if task.data else points_of_sources(task)


def draw(records: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the records in ascending order, all of them where there are so many."""
    return np.sort(rng.permutation(records)[:count])


def equal_count(members: int, others: int, max_points: int | None, what: str) -> int:
    """How many of each kind are audited. UserError where there are too few."""
    count = min(members, others, (max_points or 2 * members) // 2)
    if count < FEWEST:
        raise UserError(f"{what}: {members} members and {others} non-members are too few; {FEWEST} of each are needed")
    return count


def auditable(others: int, task: Task) -> int:
    """How many of the non-members may be audited: all, but for those that a defence of answers is to be trained on."""
    return others - others // OF_DEFENCE if trains_on_others(task) else others


def trains_on_others(task: Task) -> bool:
    """Whether the defence of answers must know non-members, which are then not audited."""
    return bool(task.answers.name) and DEFENCES_OF_ANSWERS[task.answers.name].needs_owner


# Members and non-members as sources of their own


def points_of_sources(task: Task) -> AuditPoints:
    if task.members is None or task.nonmembers is None:
        raise UserError("say which data the model was trained on, and which not: --members DATA --nonmembers DATA")
    pair = read_pair(task.members, task.nonmembers, classes=task.classes, label_column=task.label_column)
    members, others = map(with_digests, pair)
    notes = []
    joined = Joined()
    roles = [audited_role(members, others, task, joined, notes)]
    trained_on = [set(members.digests)]
    for number, entry in enumerate(task.shadows):
        role, trained = shadow_role(entry, number, task, members.points.classes, members.points.kind, joined)
        roles.append(role)
        trained_on.append(trained)
    return finish(task, joined, roles, trained_on, notes)


def audited_role(members: Source, others: Source, task: Task, joined: Joined, notes: list[str]) -> Role:
    """The audited model's points: drawn from both sources, and appended to the list in a mixed order."""
    kind = members.points.kind
    of_members = first_copies(np.arange(len(members.digests)), members.digests, kind, "members", notes)
    outside = outside_members(set(members.digests), np.arange(len(others.digests)), others.digests, kind, notes)
    of_others = first_copies(outside, others.digests, kind, "non-members", notes)
    count = equal_count(len(of_members), auditable(len(of_others), task), task.max_points, "the audit")
    say_draw(len(members.digests), len(others.digests), count)
    rng = np.random.default_rng([task.seed, 1])
    drawn = [draw(of_members, count, rng), draw(of_others, count, rng)]
    sides = np.repeat([joined.add_source(members), joined.add_source(others)], count)
    pairs = np.column_stack([sides, np.concatenate(drawn)])[rng.permutation(2 * count)]
    positions = np.array([joined.add(side, record) for side, record in pairs])
    if trains_on_others(task):
        for record in draw(np.setdiff1d(of_others, drawn[1]), count, rng):
            joined.add(sides[-1], record)
    return Role(positions[pairs[:, 0] == sides[0]], positions)


def outside_members(
    contents: set[bytes], others: np.ndarray, digests: Sequence[bytes], kind: str, notes: list[str]
) -> np.ndarray:
    """The records of non-members that are to be audited: images that are copies of members are left out.

    Two rows of a table may be equal by chance and belong to different people, so they stay.
    """
    copies = np.array([digests[record] in contents for record in others], dtype=bool)
    if not copies.any():
        return others
    count = f"{copies.sum():,} of the {len(copies):,} non-members have the same content as a member"
    if kind in TABLES:
        note(f"{count}. They stay: rows of a table may be equal by chance.", notes)
        return others
    note(f"{count}. They are left out: the model may well have been trained on them.", notes)
    return others[~copies]


def first_copies(records: np.ndarray, digests: Sequence[bytes], kind: str, what: str, notes: list[str]) -> np.ndarray:
    """The records without those that repeat an earlier one: copies are one person, and would count as many.

    A few equal rows of a table stay, since they may be equal by chance; if there are many of them, they go.
    """
    _, first = np.unique([digests[record] for record in records], return_index=True)
    repeated = len(records) - len(first)
    if not repeated or (kind in TABLES and repeated <= FEW_COPIES * len(records)):
        return records
    note(f"{repeated:,} of the {len(records):,} {what} repeat another one and are left out.", notes)
    return records[np.sort(first)]


def note(text: str, notes: list[str]) -> None:
    say(text)
    notes.append(text)


def say_draw(members: int, others: int, count: int) -> None:
    if members == others == count:
        say(f"audited: all {count:,} members and {count:,} non-members")
    else:
        say(
            f"audited: {count:,} of {members:,} members and {count:,} of {others:,} non-members, drawn at random, as "
            "many of each"
        )


def shadow_role(
    entry: ShadowEntry, number: int, task: Task, classes: Sequence[str], kind: str, joined: Joined
) -> tuple[Role, set[bytes]]:
    """A shadow model's points, appended to the list, and the contents of all that it was trained on."""
    what = f"shadow model {number}"
    sides = shadow_sides(entry, what, task, classes)
    for side in sides:
        if side.source.points.kind != kind:
            raise UserError(f"{what}: its data are {side.source.points.kind}, the audited model's {kind}")
    trained = {sides[0].source.digests[record] for record in sides[0].records}
    if entry.audited:
        audited = read_list(entry.audited, sides[0].source.points)
        return stated_role(audited, sides[0], joined), trained
    outside = [record for record in sides[1].records if sides[1].source.digests[record] not in trained]
    sides[1] = Side(sides[1].source, np.array(outside, dtype=np.int64))
    count = equal_count(len(sides[0].records), len(outside), task.max_points, what)
    rng = np.random.default_rng([task.seed, 2, number])
    positions = []
    for side in sides:
        place = joined.add_source(side.source)
        positions.append(np.unique([joined.position(place, record) for record in draw(side.records, count, rng)]))
    count = min(map(len, positions))
    members, others = (draw(places, count, rng) for places in positions)
    return Role(positions[0], np.concatenate([members, others])), trained


class Side(NamedTuple):
    """Some records of a source: a shadow model's members, or its non-members."""

    source: Source
    records: np.ndarray


def stated_role(audited: np.ndarray, members: Side, joined: Joined) -> Role:
    """The points of a shadow model whose audit set is stated, (n,) records of its members' source, appended."""
    place = joined.add_source(members.source)
    audited_members = np.intersect1d(audited, members.records)
    positions = [[joined.position(place, record) for record in records] for records in (audited_members, audited)]
    return Role(*(np.array(places, dtype=np.int64) for places in positions))


def shadow_sides(entry: ShadowEntry, what: str, task: Task, classes: Sequence[str]) -> list[Side]:
    """A shadow model's members and non-members: two sources, or two lists of one source."""
    options = {"label_column": task.label_column, "classes": classes}
    if entry.data:
        source = with_digests(read_points(entry.data, **options))
        members = read_list(entry.members, source.points)
        return [Side(source, members), Side(source, listed_others(entry, members, source.points))]
    if entry.nonmembers is None:
        raise UserError(f"{what}: say which data it was not trained on, with nonmembers:")
    if entry.audited:
        raise UserError(f"{what}: audited: lists points of data:, which is missing: state data:, or leave out audited:")
    sources = [with_digests(read_points(place, **options)) for place in (entry.members, entry.nonmembers)]
    return [Side(source, np.arange(len(source.digests))) for source in sources]


# One source, with lists of its points


def points_of_lists(task: Task) -> AuditPoints:
    points = read_points(task.data, label_column=task.label_column, classes=task.classes)
    source = with_digests(points)
    joined = Joined()
    number = joined.add_source(source)
    for record in range(len(points.labels)):
        joined.add(number, record)
    if task.members is None or task.nonmembers is None:
        raise UserError("data: goes with members: and nonmembers:, two lists of its points")
    members, others = (read_list(file, points) for file in (task.members, task.nonmembers))
    if both := np.intersect1d(members, others).tolist():
        raise UserError(f"{points.names[both[0]]} stands in {task.members} and in {task.nonmembers}")
    notes: list[str] = []
    outside = outside_members(
        {source.digests[record] for record in members}, others, source.digests, points.kind, notes
    )
    audited = [
        first_copies(records, source.digests, points.kind, what, notes)
        for records, what in ((members, "members"), (outside, "non-members"))
    ]
    roles = [Role(members, equal_draw(*audited, task, 1))]
    trained_on = [{source.digests[record] for record in members}]
    for number, entry in enumerate(task.shadows):
        if has_own_data(entry, task):
            role, trained = shadow_role(entry, number, task, points.classes, points.kind, joined)
        else:
            role = listed_role(entry, number + 1, points, task)
            trained = {source.digests[record] for record in role.members}
        roles.append(role)
        trained_on.append(trained)
    return finish(task, joined, roles, trained_on, notes)


def has_own_data(entry: ShadowEntry, task: Task) -> bool:
    """Whether the shadow model's lists are of data of its own, and not of the task's."""
    return entry.data is not None and entry.data.resolve() != task.data.resolve()


def listed_role(entry: ShadowEntry, row: int, points: Points, task: Task) -> Role:
    """The points of a shadow model whose lists are of the task's data."""
    members = read_list(entry.members, points)
    if entry.audited:
        return Role(members, read_list(entry.audited, points))
    return Role(members, equal_draw(members, listed_others(entry, members, points), task, row))


def listed_others(entry: ShadowEntry, members: np.ndarray, points: Points) -> np.ndarray:
    """The records that a shadow model was not trained on: those that are listed, else all but its members."""
    if entry.nonmembers:
        return read_list(entry.nonmembers, points)
    return np.setdiff1d(np.arange(len(points.labels)), members)


def equal_draw(members: np.ndarray, others: np.ndarray, task: Task, row: int) -> np.ndarray:
    """An audit set: equal numbers of members and others."""
    count = equal_count(len(members), auditable(len(others), task), task.max_points, "the audit")
    rng = np.random.default_rng([task.seed, 3, row])
    return np.concatenate([draw(members, count, rng), draw(others, count, rng)])


def finish(
    task: Task, joined: Joined, roles: Sequence[Role], trained_on: Sequence[set[bytes]], notes: Sequence[str]
) -> AuditPoints:
    """The points with one row of membership for each model.

    trained_on: contents of all points that a model was trained on, drawn or not; a point of such content that stands in
    the list for another model is its member too. Rows of the audited model's own points are not changed by that.
    """
    origin = np.array(joined.origin, dtype=np.int64)
    digests = [joined.sources[source].digests[record] for source, record in joined.origin]
    member = np.zeros((len(roles), len(origin)), dtype=bool)
    audit = np.zeros_like(member)
    for row, (role, contents) in enumerate(zip(roles, trained_on, strict=True)):
        member[row] = [digest in contents for digest in digests]
        member[row, role.audited] = False
        member[row, role.members] = True
        audit[row, role.audited] = True
    labels = np.array([joined.sources[source].points.labels[record] for source, record in joined.origin])
    first = joined.sources[0].points
    return AuditPoints(
        kind=first.kind,
        origin=origin,
        sources=tuple(source.points for source in joined.sources),
        labels=labels.astype(np.int64),
        classes=first.classes,
        digests=digests,
        member=member,
        audit=audit,
        order=np.random.default_rng([task.seed, 4]).permutation(len(origin)),
        notes=tuple(notes),
    )
