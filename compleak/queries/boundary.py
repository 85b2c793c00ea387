"""The probe `boundary`: how far points lie from a model's decision boundary.

Both distances are Euclidean, in network inputs, and 0 where the model is wrong already:

- by labels alone, HopSkipJump (Chen, Jordan, Wainwright 2020), as Choquette-Choo et al. 2021 (section 4.4) use it, from
  adversarial-robustness-toolbox;
- by gradients, so with the weights in hand, Carlini & Wagner 2017, as Tang et al. 2022 (SELENA) do. It is written here:
  the toolbox's own, with a fifth of the steps, took 2 seconds a point and moved half of the points across a plane.

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
FEWEST_POINTS = 4  # of an audit set that are measured: two members and two non-members
SEARCHES = 9  # of Carlini & Wagner's weight c
STEPS = 100  # of Adam in each search: 900 gradients a point
LEARNING_RATE = 0.05
FIRST_WEIGHT = 0.01


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


def find_boundary_problem(boundary: np.ndarray, logits: np.ndarray, asked: np.ndarray) -> str | None:
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
    network = AnyFloats(model).to(device).eval()
    with torch.no_grad():
        right = network(inputs).argmax(dim=1).cpu().numpy() == labels
    distances = np.zeros((len(inputs), 2))
    if right.any():
        targets = torch.from_numpy(labels[right]).to(device)
        still = inputs[torch.from_numpy(right).to(device)]
        distances[right, 0] = hop_skip_jump(network, still, classes, device)
        if has_gradients(network, still[:1]):
            distances[right, 1] = carlini_wagner(network, still, targets)
        else:
            distances[:, 1] = np.nan
    return distances.astype(np.float32)


def hop_skip_jump(network: nn.Module, inputs: torch.Tensor, classes: int, device: torch.device) -> np.ndarray:
    """(n,) float64 distances by labels alone of inputs that are named rightly."""
    with toolbox_of_its_own_randomness() as toolbox:
        classifier = toolbox.estimators.classification.PyTorchClassifier(
            network,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(inputs.shape[1:]),
            nb_classes=classes,
            clip_values=(float(inputs.min()), float(inputs.max())),
            device_type="gpu" if device.type == "cuda" else "cpu",
        )
        attack = toolbox.attacks.evasion.HopSkipJump(classifier, verbose=False, **HOP_SKIP_JUMP)
        values = inputs.cpu().numpy()
        predicted = classifier.predict(values).argmax(axis=1)
        moved = attack.generate(values, x_adv_init=values[of_another_class(predicted)])
    return furthest_where_failed(np.sqrt(((moved - values).astype(np.float64) ** 2).reshape(len(values), -1).sum(1)))


def of_another_class(predicted: np.ndarray) -> np.ndarray:
    """(n,) for each point the next one that the model gives another class, from which HopSkipJump sets out.

    Without one, the point itself; HopSkipJump then sets out from random values, which it draws anew each time.
    """
    count = len(predicted)
    order = (np.arange(count)[:, None] + np.arange(count)) % count
    return order[np.arange(count), (predicted[order] != predicted[:, None]).argmax(axis=1)]


def furthest_where_failed(distances: np.ndarray) -> np.ndarray:
    """(n,): a point that was not brought across the boundary, at 0 or infinity, is as far as the furthest that was."""
    crossed = (distances > 0) & np.isfinite(distances)
    return np.where(crossed, distances, distances[crossed].max() if crossed.any() else np.nan)


def carlini_wagner(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """(n,) float64 distances by gradients of inputs (n, ...) that are named rightly: Carlini & Wagner 2017, section V.

    It minimises |x' - x|^2 + c max(z_label - max of the other logits, 0) over x' = a tanh(w) + b, which stays between
    the least and the largest value of the inputs. For each point the weight c is raised tenfold until the label
    changes, then bisected; the smallest distance of all counts.
    """
    low, high = inputs.min(), inputs.max()
    middle, half = (low + high) / 2, (high - low) / 2
    start = torch.atanh(((inputs - middle) / half).clamp(-0.999, 0.999))
    still = middle + half * torch.tanh(start)
    weight = torch.full((len(inputs),), FIRST_WEIGHT, device=inputs.device)
    least, most = torch.zeros_like(weight), torch.full_like(weight, torch.inf)
    nearest = torch.full_like(weight, torch.inf)
    for _ in range(SEARCHES):
        reached = torch.full_like(weight, torch.inf)
        free = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([free], lr=LEARNING_RATE)
        for _ in range(STEPS):
            moved = middle + half * torch.tanh(free)
            square = ((moved - still) ** 2).flatten(1).sum(dim=1)
            lead = lead_of_label(network(moved), labels)
            reached = torch.where(lead < 0, torch.minimum(reached, square.detach()), reached)
            (free.grad,) = torch.autograd.grad((square + weight * lead.clamp(min=0)).sum(), free)
            optimizer.step()
        crossed = reached.isfinite()
        nearest = torch.minimum(nearest, reached)
        least, most = torch.where(crossed, least, weight), torch.where(crossed, weight, most)
        weight = torch.where(most.isinf(), weight * 10, (least + most) / 2)
    return furthest_where_failed(nearest.sqrt().double().cpu().numpy())


def lead_of_label(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(n,) how far the label's logit lies above the largest other one: logits (n, C), labels (n,)."""
    of_label = logits.gather(1, labels[:, None])[:, 0]
    return of_label - logits.scatter(1, labels[:, None], -torch.inf).max(dim=1).values


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


def import_toolbox():
    """The package `art`. UserError where it is not installed."""
    try:
        import art.attacks.evasion
        import art.estimators.classification
    except ImportError as error:
        raise UserError('boundary needs adversarial-robustness-toolbox: pip install ".[boundary]"') from error
    return art


@contextlib.contextmanager
def toolbox_of_its_own_randomness() -> Iterator:
    """The toolbox, which draws from numpy's global generator: it is seeded, and put back afterwards."""
    toolbox = import_toolbox()
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield toolbox
    finally:
        np.random.set_state(state)
