"""Tang et al. 2022, Mitigating membership inference attacks by self-distillation through a novel ensemble architecture
(USENIX Security): SELENA.

Split-AI (section 4.1): each member draws L of the K sub-models at random, its non-models, which are not trained on it.
A sub-model is trained with true labels, by the run's own recipe, on all members except those that drew it as a
non-model. A member is answered with the mean posterior of its own non-models, and any other point with that of a random
member's (algorithm 1): both are answers of models that did not train on the point.

Self-distillation (section 4.2): a fresh network of the same kind is trained on the members with Split-AI's answers
about them as soft labels, at temperature 1 and without the true labels. It is the model that is given away. Where
images are augmented, the student sees augmented images and the answers are those about the plain image. A compressed
version is fine-tuned on the same soft labels.

Sub-models are made in stages before the student's, or else in the student's. A sub-model's weights are dropped once it
has answered. Nothing is chosen by looking at non-members. Split-AI answers non-members, too, only so that it can be
audited itself.

In the folder of the original, `split_ai.npz` then holds, for n members, C classes, and N points (the members, the
audited points and those of all shadow models):

    non_models  (n, L) int64    the sub-models that leave out each member
    trained_on  (K, n) bool     the members that each sub-model was trained on
    points      (N,) int64      which points of the data set they are
    member_of   (N,) int64      the place of each point among the members, -1 where it is no member
    answers     (N, C) float32  Split-AI's answers, posteriors
"""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from core.errors import UserError
from core.files import is_refused, write_atomically
from defenses.trainer import Pair, Trainer

LEFT_OUT = 0.4  # L / K, as in the paper, which has 10 of 25
LEAST_MEMBERS = 2  # that a sub-model can be trained on: batch norm needs more than one
NON_MODELS_STREAM, OTHERS_STREAM = 50_000, 50_001  # of a model's seed
FILE = "split_ai.npz"
DAMAGED = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)


def count_sub_models(argument: float) -> int:
    """K. UserError where the argument is no whole number of sub-models."""
    if argument != int(argument) or argument < 2:
        raise UserError(f"--defend selena: --defend_arg is the number of sub-models, at least 2, not {argument:g}")
    return int(argument)


def check(argument: float, members: int) -> None:
    """UserError where a model has fewer members than sub-models."""
    if (sub_models := count_sub_models(argument)) > members:
        raise UserError(
            f"--defend selena: {sub_models} sub-models are more than a model's {members} members: give --defend_arg "
            f"{members} or less"
        )


def draw_non_models(members: int, sub_models: int, seed: int) -> np.ndarray:
    """(n, L) int64: for each member the first L of a random permutation of the sub-models; L is 0.4 K, rounded."""
    left_out = round(LEFT_OUT * sub_models)
    numbers = np.tile(np.arange(sub_models), (members, 1))
    return np.random.default_rng([seed, NON_MODELS_STREAM]).permuted(numbers, axis=1)[:, :left_out]


def draw_answering(non_models: np.ndarray, member_of: np.ndarray, seed: int) -> np.ndarray:
    """(N, L): the sub-models that answer about each point: a member's own non-models, else those of a random member."""
    drawn = np.random.default_rng([seed, OTHERS_STREAM]).integers(len(non_models), size=len(member_of))
    return non_models[np.where(member_of < 0, drawn, member_of)]


def members_of(non_models: np.ndarray, number: int) -> np.ndarray:
    """(n,) bool: the members that a sub-model is trained on."""
    return ~(non_models == number).any(axis=1)


def check_draw(non_models: np.ndarray, sub_models: int) -> None:
    """UserError where a sub-model would be trained on too few members, or would leave none out."""
    left_out = np.bincount(non_models.ravel(), minlength=sub_models)
    for number, count in enumerate(len(non_models) - left_out):
        if not LEAST_MEMBERS <= count < len(non_models):
            raise UserError(f"SELENA's sub-model {number} gets {count} of {len(non_models)} members: give more points")


def draw_checked(members: int, sub_models: int, seed: int) -> np.ndarray:
    """(n, L) int64: what `draw_non_models` draws. UserError where a sub-model cannot be trained on its members."""
    non_models = draw_non_models(members, sub_models, seed)
    check_draw(non_models, sub_models)
    return non_models


def make_sub_model(trainer: Trainer, members: Pair, number: int, *, argument: float, seed: int) -> None:
    """Train one sub-model, ask it about the points that it answers for and keep the answers; nothing where it is done.

    number: 0 to K - 1. UserError where any of the sub-models cannot be trained.
    """
    sub_models = count_sub_models(argument)
    file = sub_model_files(trainer.folder, sub_models)[number]
    training = number + 1  # the student's training is number 0
    if is_made(trainer.folder / FILE, trainer.identity):
        return
    has_foreign_answers = is_foreign(trainer.folder / FILE, trainer.identity) or is_foreign(file, trainer.identity)
    if has_foreign_answers or trainer.foreign_states([training]):
        refuse_all_foreign(trainer, sub_models)
    if file.exists():
        trainer.forget(training)  # which a kill may have left
        return
    non_models = draw_checked(len(members[1]), sub_models, seed)
    trained_on = members_of(non_models, number)
    sub_model = trainer.new_network(training)
    places = torch.from_numpy(np.flatnonzero(trained_on)).to(members[1].device)
    trainer.train(sub_model, (members[0][places], members[1][places]), training)
    answers_for = (draw_answering(non_models, trainer.member_of, seed) == number).any(axis=1)
    answers = trainer.ask(sub_model, trainer.points[answers_for]).astype(np.float32)
    write(file, trainer.identity, trained_on=trained_on, answers=answers)
    trainer.forget(training)


def distil(trainer: Trainer, model: nn.Module, members: Pair, reserve, *, argument: float, seed: int) -> dict:
    """Train the student, or fine-tune its compressed version, on Split-AI's answers; returns facts for meta.json."""
    if trainer.is_original:
        make_split_ai(trainer, members, argument=argument, seed=seed)
    in_order = members_in_order(trainer.points, trainer.member_of)
    targets = torch.from_numpy(answers_about(trainer.folder, trainer.identity, in_order))
    facts = trainer.train(model, (members[0], targets.to(members[1].device)))
    return {**facts, "files": [FILE]} if trainer.is_original else facts


def make_split_ai(trainer: Trainer, members: Pair, *, argument: float, seed: int) -> None:
    """Make the sub-models that are not made yet, and join their answers in one file.

    What can be refused is refused before the first of them is trained.
    """
    numbers = range(count_sub_models(argument))
    files = sub_model_files(trainer.folder, len(numbers))
    if is_made(trainer.folder / FILE, trainer.identity):
        delete(files)  # which a kill may have left
        return
    non_models = draw_checked(len(members[1]), len(numbers), seed)
    refuse_all_foreign(trainer, len(numbers))
    for number in numbers:
        make_sub_model(trainer, members, number, argument=argument, seed=seed)
    try:
        parts = [read(file, trainer.identity) for file in files]
    except UserError:
        if not is_made(trainer.folder / FILE, trainer.identity):
            raise
        delete(files)  # another process has joined them meanwhile
        return
    trained_on = np.stack([part["trained_on"] for part in parts])
    assert not trained_on[non_models.T, np.arange(len(non_models))].any(), "a sub-model saw a member that lists it"
    answering = draw_answering(non_models, trainer.member_of, seed)
    arrays = {"non_models": non_models, "trained_on": trained_on, "points": trainer.points}
    arrays |= {"member_of": trainer.member_of, "answers": mean_answers(answering, [part["answers"] for part in parts])}
    write(trainer.folder / FILE, trainer.identity, **arrays)
    delete(files)


def mean_answers(answering: np.ndarray, answers: list[np.ndarray]) -> np.ndarray:
    """(N, C) float32: for each point the mean answer of the sub-models in `answering`, (N, L).

    answers: of each sub-model, (m, C), about the points that it answers for, in their order.
    """
    total = np.zeros((len(answering), answers[0].shape[1]))
    for number, given in enumerate(answers):
        total[(answering == number).any(axis=1)] += given
    return (total / answering.shape[1]).astype(np.float32)


def members_in_order(points: np.ndarray, member_of: np.ndarray) -> np.ndarray:
    """(n,): the members among the points of the data set (N,), in the members' order, which `member_of` (N,) says."""
    places = np.flatnonzero(member_of >= 0)
    return points[places[np.argsort(member_of[places])]]


def answers_about(folder: Path, identity: dict, points: np.ndarray) -> np.ndarray:
    """(m, C): what the Split-AI of a folder answers about these points of the data set, in their order.

    UserError where its file is missing, damaged or of another training, or was made when fewer points were asked.
    """
    split_ai = read(folder / FILE, identity)
    if not np.isin(points, split_ai["points"]).all():
        raise UserError(f"{folder / FILE} lacks points that are asked now: delete {folder}, and make it again")
    return split_ai["answers"][np.searchsorted(split_ai["points"], points)]


def sub_model_files(folder: Path, sub_models: int) -> list[Path]:
    """Where each sub-model's answers are kept until those of all sub-models are joined."""
    return [folder / f"split_ai_{number}.npz" for number in range(sub_models)]


def delete(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def write(file: Path, identity: dict, **arrays: np.ndarray) -> None:
    content = {**arrays, "identity": np.array(json.dumps(identity, sort_keys=True))}
    write_atomically(file, lambda part: np.savez(part, **content))


def is_made(file: Path, identity: dict) -> bool:
    """Whether this training has left the file already."""
    return file.exists() and not is_foreign(file, identity)


def is_foreign(file: Path, identity: dict) -> bool:
    """Whether the file is there and damaged, or another training left it."""
    return is_refused(file, lambda file: read(file, identity))


def refuse_all_foreign(trainer: Trainer, sub_models: int) -> None:
    """UserError that names all answers and all states of stopped trainings that are damaged or of another training."""
    files = [trainer.folder / FILE, *sub_model_files(trainer.folder, sub_models)]
    foreign = [file for file in files if is_foreign(file, trainer.identity)]
    foreign += trainer.foreign_states(range(sub_models + 1))
    if len(foreign) == 1:
        raise UserError(
            f"{foreign[0]} was made with other settings or is damaged: delete this one file, and give the command again"
        )
    if foreign:
        raise UserError(
            f"{foreign[0].parent}: {' '.join(file.name for file in foreign)} were made with other settings or are "
            "damaged: delete these files, and give the command again"
        )


def read(file: Path, identity: dict) -> dict[str, np.ndarray]:
    """The arrays of a file. UserError where it is missing, damaged or of another training."""
    advice = "delete its folder and train the original again"
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = dict(content)
        stated = str(arrays.pop("identity"))
    except DAMAGED as error:
        raise UserError(f"{file} is missing or damaged: {advice}") from error
    if stated != json.dumps(identity, sort_keys=True):
        raise UserError(f"{file} was made with other settings: {advice}")
    return arrays
