"""Tang et al. 2022, Mitigating membership inference attacks by self-distillation through a novel ensemble architecture
(USENIX Security, SELENA): the network among its direct single-query attacks.

One branch reads the posterior (1024, 512, 64), one the one-hot label (128, 64), and the joined layers both (512, 256,
128, 64, 1), all ReLU; after Nasr, Shokri, Houmansadr 2018. The authors train it with the squared error of the sigmoid,
150 epochs of Adam (1e-4), 512 members and 512 non-members a batch, weights drawn from N(0, 0.01). They keep the epoch
that is best on the points that are judged; here the last one counts. Their other direct single-query attacks are here
as `gap`, `yeom2018`, `entropy`, `song2021` and the `threshold` rows.
"""

from functools import partial

import numpy as np
import torch
from torch import nn

from attacks.common.networks import Recipe, choose_recipe, one_cycle, standardise, train_and_score, with_enough_steps
from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.statistics import posterior
from attacks.common.thresholds import decide


def adam(parameters, steps: int):
    """Adam at a constant learning rate, the authors' training."""
    optimizer = torch.optim.Adam(parameters, lr=1e-4)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def squared_error(logits, targets):
    """Mean squared error of the probability of membership: logits (b, 2), targets (b,) of 0/1."""
    return nn.functional.mse_loss(logits.softmax(dim=1)[:, 1], targets.to(logits.dtype))


RECIPES = {
    "paper": Recipe(adam, epochs=150, batch=1024, loss=squared_error),
    "fast": Recipe(one_cycle, epochs=6, batch=256),
}
LEAST_STEPS = 60  # of the fast recipe, however few rows there are
DEVIATION = {"paper": 0.01, "fast": None}  # of the first weights: None is torch's own, from which few epochs suffice


class TwoViews(nn.Module):
    """One branch reads the posterior, one the label; the joined layers read both."""

    def __init__(self, num_classes: int, deviation: float | None = None):
        super().__init__()
        self.num_classes = num_classes
        self.features = nn.Sequential(*layer(num_classes, 1024), *layer(1024, 512), *layer(512, 64))
        self.labels = nn.Sequential(*layer(num_classes, 128), *layer(128, 64))
        joined = [*layer(128, 512), *layer(512, 256), *layer(256, 128), *layer(128, 64)]
        self.joined = nn.Sequential(*joined, nn.Linear(64, 1))
        if deviation is not None:
            draw_weights(self, deviation)

    def forward(self, inputs):  # (b, 2C) -> (b, 2); the odds of membership are the second minus the first, which is 0
        features, labels = inputs.split(self.num_classes, dim=1)
        log_odds = self.joined(torch.cat([self.features(features), self.labels(labels)], dim=1))
        return torch.cat([torch.zeros_like(log_odds), log_odds], dim=1)


def layer(width_in: int, width_out: int) -> list[nn.Module]:
    return [nn.Linear(width_in, width_out), nn.ReLU()]


def draw_weights(network: nn.Module, deviation: float) -> None:
    """Draw all weights from N(0, deviation^2) and set the biases to 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=deviation)
            nn.init.zeros_(module.bias)


def view(target: Signals, rows) -> np.ndarray:
    """(n, 2C): the posterior in the order of the classes, then the one-hot label."""
    p = posterior(target.logits[rows])
    return np.hstack([p, np.arange(p.shape[-1]) == target.labels[rows[1]][:, None]])


def dsq(target: Signals, *, seed: int, recipe: str = "fast", device="cpu", progress=None) -> Result:
    """Log-odds of membership of the victim's audit points, (A,).

    recipe: "paper" or "fast" (`attacks.common.networks`; fast inputs are standardised, those of the paper are not);
    progress: a callable that wraps the iterable of epochs, or None. Raises ValueError for another recipe.
    """
    training = choose_recipe(RECIPES, recipe)
    shadow, victim = audit_rows(target)
    inputs = view(target, shadow), view(target, victim)
    fitted_on, applied_to = standardise(*inputs) if recipe == "fast" else (part.astype(np.float32) for part in inputs)
    member = target.member[shadow]
    shadow_scores, scores = train_and_score(
        partial(TwoViews, target.logits.shape[-1], DEVIATION[recipe]),
        with_enough_steps(training, len(member), LEAST_STEPS),
        fitted_on,
        member,
        applied_to,
        seed=seed,
        device=device,
        progress=progress,
    )
    return decide(shadow_scores, member, scores)
