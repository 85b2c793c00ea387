"""CompLeak-MR: several compressed models, with or without the original.

For each compressed model the network sees a membership probability and the loss of the point on that model. The
probability comes from SR2's random forest on the original and the compressed model or, without the original, from
`nasr2018`'s random forest on the compressed model alone. The probabilities the network is trained on are out of bag: a
second stage that is trained on a forest's in-sample probabilities learns the forest's overfitting, which the victim's
points do not have.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from attacks.common.networks import Recipe, choose_recipe, one_cycle, standardise, train_and_decide
from attacks.common.signals import Result, Signals, audit_rows, check_same_points
from attacks.common.statistics import cross_entropy
from attacks.nasr2018 import nasr2018
from attacks.sr import sr


class TwoBranches(nn.Module):
    """One branch reads the probabilities, one the losses; the joined layers read both."""

    def __init__(self, num_models: int):
        super().__init__()
        self.probability = branch(num_models)
        self.loss = branch(num_models)
        self.joined = nn.Sequential(*hidden(128, 256), *hidden(256, 128), *hidden(128, 64), nn.Linear(64, 2))

    def forward(self, inputs):  # (b, 2, K) -> (b, 2)
        return self.joined(torch.cat([self.probability(inputs[:, 0]), self.loss(inputs[:, 1])], dim=1))


def branch(num_models: int) -> nn.Module:
    """(b, K) -> (b, 64)."""
    return nn.Sequential(*hidden(num_models, 128), nn.Linear(128, 64), nn.ReLU())


def hidden(width_in: int, width_out: int) -> list[nn.Module]:
    return [nn.Linear(width_in, width_out), nn.ReLU(), nn.Dropout(0.5)]


def sgd_cosine(parameters, steps: int):
    """SGD with a cosine schedule, the authors' training."""
    optimizer = torch.optim.SGD(parameters, lr=1e-2, momentum=0.9, weight_decay=5e-4)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)


RECIPES = {"paper": Recipe(sgd_cosine, epochs=100, batch=256), "fast": Recipe(one_cycle, epochs=5, batch=256)}


class Membership(NamedTuple):
    """What the first stage says about one compressed model: probabilities of membership."""

    shadow: np.ndarray  # (M,) of the shadows' audit rows, out of bag
    victim: np.ndarray  # (A,) of the victim's audit points


def membership(original: Signals | None, compressed: Signals, *, seed: int) -> Membership:
    """The first stage for one compressed model: the forest of SR2 or, without the original, of `nasr2018`."""
    if original is None:
        scores, _, shadow_scores, *_ = nasr2018(compressed, seed=seed)
    else:
        scores, _, shadow_scores, *_ = sr(original, compressed, seed=seed, label=True)
    return Membership(shadow_scores, scores)


def inputs(compressed: Sequence[Signals], memberships: Sequence[Membership]):
    """What the network sees: (M, 2, K) of the shadows' rows and (A, 2, K) of the victim's, probability then loss."""
    shadow, victim = audit_rows(compressed[0])
    fitted_on = np.stack([stack_columns(m.shadow for m in memberships), losses(compressed, shadow)], axis=1)
    applied_to = np.stack([stack_columns(m.victim for m in memberships), losses(compressed, victim)], axis=1)
    return fitted_on, applied_to


def losses(models: Sequence[Signals], rows) -> np.ndarray:
    """(n, K): the cross-entropy of each row on each model."""
    return stack_columns(cross_entropy(model.logits[rows], model.labels[rows[1]]) for model in models)


def stack_columns(columns) -> np.ndarray:
    """K arrays of (n,) -> (n, K)."""
    return np.stack(list(columns), axis=1)


def mr(
    original: Signals | None,
    compressed: Sequence[Signals],
    *,
    seed: int,
    recipe: str = "fast",
    device="cpu",
    progress=None,
    memberships: Sequence[Membership] | None = None,
) -> Result:
    """Log-odds of membership of the victim's audit points, (A,).

    recipe: "paper" or "fast" (`attacks.common.networks`); progress: a callable that wraps the iterable of epochs, or
    None; memberships: `membership` of each compressed model where it is known. Raises Unusable where there is no shadow
    model or the training diverges, ValueError without a compressed model or for another recipe.
    """
    if not compressed:
        raise ValueError("MR needs at least one compressed model")
    check_same_points([*compressed] if original is None else [original, *compressed])
    if memberships is None:
        memberships = [membership(original, model, seed=seed) for model in compressed]
    fitted_on, applied_to = standardise(*inputs(compressed, memberships))
    shadow, _ = audit_rows(compressed[0])
    member = compressed[0].member[shadow]
    return train_and_decide(
        lambda: TwoBranches(len(compressed)),
        choose_recipe(RECIPES, recipe),
        fitted_on,
        member,
        applied_to,
        seed=seed,
        device=device,
        progress=progress,
    )
