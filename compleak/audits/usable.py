"""What of a signals file the attacks can be run on: at least one shadow model, and points that have a reference."""

from pathlib import Path

import numpy as np

from attacks.common.references import known_outsiders, reference_count
from compleak.queries.signals_file import Record, attacker_view
from core.console import say
from core.errors import UserError


def check_shadow_models(records: dict[Path, Record]) -> None:
    """UserError where a file describes the victim alone."""
    for path, record in records.items():
        if len(record.logits) < 2:
            raise UserError(
                f"{path} holds one model, and attacks are fitted on shadow models: add the answers of at least one "
                "model that was trained on other points, as a second row of logits, member and audit"
            )


def with_references(records: dict[Path, Record]) -> dict[Path, Record]:
    """The records without the audited points that have no reference model, which no calibrated attack can score.

    The records describe the same points. Where too few points would be left, the records stay as they are, and the
    attacks that need references are left out instead.
    """
    lacking = points_without_reference(next(iter(records.values())))
    audit = next(iter(records.values())).audit & ~lacking
    if not lacking.any() or not all(has_both_kinds(record.member, audit) for record in records.values()):
        return records
    victim, others = int(lacking[0].sum()), int(lacking[1:].sum())
    say(
        f"left out: {victim} audited points of the victim and {others} of the shadow models, since every model is "
        "known or assumed to have trained on them; a model that was not would be their reference"
    )
    return {path: record._replace(audit=audit) for path, record in records.items()}


def points_without_reference(record: Record) -> np.ndarray:
    """(R, N) bool: audited points of a model for which no other model is known not to have trained on them."""
    count = reference_count(known_outsiders(attacker_view(record)))
    return record.audit & (count == 0)


def has_both_kinds(member: np.ndarray, audit: np.ndarray) -> bool:
    """Whether each model's audit set has at least two members and two non-members. Both (R, N) bool."""
    return all(min(count_of(row, kept)) >= 2 for row, kept in zip(member, audit, strict=True))


def count_of(member: np.ndarray, audit: np.ndarray) -> tuple[int, int]:
    """Audited members and audited non-members of one model, (N,) bool each."""
    return int((member & audit).sum()), int((~member & audit).sum())
