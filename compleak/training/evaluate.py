"""The one way in which a model is asked: without augmentation, in float32, in eval mode."""

import numpy as np
import torch
from torch import nn

from core import devices
from data.inputs import IMAGES, InputKind


def predict(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """(B, C) float32 logits of network inputs, in full float32 precision. The model must be in eval mode."""
    with torch.inference_mode(), devices.exact():
        return model(inputs).float()


def ask(
    model: nn.Module, points: np.ndarray, device: torch.device, batch_size: int, bar=None, kind: InputKind = IMAGES
) -> np.ndarray:
    """(n, C) float32 logits of images, features or tokens, without augmentation: the one way of asking."""
    model.to(device, memory_format=torch.channels_last).eval()
    answers = []
    for start in range(0, len(points), batch_size):
        batch = torch.from_numpy(points[start : start + batch_size]).to(device)
        answers.append(predict(model, kind.to_input(batch)).cpu().numpy())
        if bar is not None:
            bar.update(len(batch))
    return np.concatenate(answers)


def accuracy(
    model: nn.Module,
    points: np.ndarray,
    labels: np.ndarray,
    device: torch.device,
    batch_size: int,
    kind: InputKind = IMAGES,
) -> float:
    """Share of points whose class the model names."""
    return float((ask(model, points, device, batch_size, kind=kind).argmax(axis=1) == labels).mean())
