"""The Split-AI of an attacker who knows half of the points, for `selena_adaptive`: trained here, once for each half.

The victim's members that are not audited are dealt out to the two halves as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import attacks
from attacks.selena_adaptive import OTHER_HALF, SAME_HALF
from compleak.audits.attackers import KNOWN_HALF, Attacker, halves_of
from compleak.queries import signals_file
from compleak.queries.signals_file import Record
from compleak.runs.roles import VICTIM, role_seed
from compleak.runs.run import Run, dataset
from compleak.runs.variants import ORIGINAL
from compleak.training.assignment import Assignment, assign
from compleak.training.finished import model_meta, recipe_of_defence
from compleak.training.loop import Recipe
from compleak.training.make import on_device, trainer_of
from compleak.training.original import original_source
from core.errors import UserError
from defenses import DEFENCES, selena
from defenses.trainer import Pair, Trainer

SEED_STREAM, UNAUDITED_STREAM = 60_000, 60_002  # of a run's seed: no model of a run has such a row


class SplitAITraining(NamedTuple):
    """A Split-AI of the attacker before it is trained."""

    assignment: Assignment
    trainer: Trainer
    members: Pair
    sub_models: float


def with_split_ai(
    records: Mapping[Path, Record],
    run: Run | None,
    attacker: Attacker,
    chosen: Sequence[attacks.Attack],
    seed: int,
    device: torch.device,
) -> tuple[dict[Path, Record], dict[str, str]]:
    """The records with the probe `split_ai`, where a chosen attack wants it and the attacker knows half of the points.

    Where it cannot be had the records stay as they are, and the second value says why, by the probe's name.

    Each Split-AI is trained on half of the victim's members by the recipe of the victim's original, without its
    slimming penalty, and kept in the run's folder. It has as many sub-models as the run's own where SELENA defends the
    run. seed: draws the halves of the audited points and is part of the folders' names; the run's seed deals out the
    other members and seeds the training.
    """
    is_wanted = any("split_ai" in attack.probes for attack in chosen)
    if run is None or attacker.name != KNOWN_HALF or not is_wanted:
        return dict(records), {}
    try:
        split_ai = split_ai_of(records, run, attacker, seed, device)
    except attacks.Unusable as error:
        return dict(records), {"split_ai": str(error)}
    return {path: each._replace(probes={**each.probes, "split_ai": split_ai}) for path, each in records.items()}, {}


def split_ai_of(
    records: Mapping[Path, Record], run: Run, attacker: Attacker, seed: int, device: torch.device
) -> np.ndarray:
    """The probe `split_ai`, (R, N, 2, C) float32; NaN but for the audited points of the victim, row 0.

    OTHER_HALF holds the answer of the Split-AI that was trained on the other half, SAME_HALF that of the point's own.
    Raises Unusable where a Split-AI cannot be trained, UserError where another training's files lie in the way.
    What can be refused is refused for both halves before the first Split-AI is trained.
    """
    refuse_recipe_of_defence(run)
    path, record = next(iter(records.items()))
    points = signals_file.points(path)[record.audit[0]]
    halves = halves_of(attacker, record, seed)
    unaudited = unaudited_members(run, points)
    trainings = []
    for number, half in enumerate(halves):
        members = np.concatenate([points[half.known & record.truth], unaudited[number]])
        trainings.append(training_of(run, members, half.name, number, seed, device))
    refuse_untrainable(trainings)
    shape = (*record.logits.shape[:2], 2, record.logits.shape[2])
    split_ai = np.full(shape, np.nan, dtype=np.float32)
    audited = np.flatnonzero(record.audit[0])
    for half, training in zip(halves, trainings, strict=True):
        train_split_ai(training)
        answers = selena.answers_about(training.assignment.folder, training.trainer.identity, points)
        split_ai[0, audited[half.judged], OTHER_HALF] = answers[half.judged]
        split_ai[0, audited[~half.judged], SAME_HALF] = answers[~half.judged]
    return split_ai


def refuse_recipe_of_defence(run: Run) -> None:
    """Raise Unusable where the victim's original has a learning rate or batch size that was set for its defence.

    Plain training may diverge with them. SELENA is excepted: its own sub-models are trained plainly with that recipe.
    """
    defence = assign(run, ORIGINAL, VICTIM).defence
    if defence not in ("", "selena") and recipe_of_defence(run, ORIGINAL):
        recipe = replace(run.defence, finetuning_lr=None).recipe
        raise attacks.Unusable(
            "the attacker's Split-AI is trained by the victim's recipe and without a defence, and this recipe "
            f"({recipe}) is for --defend {defence}"
        )


def unaudited_members(run: Run, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The members of the victim that are not among the audited points (A,), dealt out at random to the two halves.

    Copies of audited points are not left out: the signals of a run do not say which points are copies.
    """
    unaudited = np.setdiff1d(assign(run, ORIGINAL, VICTIM).members, points)
    order = np.random.default_rng([run.config["seed"], UNAUDITED_STREAM]).permutation(unaudited)
    return order[0::2], order[1::2]


def training_of(
    run: Run, members: np.ndarray, half: str, number: int, seed: int, device: torch.device
) -> SplitAITraining:
    """What a Split-AI needs to be trained on these of the victim's members (n,), by the victim's original's recipe.

    half: the name of the half that the members are known with; number: 0 or 1, which tells the seeds of the two apart;
    seed: of the attack, for the folder's name.
    """
    assignment = replace(
        assign(run, ORIGINAL, VICTIM),
        members=members,
        reserve=None,
        defence="",
        seed=role_seed(run.config["seed"], SEED_STREAM + number),
        folder=run.dir / f"attacker_split_ai_seed{seed}_{half}",
    )
    made_from = model_meta(run, ORIGINAL, VICTIM)["made_from"]
    recipe = Recipe(**{name: value for name, value in made_from.items() if name in Recipe._fields})
    recipe = recipe._replace(seed=assignment.seed)
    data = dataset(run)
    source = original_source(assignment, slim_penalty=0.0)
    sub_models = sub_models_of(run)
    identity = {**source.made_from, **recipe._asdict(), "sub_models": sub_models}
    trainer = trainer_of(assignment, recipe, source, data, identity, device, "attacker's Split-AI")
    return SplitAITraining(assignment, trainer, on_device(data, members, device), sub_models)


def sub_models_of(run: Run) -> float:
    """How many sub-models the attacker's Split-AI has: as many as the defender's, else the default."""
    return run.defence.argument if run.defence.name == "selena" else DEFENCES["selena"].default


def refuse_untrainable(trainings: Sequence[SplitAITraining]) -> None:
    """Refuse before the work: UserError where another training's files lie in the way, Unusable for too few members."""
    for training in trainings:
        selena.refuse_all_foreign(training.trainer, selena.count_sub_models(training.sub_models))
    for training in trainings:
        sub_models = selena.count_sub_models(training.sub_models)
        with unusable_where_refused():
            selena.draw_checked(len(training.assignment.members), sub_models, training.assignment.seed)


def train_split_ai(training: SplitAITraining) -> None:
    """Make `split_ai.npz` in the training's folder where it is missing. Raises Unusable where it cannot be trained."""
    with unusable_where_refused():
        selena.make_split_ai(
            training.trainer, training.members, argument=training.sub_models, seed=training.assignment.seed
        )


@contextmanager
def unusable_where_refused() -> Iterator[None]:
    """Turn a UserError into Unusable, so that the attack alone is left out and not the whole table."""
    try:
        yield
    except UserError as error:
        raise attacks.Unusable(
            "the attacker's Split-AI, which is trained with the settings of the victim's train.py, "
            f"cannot be trained: {error}"
        ) from error
