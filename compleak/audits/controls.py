"""The controls, which must find nothing (PROTOCOL §7): `null`, `blind` and `references`.

`null` runs with every attack, the other two once for a table. If a control scores above chance, the attacks may be
using the same flaw, not memory.
"""

import contextlib
import hashlib
from pathlib import Path

import numpy as np

import attacks
from attacks.common.references import known_outsiders
from attacks.common.statistics import confidence
from compleak.audits.halves import draw_half
from compleak.queries import signals_file
from compleak.runs.run import Run, dataset
from core.console import say
from core.errors import UserError
from core.files import write_atomically


def in_members_call(record: signals_file.Record, whole_audit: np.ndarray) -> np.ndarray:
    """(A,) bool: which of the victim's audited points of the record went through the call in which members are asked.

    These are the members and, in file order, the first half of the non-members (`queries.targets.query_calls`).
    whole_audit: (R, N) bool, the audit sets as the file has them; the record may leave points out.
    """
    is_other = whole_audit[0] & ~record.member[0]
    in_first_half = np.cumsum(is_other) <= is_other.sum() // 2
    return (record.member[0] | in_first_half)[record.audit[0]]


def null_control(
    scores: np.ndarray, decision: np.ndarray, truth: np.ndarray, in_call: np.ndarray
) -> tuple[np.ndarray, ...]:
    """The attack on the victim's non-members alone: scores, decisions, and which of them were queried like members.

    No attack can tell the two kinds apart unless members are loaded or queried in another way than non-members.
    in_call: (n,) bool, of `in_members_call`. Where all of these non-members, or none, were queried like members,
    nothing can be said about the call, and the first half is compared with the second.
    """
    others = np.flatnonzero(~truth)
    like_members = in_call[others]
    if like_members.all() or not like_members.any():
        like_members = np.arange(len(others)) < len(others) // 2
    return scores[others], decision[others], like_members


def blind_control(run: Run | None, file: Path, record: signals_file.Record, seed: int, code: str) -> np.ndarray | None:
    """Scores (A,) of the classifier that sees the points and no model, NaN on the half that it was fitted on.

    It sees the images of a run or the array `columns` of a signals file; None, with the reason printed, where there is
    neither or there are too few points. The scores of a run are kept with it, since its variants share them.
    """
    if run is None and record.columns is None:
        say("blind left out: it needs what the points look like, the array columns, which these signals lack")
        return None
    if run is None:
        return blind_scores(record.columns[record.audit[0]], record, seed)
    points = signals_file.points(file)[record.audit[0]]
    content = points.tobytes() + record.truth.tobytes() + f"{seed} {code}".encode()
    key = hashlib.sha256(content).hexdigest()
    kept_file = run.dir / "blind.npz"
    with contextlib.suppress(*signals_file.DAMAGED), np.load(kept_file, allow_pickle=False) as kept:
        if str(kept["key"]) == key:
            return kept["scores"]
    data = dataset(run)
    scores = blind_scores(data.kind.columns_for_blind(data.as_read[points]), record, seed)
    if scores is not None:
        write_atomically(kept_file, lambda part: np.savez(part, scores=scores, key=np.array(key)))
    return scores


def blind_scores(columns: np.ndarray, record: signals_file.Record, seed: int) -> np.ndarray | None:
    """What the classifier says of the victim's audited points: columns (A, F) or texts (A,) -> (A,), NaN where fitted.

    Copies of a point are fitted together or scored together: they would tell the classifier each other's membership.
    None, with the reason printed, where copies leave no two halves or a half has too few points.
    """
    try:
        fitted_on = None if record.group is None else draw_half(record.truth, record.group[record.audit[0]], seed)
        return attacks.blind(columns, record.truth, seed=seed, fitted_on=fitted_on)
    except (UserError, attacks.Unusable) as error:
        say(f"blind left out: {error}")
        return None


def reference_control(run: Run | None, record: signals_file.Record) -> np.ndarray | None:
    """Scores (A,) from the models that are stated not to have trained on a point: how sure they are of its class.

    The score is the mean of their logit-scaled confidence log p_y / (1 - p_y) (Carlini et al. 2022, section IV.C). It
    must not tell members from others. If it does, one of these models saw some of the points after all, or one kind of
    point is harder than the other; attacks that compare the victim with these models then err. NaN on points without
    such a model. None without shadow models and references, and for a run of this project: its split says who trained
    on what. None, with the reason printed, where the scores are not of both kinds.
    """
    if run is not None or len(record.logits) == 1:
        return None
    audited = np.flatnonzero(record.audit[0])
    outsiders = known_outsiders(signals_file.attacker_view(record))[1:, audited]  # (R - 1, A)
    labels = record.labels[audited]
    sure = np.stack([confidence(logits[audited], labels) for logits in record.logits[1:]])  # (R - 1, A)
    count = outsiders.sum(axis=0)
    if len(np.unique(record.truth[count > 0])) < 2:
        say("references left out: every model trained on all of the audited members, or on all of the non-members")
        return None
    total = np.where(outsiders, sure, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
