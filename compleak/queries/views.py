"""The probes `augmented` and `correct`: what a model says of several fixed views of each point."""

import numpy as np

from compleak.queries.subject import Subject
from data.inputs import InputKind

LOWEST = -60_000.0  # a log-posterior that float16 can hold


def ask_augmented(subject: Subject, count: int) -> np.ndarray:
    """(n, Q, C) float16 log-posteriors of the first Q fixed views; the first view is the point as it is."""
    return np.concatenate([as_stored(answers) for _, answers in subject.ask_views(count)])


def as_stored(logits: np.ndarray) -> np.ndarray:
    """Logits (..., C) as log-posteriors in float16, which takes half of the room of float32.

    A confidence is then off by up to 0.02, and the ranks survive it: on 1,000 images of CIFAR-10 and a small ResNet-18
    it was off by up to 0.004, and its rank correlation with the exact one was 0.9999996, of the mean over 18 views
    0.99999994.
    """
    logits = logits.astype(np.float64)
    highest = logits.max(axis=-1, keepdims=True)
    total = np.log(np.exp(logits - highest).sum(axis=-1, keepdims=True))
    return np.maximum(logits - highest - total, LOWEST).astype(np.float16)


def find_augmented_problem(augmented: np.ndarray, logits: np.ndarray, asked: np.ndarray) -> str | None:
    """`augmented` is (R, N, Q, C) of floats, logits or log-posteriors, finite where a model was asked: (R, N) bool."""
    models, points, classes = logits.shape
    if augmented.dtype.kind != "f":
        return f"augmented has type {augmented.dtype}: store augmented.astype(np.float32)"
    if augmented.ndim != 4 or augmented.shape[:2] + augmented.shape[3:] != logits.shape or augmented.shape[2] == 0:
        return f"augmented has shape {augmented.shape}, expected ({models}, {points}, queries, {classes})"
    answers = augmented[asked]
    if np.isnan(answers).any():
        return (
            "augmented is NaN for points that the model audits, or was not trained on: attacks compare the answers of "
            "both, so ask about both, or leave augmented out"
        )
    if not np.isfinite(answers).all():
        return "augmented is not finite: store np.clip(augmented, -6e4, 6e4)"
    sums = answers.astype(np.float64).sum(axis=-1)
    if answers.min() >= 0 and np.abs(sums - 1).max() < 0.01:
        return "augmented holds probabilities (rows sum to 1): store np.log(np.maximum(augmented, 1e-7))"
    return None


def ask_correct(subject: Subject, count: int) -> np.ndarray:
    """(n, Q) bool: whether the model names the label of each of the first Q fixed views."""
    parts = []
    for start, answers in subject.ask_views(count):
        labels = subject.labels[start : start + len(answers), None]
        parts.append(answers.argmax(axis=-1) == labels)
    return np.concatenate(parts)


def find_correct_problem(correct: np.ndarray, logits: np.ndarray, asked: np.ndarray) -> str | None:
    """`correct` is (R, N, Q) bool."""
    if correct.dtype.kind != "b":
        return f"correct has type {correct.dtype}: bool is needed, True where the predicted label is right"
    if correct.ndim != 3 or correct.shape[:2] != logits.shape[:2] or correct.shape[2] == 0:
        return f"correct has shape {correct.shape}, expected {(*logits.shape[:2], 'queries')}".replace("'", "")
    return None


def has_views(kind: InputKind) -> bool:
    return len(kind.fixed_views(False)) > 1
