"""A model of ours and the points that a probe asks it about: what all probes share."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from compleak.training.evaluate import predict
from data.inputs import InputKind


class Subject(NamedTuple):
    """A model, and the points that a probe asks it about."""

    model: nn.Module
    points: np.ndarray  # (n, ...) stored values
    logits: np.ndarray  # (n, C) float32: the plain answers
    labels: np.ndarray  # (n,) int64
    member: np.ndarray  # (n,) bool; used only to draw as many members as non-members
    kind: InputKind
    stored: np.ndarray  # (P, ...) stored values of the whole data set
    flip: bool  # whether a mirrored point is still of its class
    device: torch.device
    batch_size: int
    advance: Callable[[int], object]  # counts answers for the progress bar

    def batches(self):
        """(first, network inputs (B, ...)) for each batch of points."""
        self.model.to(self.device, memory_format=torch.channels_last).eval()
        for start in range(0, len(self.points), self.batch_size):
            batch = torch.from_numpy(self.points[start : start + self.batch_size]).to(self.device)
            yield start, self.kind.to_input(batch)

    def ask(self, inputs: torch.Tensor) -> np.ndarray:
        """(B, C) float32 logits of network inputs."""
        self.advance(len(inputs))
        return predict(self.model, inputs).cpu().numpy()

    def ask_views(self, count: int):
        """(first, (B, V, C) float32 logits) for each batch of points: the first `count` fixed views of each point."""
        views = fixed_views(self.kind, self.flip, count)
        self.model.to(self.device, memory_format=torch.channels_last).eval()
        for start in range(0, len(self.points), self.batch_size):
            batch = torch.from_numpy(self.points[start : start + self.batch_size]).to(self.device)
            padded, index = self.kind.pad(batch), torch.arange(len(batch), device=self.device)
            answers = []
            for view in views.to(self.device):
                draws = view.expand(len(batch), len(view))
                answers.append(self.ask(self.kind.to_input(self.kind.augmented_batch(padded, index, draws))))
            yield start, np.stack(answers, axis=1)


def fixed_views(kind: InputKind, flip: bool, count: int) -> torch.Tensor:
    """The first `count` fixed views (V, d) of a kind of input, all of them where there are fewer."""
    return kind.fixed_views(flip)[:count]
