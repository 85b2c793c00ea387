"""The probe `boundary`: how far points lie from a model's decision boundary, by adversarial-robustness-toolbox.

Both distances are Euclidean, in network inputs, and 0 where the model is wrong already:

- by labels alone, HopSkipJump (Chen, Jordan, Wainwright 2020), as Choquette-Choo et al. 2021 (section 4.4) use it;
- by gradients, so with the weights in hand, Carlini & Wagner 2017 (section V.A), as Tang et al. 2022 (SELENA) do.

Both cost far more than one answer a point: they are asked about a drawn sample of each audit set.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from compleak.queries.subject import Subject
from core import devices
from core.errors import UserError

# About 1,300 answers a point. In front of a plane the distances come out a third too large, all of them alike: further
# iterations would mend that, but not the order of the points.
HOP_SKIP_JUMP = {"norm": 2, "max_iter": 10, "init_eval": 50, "max_eval": 500}
CARLINI_WAGNER = {"max_iter": 100, "binary_search_steps": 6, "learning_rate": 0.05}  # at most 600 gradients a point


def ask_boundary(subject: Subject, count: int) -> np.ndarray:
    """(n, 2) float32 distances by labels alone and by gradients; NaN but for `count` points, half of them members."""
    drawn = draw_balanced(subject.member, count)
    inputs = torch.cat([batch for _, batch in subject.batches()])[torch.from_numpy(drawn).to(subject.device)]
    distances = np.full((len(subject.points), 2), np.nan, dtype=np.float32)
    distances[drawn] = boundary_distances(
        subject.model, inputs, subject.labels[drawn], subject.logits.shape[1], subject.device
    )
    return distances


def draw_balanced(member: np.ndarray, count: int) -> np.ndarray:
    """Positions of `count` points, or of all, as many members as others, always the same ones; ascending."""
    rng = np.random.default_rng(0)
    kinds = [np.flatnonzero(member == kind) for kind in (True, False)]
    each = min(count // 2, *map(len, kinds))
    return np.sort(np.concatenate([rng.permutation(kind)[:each] for kind in kinds]))


def find_boundary_problem(boundary: np.ndarray, logits: np.ndarray, audit: np.ndarray) -> str | None:
    """`boundary` is (R, N, 2) of floats, not negative; NaN where a point was not drawn."""
    if boundary.dtype.kind != "f":
        return f"boundary has type {boundary.dtype}: store boundary.astype(np.float32)"
    if boundary.shape != (*logits.shape[:2], 2):
        return f"boundary has shape {boundary.shape}, expected {(*logits.shape[:2], 2)}"
    if (boundary < 0).any() or np.isinf(boundary).any():
        return "boundary holds negative or infinite distances: store np.nan where the point was not asked about"
    return None


def boundary_distances(
    model: nn.Module,
    inputs: torch.Tensor,
    labels: np.ndarray,
    classes: int,
    device: torch.device,
) -> np.ndarray:
    """(n, 2) float32 distances of network inputs (n, ...) by labels alone and by gradients.

    NaN in the second column where the model gives no gradients. UserError without adversarial-robustness-toolbox.
    """
    with toolbox_of_its_own_randomness() as toolbox:
        network = AnyFloats(model).to(device).eval()
        classifier = toolbox.estimators.classification.PyTorchClassifier(
            network,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(inputs.shape[1:]),
            nb_classes=classes,
            clip_values=(float(inputs.min()), float(inputs.max())),
            device_type="gpu" if device.type == "cuda" else "cpu",
        )
        values = inputs.cpu().numpy()
        right = classifier.predict(values).argmax(axis=1) == labels
        evasion = toolbox.attacks.evasion
        by_labels = evasion.HopSkipJump(classifier, verbose=False, **HOP_SKIP_JUMP)
        columns = [distances_by(by_labels, values, right)]
        if has_gradients(network, inputs[:1]):
            by_gradients = evasion.CarliniL2Method(
                classifier, batch_size=max(1, len(values)), verbose=False, **CARLINI_WAGNER
            )
            columns.append(distances_by(by_gradients, values, right))
        else:
            columns.append(np.full(len(values), np.nan))
    return np.stack(columns, axis=1).astype(np.float32)


def distances_by(attack, values: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n,) how far the attack moves each of the points (n, ...) until the model's answer is wrong; 0 where it is.

    A point that the attack did not bring across the boundary gets the largest distance of those that it did.
    """
    distances = np.zeros(len(values))
    if not right.any():
        return distances
    moved = attack.generate(values[right])
    distance = np.sqrt(((moved - values[right]).astype(np.float64) ** 2).reshape(right.sum(), -1).sum(axis=1))
    distances[right] = np.where(distance > 0, distance, distance.max())
    return distances


def has_gradients(network: nn.Module, inputs: torch.Tensor) -> bool:
    """Whether the answers about network inputs (1, ...) can be differentiated."""
    inputs = inputs.clone().requires_grad_()
    try:
        network(inputs)[:, 0].sum().backward()
    except RuntimeError:  # torch's for integer layers and for operations without a derivative
        return False
    return inputs.grad is not None and bool(inputs.grad.abs().sum() > 0)


class AnyFloats(nn.Module):
    """A model that takes floats of any precision and answers in float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:  # (B, ...) -> (B, C) float32
        with devices.exact():
            return self.model(inputs.float()).float()


@contextlib.contextmanager
def toolbox_of_its_own_randomness() -> Iterator:
    """The toolbox, which draws from numpy's global generator: it is seeded, and put back afterwards."""
    try:
        import art.attacks.evasion
        import art.estimators.classification
    except ImportError as error:
        raise UserError('boundary needs adversarial-robustness-toolbox: pip install ".[boundary]"') from error
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield art
    finally:
        np.random.set_state(state)
