"""What training, fine-tuning, querying and k-means cost; training is compared with a loop that does only the least."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import models
from benchmarks.measure import Row, Size, median_row, time_in_turns
from clustering import kmeans
from compleak.queries.probes import PROBES
from compleak.queries.sensitivity import sensitivity
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
SPARSITY = 0.9
CLUSTERS = 16
LOOP_BUDGET = 5.0  # percent more time than the bare loop
LOOP = "train.py's loop"
PRUNED = "pruned step"
QAT = "QAT step"
CLUSTERED = "clustered step"
STEP_BUDGETS = {PRUNED: 1.05, QAT: 1.5, CLUSTERED: 1.15}  # times the plain step
SAVE = "saving the state of a training"
DRAWS = PROBES["sensitivity"].default_amount
ASK = "logits (ask)"
SENSITIVITY = f"sensitivity, {DRAWS} draws"


class Float32(nn.Module):
    """The network without autocast: QAT must run in float32, so a float32 step is the fair comparison."""

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
    """(n, 32, 32, 3) uint8 noise and (n,) int64 labels: a step costs the same whatever an image shows."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return images.to(device), torch.randint(0, CLASSES, (n,), generator=generator).to(device)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), LR, momentum=0.9, weight_decay=5e-4)


def project_loop(model: nn.Module, size: Size, device: torch.device, folder: Path) -> Callable[[], float]:
    """An epoch of `steps` steps as train.py runs it, with augmentation, learning rates and loss."""
    images, labels = images_and_labels(size.steps * size.batch, device)
    recipe = Recipe(epochs=1, lr=LR, batch_size=size.batch, seed=0)
    options = {"flip": True, "device": device, "resume": folder / "none.pt", "identity": {}, "desc": "epoch"}
    return lambda: fit(model, images, labels, recipe, **options)


def resident_batch(size: Size, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch, 3, 32, 32) float32, ready for the network, and (batch,) labels."""
    images, labels = images_and_labels(size.batch, device)
    return image_to_input(images), labels


def bare_step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs, labels) -> torch.Tensor:
    """One training step with nothing but forward pass, backward pass and the optimizer's step."""
    optimizer.zero_grad(set_to_none=True)
    with devices.training_autocast(inputs.device):
        loss = F.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()
    return loss


def bare_loop(
    model: nn.Module, size: Size, device: torch.device, kernels: Callable = devices.repeatable
) -> Callable[[], None]:
    """As many bare steps on one batch, in the project loop's precision, memory layout and choice of kernels."""
    model.to(device, memory_format=torch.channels_last).train()
    optimizer = sgd(model)
    batch = resident_batch(size, device)

    def run() -> None:
        with kernels():
            for _ in range(size.steps):
                bare_step(model, optimizer, *batch)

    return run


def save_job(model: nn.Module, device: torch.device, folder: Path) -> Callable[[], None]:
    """A job that writes the state of a training to disk."""
    model.to(device, memory_format=torch.channels_last)
    optimizer = sgd(model)
    for parameter in model.parameters():
        optimizer.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
    return lambda: save_resume(folder / "resume.pt", {}, model, optimizer, Procedure(), 1, 0.0)


def measure_training(size: Size, device: torch.device) -> list[Row]:
    """Images a second in the project's loop and in the bare one, and how much longer the project's loop takes."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = {
            "loop": project_loop(network(size), size, device, Path(folder)),
            "bare": bare_loop(network(size), size, device),
            "save": save_job(network(size), device, Path(folder)),
        }
        seconds = time_in_turns(jobs, size.rounds, device, f"training on {device.type}")
    images = size.steps * size.batch
    overhead = 100 * (seconds["loop"] / seconds["bare"] - 1)
    note = f"batches of {size.batch}, {devices.precision(device.type)}"
    save_note = f"every {SAVE_EVERY} epochs, or after {SAVE_AFTER:g} s"
    return [
        median_row(LOOP, images / seconds["loop"], "images/s", note=note),
        median_row("bare loop: forward, backward, step", images / seconds["bare"], "images/s", note=note),
        median_row("overhead of the loop", overhead, "%", LOOP_BUDGET),
        median_row(SAVE, seconds["save"], "s", note=save_note),
    ]


def measure_compression(size: Size, device: torch.device) -> list[Row]:
    """Milliseconds of a plain step, and how many plain steps a fine-tuning step of each technique takes."""
    networks = networks_to_fine_tune(size)
    precision = devices.precision(device.type)
    if precision != "fp32":
        networks["plain in fp32"] = Float32(network(size))
    with tempfile.TemporaryDirectory() as folder:
        jobs = {name: project_loop(model, size, device, Path(folder)) for name, model in networks.items()}
        seconds = time_in_turns(jobs, size.rounds, device, f"compression on {device.type}")
    rows = [median_row("plain step", 1000 * seconds["plain"] / size.steps, "ms", note=precision)]
    for what, budget in STEP_BUDGETS.items():
        note = f"fp32, the plain one {precision}" if what == QAT else ""
        rows.append(median_row(what, seconds[what] / seconds["plain"], "x plain", budget, note))
    if precision != "fp32":
        ratio = seconds[QAT] / seconds["plain in fp32"]
        rows.append(median_row(QAT + ", both fp32", ratio, "x plain", STEP_BUDGETS[QAT]))
    return rows


def networks_to_fine_tune(size: Size) -> dict[str, nn.Module]:
    """A plain network, and that network prepared by each technique."""
    source = network(size)
    return {
        "plain": source,
        PRUNED: masks.prepare(source, masks.Pruning(masks.DEFAULT, SPARSITY)),
        QAT: int8.prepare(source, "int8"),
        CLUSTERED: kmeans.prepare(source, CLUSTERS),
    }


def measure_queries(size: Size, device: torch.device) -> list[Row]:
    """Images a second in the two queries that fill a signals file."""
    model = network(size)
    images = images_and_labels(size.queried, torch.device("cpu"))[0].numpy()
    few_images = images[: max(size.queried // 4, 1)]  # sensitivity is many times slower
    logits = ask(model, few_images, device, size.batch)
    jobs = {
        ASK: lambda: ask(model, images, device, size.batch),
        SENSITIVITY: lambda: sensitivity(model, few_images, logits, device, size.batch, DRAWS),
    }
    seconds = time_in_turns(jobs, size.rounds, device, f"signals on {device.type}")
    counts = {ASK: len(images), SENSITIVITY: len(few_images)}
    return [median_row(name, counts[name] / taken, "images/s") for name, taken in seconds.items()]


def measure_kmeans(size: Size, device: torch.device) -> list[Row]:
    """Seconds to cluster all weights of an untrained network."""
    model = network(size)
    jobs = {str(k): lambda k=k: kmeans.prepare(model, k) for k in (4, 8, 16)}
    seconds = time_in_turns(jobs, min(size.rounds, 3), device, "k-means")
    weights = sum(np.prod(p.shape) for p in model.parameters() if p.dim() > 1)
    note = f"{weights:,} weights"
    return [median_row(f"k-means, {k} clusters", taken, "s", note=note) for k, taken in seconds.items()]
