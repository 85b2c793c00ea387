"""The facts stored beside every output: command, commit, versions and machine."""

import functools
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version

import torch

from core import devices
from core.project import PROJECT


def provenance(device: torch.device) -> dict:
    """This process's command line, the commit, the versions of libraries, and the machine."""
    return {
        "command": shlex.join(["python", os.path.relpath(sys.argv[0], PROJECT), *sys.argv[1:]]),
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "scikit-learn")},
        },
        "machine": machine(device),
        "precision": devices.precision(device.type),
    }


@functools.cache
def commit() -> str:
    """The checkout's commit, with a `+` if there are uncommitted changes; empty outside a checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
    except OSError:
        return ""
    return described.stdout.strip()


def machine(device: torch.device) -> str:
    """The GPU's name, or the processor's with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} threads"


@functools.cache
def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
