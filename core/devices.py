"""The one place that knows about devices: which one, in which precision, and what keeps two runs equal."""

import contextlib
import functools
from pathlib import Path

import torch

from core.errors import UserError


def choose(name: str | None) -> torch.device:
    """The device asked for, or CUDA where there is one, or the CPU. UserError where it cannot be used."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.ones(1, dtype=torch.float64, device=device).item()  # what all of it needs: values, in float64 too
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise UserError(f"--device {name} cannot be used here ({reason}): leave it out or use cpu") from error
    return device


@functools.cache
def precision(device_type: str) -> str:
    """`bf16` where the hardware multiplies it natively, else `fp32`: emulated bf16 is slower than that."""
    if device_type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    flags = Path("/proc/cpuinfo")
    native = flags.exists() and any(
        flag in flags.read_text(encoding="utf-8").split() for flag in ("amx_bf16", "avx512_bf16")
    )
    return "bf16" if device_type == "cpu" and native else "fp32"


def training_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """bf16 autocast for forward and loss where it pays."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision(device.type) == "bf16")


@contextlib.contextmanager
def exact():
    """Full float32 and reproducible kernels: signals are differences of 1e-3 (TF32 keeps ten bits of mantissa)."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


@contextlib.contextmanager
def repeatable():
    """Kernels for training that give the same numbers twice; TF32 stays allowed."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=True):
        yield
