"""ML-LEAK, the attack of Salem et al. 2019 (ML-Leaks, section III) as PrivBox runs it: a small network on the top-k
outputs of a shadow model.

The shadow model's members and non-members are known, so a network k-64-64-2 learns to tell them apart by the k largest
outputs in descending order, and is then shown the target's. `label_only` gives the same network other columns.

What differs from PrivBox: the loss is the cross-entropy of the two logits (PrivBox puts a sigmoid before a loss that
applies a softmax of its own, which bounds its gradients), and the columns are brought to mean 0 and deviation 1 on the
shadow's rows, so that a learning rate means the same for models with large and with small outputs.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from attacks.common.networks import ROWS_AT_ONCE, log_odds_of_membership, seeded, standardise
from attacks.common.signals import Result, Unusable

WIDTH = 64
PATIENCE = 2  # epochs in a row that may pass without a better loss on the held-out fifth
LEAST_GAIN = 0.01  # what counts as better
HELD_OUT = 0.2


class Classifier(NamedTuple):
    """How the network is trained: Adam on cross-entropy, members and non-members equally often."""

    epochs: int
    lr: float
    batch_size: int
    early_stopping: bool  # train on four fifths of the rows and stop by the loss on the last fifth


def ml_leak(
    shadow_answers, member, target_answers, *, topk: int, classifier: Classifier, seed: int, device="cpu", progress=None
) -> Result:
    """Log-odds of membership of the target's points by the k largest outputs of each model, (A,).

    shadow_answers: (M, C) and member: (M,) of 0/1 of the shadow model; target_answers: (A, C'), another number of
    classes will do. progress: a callable that wraps the iterable of epochs, or None. Raises ValueError where there are
    fewer classes than topk, and Unusable where the training diverges or there are too few rows.
    """
    shadow_rows = largest_outputs(shadow_answers, topk)
    target_rows = largest_outputs(target_answers, topk)
    return score_rows(shadow_rows, member, target_rows, classifier, seed=seed, device=device, progress=progress)


def largest_outputs(answers, topk: int) -> np.ndarray:
    """The k largest of each row in descending order, (n, C) -> (n, k)."""
    answers = np.asarray(answers, dtype=np.float64)
    if not 1 <= topk <= answers.shape[1]:
        raise ValueError(f"the {topk} largest of {answers.shape[1]} outputs were asked for")
    return -np.sort(-answers, axis=1)[:, :topk]


def score_rows(
    shadow_rows, member, target_rows, classifier: Classifier, *, seed: int, device="cpu", progress=None
) -> Result:
    """Fit the network on the shadow's rows (M, F) and membership (M,); score the target's rows (A, F).

    A point is called a member where its log-odds are positive: the network saw both kinds equally often.
    """
    device = torch.device(device)
    member = np.asarray(member).astype(np.int64)
    fitted_on, applied_to = (torch.from_numpy(rows).to(device) for rows in standardise(shadow_rows, target_rows))
    with seeded(seed, device):
        network = perceptron(fitted_on.shape[1]).to(device)
        fit(network, fitted_on, member, classifier, np.random.default_rng(seed), progress)
        shadow_scores = log_odds_of_membership(network, fitted_on, ROWS_AT_ONCE, device)
        scores = log_odds_of_membership(network, applied_to, ROWS_AT_ONCE, device)
    if not (np.isfinite(shadow_scores).all() and np.isfinite(scores).all()):
        raise Unusable("the training of its network diverged: lower its learning rate")
    return Result(scores, scores > 0, shadow_scores)


def perceptron(width: int) -> nn.Module:
    """(b, width) -> (b, 2)."""
    return nn.Sequential(
        nn.Linear(width, WIDTH),
        nn.Tanh(),
        nn.Linear(WIDTH, WIDTH),
        nn.Tanh(),
        nn.Linear(WIDTH, 2),
    )


def fit(network, inputs, member, classifier: Classifier, rng, progress: Callable | None = None) -> None:
    """Train on inputs (M, F) and member (M,) of 0/1; the last epoch's weights count, as in PrivBox."""
    targets = torch.from_numpy(member).to(inputs.device)
    trained_on, held_out = split_rows(member, rng, HELD_OUT if classifier.early_stopping else 0)
    optimizer = torch.optim.Adam(network.parameters(), lr=classifier.lr)
    losses = []
    for _ in (progress or iter)(range(classifier.epochs)):
        network.train()
        for batch in balanced_batches(trained_on, member, classifier.batch_size, rng):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[batch]), targets[batch]).backward()
            optimizer.step()
        if classifier.early_stopping:
            losses.append(balanced_loss(network, inputs[held_out], targets[held_out]))
            if has_stalled(losses):
                break


def split_rows(member, rng, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to train on and, of members and non-members alike, a share to hold out: at least one of each.

    Raises Unusable unless members and non-members are left to train on.
    """
    trained_on = []
    held_out = []
    for kind in (0, 1):
        rows = rng.permutation(np.flatnonzero(member == kind))
        count = max(1, round(share * len(rows))) if share else 0
        if len(rows) <= count:
            raise Unusable(f"the shadow model has {len(rows)} {'members' if kind else 'non-members'}, which is too few")
        held_out.append(rows[:count])
        trained_on.append(rows[count:])
    return np.concatenate(trained_on), np.concatenate(held_out)


def balanced_batches(rows, member, batch_size: int, rng) -> Iterator[np.ndarray]:
    """Batches of row numbers for one epoch: as many members as non-members, all of the larger kind, in random order.

    Rows of the smaller kind are repeated: each as often as the others, give or take once.
    """
    kinds = [rows[member[rows] == kind] for kind in (0, 1)]
    most = max(len(kind) for kind in kinds)
    drawn = np.concatenate([np.resize(rng.permutation(kind), most) for kind in kinds])
    order = rng.permutation(drawn)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


@torch.no_grad()
def balanced_loss(network, inputs, targets) -> float:
    """Mean of the cross-entropy on members and on non-members."""
    network.eval()
    losses = nn.functional.cross_entropy(network(inputs), targets, reduction="none")
    return float((losses[targets == 0].mean() + losses[targets == 1].mean()) / 2)


def has_stalled(losses) -> bool:
    """Whether the last PATIENCE losses are all no better, by LEAST_GAIN, than the best of those that counted before."""
    best = losses[0]
    waited = 0
    for loss in losses[1:]:
        waited = 0 if loss < best - LEAST_GAIN else waited + 1
        best = loss if waited == 0 else best
    return waited >= PATIENCE
