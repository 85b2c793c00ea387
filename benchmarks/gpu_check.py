"""Does everything that a table rests on hold on this device? A minute on a GPU; no data set is needed.

    python benchmarks/gpu_check.py
    python benchmarks/gpu_check.py --device cpu --width 0.125

Trains on noise and checks that two trainings end in the same bits, that a stopped one goes on to the same bits, that
every compression keeps what it states, that defences can be repeated, and that the device answers as the CPU does. Exit
code 1 where one does not.
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

IMAGES, BATCH, EPOCHS = 1000, 128, 4
STOP = 2  # the epoch in which a training is stopped
CLOSE = 1e-3  # logits of two devices may differ by this share of their largest


class Stopped(Exception):
    pass


def network(width: float, name: str = "resnet18") -> nn.Module:
    torch.manual_seed(0)
    return models.build(name, CLASSES, width)


def trained(model: nn.Module, device: torch.device, resume: Path, epochs: int = EPOCHS, **defence) -> nn.Module:
    recipe = Recipe(epochs, 0.05, BATCH, seed=0)
    options = {"flip": True, "device": device, "resume": resume, "identity": {}, "desc": "training", **defence}
    fit(model, *images_and_labels(IMAGES, device), recipe, **options)
    return model


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether all tensors of two networks are equal, bit for bit."""
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def stopped_and_resumed(width: float, device: torch.device, resume: Path) -> nn.Module:
    """A network whose training was cut off in an epoch and started again by another process, as it were."""
    train_epoch, begun = loop.train_epoch, itertools.count()

    def stop_or_train(*arguments):
        if next(begun) == STOP:
            raise Stopped
        return train_epoch(*arguments)

    with mock.patch.object(loop, "SAVE_EVERY", 1):
        with contextlib.suppress(Stopped), mock.patch.object(loop, "train_epoch", stop_or_train):
            trained(network(width), device, resume)
        assert resume.exists(), "nothing was saved before the stop"
        return trained(network(width), device, resume)


def verified(source: nn.Module, variant: Variant, width: float, device: torch.device, folder: Path) -> str:
    """The line in which a compression says what it has asserted of the model restored from its file's content."""
    module, degree = variant.module, variant.parsed_degree
    prepared = trained(module.prepare(source, degree), device, folder / f"{variant}.pt", epochs=1).eval()
    restored = module.unpack(network(width), module.pack(prepared)).to(device, memory_format=torch.channels_last)
    with devices.exact():
        return module.verify(prepared, restored, degree, image_to_input(images_and_labels(64, device)[0]))


def furthest(model: nn.Module, device: torch.device) -> float:
    """How far logits on the device are from those on the CPU, as a share of the largest."""
    images = images_and_labels(256, torch.device("cpu"))[0].numpy()
    expected, got = (ask(copy.deepcopy(model), images, where, BATCH) for where in (torch.device("cpu"), device))
    return float(abs(expected - got).max() / abs(expected).max())


def fine_tuned_twice_alike(source: nn.Module, variant: Variant, device: torch.device, folder: Path) -> bool:
    """Whether two fine-tunings of a compressed network end in the same bits."""
    one, other = (
        trained(variant.module.prepare(source, variant.parsed_degree), device, folder / f"{variant}_{run}.pt", epochs=1)
        for run in "ab"
    )
    return same(one, other)


def defended(name: str, width: float, device: torch.device, resume: Path) -> nn.Module:
    """A network without batch norm after an epoch of training with this defence."""
    procedure = build(name, DEFENCES[name].default, num_cls=CLASSES, seed=0)
    reserve = images_and_labels(64, device)
    return trained(network(width, "resnet18_gn"), device, resume, 1, procedure=procedure, reserve=reserve)


def checks(width: float, device: torch.device, folder: Path) -> Iterator[tuple[bool, str]]:
    """(whether it holds, what) of everything checked."""
    model = trained(network(width), device, folder / "one.pt")
    yield same(model, trained(network(width), device, folder / "two.pt")), "two trainings end in the same bits"
    resumed = stopped_and_resumed(width, device, folder / "stopped.pt")
    yield same(model, resumed), "a stopped training goes on to the same bits"
    for variant in PAPER_GRID:
        try:
            yield True, verified(model, variant, width, device, folder)
        except (AssertionError, RuntimeError) as error:
            yield False, f"{variant}: {' '.join(str(error).split())[:200]}"
    for technique in TECHNIQUES:
        variant = next(variant for variant in PAPER_GRID if variant.technique == technique)
        alike = fine_tuned_twice_alike(model, variant, device, folder)
        yield alike, f"two fine-tunings by {technique} end in the same bits"
    for name in DEFENCES:
        try:
            pair = (defended(name, width, device, folder / f"{name}_{run}.pt") for run in "ab")
            yield same(*pair), f"two trainings with --defend {name} end in the same bits"
        except UserError as error:  # Opacus is not everywhere
            yield True, f"--defend {name} not checked: {error}"
    share = furthest(model, device)
    yield share < CLOSE, f"logits on {device.type} and on the CPU differ by {share:.1g} of the largest"


def main(argv=None) -> None:
    made = arguments.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--device", help="cuda, cpu, ... (default: CUDA where there is one, else the CPU)")
    made.add_argument("--width", type=arguments.positive_float, default=1.0, help="of ResNet-18 (default: %(default)s)")
    args = made.parse_args(argv)
    device, failed = devices.choose(args.device), 0
    with tempfile.TemporaryDirectory() as folder:
        for holds, what in checks(args.width, device, Path(folder)):
            console.say(f"{'ok' if holds else 'FAILED'}: {what}")
            failed += not holds
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    console.run_script(main)
