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

from attacks.common.networks import Recipe, choose_recipe, one_cycle, standardise, train_and_decide, with_enough_steps
from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.statistics import posterior


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
    """One branch reads `width` features, one the label; the joined layers read both."""

    def __init__(self, width: int, num_classes: int, deviation: float | None = None):
        super().__init__()
        self.widths = [width, num_classes]
        self.features = nn.Sequential(*layer(width, 1024), *layer(1024, 512), *layer(512, 64))
        self.labels = nn.Sequential(*layer(num_classes, 128), *layer(128, 64))
        joined = [*layer(128, 512), *layer(512, 256), *layer(256, 128), *layer(128, 64)]
        self.joined = nn.Sequential(*joined, nn.Linear(64, 1))
        if deviation is not None:
            draw_weights(self, deviation)

    def forward(self, inputs):  # (b, width + C) -> (b, 2); the log-odds of membership: second minus first, which is 0
        features, labels = inputs.split(self.widths, dim=1)
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


def with_label(target: Signals, rows, features) -> np.ndarray:
    """(n, F) features of these rows with the one-hot label beside them, (n, F + C)."""
    classes = np.arange(target.logits.shape[-1])
    return np.hstack([features, classes == target.labels[rows[1]][:, None]])


def dsq(target: Signals, *, seed: int, recipe: str = "fast", device="cpu", progress=None) -> Result:
    """Log-odds of membership of the victim's audit points, (A,), from the posterior in the order of the classes.

    recipe: "paper" or "fast" (`attacks.common.networks`; fast inputs are standardised, those of the paper are not);
    progress: a callable that wraps the iterable of epochs, or None. Raises Unusable where there is no shadow model
    or the training diverges, ValueError for another recipe.
    """
    features = [posterior(target.logits[rows]) for rows in audit_rows(target)]
    return by_two_views(target, *features, seed=seed, recipe=recipe, device=device, progress=progress)


def by_two_views(
    target: Signals, shadow_features, victim_features, *, seed: int, recipe: str, device="cpu", progress=None
) -> Result:
    """The same from any features: (M, F) of the shadows' audit rows, (A, F) of the victim's."""
    training = choose_recipe(RECIPES, recipe)
    shadow, victim = audit_rows(target)
    inputs = with_label(target, shadow, shadow_features), with_label(target, victim, victim_features)
    fitted_on, applied_to = standardise(*inputs) if recipe == "fast" else (part.astype(np.float32) for part in inputs)
    member = target.member[shadow]
    return train_and_decide(
        partial(TwoViews, shadow_features.shape[1], target.logits.shape[-1], DEVIATION[recipe]),
        with_enough_steps(training, len(member), LEAST_STEPS),
        fitted_on,
        member,
        applied_to,
        seed=seed,
        device=device,
        progress=progress,
    )
