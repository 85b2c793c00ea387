"""What a task states although nothing reads it.

Answers that are there already come with their models and points. A defence of answers has no use for some of what can
be asked or known.

Such a task is refused before the work. Dropped without a word, references that nobody asked would read as an attack
with references that found nothing.
"""

from dataclasses import MISSING, fields

from compleak.queries.defended import NOBODY_ELSE
from compleak.tasks.task import Task
from core.errors import UserError

OF_MODELS = ("references", "shadows", "shadow_training", "preprocessing", "no_flip")
OF_PROBES = ("sensitivity_draws", "queries", "label_queries", "noise_repeats", "boundary_points")
OF_POINTS = ("nonmembers", "data", "label_column", "classes", "max_points")
WITHOUT_USE = {  # by the way to the answers
    "a file of answers": (*OF_MODELS, *OF_PROBES, "data"),
    "a signals file": (*OF_MODELS, *OF_PROBES, "members", *OF_POINTS),
    "its run": (*OF_MODELS, *OF_POINTS),
    "asking": (),
}
REASONS = {
    "a file of answers": "answers in a file are audited as they stand, and no model is asked",
    "a signals file": "a signals file says itself which models, points and answers there are",
    "its run": "a run has its own data and shadow models",
}
HAVE_OTHERS = ("a signals file", "its run")  # ways to the answers of further models; a file is looked at when read
KEYS = {"shadow_training": "shadows"}  # in a task file, where they are not called as in a task
DEFAULTS = {
    field.name: field.default_factory() if field.default is MISSING else field.default
    for field in fields(Task)
    if field.default is not MISSING or field.default_factory is not MISSING
}


def refuse_unused(task: Task, way: str) -> None:
    """UserError where the task states what this way to the answers has no use for."""
    stated = [KEYS.get(key, key) for key in WITHOUT_USE[way] if getattr(task, key) != DEFAULTS[key]]
    if stated:
        raise UserError(f"{task.models[0].place}: {REASONS[way]}: leave out {', '.join(stated)}")
    if task.answers.name:
        refuse_unused_beside_defence(task, way)


def refuse_unused_beside_defence(task: Task, way: str) -> None:
    """UserError where the task's defence of answers has no use for what the task states."""
    if task.sensitivity_draws:
        raise UserError(
            f"--answers {task.answers} leaves out sensitivity, which is measured on undefended answers: leave out "
            "sensitivity_draws"
        )
    has_others = task.shadows or task.shadow_training or task.references or way in HAVE_OTHERS
    if task.answers.adaptive and not has_others:
        raise UserError(f"{task.models[0].place}: {NOBODY_ELSE}")
