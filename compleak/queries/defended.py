"""Signals behind a defence of answers: what people would see if the defence stood between them and the models.

A defence of answers is a function of posteriors, so no model is asked again: any file of signals, a run's or anybody's,
becomes another file of signals.

The victim's answers are defended. All other models are the attacker's, whose answers are defended where the attacker is
adaptive. The probe `sensitivity` is left out, since it compares answers that no file holds, and with it goes the attack
`samia`. Probes of labels stay as they are: no defence of answers changes a label, neither of a point nor of its views.
"""

from pathlib import Path

import numpy as np
import torch

from attacks.common.statistics import posterior
from compleak.queries import signals_file
from compleak.queries.logits import SMALLEST
from compleak.queries.signals_file import Record
from compleak.queries.views import as_stored
from compleak.runs.settings import AnswersSettings
from core.console import progress, say
from core.errors import UserError
from core.files import sha256
from defenses import DEFENCES_OF_ANSWERS, OwnersKnowledge

FORMAT = 2  # of what `defend` computes: another number makes kept files again
NOBODY_ELSE = "--adaptive is about the answers of shadow models and references, and there are none: leave it out"
SAME = 1e-6  # difference of two posteriors that are the same but for rounding
FEWEST_KNOWN = 2  # members, and others, that a model's owner must know


def defended_file(file: Path, answers: AnswersSettings, place: Path, device: torch.device) -> Path:
    """Keep the signals of `file`, as this defence gives them, in `place`; returns `place`.

    A file that is there already, of the same signals and defence, is left as it is. UserError where `file` is no
    signals file or lacks what the defence must know, or where an adaptive attacker has no other model to defend.
    """
    if not file.is_file():
        raise UserError(f"{file} does not exist")
    wanted = {"undefended": sha256(file), "answers": str(answers), "adaptive": answers.adaptive, "format": FORMAT}
    if signals_file.read_source(place) == wanted:
        return place
    record = signals_file.load(file)
    if answers.adaptive and len(record.logits) == 1:
        raise UserError(f"{file}: {NOBODY_ELSE}")
    if "sensitivity" in record.probes:
        say(f"--answers {answers}: sensitivity is left out, which was measured on undefended answers")
    try:
        defended = defend(record, answers, device)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    signals_file.write(place, {**arrays_of(defended), **points_in(file)}, wanted)
    if is_unchanged(record, defended):
        say(f"{file}: {unchanged_in_words(answers)}")
    return place


def is_unchanged(record: Record, defended: Record) -> bool:
    """Whether the audited model answers about its audited points as it does without the defence."""
    plain, given = (posterior(signals.logits[0, signals.audit[0]]) for signals in (record, defended))
    return np.allclose(plain, given, rtol=0, atol=SAME)


def unchanged_in_words(answers: AnswersSettings) -> str:
    return f"{answers} changed no audited answer of the model, so it defends nothing here"


def refuse_useless(answers: AnswersSettings, classes: int) -> None:
    """UserError where the defence hides nothing of so many classes."""
    if answers.name and (check := DEFENCES_OF_ANSWERS[answers.name].check):
        check(answers.argument, classes)


def arrays_of(record: Record) -> dict[str, np.ndarray]:
    """The content of a signals file."""
    arrays = {name: array for name, array in record._asdict().items() if name != "probes" and array is not None}
    return {**arrays, **record.probes}


def points_in(file: Path) -> dict[str, np.ndarray]:
    """Which points of the data set the signals are about, where the file says so."""
    with np.load(file, allow_pickle=False) as content:
        return {"points": content["points"]} if "points" in content else {}


def defend(record: Record, answers: AnswersSettings, device: torch.device) -> Record:
    """The record with defended answers. UserError where it lacks what the defence must know."""
    logits = record.logits.astype(np.float32)
    probes = {name: array.copy() for name, array in record.probes.items() if name != "sensitivity"}
    for row in progress(range(len(logits) if answers.adaptive else 1), f"defending answers by {answers}"):
        owner = owners_knowledge(record, row, answers, device)
        views = probes["augmented"][row] if "augmented" in probes else np.empty((logits.shape[1], 0, logits.shape[2]))
        logits[row], views[:] = defend_model(record.logits[row], views, answers, owner)
    return record._replace(logits=logits, probes=probes)


def defend_model(
    plain: np.ndarray, views: np.ndarray, answers: AnswersSettings, owner: OwnersKnowledge
) -> tuple[np.ndarray, np.ndarray]:
    """One model's defended logits (N, C), and the log-posteriors of its views (N, Q, C).

    A view that shows the point as it is was the same question, so it gets the same answer, although it is stored with
    fewer digits, from which a defence with a random part would draw another one.
    """
    points, classes = plain.shape
    is_plain = (views == as_stored(plain)[:, None]).all(axis=-1)  # (N, Q)
    defended = defended_logits(np.concatenate([plain, views.reshape(-1, classes)]), answers, owner)
    logits = with_lead(defended[:points], plain.argmax(axis=-1))
    same = np.broadcast_to(logits[:, None], views.shape)
    defended_views = np.where(is_plain[..., None], same, defended[points:].reshape(views.shape))
    return logits, with_lead(as_stored(defended_views), views.argmax(axis=-1))


def defended_logits(plain: np.ndarray, answers: AnswersSettings, owner: OwnersKnowledge) -> np.ndarray:
    """(n, C) float32 logarithms of the posteriors that the defence gives for logits (n, C); NaN where those are."""
    asked = np.isfinite(plain).all(axis=1)
    change = DEFENCES_OF_ANSWERS[answers.name].change
    given = change(posterior(plain[asked]), answers.argument, owner)
    whole = np.full(plain.shape, np.nan, dtype=np.float32)
    whole[asked] = np.log(np.maximum(given, SMALLEST))
    return whole


def with_lead(answers: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Answers (..., C) that name the predicted class (...).

    Where a defence, or the digits that are stored, put other classes level with that class, it gets the least possible
    lead over them: whoever answers with numbers still names the same class.
    """
    is_level = answers.argmax(axis=-1) != predicted
    lead = np.nextafter(answers.max(axis=-1), answers.dtype.type(np.inf))
    answers = answers.copy()
    answers[is_level, predicted[is_level]] = lead[is_level]
    return answers


def owners_knowledge(record: Record, row: int, answers: AnswersSettings, device: torch.device) -> OwnersKnowledge:
    """What the owner of a model knows: its answers about its members, and about other points that are not audited.

    Of the victim these others are the attacker's pool, of a shadow model the victim's points. The owner of the victim
    is no attacker, so the victim's membership is no secret here. UserError where the defence needs more than there is.
    """
    outside = ~record.member[row] & ~record.audit[row]
    sides = [posterior(record.logits[row, points]) for points in (record.member[row], outside)]
    if DEFENCES_OF_ANSWERS[answers.name].needs_owner and min(map(len, sides)) < FEWEST_KNOWN:
        raise UserError(
            f"{answers} trains a network on members and on other points that are not audited, and of model {row} there "
            f"are {len(sides[0])} and {len(sides[1])}: audit fewer of the non-members, or give more"
        )
    return OwnersKnowledge(*sides, seed=row, device=device)
