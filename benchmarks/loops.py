"""What training, fine-tuning, querying and k-means cost, against the least that the same work can cost."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import models
from benchmarks.measure import Row, Size, in_turns, row
from clustering import kmeans
from compleak.queries.probes import PROBES, sensitivity
from compleak.runs.checkpoints import save_resume
from compleak.training.evaluate import ask
from compleak.training.loop import SAVE_AFTER, SAVE_EVERY, Recipe, fit
from core import devices
from data.inputs import image_to_input
from defenses import Procedure
from pruning import masks
from quantization import int8

CLASSES = 10
LR = 0.01
SPARSITY, CLUSTERS = 0.9, 16
LOOP_BUDGET = 5.0  # % over the bare loop
STEP_BUDGETS = {"pruned": 1.05, "QAT": 1.5, "clustered": 1.15}  # times the plain step
LOOP, PRUNED, QAT, CLUSTERED = "train.py's loop", "pruned step", "QAT step", "clustered step"
SAVE = "saving the state of a training"
DRAWS = PROBES["sensitivity"].default_amount
ASK, SENSITIVITY = "logits (ask)", f"sensitivity, {DRAWS} draws"


class Float32(nn.Module):
    """The network without autocast: what QAT, which must run in float32, is compared with."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.network(x)


def network(size: Size, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return models.build("resnet18", CLASSES, size.width)


def images_and_labels(n: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, 32, 32, 3) uint8 noise and (n,) int64 labels: no step's cost depends on what is in an image."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return images.to(device), torch.randint(0, CLASSES, (n,), generator=generator).to(device)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), LR, momentum=0.9, weight_decay=5e-4)


def project_loop(model: nn.Module, size: Size, device: torch.device, folder: Path) -> Callable[[], float]:
    """One epoch of `steps` steps as train.py runs it: augmentation, learning rate, loss and all."""
    images, labels = images_and_labels(size.steps * size.batch, device)
    recipe = Recipe(epochs=1, lr=LR, batch_size=size.batch, seed=0)
    options = {"flip": True, "device": device, "resume": folder / "none.pt", "identity": {}, "desc": "epoch"}
    return lambda: fit(model, images, labels, recipe, **options)


def resident_batch(size: Size, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch, 3, 32, 32) float32, ready for the network, and (batch,) labels."""
    images, labels = images_and_labels(size.batch, device)
    return image_to_input(images), labels


def bare_step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs, labels) -> torch.Tensor:
    """Forward, backward and step, and nothing else."""
    optimizer.zero_grad(set_to_none=True)
    with devices.training_autocast(inputs.device):
        loss = F.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()
    return loss


def bare_loop(
    model: nn.Module, size: Size, device: torch.device, kernels: Callable = devices.repeatable
) -> Callable[[], None]:
    """As many steps, in the loop's own precision, memory layout and choice of kernels, on one resident batch."""
    model.to(device, memory_format=torch.channels_last).train()
    optimizer, batch = sgd(model), resident_batch(size, device)

    def run() -> None:
        with kernels():
            for _ in range(size.steps):
                bare_step(model, optimizer, *batch)

    return run


def save(model: nn.Module, device: torch.device, folder: Path) -> Callable[[], None]:
    """Writing the state of a stopped training."""
    model.to(device, memory_format=torch.channels_last)
    optimizer = sgd(model)
    for parameter in model.parameters():
        optimizer.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
    return lambda: save_resume(folder / "resume.pt", {}, model, optimizer, Procedure(), 1, 0.0)


def training(size: Size, device: torch.device) -> list[Row]:
    """Images a second of the project's loop and of the bare one, and by how much the first takes longer."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = {
            "loop": project_loop(network(size), size, device, Path(folder)),
            "bare": bare_loop(network(size), size, device),
            "save": save(network(size), device, Path(folder)),
        }
        seconds = in_turns(jobs, size.rounds, device, f"training on {device.type}")
    images = size.steps * size.batch
    overhead = 100 * (seconds["loop"] / seconds["bare"] - 1)
    note = f"batches of {size.batch}, {devices.precision(device.type)}"
    return [
        row(LOOP, images / seconds["loop"], "images/s", note=note),
        row("bare loop: forward, backward, step", images / seconds["bare"], "images/s", note=note),
        row("overhead of the loop", overhead, "%", LOOP_BUDGET),
        row(
            SAVE,
            seconds["save"],
            "s",
            note=f"every {SAVE_EVERY} epochs, or after {SAVE_AFTER:g} s",
        ),
    ]


def compression(size: Size, device: torch.device) -> list[Row]:
    """Seconds of a fine-tuning step of each technique, over those of a plain step in the same loop."""
    source = network(size)
    prepared = {
        "plain": source,
        "pruned": masks.prepare(source, masks.Pruning(masks.DEFAULT, SPARSITY)),
        "QAT": int8.prepare(source, "int8"),
        "clustered": kmeans.prepare(source, CLUSTERS),
    }
    half = devices.precision(device.type) != "fp32"
    if half:
        prepared["plain in fp32"] = Float32(network(size))
    with tempfile.TemporaryDirectory() as folder:
        jobs = {name: project_loop(model, size, device, Path(folder)) for name, model in prepared.items()}
        seconds = in_turns(jobs, size.rounds, device, f"compression on {device.type}")
    rows = [row("plain step", 1000 * seconds["plain"] / size.steps, "ms", note=devices.precision(device.type))]
    for name, what in (("pruned", PRUNED), ("QAT", QAT), ("clustered", CLUSTERED)):
        note = "fp32, the plain one " + devices.precision(device.type) if name == "QAT" else ""
        rows.append(row(what, seconds[name] / seconds["plain"], "x plain", STEP_BUDGETS[name], note))
    if half:
        both = seconds["QAT"] / seconds["plain in fp32"]
        rows.append(row(QAT + ", both fp32", both, "x plain", STEP_BUDGETS["QAT"]))
    return rows


def querying(size: Size, device: torch.device) -> list[Row]:
    """Images a second through the two queries of which signals consist."""
    model, few = network(size), max(size.asked // 4, 1)
    images = images_and_labels(size.asked, torch.device("cpu"))[0].numpy()
    logits = ask(model, images[:few], device, size.batch)
    jobs = {
        ASK: lambda: ask(model, images, device, size.batch),
        SENSITIVITY: lambda: sensitivity(model, images[:few], logits, device, size.batch, DRAWS),
    }
    seconds = in_turns(jobs, size.rounds, device, f"signals on {device.type}")
    counts = {ASK: size.asked, SENSITIVITY: few}
    return [row(name, counts[name] / taken, "images/s") for name, taken in seconds.items()]


def clusters(size: Size, device: torch.device) -> list[Row]:
    """Seconds to cluster all weights of the network; freshly drawn weights, not trained ones."""
    model = network(size)
    jobs = {str(k): lambda k=k: kmeans.prepare(model, k) for k in (4, 8, 16)}
    seconds = in_turns(jobs, min(size.rounds, 3), device, "k-means")
    weights = sum(np.prod(p.shape) for p in model.parameters() if p.dim() > 1)
    return [row(f"k-means, {k} clusters", taken, "s", note=f"{weights:,} weights") for k, taken in seconds.items()]
