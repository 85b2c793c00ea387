"""CompLeak-MR: several compressed models, with or without the original.

Of each compressed model the network sees the membership probability (that of SR2's random forest, the compressed model
beside the original; without the original, of `nasr2018`'s on the compressed model alone) and the loss of the point on
that very model. The probabilities it is trained on are out of bag: a stacked model trained on a forest's in-sample
probabilities learns the forest's overfitting, which the victim's points do not have.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from attacks.arrays import Result, Signals, audit_rows, cross_entropy, decide
from attacks.nasr2018 import nasr2018
from attacks.sr import check_same_points, sr
from attacks.training import Recipe, choose, one_cycle, standardise, train_and_score


class TwoBranches(nn.Module):
    def __init__(self, num_models: int):
        super().__init__()
        self.probability, self.loss = (
            nn.Sequential(nn.Linear(num_models, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 64), nn.ReLU())
            for _ in range(2)
        )
        joined, sizes = [], (128, 256, 128, 64)
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            joined += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(0.5)]
        self.joined = nn.Sequential(*joined, nn.Linear(sizes[-1], 2))

    def forward(self, inputs):  # (b, 2, K) -> (b, 2)
        return self.joined(torch.cat([self.probability(inputs[:, 0]), self.loss(inputs[:, 1])], dim=1))


def sgd_cosine(parameters, steps: int):
    optimizer = torch.optim.SGD(parameters, lr=1e-2, momentum=0.9, weight_decay=5e-4)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)


RECIPES = {"paper": Recipe(sgd_cosine, epochs=100, batch=256), "fast": Recipe(one_cycle, epochs=5, batch=256)}


class Membership(NamedTuple):
    """What SR says of a pair of models: probabilities of membership."""

    shadow: np.ndarray  # (M,) of the shadows' audit rows, out of bag
    victim: np.ndarray  # (A,) of the victim's audit points


def membership(original: Signals | None, compressed: Signals, *, seed: int) -> Membership:
    """The first stage for one compressed model: the forest of SR2 or, without the original, of `nasr2018`."""
    result = sr(original, compressed, seed=seed, label=True) if original else nasr2018(compressed, seed=seed)
    return Membership(result.shadow_scores, result.scores)


def inputs(compressed: Sequence[Signals], memberships: Sequence[Membership]):
    """What the network sees: (M, 2, K) of the shadows' rows and (A, 2, K) of the victim's, probability then loss."""
    parts = []
    for part, rows in enumerate(audit_rows(compressed[0])):
        loss = [cross_entropy(model.logits[rows], model.labels[rows[1]]) for model in compressed]
        columns = [np.stack([known[part] for known in memberships], axis=1), np.stack(loss, axis=1)]
        parts.append(np.stack(columns, axis=1))
    return tuple(parts)


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

    recipe: "paper" or "fast" (`attacks.training`); memberships: `membership` of each compressed model, where SR has
    been run before. Raises ValueError without a compressed model or for another recipe.
    """
    if not compressed:
        raise ValueError("MR needs at least one compressed model")
    check_same_points([model for model in (original, *compressed) if model is not None])
    if memberships is None:
        memberships = [membership(original, model, seed=seed) for model in compressed]
    fitted_on, applied_to = standardise(*inputs(compressed, memberships))
    member, chosen = compressed[0].member[audit_rows(compressed[0])[0]], choose(RECIPES, recipe)
    shadow_scores, scores = train_and_score(
        lambda: TwoBranches(len(compressed)), chosen, fitted_on, member, applied_to,
        seed=seed, device=device, progress=progress,
    )  # fmt: skip
    return decide(shadow_scores, member, scores)
