"""Li et al. 2024, SeqMIA: sequential-metric based membership inference attack (CCS; arXiv:2407.15098), on versions.

SeqMIA distils the target and lets a recurrent network with attention read how five metrics of a point (loss, largest
posterior, deviation of the posterior, entropy, modified entropy) change over the distilled snapshots. Whoever holds
compressed versions of a model holds such a sequence without distilling anything: here its steps are the original, where
it is available, and the versions by how far compression moved them. That use is ours; network, metrics and the paper
recipe are the authors' (from their code: one LSTM layer of 50; attention by the product with the last state;
Adam 0.01, 0.9 times every 10 epochs, weight decay 1e-7; how many epochs and which batch their experiments used is not
certain, so 100 epochs of batches of 100, the defaults of their training function, stand here).

How far a version is from the first model is the mean distance of their losses on the shadows' rows, whoever is a
member. Arrays do not say at which degree a model was compressed, and this orders techniques among each other as well.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from attacks.common.networks import Recipe, choose_recipe, one_cycle, standardise, train_and_decide
from attacks.common.signals import Result, Signals, audit_rows, check_same_points
from attacks.common.statistics import cross_entropy, log_posterior, modified_entropy

METRICS = 5
WIDTH = 50


def adam_in_steps(parameters, steps: int):
    """Adam whose learning rate falls to 0.9 of itself every 10 of 100 epochs, the authors' training."""
    optimizer = torch.optim.Adam(parameters, lr=0.01, weight_decay=1e-7)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, step_size=max(1, steps // 10), gamma=0.9)


RECIPES = {"paper": Recipe(adam_in_steps, epochs=100, batch=100), "fast": Recipe(one_cycle, epochs=5, batch=128)}


class RecurrentAttention(nn.Module):
    """An LSTM over the versions; its last state and the mean of all states, weighted by their product with the last."""

    def __init__(self):
        super().__init__()
        self.recurrent = nn.LSTM(METRICS, WIDTH, batch_first=True)
        self.head = nn.Linear(2 * WIDTH, 2)

    def forward(self, steps):  # (b, K, METRICS) -> (b, 2)
        states, _ = self.recurrent(steps)
        last = states[:, -1]
        weights = (states @ last[..., None]).softmax(dim=1)  # (b, K, 1)
        return self.head(torch.cat([last, (weights * states).sum(dim=1)], dim=1))


def metrics(model: Signals, rows) -> np.ndarray:
    """(n, METRICS): loss, largest posterior, deviation of the posterior, entropy, modified entropy."""
    logits, labels = model.logits[rows], model.labels[rows[1]]
    log_p = log_posterior(logits)
    p = np.exp(log_p)
    entropy = -(p * log_p).sum(axis=-1)
    columns = [cross_entropy(logits, labels), p.max(axis=-1), p.std(axis=-1), entropy, modified_entropy(logits, labels)]
    return np.stack(columns, axis=-1)


def by_degree(models: Sequence[Signals], rows) -> list[Signals]:
    """The first model, then the others, the least moved first. rows: the shadows' (model, point) pairs."""
    losses = [cross_entropy(model.logits[rows], model.labels[rows[1]]) for model in models]
    distances = [float(np.abs(loss - losses[0]).mean()) for loss in losses]
    return [models[0], *(models[number] for number in sorted(range(1, len(models)), key=distances.__getitem__))]


def seqmia_versions(
    models: Sequence[Signals], *, seed: int, recipe: str = "fast", device="cpu", progress=None
) -> Result:
    """Log-odds of membership of the victim's audit points, (A,). models[0] is the original where it is available.

    recipe: "paper" or "fast" (`attacks.common.networks`); progress: a callable that wraps the iterable of epochs, or
    None. Raises Unusable where there is no shadow model or the training diverges, ValueError for another recipe.
    """
    check_same_points(models)
    training = choose_recipe(RECIPES, recipe)
    shadow, victim = audit_rows(models[0])
    sequence = by_degree(models, shadow)
    inputs = (np.stack([metrics(model, rows) for model in sequence], axis=1) for rows in (shadow, victim))
    fitted_on, applied_to = standardise(*inputs)
    member = models[0].member[shadow]
    return train_and_decide(
        RecurrentAttention,
        training,
        fitted_on,
        member,
        applied_to,
        seed=seed,
        device=device,
        progress=progress,
    )
