"""Yuan & Zhang 2022, Membership inference attacks and defenses in neural network pruning (USENIX Security): the neural
networks that SAMIA is compared with, one network on three views of a prediction.

- `posterior`: the posterior, in the order of the classes (Shokri et al. 2017, section V.D; row `nn`)
- `top3`: its three largest entries in descending order (Salem et al. 2019, section III; `nn_top3`)
- `posterior_and_label`: the posterior and the one-hot label beside it (Nasr et al. 2018, section 3.2; `nn_cls`)

`nn` and `nn_cls` see the posterior unsorted, as published. They must learn from the shadows what each class means, and
need more of the shadows' rows than `nn_top3`. `shokri2017` and `nasr2018` see the same posteriors sorted.
"""

import numpy as np
import torch

from attacks.common.networks import Recipe, choose_recipe, one_cycle, sgd, standardise, train_and_decide
from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.statistics import posterior

RECIPES = {"paper": Recipe(sgd, epochs=100, batch=128), "fast": Recipe(one_cycle, epochs=10, batch=128)}
TOP = 3


def perceptron(width: int) -> torch.nn.Module:
    """(b, width) -> (b, 2), with hidden layers of 512, 256 and 128."""
    return torch.nn.Sequential(
        torch.nn.Linear(width, 512),
        torch.nn.ReLU(),
        torch.nn.Linear(512, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 2),
    )


def view(target: Signals, rows, features: str) -> np.ndarray:
    """What the network sees: (n, C) of "posterior", (n, min(3, C)) of "top3", (n, 2C) of "posterior_and_label"."""
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

    features: "posterior", "top3" or "posterior_and_label"; recipe: "paper" or "fast" (`attacks.common.networks`);
    progress: a callable that wraps the iterable of epochs, or None. Raises Unusable where there is no shadow model
    or the training diverges, ValueError for other features or another recipe.
    """
    shadow, victim = audit_rows(target)
    fitted_on, applied_to = standardise(view(target, shadow, features), view(target, victim, features))
    member = target.member[shadow]
    return train_and_decide(
        lambda: perceptron(fitted_on.shape[1]),
        choose_recipe(RECIPES, recipe),
        fitted_on,
        member,
        applied_to,
        seed=seed,
        device=device,
        progress=progress,
    )
