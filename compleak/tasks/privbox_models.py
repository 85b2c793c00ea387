"""What the tasks of a PrivBox file share: points, models and answers, so that nothing is read or trained twice."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from compleak.queries import asking
from compleak.queries.asking import Asked, Company, find_company
from compleak.tasks.privbox import Plugin, PrivBoxTask
from compleak.training.plugin import train_plugin, try_plugin
from core import devices
from core.console import say
from core.errors import UserError
from core.files import sha256
from core.plugins import code_files, code_hashes, import_plugin, modules_beside
from data.views import angles, rotate

Answer = Callable[[np.ndarray], np.ndarray]  # network inputs (B, ...) -> outputs (B, C)
Datasets = tuple[Plugin, Plugin]  # members, others

CHANNELS = (1, 3, 4)  # of a picture
NETWORK_INPUTS = ("arrays", "features")  # kinds of points that need no preparation


class AskedModel(NamedTuple):
    """A target or a shadow model, opened or trained."""

    key: str  # the same for the same model
    role: str  # "target" or "shadow"
    plugin: Plugin
    answer: Answer
    files: tuple[Path, ...]  # that it was made from


class Pair(NamedTuple):
    """The points of two data sets, members first, as one."""

    members: object  # `data.foreign` Points
    others: object
    labels: np.ndarray  # (n,) int64
    member: np.ndarray  # (n,) bool

    def load(self, index: np.ndarray) -> np.ndarray:
        """Network inputs (B, ...) of these points."""
        first = len(self.members.labels)
        places = np.concatenate([np.flatnonzero(index < first), np.flatnonzero(index >= first)])
        values = [*self.members.load(index[index < first]), *self.others.load(index[index >= first] - first)]
        return np.stack(values)[np.argsort(places)]

    def load_members(self, index: np.ndarray) -> np.ndarray:
        """Network inputs (B, ...) of these members."""
        return np.stack(self.members.load(index))


@dataclass(frozen=True)
class TaskRun:
    """One run of a task file. The last three fill up while it runs."""

    out: Path
    seed: int
    device: torch.device
    pairs: dict[Datasets, Pair]
    targets: dict[Plugin, AskedModel]
    code: dict[Plugin, dict[str, str]] = field(default_factory=dict)  # hashes of the shadow models' code
    shadows: dict[str, AskedModel] = field(default_factory=dict)
    companies: dict[tuple[str, Datasets], Company] = field(default_factory=dict)  # by the model's key


def open_run(tasks: Sequence[PrivBoxTask], out: Path, seed: int, device: torch.device, threads: int) -> TaskRun:
    """Open all models and data sets, and try them. UserError where one does not fit its task."""
    pairs = {}
    targets = {}
    for task in tasks:
        for datasets in (task.datasets, *([task.shadow.datasets] if task.shadow else [])):
            if datasets not in pairs:
                pairs[datasets] = read_points_of(datasets)
        if task.target not in targets:
            targets[task.target] = open_target(task.target, threads)
    run = TaskRun(out, seed, device, pairs, targets)
    for task in tasks:
        check_task(task, run)
    for task in tasks:
        if task.shadow is not None:  # all code was run by now; what a training imports beyond it does not count
            run.code[task.shadow.model] = code_hashes(task.shadow.model.code)
    return run


def open_target(plugin: Plugin, threads: int) -> AskedModel:
    """The target model with its weights."""
    from models.foreign import ModelSpec, open_model

    model = open_model(ModelSpec(plugin.code, weights=plugin.weights), threads=threads)
    return AskedModel(str(plugin.code), "target", plugin, model.answer, model.files)


def read_points_of(datasets: Datasets) -> Pair:
    """The points of a task's two data sets, arrays of one shape. UserError where a network cannot take them."""
    from data.foreign import read_pair

    members, others = read_pair(*(plugin.code for plugin in datasets))
    if members.kind not in NETWORK_INPUTS:
        raise UserError(
            f"{datasets[0].code}: get_dataset() gives {members.kind}: let it give tensors, prepared as the model takes "
            "them"
        )
    labels = np.concatenate([members.labels, others.labels])
    member = np.repeat([True, False], [len(members.labels), len(others.labels)])
    return Pair(members, others, labels, member)


def check_task(task: PrivBoxTask, run: TaskRun) -> None:
    """UserError where a model does not take its points, or the task asks for what they cannot give."""
    classes = [count_outputs(run.targets[task.target], run.pairs[task.datasets])]
    if task.shadow is not None:
        classes.append(try_shadow(task, run))
    if task.topk is not None and task.topk > min(classes):
        raise UserError(
            f"{task.attack}: topk is {task.topk}, and a model has {min(classes)} outputs: topk is at most that"
        )
    if task.r is not None:
        for datasets in (task.datasets, task.shadow.datasets):
            check_pictures(run.pairs[datasets], datasets[0])


def count_outputs(model: AskedModel, pair: Pair) -> int:
    outputs = np.asarray(model.answer(pair.load(np.array([0, len(pair.labels) - 1]))))
    if outputs.ndim != 2 or outputs.shape[1] <= pair.labels.max():
        raise UserError(
            f"{model.plugin.code}: the model answers an array of shape {outputs.shape[1:]} for a point, and the labels "
            f"go up to {pair.labels.max()}: one output for each class is wanted"
        )
    return outputs.shape[1]


def try_shadow(task: PrivBoxTask, run: TaskRun) -> int:
    """How many outputs the shadow model has; UserError where it does not take its points."""
    pair = run.pairs[task.shadow.datasets]
    with modules_beside(task.shadow.model.folder):
        return try_plugin(
            network_maker(task.shadow.model),
            pair.load_members,
            pair.members.labels,
            seed=run.seed,
            device=run.device,
            desc=describe_shadow(task),
        )


def check_pictures(pair: Pair, plugin: Plugin) -> None:
    inputs = pair.load(np.array([0]))
    if inputs.ndim != 4 or inputs.shape[1] not in CHANNELS or inputs.dtype.kind != "f":
        raise UserError(
            f"LABEL-ONLY turns pictures, and the points of {plugin.code} have shape {inputs.shape[1:]} and type "
            f"{inputs.dtype}: it needs (channels, height, width) of float32, with 1, 3 or 4 channels"
        )


def shadow_of(task: PrivBoxTask, run: TaskRun) -> AskedModel:
    """The shadow model of a task, trained now unless it was trained before from exactly the same."""
    key = shadow_key(task, run)
    if key not in run.shadows:
        run.shadows[key] = train_shadow(task, run, key)
    return run.shadows[key]


def shadow_key(task: PrivBoxTask, run: TaskRun) -> str:
    code = tuple(sorted(run.code[task.shadow.model].items()))
    points = run.pairs[task.shadow.datasets].members.fingerprint
    return short_hash((code, points, task.shadow.epochs, task.shadow.lr, task.batch_size, run.seed))


def train_shadow(task: PrivBoxTask, run: TaskRun, key: str) -> AskedModel:
    pair = run.pairs[task.shadow.datasets]
    plugin = task.shadow.model
    with modules_beside(plugin.folder):
        network = train_plugin(
            network_maker(plugin),
            pair.load_members,
            pair.members.labels,
            epochs=task.shadow.epochs,
            lr=task.shadow.lr,
            batch_size=task.batch_size,
            seed=run.seed,
            device=run.device,
            resume_file=run.out / "shadows" / f"{plugin.name}_{key}.pt",
            desc=describe_shadow(task),
        )
    return AskedModel(key, "shadow", plugin, answer_of(network, plugin, run.device), code_files(plugin.code))


def describe_shadow(task: PrivBoxTask) -> str:
    return f"the shadow model {task.shadow.model.name}"


def network_maker(plugin: Plugin) -> Callable[[], torch.nn.Module]:
    """The plug-in's `get_model`, which gives a network without the folder's weights."""
    return import_plugin(plugin.code, "get_model")


def answer_of(network: torch.nn.Module, plugin: Plugin, device: torch.device) -> Answer:
    @torch.no_grad()
    def answer(inputs: np.ndarray) -> np.ndarray:
        with devices.exact(), modules_beside(plugin.folder):
            return network(torch.as_tensor(inputs).to(device)).float().cpu().numpy()

    return answer


def ask(run: TaskRun, model: AskedModel, datasets: Datasets, batch_size: int, angle: int = 0) -> np.ndarray:
    """The model's outputs (n, C) on all points of a pair, turned by so many degrees, in the pair's order; asked once.

    Members and others are asked in one mixed order, and each point alone where answers depend on the rest of the batch
    (`queries.asking`). Raises UserError where an answer is not finite.
    """
    pair = run.pairs[datasets]
    order = np.random.default_rng(run.seed).permutation(len(pair.labels))
    name = f"the {model.role} model {model.plugin.name} at {angle} degrees"
    asked = Asked(name, model.answer, lambda places: rotate(pair.load(order[places]), angle), len(order))
    company = company_of(run, model, datasets, asked, batch_size)
    outputs = asking.ask(
        asked,
        company.batch_size,
        answers_file(run, model, datasets, angle),
        {
            "model": model.key,
            "files": {str(file): sha256(file) for file in model.files},
            "points": [pair.members.fingerprint, pair.others.fingerprint],
            "seed": run.seed,
            "angle": angle,
            "batch_size": company.batch_size,
        },
    )
    return outputs[np.argsort(order)]


def company_of(run: TaskRun, model: AskedModel, datasets: Datasets, asked: Asked, batch_size: int) -> Company:
    """How the model's answers about a pair depend on the batch; tried once, on pictures as `asked` turns them."""
    key = (model.key, datasets)
    if key not in run.companies:
        run.companies[key] = find_company(asked, batch_size)
        say(f"the {model.role} model {model.plugin.name}: {run.companies[key].in_words}")
    return run.companies[key]


def answers_file(run: TaskRun, model: AskedModel, datasets: Datasets, angle: int) -> Path:
    """Where the model's answers about a pair are kept."""
    pair = short_hash((model.key, *(str(plugin.code) for plugin in datasets)))
    return run.out / "answers" / f"{model.plugin.name}_{pair}_{angle}.npz"


def short_hash(facts: tuple) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def is_right(run: TaskRun, model: AskedModel, datasets: Datasets, batch_size: int) -> np.ndarray:
    """Whether the model predicts each point's class, (n,) bool."""
    return ask(run, model, datasets, batch_size).argmax(axis=1) == run.pairs[datasets].labels


def is_right_turned(run: TaskRun, model: AskedModel, datasets: Datasets, batch_size: int, r: int) -> np.ndarray:
    """Whether the model is right at -r, ..., r degrees, (n, 2r + 1) bool."""
    columns = []
    for angle in angles(r):
        outputs = ask(run, model, datasets, batch_size, angle)
        columns.append(outputs.argmax(axis=1) == run.pairs[datasets].labels)
    return np.stack(columns, axis=1)
