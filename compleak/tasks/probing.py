"""The probes that an audit asks shipped models beside crops and flips: sensitivity, noise, distance to the boundary.

They ask what `compleak.queries` asks this project's own models, through arrays alone: a shipped model may be anything.
Each model is asked about its own audit set; the arrays are NaN about all other points.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from attacks.common.statistics import posterior
from compleak.queries.boundary import boundary_distances, draw_balanced, import_toolbox
from compleak.queries.logits import LOG_PROBABILITIES, LOGITS, Scale, as_table, to_logits
from compleak.queries.sensitivity import EPSILON
from compleak.tasks.models import Interview, ModelAnswers
from compleak.tasks.points import AuditPoints
from core.errors import UserError
from data.noise import SAMPLE, Noise, flip_bits, noise_for_inputs
from models.foreign import ForeignModel

CPU = torch.device("cpu")
UNMEASURED = -1.0  # stands for a distance that is not known, where answers are kept: those must be finite


def answers_of(interview: Interview, points: AuditPoints, row: int) -> ModelAnswers:
    """A model's answers with all probes that the task asks for.

    points: with the classes in the order of the model's outputs; row: of the model in `points.audit`. A model beyond
    those rows is a reference alone and has no audit set.
    """
    if interview.task.boundary_points:
        import_toolbox()  # before anything is asked
    answers = interview.answers()
    audited, member = np.zeros((2, len(points.labels)), dtype=bool)
    if row < len(points.audit):
        audited, member = points.audit[row], points.member[row]
    probes = dict(answers.probes)
    if interview.task.sensitivity_draws:
        probes["sensitivity"] = ask_sensitivity(interview, answers, audited)
    if interview.task.noise_repeats:
        probes["noise"] = ask_noise(interview, answers, audited, points.labels)
    if interview.task.boundary_points:
        drawn = np.flatnonzero(audited)
        drawn = drawn[draw_balanced(member[drawn], interview.task.boundary_points)]
        probes["boundary"] = ask_boundary(interview, answers, np.isin(np.arange(len(audited)), drawn), points.labels)
    return answers._replace(probes=probes)


def check_decimal(interview: Interview, flag: str) -> None:
    """UserError where the model takes whole numbers, which small noise cannot move."""
    opened = interview.opened
    if interview.points.kind == "text" or not opened.model.input_dtype.startswith("float"):
        raise UserError(f"{opened.entry.name} takes no decimal numbers: leave out --{flag}")


def logits_of(answer: Callable[[np.ndarray], np.ndarray], scale: Scale, inputs: np.ndarray) -> np.ndarray:
    """(B, C) float32 logits about network inputs (B, ...)."""
    return to_logits(as_table(answer(inputs), "the model"), scale)


# Sensitivity


def ask_sensitivity(interview: Interview, answers: ModelAnswers, audited: np.ndarray) -> np.ndarray:
    """(N, C) float32: how far each probability moves when the input does (`compleak.queries.sensitivity`)."""
    check_decimal(interview, "sensitivity_draws")
    draws = interview.task.sensitivity_draws
    answer = functools.partial(moved_by_noise, interview.asked.answer, answers.scale, draws)
    moved = interview.asked_by_probe("sensitivity", audited, answers.logits.shape[1], answer, {"draws": draws})
    return moved.astype(np.float32)


def moved_by_noise(answer: Callable, scale: Scale, draws: int, inputs: np.ndarray) -> np.ndarray:
    """(B, C) mean over draws of |softmax f(x + e u) - softmax f(x)| / e, u ~ N(0, I); x: network inputs (B, ...)."""
    rng = np.random.default_rng(0)
    still = posterior(logits_of(answer, scale, inputs))
    moved = np.zeros_like(still)
    for _ in range(draws):
        noise = EPSILON * rng.standard_normal(inputs.shape)
        moved += np.abs(posterior(logits_of(answer, scale, (inputs + noise).astype(inputs.dtype))) - still)
    return moved / (draws * EPSILON)


# Noise


def ask_noise(interview: Interview, answers: ModelAnswers, audited: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N, L) float32: share of noisy copies whose label the model names, for each strength (`compleak.queries.noise`).

    Network inputs of anybody's model have any spread: the noise is measured in the spread of the first SAMPLE of them.
    """
    repeats = interview.task.noise_repeats
    noise = noise_for_inputs(interview.inputs(np.arange(min(SAMPLE, len(labels)))))
    if noise.add is not flip_bits:
        check_decimal(interview, "noise_repeats")
    answer = functools.partial(named_classes, interview.asked.answer, answers.scale, noise, repeats)
    columns = len(noise.levels) * repeats
    named = interview.asked_by_probe("noise", audited, columns, answer, {"noise_repeats": repeats})
    right = named.reshape(len(named), len(noise.levels), repeats) == labels[:, None, None]
    return np.where(audited[:, None], right.mean(axis=2), np.nan).astype(np.float32)


def named_classes(answer: Callable, scale: Scale, noise: Noise, repeats: int, inputs: np.ndarray) -> np.ndarray:
    """(B, L * repeats) the class that is named for each noisy copy of network inputs (B, ...), strength by strength."""
    generator = torch.Generator().manual_seed(0)
    still = torch.from_numpy(inputs)
    copies = (noise.add(still, level, generator).numpy() for level in noise.levels for _ in range(repeats))
    return np.stack([logits_of(answer, scale, copy).argmax(axis=1) for copy in copies], axis=1)


# Distance to the decision boundary


def ask_boundary(interview: Interview, answers: ModelAnswers, drawn: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N, 2) float32 distances of the points drawn, (N,) bool, to the boundary (`compleak.queries.boundary`)."""
    check_decimal(interview, "boundary_points")
    order = interview.points.order
    of_drawn = labels[order[drawn[order]]]
    network = as_network(interview.opened.model, answers.scale)

    def measure(inputs: np.ndarray) -> np.ndarray:
        values = torch.from_numpy(inputs.astype(np.float32))
        distances = boundary_distances(network, values, of_drawn, answers.logits.shape[1], CPU)
        return np.nan_to_num(distances, nan=UNMEASURED)

    source = {"boundary_labels": of_drawn.tolist()}
    distances = interview.asked_by_probe("boundary", drawn, 2, measure, source, batch_size=len(of_drawn))
    return np.where(distances == UNMEASURED, np.nan, distances).astype(np.float32)


class Network(nn.Module):
    """A function from network inputs (B, ...) to logits (B, C) as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.function(inputs)


def as_network(model: ForeignModel, scale: Scale) -> Network:
    """The model as a network: with gradients where its file has some and its answers are logits as they stand."""
    if model.forward is not None and scale in (LOGITS, LOG_PROBABILITIES):
        return Network(lambda inputs: model.forward(inputs.clone()))  # the model may change its input in place
    return Network(lambda inputs: torch.from_numpy(logits_of(model.answer, scale, inputs.detach().numpy())))
