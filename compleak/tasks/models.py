"""Opening the models of a task, whatever they are, and asking each of them about all points."""

import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from compleak.findings.shipped import FileFacts
from compleak.queries.asking import FORMAT, PILOT, Asked, Company, ask, find_company
from compleak.queries.logits import Scale, scale_of, to_logits
from compleak.queries.run_models import open_run_model
from compleak.queries.views import as_stored
from compleak.tasks.points import AuditPoints
from compleak.tasks.task import RUN_PREFIX, ModelEntry, Task
from core.console import say
from core.errors import UserError
from core.files import sha256
from core.threads import threads_in_use
from data.foreign import Preprocessing, fit_to_model, preprocess, preprocessing_from_config, stated
from data.views import shift_and_flip, shifts_and_flips
from models.foreign import ForeignModel, ModelSpec, open_model

METADATA = ("mean", "std", "layout")  # of an exported model, as `compleak_mean` and so on


class OpenModel(NamedTuple):
    """A model that is ready to be asked."""

    entry: ModelEntry
    model: ForeignModel
    hashes: dict[str, str]  # SHA-256 of each file

    @property
    def files(self) -> tuple[FileFacts, ...]:
        return tuple(FileFacts(path, digest, Path(path).stat().st_size) for path, digest in self.hashes.items())

    @property
    def weights(self) -> frozenset[str]:
        """The hashes that tell this model from others that share its code, its tokenizer or its preprocessing."""
        return frozenset(self.hashes[str(file)] for file in self.model.weights or self.model.files)


class ModelAnswers(NamedTuple):
    """What one model answered about the N points, and what people should know of it."""

    logits: np.ndarray  # (N, C) float32
    probes: dict[str, np.ndarray]  # (N, ...) each, by the name that a signals file has for it
    predicted: np.ndarray | None  # (N, V) int64: the class of each of V crops and flips, where it was asked for
    scale: Scale  # what the answers are
    company: Company  # how they depend on what else is in the batch


def open_entry(entry: ModelEntry, task: Task) -> OpenModel:
    """Open a model. UserError where that fails."""
    if entry.is_of_run:
        model = open_run_model(task.root, entry.place.removeprefix(RUN_PREFIX), task.device)
    else:
        spec = ModelSpec(entry.path, entry.input, entry.output, entry.weights)
        model = open_model(spec, threads=threads_in_use())
    if model.runs_code:
        say_once(f"{entry.place} is Python code of yours, and is run")
    return OpenModel(entry, model, {str(file): sha256(file) for file in model.files})


@functools.cache
def say_once(line: str) -> None:
    say(line)


def preprocessing_for(opened: OpenModel, task: Task, kind: str) -> Preprocessing:
    """How stored values become this model's input: what the task states, then what lies beside a model of images."""
    how = task.preprocessing
    if opened.model.preprocessing and kind == "images":
        how = usual_preprocessing(opened, how)._replace(**stated(how))
    try:
        return fit_to_model(how, opened.model.input_shape, kind)
    except UserError as error:
        raise UserError(f"{opened.entry.name}: {error}") from error


def usual_preprocessing(opened: OpenModel, how: Preprocessing) -> Preprocessing:
    """What lies beside the model; nothing where that is not understood and the user has stated `how`.

    UserError where it is not understood and nothing is stated.
    """
    try:
        return preprocessing_beside_model(opened.model.preprocessing)
    except UserError as error:
        if not stated(how):
            raise
        say_once(f"{opened.entry.name}: {error}; what you state counts, and nothing of that file")
        return Preprocessing()


def note_on_preprocessing(opened: OpenModel, task: Task, kind: str) -> list[str]:
    """A sentence where nobody said how pixels become the model's input, so that its answers may be poor."""
    if kind != "images" or opened.model.preprocessing or task.preprocessing.mean or task.preprocessing.std:
        return []
    return [
        "Nobody stated a mean and a standard deviation, so pixels were scaled to values from 0 to 1. If the model was "
        "trained on other values, its answers are poor and the numbers are too low: compare its accuracy with the one "
        "that you know, and state --mean and --std."
    ]


def preprocessing_beside_model(content: Mapping) -> Preprocessing:
    """From the metadata of a model that this project exported, or from a preprocessor_config.json."""
    settings = {key: content[f"compleak_{key}"] for key in METADATA if f"compleak_{key}" in content}
    if not settings:
        return preprocessing_from_config(dict(content))
    for key in settings.keys() & {"mean", "std"}:
        settings[key] = tuple(float(number) for number in settings[key].split(","))
    return Preprocessing(**settings)


def network_inputs(
    opened: OpenModel,
    how: Preprocessing,
    points: AuditPoints,
    positions: np.ndarray,
    view: np.ndarray | None = None,
) -> np.ndarray:
    """(B, ...) what the model takes, of the points at these places of the order of asking.

    view: a row of `shifts_and_flips`, for images that are shifted and mirrored before anything else is done to them.
    """
    raw = points.load(points.order[positions])
    if view is not None:
        raw = [shift_and_flip(picture, view) for picture in raw]
    if points.kind == "text":
        if opened.model.tokenize is None:
            raise UserError(f"{opened.entry.name} takes no text: it is a file without a tokenizer")
        return opened.model.tokenize(raw)
    return preprocess(raw, points.kind, how)


class Interview:
    """One model and all that it is asked, step by step: company first, then a pilot, then all points."""

    def __init__(self, opened: OpenModel, task: Task, points: AuditPoints, file: Path) -> None:
        self.opened, self.points, self.file = opened, points, file
        self.task = task
        how = preprocessing_for(opened, task, points.kind)
        self.inputs = functools.partial(network_inputs, opened, how, points)
        model = opened.model
        self.asked = Asked(opened.entry.name, model.answer, self.inputs, len(points.order), model.fixed_batch)
        self.company: Company = find_company(self.asked, model.fixed_batch or task.batch_size)
        self.source = {
            "model": opened.hashes,
            "input": [opened.entry.input, opened.entry.output],
            "points": points.fingerprint(),
            "preprocessing": repr(how),
            "batch_size": self.company.batch_size,
            "format": FORMAT,
        }

    def pilot(self) -> tuple[np.ndarray, np.ndarray]:
        """(positions, logits) of the first points in the order of asking."""
        table = ask(self.asked, self.company.batch_size, self.file, self.source, first=PILOT)
        return self.points.order[: len(table)], to_logits(table, scale_of(table))

    def answers(self) -> ModelAnswers:
        """The answers about all points, in the order of the list of points."""
        table = ask(self.asked, self.company.batch_size, self.file, self.source)
        scale = scale_of(table)
        logits = self.in_list_order(to_logits(table, scale))
        augmented, predicted = self.views(table, scale)
        probes = {} if augmented is None else {"augmented": augmented}
        return ModelAnswers(logits, probes, predicted, scale, self.company)

    def views(self, plain: np.ndarray, scale: Scale) -> tuple[np.ndarray | None, np.ndarray | None]:
        """((N, Q, C) float16 log-posteriors, (N, V) predicted classes) of crops and flips; None where not asked for.

        plain: (N, C), the answers about the points as they are, which are the first view. Each further view is asked
        and kept like the plain answers. UserError where the points are no images.
        """
        if self.task.views and self.points.kind != "images":
            raise UserError(f"the data are {self.points.kind}, without crops and flips: leave out --queries")
        posteriors = []
        predicted = []
        for number, view in enumerate(shifts_and_flips(not self.task.no_flip)[: self.task.views]):
            table = plain if number == 0 else self.asked_about(view)
            logits = self.in_list_order(to_logits(table, scale))
            if number < self.task.queries:
                posteriors.append(as_stored(logits))
            if number < self.task.label_queries:
                predicted.append(logits.argmax(axis=1))
        return tuple(np.stack(columns, axis=1) if columns else None for columns in (posteriors, predicted))

    def asked_about(self, view: np.ndarray) -> np.ndarray:
        """(N, C) float64 raw answers about this view of all points."""
        name = "_".join(map(str, view))
        asked = self.asked._replace(
            name=f"{self.asked.name}, view {name}", inputs=functools.partial(self.inputs, view=view)
        )
        file = self.file.with_stem(f"{self.file.stem}_view_{name}")
        return ask(asked, self.company.batch_size, file, {**self.source, "view": view.tolist()})

    def asked_by_probe(
        self,
        name: str,
        places: np.ndarray,
        columns: int,
        answer: Callable[[np.ndarray], np.ndarray],
        source: dict,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """(N, columns) float64 answers of a probe about the points at these places, (N,) bool; NaN about the others.

        The points are asked in the order of asking, and the answers are kept. answer: network inputs (B, ...) -> the
        probe's answers (B, columns); source: what they follow from beside the model and the points.
        """
        positions = np.flatnonzero(places[self.points.order])
        answers = np.full((len(places), columns), np.nan)
        if len(positions):
            asked = self.asked._replace(
                name=f"{self.asked.name}, {name}",
                answer=answer,
                inputs=lambda batch: self.inputs(positions[batch]),
                count=len(positions),
            )
            file = self.file.with_stem(f"{self.file.stem}_{name}")
            facts = {**self.source, **source, "positions": hashlib.sha256(positions.tobytes()).hexdigest()[:16]}
            answers[self.points.order[positions]] = ask(asked, batch_size or self.company.batch_size, file, facts)
        return answers

    def in_list_order(self, asked: np.ndarray) -> np.ndarray:
        """Rows in the order of asking, put in the order of the list of points."""
        rows = np.empty_like(asked)
        rows[self.points.order] = asked
        return rows
