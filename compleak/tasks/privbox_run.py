"""Running the tasks of a PrivBox file: shadow models are trained, targets asked, attacks judged.

<out>/privbox.md      the report
<out>/privbox.json    its numbers
<out>/shadows/        the shadow models, each with the state of its training, so that none is trained twice
<out>/answers/        what the models answered, so that nothing is asked twice
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from attacks.common.signals import Result, Unusable
from attacks.common.statistics import posterior
from attacks.label_only import label_only
from attacks.ml_leak import ml_leak
from compleak.findings import privbox as findings
from compleak.findings.privbox import PrivBoxFindings
from compleak.reports.privbox_page import warn_of_shared_data, write_privbox
from compleak.tasks.privbox import PrivBoxTask
from compleak.tasks.privbox_models import (
    AskedModel,
    Datasets,
    TaskRun,
    ask,
    describe_shadow,
    is_right,
    is_right_turned,
    open_run,
    shadow_of,
)
from compleak.training.plugin import are_probabilities
from core.console import progress, say
from core.errors import UserError
from core.files import sha256, write_atomically
from core.threads import use_threads

SCORES = "privbox.npz"


def run_privbox(
    tasks: Sequence[PrivBoxTask],
    out: Path,
    *,
    task_file: Path,
    seed: int,
    device: torch.device | str = "cpu",
    threads: int = 1,
) -> PrivBoxFindings:
    """Run the tasks, write the report into `out`, and return its numbers.

    seed decides the shadow models, the classifiers and the order of the questions. All data sets and models are opened
    and tried before anything is trained. Raises UserError where one of them does not fit its task.
    """
    use_threads(threads)
    run = open_run(tasks, out, seed, torch.device(device), threads)
    for task in tasks:
        for line in warn_of_shared_data(task.attack, shared_data(task)):
            say(f"warning: {line}")
    results = [run_attack(task, run) for task in tasks]
    report = PrivBoxFindings(
        task_file=str(task_file),
        seed=seed,
        models=list_models(tasks, run),
        datasets=list_datasets(tasks, run),
        attacks=[judge(task, run, result) for task, result in zip(tasks, results, strict=True)],
    )
    write_scores(out / SCORES, tasks, run, results)
    write_privbox(out, report)
    return report


def run_attack(task: PrivBoxTask, run: TaskRun) -> Result:
    """Scores and decisions of all points, members first."""
    try:
        return ATTACKS[task.attack](task, run)
    except Unusable as error:
        raise UserError(f"{task.attack} on {task.target.name}: {error}") from error


def write_scores(file: Path, tasks: Sequence[PrivBoxTask], run: TaskRun, results: Sequence[Result]) -> None:
    arrays = {}
    for number, (task, result) in enumerate(zip(tasks, results, strict=True), start=1):
        arrays[f"scores_{number}"] = result.scores
        arrays[f"decision_{number}"] = result.decision
        arrays[f"member_{number}"] = run.pairs[task.datasets].member
    write_atomically(file, lambda part: np.savez(part, **arrays))


def judge(task: PrivBoxTask, run: TaskRun, result: Result) -> findings.Attack:
    """An attack's row of the report."""
    member = run.pairs[task.datasets].member
    return findings.Attack(
        name=task.attack,
        target=task.target.name,
        questions=2 * (task.r or 0) + 1,
        numbers=findings.measure(result.scores, result.decision, member, seed=run.seed),
        settings=list_settings(task),
        shadow_data=task.shadow.datasets[0].name if task.shadow else "",
        shared_data=shared_data(task),
    )


def shared_data(task: PrivBoxTask) -> tuple[str, ...]:
    """The shadow model's data sets that are the target's too, as both are in PrivBox's example of LABEL-ONLY."""
    return tuple(plugin.name for plugin in task.shadow.datasets if plugin in task.datasets) if task.shadow else ()


def run_baseline(task: PrivBoxTask, run: TaskRun) -> Result:
    """The gap attack (`attacks.gap`): a point whose class is predicted rightly is called a member."""
    right = is_right(run, run.targets[task.target], task.datasets, task.batch_size)
    return Result(right.astype(np.float64), right, np.empty(0))


def run_ml_leak(task: PrivBoxTask, run: TaskRun) -> Result:
    shadow_outputs = ask(run, shadow_of(task, run), task.shadow.datasets, task.batch_size)
    outputs = ask(run, run.targets[task.target], task.datasets, task.batch_size)
    shadow_outputs, outputs = make_alike(shadow_outputs, outputs)
    member = run.pairs[task.shadow.datasets].member
    return ml_leak(shadow_outputs, member, outputs, topk=task.topk, **fitting(task, run))


def make_alike(shadow_outputs: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as posteriors where one of the models ends in a softmax and the other does not; else as they are."""
    shadow_ends_in_softmax, ends_in_softmax = (
        are_probabilities(torch.from_numpy(values)) for values in (shadow_outputs, outputs)
    )
    if shadow_ends_in_softmax and not ends_in_softmax:
        return shadow_outputs, posterior(outputs)
    if ends_in_softmax and not shadow_ends_in_softmax:
        return posterior(shadow_outputs), outputs
    return shadow_outputs, outputs


def run_label_only(task: PrivBoxTask, run: TaskRun) -> Result:
    shadow = shadow_of(task, run)
    shadow_right = is_right_turned(run, shadow, task.shadow.datasets, task.batch_size, task.r)
    right = is_right_turned(run, run.targets[task.target], task.datasets, task.batch_size, task.r)
    member = run.pairs[task.shadow.datasets].member
    return label_only(shadow_right, member, right, **fitting(task, run))


def fitting(task: PrivBoxTask, run: TaskRun) -> dict:
    """How the classifier of an attack is fitted."""
    return {
        "classifier": task.classifier,
        "seed": run.seed,
        "device": run.device,
        "progress": lambda epochs: progress(epochs, f"{task.attack}: fitting the classifier"),
    }


ATTACKS = {"BASELINE": run_baseline, "ML-LEAK": run_ml_leak, "LABEL-ONLY": run_label_only}


def list_settings(task: PrivBoxTask) -> dict[str, object]:
    """The task's keys as PrivBox names them, without folders."""
    if task.shadow is None:
        return {}
    settings = {
        "shadow_epoch": task.shadow.epochs,
        "shadow_lr": task.shadow.lr,
        "classifier_epoch": task.classifier.epochs,
        "classifier_lr": task.classifier.lr,
        "batch_size": task.batch_size,
    }
    return settings | ({"topk": task.topk} if task.attack == "ML-LEAK" else {"attack_type": "r", "r": task.r})


def list_models(tasks: Sequence[PrivBoxTask], run: TaskRun) -> list[findings.Model]:
    """Each target and each shadow model once, with its accuracy on its members and on the others."""
    models: dict[tuple[str, Datasets], findings.Model] = {}
    for task in tasks:
        uses = [(run.targets[task.target], task.datasets)]
        if task.shadow is not None:
            uses.append((shadow_of(task, run), task.shadow.datasets))
        for model, datasets in uses:
            if (model.key, datasets) not in models:
                models[model.key, datasets] = describe_model(run, model, datasets, task.batch_size)
    return list(models.values())


def describe_model(run: TaskRun, model: AskedModel, datasets: Datasets, batch_size: int) -> findings.Model:
    right = is_right(run, model, datasets, batch_size)
    member = run.pairs[datasets].member
    return findings.Model(
        name=model.plugin.name,
        role=model.role,
        members=datasets[0].name,
        folder=str(model.plugin.folder),
        member_accuracy=float(right[member].mean()),
        other_accuracy=float(right[~member].mean()),
        sha256={file.name: sha256(file) for file in model.files},
    )


def list_datasets(tasks: Sequence[PrivBoxTask], run: TaskRun) -> list[findings.Dataset]:
    """Each data set once for each model that it belongs to."""
    uses = [(task.target.name, task.datasets) for task in tasks]
    uses += [(describe_shadow(task), task.shadow.datasets) for task in tasks if task.shadow]
    return [
        findings.Dataset(plugin.name, is_member, len(points.labels), str(plugin.folder), points.fingerprint, model)
        for model, datasets in dict.fromkeys(uses)
        for plugin, points, is_member in zip(datasets, run.pairs[datasets][:2], (True, False), strict=True)
    ]
