"""Rows of the benchmark table, how large its measurements are, and how they are taken: side by side, in turns."""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from core import console

MIB = 2**20


class Row(NamedTuple):
    """One number. `low` and `high` are its extremes over the rounds; `budget` is the most it may be."""

    what: str
    value: float
    unit: str
    budget: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def met(self) -> str:
        return "" if self.budget is None else "yes" if self.value <= self.budget else "no"


class Size(NamedTuple):
    """How much is measured. The networks are ResNet-18 for ten classes."""

    width: float
    batch: int  # images a step
    steps: int  # training steps timed at a time
    rounds: int  # timings of each thing, after one that is not counted
    asked: int  # images queried at a time
    audited: int  # members, and as many non-members, that victim and shadow are attacked on
    compressed: int  # of the eight compressed variants, how many are attacked
    together: tuple[int, ...]  # how many models are trained at once
    samia: bool = True  # whether the signals hold what SAMIA needs
    every_nr: bool = False  # attack all models in NR rather than one, taken nine times


CPU = Size(1.0, 128, 6, 7, 512, 10_000, 8, (1, 2))
CUDA = Size(1.0, 128, 157, 7, 20_000, 10_000, 8, (1, 2, 4, 8))  # 157 steps are an epoch of 20,000 images
QUICK = Size(0.125, 16, 2, 2, 16, 100, 1, (2,), samia=False)  # SAMIA takes long however few points there are


def synchronise(device: torch.device) -> None:
    """Wait for the device: a GPU's work is only queued when a call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(job: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    started = time.perf_counter()
    job()
    synchronise(device)
    return time.perf_counter() - started


def in_turns(jobs: dict[str, Callable], rounds: int, device: torch.device, desc: str) -> dict[str, np.ndarray]:
    """Seconds of every job in every round, (rounds,) each; the first round warms up and is not counted.

    Jobs follow each other A B, B A, A B, ...: what slows the machine for a while slows them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in console.progress(range(rounds + 1), desc):
        for name in list(jobs)[:: 1 if turn % 2 else -1]:
            seconds[name].append(seconds_of(jobs[name], device))
    return {name: np.array(values[1:]) for name, values in seconds.items()}


def row(what: str, values, unit: str, budget: float | None = None, note: str = "") -> Row:
    """The median of one value a round, with the extremes."""
    values = np.asarray(values, dtype=float)
    return Row(what, float(np.median(values)), unit, budget, float(values.min()), float(values.max()), note)


def peak_bytes() -> int:
    """The most memory this process, or one that it has waited for, held at a time."""
    unit = 1 if sys.platform == "darwin" else 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    return max(_own_peak_bytes(unit), children)


def _own_peak_bytes(unit: int) -> int:
    """Linux counts the process that started this one in ru_maxrss; its VmHWM starts anew with every program."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
