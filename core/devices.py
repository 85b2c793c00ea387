"""The choice of device, the precision of training, and the settings that make two runs give the same numbers."""

import contextlib
import functools
from pathlib import Path

import torch

from core.errors import UserError


def choose(name: str | None) -> torch.device:
    """The named device; without a name CUDA if there is one, else the CPU. UserError if the device cannot be used."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.ones(1, dtype=torch.float64, device=device).item()  # a device without float64 values is of no use here
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        if name is None:
            raise UserError(f"the GPU cannot be used here ({reason}): free it, or give --device cpu") from error
        raise UserError(f"--device {name} cannot be used here ({reason}): leave it out or use cpu") from error
    return device


@functools.cache
def precision(device_type: str) -> str:
    """`bf16` if the hardware multiplies it natively, else `fp32`, because emulated bf16 is slower than fp32."""
    if device_type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    flags = Path("/proc/cpuinfo")
    native = flags.exists() and any(
        flag in flags.read_text(encoding="utf-8").split() for flag in ("amx_bf16", "avx512_bf16")
    )
    return "bf16" if device_type == "cpu" and native else "fp32"


def training_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """bf16 autocast for the forward pass and the loss, if the hardware supports it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision(device.type) == "bf16")


@contextlib.contextmanager
def exact():
    """Full float32 and reproducible kernels. Signals differ by 1e-3, and TF32 has only ten bits."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


@contextlib.contextmanager
def repeatable():
    """Kernels for training that give the same numbers in every run; TF32 is allowed."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=True):
        yield
