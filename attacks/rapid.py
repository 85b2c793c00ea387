"""He et al. 2024, Is difficulty calibration all we need? Towards more practical membership inference attacks (CCS):
RAPID.

Calibration makes errors of its own: where a point is hard, the difference between target and references is mostly
noise, and hard non-members are accused. RAPID gives a small network the raw score beside the calibrated one, so that it
can tell: the loss of the target, and that loss minus the mean loss of the references. The network is a perceptron of
512, 256 and 128 with dropout 0.2, which the authors train for 150 epochs of Adam (2e-4, weight decay 5e-4, batches of
128), as in their code. They use four references and eight augmented queries a point; here the references are those at
hand, and the answers the plain ones. The paper's text was at hand in summaries only, so no equation is named here.

It is trained on the shadows, anew for each fold of them, so that its scores of the shadows' rows are of rows it did not
see.
"""

import numpy as np
import torch
from torch import nn

from attacks.common.folds import score_out_of_fold
from attacks.common.networks import Recipe, choose_recipe, one_cycle, standardise, train_and_score, with_enough_steps
from attacks.common.references import checked_outsiders, reference_moments
from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.statistics import cross_entropy
from attacks.common.thresholds import decide


def adam(parameters, steps: int):
    """Adam at a constant learning rate, the authors' training."""
    optimizer = torch.optim.Adam(parameters, lr=2e-4, weight_decay=5e-4)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


LEAST_STEPS = 40  # of the fast recipe, however few rows there are
RECIPES = {"paper": Recipe(adam, epochs=150, batch=128), "fast": Recipe(one_cycle, epochs=3, batch=256)}


def perceptron() -> nn.Module:
    """(b, 2) -> (b, 2), with hidden layers of 512, 256 and 128."""
    return nn.Sequential(
        nn.Linear(2, 512),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(512, 256),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(256, 128),
        nn.ReLU(),
        nn.Linear(128, 2),
    )


def raw_and_calibrated(target: Signals) -> np.ndarray:
    """(R, N, 2): the loss, and the loss minus the mean loss of the references. NaN where there is no reference."""
    loss = cross_entropy(target.logits, target.labels)
    reference = reference_moments(checked_outsiders(target, "rapid"), loss).mean
    return np.stack([loss, loss - reference], axis=-1)


def rapid(target: Signals, *, seed: int, recipe: str = "fast", device="cpu", progress=None) -> Result:
    """Log-odds of membership of the victim's audit points, (A,).

    recipe: "paper" or "fast" (`attacks.common.networks`); progress: a callable that wraps the iterable of epochs, or
    None. Raises Unusable where a point has no reference, ValueError for another recipe.
    """
    shadow, victim = audit_rows(target)
    training = choose_recipe(RECIPES, recipe)
    inputs = raw_and_calibrated(target)

    def fit(fitted_on, member):
        def score(applied_to) -> np.ndarray:
            known, asked = standardise(fitted_on, applied_to)
            enough = with_enough_steps(training, len(known), LEAST_STEPS)
            options = {"seed": seed, "device": device, "progress": progress}
            return train_and_score(perceptron, enough, known, member, asked, **options)[1]

        return score

    member = target.member[shadow]
    shadow_scores, scores = score_out_of_fold(fit, inputs[shadow], member, shadow, inputs[victim])
    return decide(shadow_scores, member, scores)
