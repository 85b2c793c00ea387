"""CompLeak-MR: several compressed models, with or without the original.

Of each compressed model the network sees the membership probability (SR's, the compressed model beside the original;
without the original, that of `nasr2018` on the compressed model alone) and the loss of the point on that very model.
The probabilities it is trained on are out of fold: a stacked model trained on a forest's in-sample probabilities learns
the forest's overfitting, which the victim's points do not have.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from attacks.arrays import Result, Signals, audit_rows, cross_entropy, decide, out_of_fold
from attacks.nasr2018 import features as single_model_features
from attacks.sr import check_same_points, sr_membership
from attacks.training import standardise, train_and_score


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


def membership(original: Signals | None, compressed: Signals, *, seed: int):
    """Membership probability of the shadows' rows, out of fold (M,), and of the victim's audit points (A,)."""
    if original is not None:
        return sr_membership(original, compressed, seed=seed)
    shadow, victim = audit_rows(compressed)
    fitted_on, applied_to = (single_model_features(compressed, rows) for rows in (shadow, victim))
    return out_of_fold(fitted_on, compressed.member[shadow], shadow[1], applied_to, seed=seed)


def inputs(original: Signals | None, compressed: Sequence[Signals], *, seed: int):
    """What the network sees: (M, 2, K) of the shadows' rows and (A, 2, K) of the victim's, probability then loss."""
    probability = [membership(original, model, seed=seed) for model in compressed]
    parts = []
    for part, rows in enumerate(audit_rows(compressed[0])):
        loss = [cross_entropy(model.logits[rows], model.labels[rows[1]]) for model in compressed]
        parts.append(np.stack([np.stack([p[part] for p in probability], axis=1), np.stack(loss, axis=1)], axis=1))
    return tuple(parts)


def mr(original: Signals | None, compressed: Sequence[Signals], *, seed: int, device="cpu", progress=None) -> Result:
    """Log-odds of membership of the victim's audit points, (A,). Raises ValueError without a compressed model."""
    if not compressed:
        raise ValueError("MR needs at least one compressed model")
    check_same_points([model for model in (original, *compressed) if model is not None])
    fitted_on, applied_to = standardise(*inputs(original, compressed, seed=seed))
    member = compressed[0].member[audit_rows(compressed[0])[0]]
    shadow_scores, scores = train_and_score(
        lambda: TwoBranches(len(compressed)), sgd_cosine, fitted_on, member, applied_to,
        epochs=100, batch=256, seed=seed, device=device, progress=progress,
    )  # fmt: skip
    return decide(shadow_scores, member, scores)
