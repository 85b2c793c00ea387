"""Training of a network of anybody's on anybody's points: shadow models from a plug-in's `get_model()`.

As with `loop.fit`, the same seed gives the same weights, whether or not the training was stopped on the way. Unlike it,
this training has no augmentation and no defence, stores its state after each epoch, and leaves everybody else's random
numbers as they were.
"""

import contextlib
import hashlib
import math
import random
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import is_lazy

from attacks.common.networks import seeded
from compleak.runs.checkpoints import load_resume, save_resume
from compleak.training.loop import (
    advice_to_lower_rate,
    cosine,
    epoch_seed,
    refuse_single_points,
    smallest_batch,
)
from core import devices
from core.console import progress, say
from core.errors import UserError
from core.threads import same_threads_afterwards
from defenses import Procedure

Loader = Callable[[np.ndarray], np.ndarray]  # index (B,) int64 -> network inputs (B, ...)

OPTIMIZERS = ("adam", "sgd")
LOOKED_AT = 64  # points on which a network is tried before it is trained
SUM_OF_ONE = 1e-4  # how far from 1 the outputs of a softmax may add up to


class Recipe(NamedTuple):
    """How a plug-in's network is trained."""

    epochs: int
    lr: float
    batch_size: int
    optimizer: str
    seed: int

    def rate(self, epoch: float) -> float:
        """The learning rate after so many epochs (fractional)."""
        return cosine(self.lr, epoch, self.epochs) if self.optimizer == "sgd" else self.lr


class Points(NamedTuple):
    """What a network is trained on."""

    load: Loader
    labels: Tensor  # (n,) int64, on the CPU
    sample: np.ndarray  # the network inputs of the first points


class StateFile(NamedTuple):
    """Where the state of a training is kept, and what belongs to it."""

    path: Path
    identity: dict  # which training it is
    advice: str  # what to do where the state is that of another one


def train_plugin(
    make_network: Callable[[], nn.Module],
    inputs: np.ndarray | Loader,
    labels: np.ndarray,
    *,
    epochs: int,
    lr: float,
    batch_size: int,
    optimizer: str = "adam",
    seed: int,
    device: torch.device | str = "cpu",
    resume_file: Path | None = None,
    code: Mapping[str, str] | None = None,
    advice: str = "use the same settings, or delete it",
    desc: str,
) -> nn.Module:
    """Train a new network on all points by cross-entropy; it comes back on `device`, in evaluation mode.

    inputs: network inputs (n, ...), or a function that loads those of an index (B,); labels: (n,) of 0, 1, ...
    optimizer: "adam" at a constant learning rate, or "sgd" with momentum 0.9, weight decay 5e-4 and a learning rate
    that falls to 0 along half a cosine. The last epoch's weights count.
    A network that ends in a softmax is trained by the logarithm of its outputs, which is the same loss.

    All that `make_network`, the loader and the network draw from the generators of torch, numpy and random depends on
    (seed, epoch) alone, and the generators are left as they were. `resume_file` holds the state after each epoch, the
    last one too: a training that is asked for again is not repeated. None stores nothing. `code` is what
    `core.plugins.code_hashes` says of the network's code, to which the state belongs; `advice` is what to do where the
    state is that of another training.

    Raises UserError where the network is not a new one each time, does not take the inputs, does not answer with one
    output a class, or diverges; where the state is that of another training; and for another optimizer.
    """
    recipe = Recipe(epochs, lr, batch_size, optimizer, seed)
    device = torch.device(device)
    if optimizer not in OPTIMIZERS:
        raise UserError(f"{desc}: there is no optimizer {optimizer!r}; use {' or '.join(OPTIMIZERS)}")
    network = build_network(make_network, seed, device, desc)
    points = look_at_points(inputs, labels, seed, device)
    objective = choose_objective(try_network(network, points, device, desc))
    if smallest_batch(len(points.labels), batch_size) == 1:
        with reproducible(seed, device):
            refuse_single_points(make_network().to(device), torch.as_tensor(points.sample[:1]).to(device), desc)
    identity = {**recipe._asdict(), **fingerprints(network, points, code or {})}
    state = StateFile(resume_file, identity, advice) if resume_file else None
    with same_threads_afterwards():
        fit_plugin(network, points, recipe, objective, device, state, desc)
    return network.eval()


def try_plugin(
    make_network: Callable[[], nn.Module],
    inputs: np.ndarray | Loader,
    labels: np.ndarray,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    desc: str,
) -> int:
    """The number of outputs of the network that `train_plugin` would train; raises the UserErrors that come before."""
    device = torch.device(device)
    network = make_checked(make_network, seed, device, desc).to(device)
    return try_network(network, look_at_points(inputs, labels, seed, device), device, desc).shape[1]


@contextlib.contextmanager
def reproducible(seed: int, device: torch.device):
    """The generators of torch, numpy and random start from `seed` inside and go on afterwards as if nothing had been.

    A plug-in may draw from any of them.
    """
    of_numpy = np.random.get_state()
    of_random = random.getstate()
    try:
        with seeded(seed, device):
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        np.random.set_state(of_numpy)
        random.setstate(of_random)


def build_network(make_network: Callable[[], nn.Module], seed: int, device: torch.device, desc: str) -> nn.Module:
    """A new network, on the device. It is made twice, because a plug-in may hand out one that others use or trained."""
    network = make_checked(make_network, seed, device, desc)
    another = make_checked(make_network, seed + 1, device, desc)
    if network is another:
        raise UserError(f"{desc}: get_model() gives the same network each time: let it make a new one")
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not trained:
        raise UserError(f"{desc}: get_model() gives a network without parameters to train")
    if all(torch.equal(*pair) for pair in zip(network.parameters(), another.parameters(), strict=False)):
        say(
            f"warning: {desc}: get_model() gives the same weights at every seed; if they are trained ones, this model "
            "has seen points that it should not have"
        )
    return network.to(device)


def make_checked(make_network: Callable[[], nn.Module], seed: int, device: torch.device, desc: str) -> nn.Module:
    """The network that get_model() gives at this seed. UserError where it is none, or sizes of its layers are open."""
    with reproducible(seed, device):
        network = make_network()
    if not isinstance(network, nn.Module):
        raise UserError(f"{desc}: get_model() gives {type(network).__name__}: let it return a torch.nn.Module")
    if any(map(is_lazy, chain(network.parameters(), network.buffers()))):
        raise UserError(f"{desc}: get_model() gives a network with lazy layers, such as LazyLinear: state their sizes")
    return network


def look_at_points(inputs: np.ndarray | Loader, labels: np.ndarray, seed: int, device: torch.device) -> Points:
    load = inputs if callable(inputs) else inputs.__getitem__
    with reproducible(seed, device):
        sample = load(np.arange(min(LOOKED_AT, len(labels))))
    return Points(load, torch.from_numpy(np.asarray(labels, dtype=np.int64)), sample)


@torch.no_grad()
def try_network(network: nn.Module, points: Points, device: torch.device, desc: str) -> Tensor:
    """The outputs (B, C) on the first points; UserError where they cannot be trained with."""
    try:
        outputs = network.eval()(torch.as_tensor(points.sample).to(device))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        shape = tuple(points.sample.shape[1:])
        raise UserError(f"{desc}: the network does not take points of shape {shape}: {reason}") from error
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise UserError(f"{desc}: the network answers {shape}; one output for each class is wanted, (points, classes)")
    highest = int(points.labels.max())
    if int(points.labels.min()) < 0 or highest >= outputs.shape[1]:
        raise UserError(
            f"{desc}: the labels go from {int(points.labels.min())} to {highest}, and the network has "
            f"{outputs.shape[1]} outputs, for labels from 0 to {outputs.shape[1] - 1}"
        )
    return outputs


def choose_objective(outputs: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The cross-entropy of a network that answers so: (B, C) and labels (B,) -> ()."""
    return cross_entropy_of_probabilities if are_probabilities(outputs) else functional.cross_entropy


def are_probabilities(outputs: Tensor) -> bool:
    """Whether each row (B, C) is one of a softmax: nothing negative, and a sum of one."""
    return bool((outputs >= 0).all() and ((outputs.sum(dim=1) - 1).abs() < SUM_OF_ONE).all())


def cross_entropy_of_probabilities(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.nll_loss(outputs.clamp_min(1e-12).log(), labels)


def fit_plugin(network, points: Points, recipe: Recipe, objective, device, state: StateFile | None, desc: str) -> None:
    """Train the network in place, from where the state stands."""
    optimizer = make_optimizer(network, recipe)
    start = 0
    if state is not None:
        start, _ = load_resume(state.path, state.identity, network, optimizer, Procedure(), state.advice)
    bar = progress(range(start, recipe.epochs), desc, total=recipe.epochs)
    bar.update(start)
    with devices.repeatable():
        for epoch in bar:
            with reproducible(epoch_seed(recipe.seed, epoch), device):
                loss = train_epoch(network, points, optimizer, recipe, objective, device, epoch)
            if not math.isfinite(loss):
                advice = advice_to_lower_rate(state and state.path, "the learning rate")
                raise UserError(f"{desc}: the training loss is {loss} in epoch {epoch + 1}: {advice}")
            bar.set_postfix(loss=f"{loss:.3f}")
            if state is not None:
                save_resume(state.path, state.identity, network, optimizer, Procedure(), epoch + 1, loss)


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(trained, lr=recipe.lr, momentum=0.9, weight_decay=5e-4)
    return torch.optim.Adam(trained, lr=recipe.lr)


def train_epoch(network, points: Points, optimizer, recipe: Recipe, objective, device, epoch: int) -> float:
    """One pass over the points, and its mean loss. The sizes of batches differ by one point at most."""
    network.train()
    batches = Procedure().batches(torch.randperm(len(points.labels)), recipe.batch_size, torch.default_generator)
    total = 0.0
    for step, index in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(epoch + step / len(batches))
        inputs = torch.as_tensor(points.load(index.numpy())).to(device)
        optimizer.zero_grad(set_to_none=True)
        loss = objective(network(inputs), points.labels[index].to(device))
        loss.backward()
        optimizer.step()
        total += loss.item() * len(index)
    return total / len(points.labels)


def fingerprints(network: nn.Module, points: Points, code: Mapping[str, str]) -> dict[str, str]:
    """What a stored state must have been trained from: code, the network's tensors by name and shape, and points."""
    shapes = [(name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()]
    return {
        **{f"the code of {file}": digest for file, digest in code.items()},
        "network": digest(repr(shapes).encode()),
        "labels": digest(points.labels.numpy().tobytes()),
        "first_inputs": digest(np.ascontiguousarray(points.sample).tobytes()),
    }


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
