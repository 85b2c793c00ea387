"""Yuan & Zhang 2022, Membership inference attacks and defenses in neural network pruning (USENIX Security): the neural
networks that SAMIA is compared with, one network on three views of a prediction.

- `posterior`: the posterior, in the order of the classes (Shokri et al. 2017, section V.D; row `nn`)
- `top3`: its three largest entries in descending order (Salem et al. 2019, section III; `nn_top3`)
- `posterior_and_label`: the posterior and the one-hot label beside it (Nasr et al. 2018, section 3.2; `nn_cls`)

Unsorted, as published: `nn` and `nn_cls` must learn from the shadows what any order of the classes means, and want more
of their rows than `nn_top3`. `shokri2017` and `nasr2018` see the same posteriors sorted.
"""

from itertools import pairwise

import numpy as np
import torch

from attacks.arrays import Result, Signals, audit_rows, decide, posterior
from attacks.training import Recipe, choose, one_cycle, sgd, standardise, train_and_score

RECIPES = {"paper": Recipe(sgd, epochs=100, batch=128), "fast": Recipe(one_cycle, epochs=10, batch=128)}
TOP = 3


def perceptron(width: int) -> torch.nn.Module:
    """(b, width) -> (b, 2): hidden layers of 512, 256 and 128."""
    layers = []
    for before, after in pairwise((width, 512, 256, 128)):
        layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(128, 2))


def view(target: Signals, rows, features: str) -> np.ndarray:
    """What the network sees: (n, C), the (n, 3) largest of fewer where there are fewer classes, or (n, 2C)."""
    p = posterior(target.logits[rows])
    if features == "posterior":
        return p
    if features == "top3":
        return -np.sort(-p, axis=-1)[:, :TOP]
    if features == "posterior_and_label":
        return np.hstack([p, np.arange(p.shape[-1]) == target.labels[rows[1]][:, None]])
    raise ValueError(f"unknown features {features!r}: use 'posterior', 'top3' or 'posterior_and_label'")


def nn(
    target: Signals, *, seed: int, features: str = "posterior", recipe: str = "fast", device="cpu", progress=None
) -> Result:
    """Log-odds of membership of the victim's audit points, (A,).

    features: "posterior", "top3" or "posterior_and_label"; recipe: "paper" or "fast" (`attacks.training`); progress: a
    callable that wraps the iterable of epochs, or None. Raises ValueError for other features or another recipe.
    """
    shadow, victim = audit_rows(target)
    fitted_on, applied_to = standardise(*(view(target, rows, features) for rows in (shadow, victim)))
    member, chosen = target.member[shadow], choose(RECIPES, recipe)
    shadow_scores, scores = train_and_score(
        lambda: perceptron(fitted_on.shape[1]), chosen, fitted_on, member, applied_to,
        seed=seed, device=device, progress=progress,
    )  # fmt: skip
    return decide(shadow_scores, member, scores)
