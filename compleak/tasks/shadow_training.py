"""Shadow models that the audit trains itself, from the `get_model()` of the audited models' Python files.

Each shadow model trains on half of the data that the task names for it, drawn by seed, and is asked about the other
half too. These data must not be the audited model's. A compressed version's shadow model is what that version's own
`get_model()` makes, trained by the same recipe on the same half.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from compleak.queries.defended import refuse_useless
from compleak.runs.checkpoints import write_tensors
from compleak.tasks.models import OpenModel, preprocessing_for
from compleak.tasks.sanity import order_of_classes, shown
from compleak.tasks.task import ModelEntry, ShadowEntry, ShadowTraining, Task
from compleak.training.plugin import train_plugin
from core import devices
from core.errors import UserError
from core.files import write_text
from core.plugins import code_hashes, import_plugin, modules_beside
from data.foreign import Points, Preprocessing, preprocess, read_points

SHADOWS = "shadows"  # folder of an audit


class AuditedVersion(NamedTuple):
    """What the shadow models of one audited model have in common, of the original or of a compressed version."""

    name: str
    file: Path  # with get_model()
    code: dict[str, str]  # hashes of the file and the modules beside it
    preprocessing: Preprocessing
    output_of_class: np.ndarray  # (C,) which output of the network stands for each class of the data


def train_shadows(opened: Sequence[OpenModel], task: Task) -> tuple[ShadowEntry, ...]:
    """The task's shadow models, trained now where they have not been. UserError where that cannot be done."""
    wanted = task.shadow_training
    for model in opened:
        if not model.model.runs_code:
            raise UserError(
                f"{model.entry.place} holds no get_model(), so no shadow model of it can be trained: give trained ones "
                "under shadows:, or all models as Python files"
            )
    points = read_points(wanted.data, label_column=task.label_column, classes=task.classes)
    versions = [version_of(model, points, task) for model in opened]
    return tuple(train_shadow(number, versions, points, task) for number in range(wanted.count))


def version_of(model: OpenModel, points: Points, task: Task) -> AuditedVersion:
    """What the shadow models of one audited model have in common. UserError where its classes are not the data's."""
    preprocessing = preprocessing_for(model, task, points.kind)
    first_point = network_inputs_of(points, np.arange(1), preprocessing, np.arange(1))
    outputs = model.model.answer(first_point).shape[-1]
    refuse_useless(task.answers, max(outputs, 2))  # a single output stands for two classes
    order = list(range(outputs)) if task.classes else order_of_classes(points.classes, outputs, model.model.class_names)
    if order is None:
        raise UserError(
            f"{task.shadow_training.data} has the classes {shown(points.classes)}: name them in the model's order"
        )
    file = code_of(model)
    return AuditedVersion(model.entry.name, file, code_hashes(file), preprocessing, np.asarray(order))


def train_shadow(number: int, versions: Sequence[AuditedVersion], points: Points, task: Task) -> ShadowEntry:
    """Train one shadow model in all versions, on the same half of the points."""
    folder = task.folder / SHADOWS / str(number)
    count = len(points.labels)
    members = np.sort(np.random.default_rng([task.seed, 5, number]).permutation(count)[: count // 2])
    write_text(folder / "members.txt", "".join(f"{record}\n" for record in members))
    models = {}
    for version in versions:
        weights = folder / f"{version.name}.pt"
        train_version(version, points, members, weights, number, task)
        models[version.name] = ModelEntry(version.name, str(version.file), weights=weights)
    return ShadowEntry(models, folder / "members.txt", data=task.shadow_training.data)


def code_of(model: OpenModel) -> Path:
    """The Python file among a plug-in's files."""
    return next(Path(file) for file in model.hashes if file.endswith(".py"))


def train_version(
    version: AuditedVersion, points: Points, members: np.ndarray, weights: Path, number: int, task: Task
) -> None:
    """Train one version of a shadow model on its members, and write its weights."""
    recipe: ShadowTraining = task.shadow_training
    with modules_beside(version.file.parent):
        network = train_plugin(
            import_plugin(version.file, "get_model"),
            functools.partial(network_inputs_of, points, members, version.preprocessing),
            version.output_of_class[points.labels[members]],
            epochs=recipe.epochs,
            lr=recipe.lr,
            batch_size=recipe.batch_size,
            optimizer=recipe.optimizer,
            seed=task.seed + 1 + number,
            device=devices.choose(task.device),
            resume_file=weights.with_suffix(".resume.pt"),
            code=version.code,
            advice=f"use the same code and settings, another --name or --out, or delete {task.folder / SHADOWS}",
            desc=f"shadow model {number} {version.name}",
        )
    state = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    write_tensors(weights, state)


def network_inputs_of(
    points: Points, members: np.ndarray, preprocessing: Preprocessing, index: np.ndarray
) -> np.ndarray:
    """(B, ...) network inputs of the members at these places."""
    return preprocess(points.load(members[index]), points.kind, preprocessing)
