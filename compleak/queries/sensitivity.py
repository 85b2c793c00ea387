"""The probe `sensitivity`: how far each probability moves when the input does."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from compleak.queries.subject import Subject
from compleak.training.evaluate import predict
from data.inputs import IMAGES, InputKind

EPSILON = 1e-3  # of the perturbation


def sensitivity(
    model,
    points: np.ndarray,
    logits: np.ndarray,
    device: torch.device,
    batch_size: int,
    draws: int,
    bar=None,
    kind: InputKind = IMAGES,
) -> np.ndarray:
    """(n, C) float32: mean over `draws` of |softmax f(x + e u) - softmax f(x)| / e, u ~ N(0, I), e = 1e-3.

    Yuan & Zhang 2022, section 4.2 (SAMIA's input); x is the network's input, of texts the vectors that its tokens
    become. logits: (n, C), f(x) as `ask` gave it. Softmax and mean are float64: where p is close to 1, float32 turns a
    fifth of the differences into exact zeros.
    """
    model.to(device, memory_format=torch.channels_last).eval()
    parts = []
    for start in range(0, len(points), batch_size):
        batch = kind.to_input(torch.from_numpy(points[start : start + batch_size]).to(device))
        still = torch.from_numpy(logits[start : start + batch_size]).to(device).double().softmax(dim=1)
        generator = torch.Generator(device).manual_seed(start)
        moved = torch.zeros_like(still)
        for of_draw in differences(model, batch, still, generator, draws, kind):
            moved += of_draw
            if bar is not None:
                bar.update(len(batch))
        parts.append((moved / (draws * EPSILON)).float().cpu().numpy())
    return np.concatenate(parts)


def differences(
    model, batch: torch.Tensor, still: torch.Tensor, generator: torch.Generator, draws: int, kind: InputKind
) -> Iterator[torch.Tensor]:
    """|softmax f(x + e u) - softmax f(x)|, (B, C) float64, for each draw u.

    batch: network inputs x (B, ...); still: (B, C) float64, softmax f(x). The model must be in eval mode.
    """
    for _ in range(draws):
        with kind.perturb(model, batch, EPSILON, generator) as shaken:
            moved = (predict(model, shaken).double().softmax(dim=1) - still).abs()
        yield moved


class Counter(NamedTuple):
    """A progress bar for `sensitivity`."""

    update: Callable[[int], object]


def ask_sensitivity(subject: Subject, draws: int) -> np.ndarray:
    about = (subject.points, subject.logits, subject.device, subject.batch_size)
    return sensitivity(subject.model, *about, draws, Counter(subject.advance), subject.kind)


def find_sensitivity_problem(sensitivity: np.ndarray, logits: np.ndarray, asked: np.ndarray) -> str | None:
    """Sensitivity is (R, N, C) float32, finite and not negative on the audit sets; elsewhere it may be NaN."""
    if sensitivity.dtype.kind != "f":
        return f"sensitivity has type {sensitivity.dtype}: store sensitivity.astype(np.float32)"
    if sensitivity.shape != logits.shape:
        return f"sensitivity has shape {sensitivity.shape}, expected {logits.shape}"
    audited = sensitivity[asked]
    if not np.isfinite(audited).all():
        return "sensitivity is not finite on the audit sets: ask again, or leave it out and samia with it"
    if audited.min() < 0:
        return "sensitivity is negative on the audit sets, but is a mean of absolute differences"
    return None
