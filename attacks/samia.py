"""Yuan & Zhang 2022, Membership inference attacks and defenses in neural network pruning (USENIX Security): SAMIA.

Self-attention over the classes (section 4.3). Each class is a token of three features: its posterior, the sensitivity
of that posterior to the input, and whether the class is the label. Tokens stand in the model's own order of classes, as
its authors have them: the head reads all of them side by side and so learns what each class is like.
"""

import numpy as np
from torch import nn

from attacks.common.networks import ROWS_AT_ONCE, Recipe, choose_recipe, one_cycle, sgd, standardise, train_and_decide
from attacks.common.queries import checked_probe
from attacks.common.signals import Result, Signals, Unusable, audit_rows
from attacks.common.statistics import posterior

MEMORY = 1e9  # bytes that the network may take beside its weights


class SelfAttention(nn.Module):
    """Three encoder layers of four heads over C tokens, then a perceptron over all of them."""

    def __init__(self, num_classes: int, width: int = 64):
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 128, dropout=0.2, activation="gelu", batch_first=True)
        self.embed = nn.Sequential(nn.Linear(3, width), nn.GELU())
        self.encoder = nn.TransformerEncoder(layer, num_layers=3, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(num_classes * width, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, tokens):  # (b, C, 3) -> (b, 2)
        return self.head(self.encoder(self.embed(tokens)))


RECIPES = {"paper": Recipe(sgd, epochs=100, batch=128), "fast": Recipe(one_cycle, epochs=4, batch=128)}


def rows_at_once(num_classes: int) -> int:
    """How many points go through the network together. Raises Unusable where one point alone takes too much memory.

    Training keeps about 50 numbers for each pair of classes, since each head of each layer has a C x C table of
    attention, and 8,000 numbers for each class.
    """
    bytes_of_a_point = 200 * num_classes**2 + 32_000 * num_classes
    if bytes_of_a_point > MEMORY:
        raise Unusable(
            f"its attention between {num_classes} classes takes {bytes_of_a_point / 1e9:.1f} GB for one point"
        )
    return min(ROWS_AT_ONCE, int(MEMORY / bytes_of_a_point))


def tokens(target: Signals, rows) -> np.ndarray:
    """(n, C, 3): posterior, sensitivity and one-hot label of each class, in the model's order."""
    is_label = np.arange(target.logits.shape[-1]) == target.labels[rows[1]][:, None]
    return np.stack([posterior(target.logits[rows]), checked_probe(target, "sensitivity")[rows], is_label], axis=-1)


def samia(target: Signals, *, seed: int, recipe: str = "fast", device="cpu", progress=None) -> Result:
    """Log-odds of membership of the victim's audit points, (A,).

    recipe: "paper" or "fast" (`attacks.common.networks`); progress: a callable that wraps the iterable of epochs, or
    None. Raises Unusable where there is no shadow model, without the probe "sensitivity", or for more than about 2,000
    classes, ValueError for another recipe.
    """
    shadow, victim = audit_rows(target)
    at_once = rows_at_once(target.logits.shape[-1])
    fitted_on, applied_to = standardise(tokens(target, shadow), tokens(target, victim))
    member = target.member[shadow]
    return train_and_decide(
        lambda: SelfAttention(target.logits.shape[-1]),
        choose_recipe(RECIPES, recipe),
        fitted_on,
        member,
        applied_to,
        seed=seed,
        device=device,
        progress=progress,
        rows_at_once=at_once,
    )
