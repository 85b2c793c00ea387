"""How many processor threads a stage uses.

OpenMP's threads wait for each other at every small operation, so that more threads than free cores are worse than one:
a training of 15 s took 240 s on two threads beside two busy processes, and 33 s on one. A stage therefore takes as many
threads as cores are free when it begins.

A core counts as busy where other processes keep it so. Linux says in /proc/stat how long each core was busy; what this
process used itself is taken off, and so is what niced processes use, which give way. The time looked at runs from the
last look, or from the start of this process, to now, so that nobody has to wait for a measurement.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

import torch
from threadpoolctl import threadpool_limits

from core.console import say

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # of /proc/stat, in a second
SHORTEST = 0.5  # seconds; over less than this the counters are too coarse


class Look(NamedTuple):
    """What the counters said at one moment, all in seconds."""

    at: float
    busy: float  # of all cores that this process may use, niced processes left out
    own: float  # of this process


def look_at_cores() -> Look | None:
    """The counters now; None where the system has none."""
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    busy = 0
    for line in lines:
        name, *ticks = line.split()
        if name in cores:
            user, _, system = map(int, ticks[:3])
            busy += user + system
    used = os.times()
    return Look(time.monotonic(), busy / TICKS, used.user + used.system)


_last_look = look_at_cores()


def free_cores() -> int:
    """How many cores other processes have left free since the last look; at least 1."""
    global _last_look
    cores = available_cores()
    before, now = _last_look, look_at_cores()
    if before is None or now is None or now.at - before.at < SHORTEST:
        return cores
    _last_look = now
    return cores_left(before, now, cores)


def cores_left(before: Look, now: Look, cores: int) -> int:
    """Of `cores`, those that others left free between two looks, rounded; at least 1."""
    others = (now.busy - before.busy) - (now.own - before.own)
    return max(1, min(cores, round(cores - others / (now.at - before.at))))


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_for_stage(wanted: int | None) -> int:
    """How many threads a stage takes: as many as --threads or OMP_NUM_THREADS say, else one for each free core."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # of nested levels
    if wanted is not None:
        return wanted
    if first.isdigit():
        return max(1, int(first))
    threads = free_cores()
    if threads < available_cores():
        say(f"{threads} of {available_cores()} cores free: {threads} thread(s); --threads overrides")
    return threads


def use_threads(count: int) -> None:
    """Let PyTorch, NumPy's libraries and scikit-learn use this many threads from now on."""
    torch.set_num_threads(count)
    threadpool_limits(count)
