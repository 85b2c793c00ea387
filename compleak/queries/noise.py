"""The probe `noise`: how many noisy copies of a point a model still names rightly."""

import numpy as np
import torch

from compleak.queries.subject import Subject
from data.inputs import InputKind


def ask_noise(subject: Subject, repeats: int) -> np.ndarray:
    """(n, L) float32: the share of `repeats` noisy copies whose label the model names, for each strength of noise."""
    noise = subject.kind.noise_for(subject.stored)
    parts = []
    for start, inputs in subject.batches():
        labels = subject.labels[start : start + len(inputs)]
        generator = torch.Generator(subject.device).manual_seed(start)
        shares = np.zeros((len(inputs), len(noise.levels)), dtype=np.float32)
        for number, level in enumerate(noise.levels):
            for _ in range(repeats):
                answers = subject.ask(noise.add(inputs, level, generator))
                shares[:, number] += answers.argmax(axis=-1) == labels
        parts.append(shares / repeats)
    return np.concatenate(parts)


def find_noise_problem(noise: np.ndarray, logits: np.ndarray, asked: np.ndarray) -> str | None:
    """`noise` is (R, N, L) of floats between 0 and 1 on the audit sets."""
    if noise.dtype.kind != "f":
        return f"noise has type {noise.dtype}: store noise.astype(np.float32)"
    if noise.ndim != 3 or noise.shape[:2] != logits.shape[:2] or noise.shape[2] == 0:
        return f"noise has shape {noise.shape}, expected {(*logits.shape[:2], 'strengths')}".replace("'", "")
    audited = noise[asked]
    if not (np.isfinite(audited).all() and audited.min() >= 0 and audited.max() <= 1):
        return "noise holds numbers that are no shares from 0 to 1 on the audit sets"
    return None


def can_be_noisy(kind: InputKind) -> bool:
    return kind.noise_for is not None
