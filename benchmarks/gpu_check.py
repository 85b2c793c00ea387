"""Does everything that the tables rely on hold on this device? Takes a minute on a GPU; no data set is needed.

    python benchmarks/gpu_check.py
    python benchmarks/gpu_check.py --device cpu --width 0.125

Trains on noise and checks that
- two trainings end in the same bits, also fine-tunings and trainings with a defence,
- a training that was stopped and resumed ends in the same bits too,
- every compressed model has the property that its technique promises,
- the device gives the same answers as the CPU, up to rounding.
Prints a line for each check. The exit code is 1 if one of them fails.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script, Python looks for packages beside this file: they lie one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import contextlib
import copy
import itertools
import tempfile
from collections.abc import Iterator
from unittest import mock

import torch
from torch import nn

import models
from benchmarks.loops import CLASSES, images_and_labels
from compleak.runs.variants import PAPER_GRID, TECHNIQUES, Variant
from compleak.training import loop
from compleak.training.evaluate import ask
from compleak.training.loop import Recipe, fit
from core import arguments, console, devices
from core.errors import UserError
from data.inputs import image_to_input
from defenses import DEFENCES, build

IMAGES = 1000
BATCH = 128
EPOCHS = 4
STOP = 2  # the epoch in which a training is stopped
CLOSE = 1e-3  # logits of two devices may differ by this share of their largest
CPU = torch.device("cpu")
Check = tuple[bool, str]  # whether it holds, and what it is about


class Stopped(Exception):
    pass


def network(width: float, name: str = "resnet18") -> nn.Module:
    torch.manual_seed(0)
    return models.build(name, CLASSES, width)


def train(model: nn.Module, device: torch.device, resume: Path, epochs: int = EPOCHS, **defence) -> nn.Module:
    recipe = Recipe(epochs, 0.05, BATCH, seed=0)
    options = {"flip": True, "device": device, "resume": resume, "identity": {}, "desc": "training", **defence}
    fit(model, *images_and_labels(IMAGES, device), recipe, **options)
    return model


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    """Whether all tensors of two networks are equal, bit for bit."""
    one_state = one.state_dict()
    other_state = other.state_dict()
    return all(torch.equal(one_state[name], other_state[name]) for name in one_state)


def train_with_a_stop(width: float, device: torch.device, resume: Path) -> nn.Module:
    """Stop a training in the middle, then resume it with a fresh network, as another process would."""
    train_epoch = loop.train_epoch
    epochs_begun = itertools.count()

    def stop_or_train(*arguments):
        if next(epochs_begun) == STOP:
            raise Stopped
        return train_epoch(*arguments)

    with mock.patch.object(loop, "SAVE_EVERY", 1):
        with contextlib.suppress(Stopped), mock.patch.object(loop, "train_epoch", stop_or_train):
            train(network(width), device, resume)
        assert resume.exists(), "nothing was saved before the stop"
        return train(network(width), device, resume)


def fine_tune(source: nn.Module, variant: Variant, device: torch.device, resume: Path) -> nn.Module:
    """The network prepared for a compression and trained for an epoch."""
    prepared = variant.module.prepare(source, variant.parsed_degree)
    return train(prepared, device, resume, epochs=1)


def compress_and_verify(source: nn.Module, variant: Variant, width: float, device: torch.device, folder: Path) -> str:
    """Compress the network, restore it from what its file would hold, and return what the technique verifies of it."""
    technique = variant.module
    prepared = fine_tune(source, variant, device, folder / f"{variant}.pt").eval()
    restored = technique.unpack(network(width), technique.pack(prepared))
    restored = restored.to(device, memory_format=torch.channels_last)
    inputs = image_to_input(images_and_labels(64, device)[0])
    with devices.exact():
        return technique.verify(prepared, restored, variant.parsed_degree, inputs)


def train_defended(name: str, width: float, device: torch.device, resume: Path) -> nn.Module:
    """A network without batch norm after an epoch of training with this defence."""
    procedure = build(name, DEFENCES[name].default, num_cls=CLASSES, seed=0)
    reserve = images_and_labels(64, device)
    return train(network(width, "resnet18_gn"), device, resume, 1, procedure=procedure, reserve=reserve)


def difference_to_cpu(model: nn.Module, device: torch.device) -> float:
    """The largest difference between logits on the device and on the CPU, as a share of the largest logit."""
    images = images_and_labels(256, CPU)[0].numpy()
    expected = ask(copy.deepcopy(model), images, CPU, BATCH)
    logits = ask(copy.deepcopy(model), images, device, BATCH)
    return float(abs(expected - logits).max() / abs(expected).max())


def checks(width: float, device: torch.device, folder: Path) -> Iterator[Check]:
    model = train(network(width), device, folder / "one.pt")
    again = train(network(width), device, folder / "two.pt")
    yield same_bits(model, again), "two trainings end in the same bits"
    resumed = train_with_a_stop(width, device, folder / "stopped.pt")
    yield same_bits(model, resumed), "a stopped training goes on to the same bits"
    yield from check_compressions(model, width, device, folder)
    yield from check_fine_tunings(model, device, folder)
    yield from check_defences(width, device, folder)
    share = difference_to_cpu(model, device)
    yield share < CLOSE, f"logits on {device.type} and on the CPU differ by {share:.1g} of the largest"


def check_compressions(model: nn.Module, width: float, device: torch.device, folder: Path) -> Iterator[Check]:
    for variant in PAPER_GRID:
        try:
            yield True, compress_and_verify(model, variant, width, device, folder)
        except (AssertionError, RuntimeError) as error:
            yield False, f"{variant}: {' '.join(str(error).split())[:200]}"


def check_fine_tunings(model: nn.Module, device: torch.device, folder: Path) -> Iterator[Check]:
    for technique in TECHNIQUES:
        variant = next(variant for variant in PAPER_GRID if variant.technique == technique)
        one = fine_tune(model, variant, device, folder / f"{variant}_a.pt")
        other = fine_tune(model, variant, device, folder / f"{variant}_b.pt")
        yield same_bits(one, other), f"two fine-tunings by {technique} end in the same bits"


def check_defences(width: float, device: torch.device, folder: Path) -> Iterator[Check]:
    for name in DEFENCES:
        try:
            one = train_defended(name, width, device, folder / f"{name}_a.pt")
            other = train_defended(name, width, device, folder / f"{name}_b.pt")
        except UserError as error:  # Opacus is not installed everywhere
            yield True, f"--defend {name} not checked: {error}"
        else:
            yield same_bits(one, other), f"two trainings with --defend {name} end in the same bits"


def parse(argv=None) -> argparse.Namespace:
    parser = arguments.script_parser(__doc__)
    parser.add_argument("--device", help="cuda, cpu, ... (default: CUDA where there is one, else the CPU)")
    width_help = "of ResNet-18 (default: %(default)s)"
    parser.add_argument("--width", type=arguments.positive_float, default=1.0, help=width_help)
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse(argv)
    device = devices.choose(args.device)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for holds, what in checks(args.width, device, Path(folder)):
            console.say(f"{'ok' if holds else 'FAILED'}: {what}")
            failures += not holds
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    console.run_script(main)
