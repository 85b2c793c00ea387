"""How one model of a run is trained: on which points, with which defence, and what that makes it."""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

import defenses
from compleak import runs
from compleak.paths import ORIGINAL
from compleak.training import Recipe, fit
from data import splits
from data.datasets import Dataset


class Training(NamedTuple):
    """`made_from` goes into the checkpoint's; it is empty for a model without a defence."""

    members: np.ndarray  # (n,) the points that are trained on
    reserve: np.ndarray | None  # (m,) points that the defence may use beside them
    procedure: defenses.Procedure
    made_from: dict


def training_of(run: runs.Run, row: int, recipe: Recipe, technique: str, penalty: float = 0.0) -> Training:
    """The training of the run's model in this row: the "original"'s, or the fine-tuning after a technique."""
    name = runs.defence_of(run, run.roles[row], compressed=technique != ORIGINAL)
    members, reserve = _points(run, row)
    if not name:
        made_from = {"slim_penalty": penalty} if penalty else {}
        return Training(members, None, defenses.Procedure(penalty), made_from)
    argument = run.config["defend_arg"]
    procedure = defenses.build(name, argument, num_cls=run.config["num_cls"], seed=recipe.seed)
    made_from = {"defend": name, "defend_arg": argument}
    if reserve is not None:
        made_from["reserve"] = runs.members_fingerprint(splits.Pair(members, reserve))
    return Training(members, reserve, procedure, made_from)


def _points(run: runs.Run, row: int) -> tuple[np.ndarray, np.ndarray | None]:
    """A model's members, and the reserve where its defence needs one.

    An undefended original leaves out what its defended fine-tuning will use: no model has memorised its reserve.
    """
    name = runs.defence_of(run, run.roles[row], compressed=True)
    if name and defenses.DEFENCES[name].procedure.needs_reserve:
        return runs.reserves(run)[row]
    return runs.split(run)[0].pairs[row].train, None


def train_model(
    model: nn.Module, training: Training, data: Dataset, recipe: Recipe, *, earlier: list | None, device, **options
) -> dict:
    """`fit` the model in place; returns what meta.json says of it: its loss and, with DP-SGD, what it spent.

    earlier: the privacy spent by what the model was made from, None where that had no noise.
    """
    points, reserve = (
        index if index is None else [torch.from_numpy(array[index]).to(device) for array in (data.images, data.labels)]
        for index in (training.members, training.reserve)
    )
    options |= {"flip": data.flip, "device": device, "procedure": training.procedure, "reserve": reserve}
    loss = fit(model, *points, recipe, **options)
    spent = training.procedure.account(len(training.members), recipe.batch_size, recipe.epochs, earlier)
    return {"loss": loss, **spent}


def privacy_said(facts: dict) -> str:
    """What DP-SGD guarantees, for the line that a stage prints; "" without it."""
    if "privacy" not in facts:
        return ""
    epsilon, delta = facts["privacy"]["epsilon"], facts["privacy"]["delta"]
    if epsilon is None:
        return "; no privacy guarantee: the original was trained on the same members without noise"
    return f"; epsilon {epsilon:.2f} at delta {delta:g}, while the seed is secret"
