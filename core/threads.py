"""How many processor threads a stage uses.

OpenMP's threads wait for each other at every small operation, so more threads than free cores are slower than one
thread: a training of 15 s took 240 s on two threads beside two busy processes, and 33 s on one. A stage therefore takes
as many threads as there are free cores when it begins.

A core counts as busy where other processes keep it so. Linux says in /proc/stat how long each core was busy; what this
process used itself is taken off, and so is what niced processes use, which give way. The time looked at runs from the
last look, or from the import of this module, to now.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from threadpoolctl import threadpool_limits

from core.console import say

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # of the counters in /proc/stat, a second
SHORTEST = 0.3  # seconds; over less than this the counters are too coarse


class Look(NamedTuple):
    """The counters at one moment, in seconds."""

    at: float
    busy: float  # time of all cores that this process may use, without niced processes
    own: float  # processor time of this process


def look_at_cores() -> Look | None:
    """The counters now; None if the system has none."""
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
_last_count: int | None = None  # what that look said, together with the one before it


def free_cores() -> int:
    """How many cores other processes have left free since the last look; at least 1.

    The first call waits until enough time has passed since this module was imported; a call soon after another one
    gives the same answer.
    """
    global _last_look, _last_count
    cores = available_cores()
    if _last_look is None:
        return cores
    elapsed = time.monotonic() - _last_look.at
    if elapsed < SHORTEST:
        if _last_count is not None:
            return _last_count
        time.sleep(SHORTEST - elapsed)
    now = look_at_cores()
    _last_count = cores_left(_last_look, now, cores)
    _last_look = now
    return _last_count


def cores_left(before: Look, now: Look, cores: int) -> int:
    """How many of `cores` cores other processes left free between two looks, rounded; at least 1."""
    others = (now.busy - before.busy) - (now.own - before.own)
    return max(1, min(cores, round(cores - others / (now.at - before.at))))


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_in_environment() -> int | None:
    """How many threads OMP_NUM_THREADS allows, of `4,2` (nested levels) the first; None where it is not set."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return max(1, int(first)) if first.isdigit() else None


def threads_for_stage(wanted: int | None) -> int:
    """How many threads a stage takes: the number in --threads or OMP_NUM_THREADS, else one for each free core."""
    fixed = wanted or threads_in_environment()
    if fixed is not None:
        return fixed
    threads = free_cores()
    if threads < available_cores():
        say(f"{threads} of {available_cores()} cores free: {threads} thread(s); --threads overrides")
    return threads


def threads_in_use() -> int:
    """How many threads `use_threads` has set; before that as many as PyTorch takes by itself."""
    return torch.get_num_threads()


def use_threads(count: int) -> None:
    """Let PyTorch, NumPy's libraries and scikit-learn use this many threads from now on."""
    torch.set_num_threads(count)
    threadpool_limits(count)


@contextlib.contextmanager
def same_threads_afterwards() -> Iterator[None]:
    """Use as many threads after the block as before: a stopped training goes on with the number that it began with."""
    count = threads_in_use()
    try:
        yield
    finally:
        use_threads(count)
