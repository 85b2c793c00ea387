"""Which membership an attacker knows: that of shadow models, or that of half of the victim's own points.

With `shadows` the attacks are fitted on shadow models, whose members the attacker knows, and judged on all of the
victim's audited points. With `known_half` there are no shadow models: the attacker knows half of the victim's audited
members and as many non-members, is fitted on them and judged on the rest. This is done twice, with the halves
exchanged, so that every point is scored by a fit that saw neither the point nor, where the file of signals says which
points are copies (`group`), a copy of it. It is the view of an insider or of the auditor, the direct attack of Tang et
al. 2022, Mitigating membership inference attacks by self-distillation through a novel ensemble architecture (USENIX
Security, SELENA), and of TensorFlow Privacy.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import attacks
from compleak.audits.halves import check_both_kinds, draw_half, one_of_each_group
from compleak.queries.signals_file import Record, attacker_view, attackers_points
from core.errors import UserError

SHADOWS, KNOWN_HALF = ATTACKERS = ("shadows", "known_half")


class Attacker(NamedTuple):
    """Whose membership the attacker knows, and how many further models serve as references only."""

    name: str  # one of ATTACKERS
    shadow_models: int  # that the attacks are fitted on
    references: int  # models without a part in the fit
    shares_points: bool = False  # the shadow models were trained on points of the victim's data, too

    @property
    def knowledge(self) -> str:
        """Whose membership the attacker knows, in words: `1 shadow model`, `half of the members`."""
        if self.name == KNOWN_HALF:
            return "half of the members"
        further = " that trained on the victim's points, too" if self.shares_points else ""
        return count_models(self.shadow_models, "shadow") + further

    @property
    def references_in_words(self) -> str:
        """`2 reference models`; "" where there are none beside the shadow models."""
        return count_models(self.references, "reference") if self.references else ""

    def needs(self, attack: attacks.Attack) -> str:
        """What the attacker of this attack had to have, in words."""
        return attacks.needs(attack, self.knowledge, self.references_in_words)

    def describe(self) -> str:
        """A line for the person who started the attack."""
        if self.name == SHADOWS:
            return f"attacker shadows: knows the members of {self.knowledge}"
        references = self.references_in_words or "no reference models"
        return (
            "attacker known_half: knows half of the audited members and non-members, and is judged on the other half; "
            f"the halves are exchanged, so that all points are judged; {references}"
        )


def count_models(count: int, kind: str) -> str:
    return f"{count} {kind} model{'s' * (count != 1)}"


def attacker_of(asked: str | None, records: Mapping[Path, Record]) -> Attacker:
    """The attacker that was asked for; without a wish `shadows` where the files have shadow models.

    A shadow model is a model other than the victim with an audit set; a model without one is a reference. UserError
    where shadow models were asked for and there are none.
    """
    path, record = next(iter(records.items()))
    others = len(record.audit) - 1
    shadow_models = int(record.audit[1:].any(axis=1).sum())
    name = asked or (SHADOWS if shadow_models else KNOWN_HALF)
    if name == KNOWN_HALF:
        return Attacker(KNOWN_HALF, 0, others)
    if not shadow_models:
        raise UserError(
            f"{path} holds no shadow model, and --attacker shadows is fitted on shadow models: add the answers of at "
            "least one model that was trained on other points, as a row of logits, member and audit; or leave the flag "
            "out, and the attacker knows half of the members instead"
        )
    shares_points = not attackers_points(record).any()
    return Attacker(SHADOWS, shadow_models, others - shadow_models, shares_points)


def as_known(attacker: Attacker, records: Mapping[Path, Record]) -> dict[Path, Record]:
    """The records with audit sets only of the models that this attacker learns from or attacks."""
    if attacker.name == SHADOWS:
        return dict(records)
    return {path: record._replace(audit=victim_alone(record.audit)) for path, record in records.items()}


def victim_alone(audit: np.ndarray) -> np.ndarray:
    """The audit sets (R, N) with those of the other models emptied."""
    alone = np.zeros_like(audit)
    alone[0] = audit[0]
    return alone


class Half(NamedTuple):
    """Which of the victim's audited points, in file order, a fit judges, and which it learns from."""

    name: str  # "" where one fit judges all points
    judged: np.ndarray  # (A,) bool
    known: np.ndarray  # (A,) bool


class Part(NamedTuple):
    """One fit: the points that it is about, and what it sees."""

    half: Half
    audited: np.ndarray  # (A,) int: where the victim's audited points stand among all points
    views: list[attacks.Signals | None]  # None in the original's place where the attacker does not have it

    @property
    def name(self) -> str:
        return self.half.name

    @property
    def judged(self) -> np.ndarray:
        return self.half.judged

    @property
    def known_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """The (model, point) index pairs, (M,) each, behind the attacks' `shadow_scores`."""
        return attacks.audit_rows(self.any_view)[0]

    @property
    def known_truth(self) -> np.ndarray:
        """(M,) of 0/1: the truth behind the attacks' `shadow_scores`."""
        return self.any_view.member[self.known_rows]

    @property
    def known_places(self) -> np.ndarray:
        """(M,): where the points behind `shadow_scores` stand among the audited points, if half of those are known."""
        return np.searchsorted(self.audited, self.known_rows[1])

    @property
    def any_view(self) -> attacks.Signals:
        return next(view for view in self.views if view is not None)


def halves_of(attacker: Attacker, record: Record, seed: int) -> list[Half]:
    """What each fit judges and learns from.

    A fit learns from one copy of each point. With several, a classifier whose scores of the known points decide
    thresholds and the headline would know each point from its copy: `calibrated` then read an AUC of 0.9 on the known
    half of a world without a leak. UserError where the copies leave no two halves.
    """
    truth = record.truth
    if attacker.name == SHADOWS:
        return [Half("", np.ones_like(truth), np.zeros_like(truth))]
    group = None if record.group is None else record.group[record.audit[0]]
    first = draw_half(truth, group, seed)
    drawn = one_of_each_group(group, len(truth), seed)
    halves = [Half("half_1", first, ~first & drawn), Half("half_2", ~first, first & drawn)]
    for half in halves:
        check_both_kinds(truth[half.known])
    return halves


def parts_of(
    attacker: Attacker,
    halves: Sequence[Half],
    records: Sequence[Record | None],
    whole_audit: np.ndarray | None = None,
) -> list[Part]:
    """The fits of this attacker on these models. halves: of `halves_of`; records: None where there is no model.

    whole_audit: (R, N) bool, the audit sets as the files have them, where the records leave points out; else None.
    """
    record = next(record for record in records if record is not None)
    whole_audit = record.audit if whole_audit is None else whole_audit
    audited = np.flatnonzero(record.audit[0])
    parts = []
    for half in halves:
        views = [None if record is None else view_of(attacker, record, half, whole_audit) for record in records]
        parts.append(Part(half, audited, views))
    return parts


def view_of(attacker: Attacker, record: Record, half: Half, whole_audit: np.ndarray) -> attacks.Signals:
    """What the attacker knows of one model.

    Which points are the attacker's own follows from the whole audit sets, (R, N) bool. Of the victim's points that the
    record leaves out, its audit set and membership say together who is a member.
    """
    if attacker.name == KNOWN_HALF:
        return known_half_view(record, half)
    return attacker_view(record._replace(audit=whole_audit))._replace(audit=record.audit)


def known_half_view(record: Record, half: Half) -> attacks.Signals:
    """The signals in which the victim's own answers about the known half stand in for a shadow model.

    Row 0 is the victim, audited on the judged half, all membership withheld. Row 1 holds the same answers, audited on
    the known points, whose membership is known; elsewhere it is withheld, so that the victim is no reference of its own
    judged points. The other rows are the references.
    """
    audited = np.flatnonzero(record.audit[0])
    known = audited[half.known]
    rows = np.r_[0, 0, 1 : len(record.logits)]
    member = record.member[rows].astype(np.int8)
    member[:2] = -1
    member[1, known] = record.member[0, known]
    audit = np.zeros_like(member, dtype=bool)
    audit[0, audited[half.judged]] = True
    audit[1, known] = True
    probes = {name: array[rows] for name, array in record.probes.items()}
    return attacks.Signals(record.logits[rows], record.labels, member, audit, probes, record.columns)
