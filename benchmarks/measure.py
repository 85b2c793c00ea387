"""The rows of the benchmark table, the sizes of its measurements, and how jobs are timed: side by side, in turns."""

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
        """Whether the value keeps within the budget: `yes`, `no`, or empty where there is no budget."""
        if self.budget is None:
            return ""
        return "yes" if self.value <= self.budget else "no"


class Size(NamedTuple):
    """How much is measured. The networks are ResNet-18 for ten classes."""

    width: float
    batch: int  # images a step
    steps: int  # training steps timed at a time
    rounds: int  # timings of each job, after one that is not counted
    queried: int  # images queried at a time
    audited: int  # members in an audit set, which has as many non-members
    compressed: int  # how many of the eight compressed variants are attacked
    models_at_once: tuple[int, ...]  # how many models are trained at once, a measurement for each number
    samia: bool = True  # whether the signals hold what SAMIA needs
    every_nr: bool = False  # whether NR attacks all models; otherwise it attacks one, whose time stands for all


CPU_SIZE = Size(1.0, 128, 6, 7, 512, 10_000, 8, (1, 2))
CUDA_SIZE = Size(1.0, 128, 157, 7, 20_000, 10_000, 8, (1, 2, 4, 8))  # 157 steps are an epoch of 20,000 images
QUICK_SIZE = Size(0.125, 16, 2, 2, 16, 100, 1, (2,), samia=False)  # SAMIA takes long however few points there are


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


def time_in_turns(jobs: dict[str, Callable], rounds: int, device: torch.device, desc: str) -> dict[str, np.ndarray]:
    """Seconds of every job in every round, (rounds,) each. One more round, the first, warms up and is not counted.

    Every round runs all jobs, in an order that is reversed from round to round. Whatever slows the machine for a while
    therefore slows all jobs alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in console.progress(range(rounds + 1), desc):
        order = list(jobs) if number % 2 else reversed(jobs)
        for name in order:
            seconds[name].append(seconds_of(jobs[name], device))
    return {name: np.array(values[1:]) for name, values in seconds.items()}


def median_row(what: str, values, unit: str, budget: float | None = None, note: str = "") -> Row:
    """A row for one value a round: their median, smallest and largest."""
    values = np.asarray(values, dtype=float)
    return Row(what, float(np.median(values)), unit, budget, float(values.min()), float(values.max()), note)


def count_of(count: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def peak_bytes() -> int:
    """The most memory that this process, or a finished process that it started, held at any moment."""
    unit = 1 if sys.platform == "darwin" else 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    return max(_own_peak_bytes(unit), children)


def _own_peak_bytes(unit: int) -> int:
    """The most memory that this process held.

    On Linux ru_maxrss also counts the process that started this one. VmHWM starts anew with every program.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
