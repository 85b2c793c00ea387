"""From a task to signals files: whatever the models are, their answers end in the one format that attacks read."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attacks.common.statistics import cross_entropy
from compleak.findings.shipped import DataFacts, FileFacts, ModelFacts
from compleak.queries import signals_file
from compleak.queries.answer_files import AnswerFile, is_answer_file, is_signals_file, read_answers
from compleak.queries.collect import collect
from compleak.queries.defended import defended_file, is_unchanged, refuse_useless, unchanged_in_words
from compleak.queries.logits import as_table, scale_of, to_logits
from compleak.queries.probes import PROBES
from compleak.queries.run_models import check_names, open_run_variant
from compleak.tasks.models import Interview, ModelAnswers, OpenModel, note_on_preprocessing, open_entry
from compleak.tasks.points import FEW_COPIES, AuditPoints, auditable, equal_count, points_of, say_draw, with_digests
from compleak.tasks.probing import answers_of
from compleak.tasks.sanity import (
    check_accuracy,
    check_stated_classes,
    note_on_classes,
    note_on_shadows,
    with_classes_of_model,
)
from compleak.tasks.shadow_training import train_shadows
from compleak.tasks.task import RUN_PREFIX, ModelEntry, Task
from compleak.tasks.unused import refuse_unused
from core import devices
from core.errors import UserError
from core.files import sha256
from data.foreign import read_list, read_pair, read_points

NOT_OF_DATA = {  # what is wrong with an array of a file of answers
    "labels": "the labels in {place} are not those of --members and --nonmembers, in that order: are classes counted "
    "from 1, or names?",
    "member": "member in {place} is not 1 for each point of --members and then 0 for each of --nonmembers: put the "
    "answers into that order",
}
NOT_ASKED = "the answers were there already"


class Collected(NamedTuple):
    """What the audit goes on with: a signals file for each model, and facts for the report."""

    signals: dict[str, Path]  # by the model's name, the original first
    names: Sequence[str]  # (N,) what each point of the files is called
    classes: tuple[str, ...]
    models: tuple[ModelFacts, ...]
    members: DataFacts
    nonmembers: DataFacts
    notes: tuple[str, ...] = ()
    asked: bool = False  # the models were asked for this audit


def collect_signals(task: Task) -> Collected:
    """The signals files of a task's models, asked now where they have not been asked. UserError where it cannot be."""
    kinds = [_way_of(entry, task) for entry in task.models]
    if len(set(kinds)) > 1:
        raise UserError(
            f"{task.models[0].place} is to be audited by {kinds[0]}, another model by "
            f"{next(kind for kind in kinds if kind != kinds[0])}: give all models in one form"
        )
    refuse_unused(task, kinds[0])
    collected = WAYS[kinds[0]](task)
    return behind_defence(collected, task) if task.answers.name else collected


def behind_defence(collected: Collected, task: Task) -> Collected:
    """The same models as the task's defence of answers lets people see them."""
    device = devices.choose(task.device)
    whose = "of all models" if task.answers.adaptive else "of the audited models"
    notes = [f"The answers {whose} were defended by {task.answers} before they were attacked."]
    signals, models = {}, []
    for model, (name, file) in zip(collected.models, collected.signals.items(), strict=True):
        place = task.folder / "signals" / f"{name}{task.answers.folder_suffix}.npz"
        signals[name] = defended_file(file, task.answers, place, device)
        record = signals_file.load(place)
        if is_unchanged(signals_file.load(file), record):
            notes.append(f"{name}: {unchanged_in_words(task.answers)}.")
        audited = record.audit[0]
        measured = accuracy_facts(record.logits[0, audited], record.labels[audited], record.truth)
        models.append(model._replace(answers=f"{model.answers}, defended by {task.answers}", **measured))
    return collected._replace(signals=signals, models=tuple(models), notes=(*collected.notes, *notes))


def _way_of(entry: ModelEntry, task: Task) -> str:
    if entry.is_of_run:
        return "asking" if task.members or task.data else "its run"
    if is_signals_file(entry.path):
        return "a signals file"
    return "a file of answers" if is_answer_file(entry.path) else "asking"


# By asking


def by_asking(task: Task) -> Collected:
    opened = [open_entry(entry, task) for entry in task.models]
    if task.shadow_training:
        refuse_members_for_shadows(task)
        task = replace(task, shadows=train_shadows(opened, task))
    entries = [*(shadow.models for shadow in task.shadows), *task.references]
    others = [[open_entry(versions[model.name], task) for versions in entries] for model in task.models]
    refuse_audited_references(opened, others, len(task.references))
    points = points_of(task)
    files = AnswerFiles(task.folder / "answers", task, points)
    points = check_first_model(opened[0], files, task, points)
    versions = [(model, *others_of_model) for model, others_of_model in zip(opened, others, strict=True)]
    check_outputs([model for models in versions for model in models], files)
    columns = points.columns()
    signals, facts = {}, []
    notes = [*note_on_preprocessing(opened[0], task, points.kind), *points.notes]
    notes += note_on_classes(*points.audited_truth())
    for model, *others_of_model in versions:
        interviews = [files.interview(asked) for asked in (model, *others_of_model)]
        answers = [answers_of(interview, points, row) for row, interview in enumerate(interviews)]
        if model is not opened[0]:
            check_model(model.entry.name, answers[0].logits, points, task)
        arrays = signal_arrays(answers, points, columns, len(task.references))
        sources = [interview.source for interview in interviews]
        signals[model.entry.name] = write_signals(task, model.entry, arrays, sources)
        facts.append(facts_of_model(model, answers[0], points))
        notes += notes_on_answers(model.entry.name, answers, points)
    used = int(points.audit[0].sum()) // 2
    sides = [data_facts(points, side, used, task) for side in (0, 1)]
    return Collected(
        signals, points.names(), points.classes, tuple(facts), *sides, tuple(dict.fromkeys(notes)), asked=True
    )


def refuse_members_for_shadows(task: Task) -> None:
    """UserError where the data for shadow models hold many of the audited model's members."""
    if task.members is None:
        return
    options = {"label_column": task.label_column, "classes": task.classes}
    places = (task.data or task.members, task.shadow_training.data)
    of_audited, of_shadows = (with_digests(read_points(place, **options)) for place in places)
    listed = read_list(task.members, of_audited.points) if task.data else range(len(of_audited.digests))
    members = {of_audited.digests[record] for record in listed}
    shared = np.mean([digest in members for digest in of_shadows.digests])
    if shared > FEW_COPIES:
        raise UserError(
            f"{task.shadow_training.data}: {shared:.0%} of these points are members of the audited model: shadow "
            "models must be trained on other points"
        )


def refuse_audited_references(
    opened: Sequence[OpenModel], others: Sequence[Sequence[OpenModel]], references: int
) -> None:
    """UserError where a reference is an audited model itself, which has seen its own members."""
    audited = {model.weights for model in opened}
    for of_model in others:
        for reference in of_model[len(of_model) - references :]:
            if reference.weights in audited:
                raise UserError(
                    f"{reference.entry.place} is given as a reference, but is one of the audited models: a reference "
                    "is a model that was trained on none of the points"
                )


def check_model(name: str, logits: np.ndarray, points: AuditPoints, task: Task) -> None:
    """UserError where a model is near chance on the audited points, or its classes seem to be in another order."""
    labels, member = points.audited_truth()
    check_accuracy(name, logits[points.audit[0]], labels, member, points.classes, task.accept_low_accuracy)


def notes_on_answers(name: str, answers: Sequence[ModelAnswers], points: AuditPoints) -> list[str]:
    """What people should know of the answers of a model and of its shadow models."""
    notes = []
    if answers[0].company.is_random:
        notes.append(
            f"{name} answers at random: asked twice, it answers differently. Whoever asks often can average; this "
            "audit asked once, so its numbers are too low for such an attacker."
        )
    if "boundary" in answers[0].probes and np.isnan(answers[0].probes["boundary"][:, 1]).all():
        notes.append(f"{name} gives no gradients: how far points lie from its boundary is measured by labels alone.")
    gaps = []
    for row in range(len(points.member)):
        audited = points.audit[row]
        right = answers[row].logits[audited].argmax(axis=1) == points.labels[audited]
        member = points.member[row, audited]
        gaps.append(float(right[member].mean() - right[~member].mean()))
    return notes + note_on_shadows(gaps)


def write_signals(task: Task, entry: ModelEntry, arrays: dict[str, np.ndarray], source: object) -> Path:
    """Write a model's signals file; source: what its answers follow from."""
    file = task.folder / "signals" / f"{entry.name}.npz"
    signals_file.write(file, arrays, {"answers": source})
    return file


class AnswerFiles:
    """The interviews of all models, each with a file of its own; a file that several versions share is asked once."""

    def __init__(self, folder: Path, task: Task, points: AuditPoints) -> None:
        self.folder, self.task, self.points = folder, task, points
        self._interviews: dict[tuple, Interview] = {}

    def interview(self, opened: OpenModel) -> Interview:
        entry = opened.entry
        key = (entry.place, entry.input, entry.output, entry.weights)
        if key not in self._interviews:
            file = self.folder / f"{len(self._interviews)}_{entry.name}.npz"
            self._interviews[key] = Interview(opened, self.task, self.points, file)
        return self._interviews[key]


def check_first_model(original: OpenModel, files: AnswerFiles, task: Task, points: AuditPoints) -> AuditPoints:
    """The points with classes numbered as the model's outputs.

    UserError where model and data do not fit together, or the task's defence of answers hides nothing of the classes.
    """
    name = original.entry.name
    positions, logits = files.interview(original).pilot()
    refuse_useless(task.answers, logits.shape[1])
    class_names = original.model.class_names
    points = with_classes_of_model(points, logits.shape[1], name, class_names, task.classes is not None)
    audited = points.audit[0, positions]
    places = positions[audited]
    member = points.member[0, places]
    accept = task.accept_low_accuracy
    if member.any() and not member.all():
        check_accuracy(name, logits[audited], points.labels[places], member, points.classes, accept)
    return points


def check_outputs(models: Sequence[OpenModel], files: AnswerFiles) -> None:
    """UserError where models answer different numbers of values, as their first answers show."""
    counts = [files.interview(model).pilot()[1].shape[1] for model in models]
    for model, count in zip(models, counts, strict=True):
        if count != counts[0]:
            raise UserError(
                f"{model.entry.place} answers {count} values, {models[0].entry.place} {counts[0]}: all models of an "
                "audit must answer the same classes"
            )


def signal_arrays(
    answers: Sequence[ModelAnswers], points: AuditPoints, columns: np.ndarray, references: int
) -> dict[str, np.ndarray]:
    """The content of a signals file: the audited model, shadow models, then references, which saw no point."""
    unseen = np.zeros((references, len(points.labels)), dtype=bool)
    probes = {name: np.stack([model.probes[name] for model in answers]) for name in answers[0].probes}
    if answers[0].predicted is not None:
        probes["correct"] = np.stack([model.predicted for model in answers]) == points.labels[:, None]
    return {
        **probes,
        "logits": np.stack([model.logits for model in answers]),
        "labels": points.labels,
        "member": np.concatenate([points.member, unseen]),
        "audit": np.concatenate([points.audit, unseen]),
        "points": np.arange(len(points.labels)),
        "group": points.groups(),
        "columns": columns,
    }


def facts_of_model(opened: OpenModel, answers: ModelAnswers, points: AuditPoints) -> ModelFacts:
    audited = points.audit[0]
    measured = accuracy_facts(answers.logits[audited], points.labels[audited], points.member[0, audited])
    return ModelFacts(
        name=opened.entry.name,
        description=opened.model.description,
        files=opened.files,
        bytes=sum(file.bytes for file in opened.files),
        answers=answers.scale.name,
        company=answers.company.in_words,
        runs_code=opened.model.runs_code,
        **measured,
    )


def accuracy_facts(logits: np.ndarray, labels: np.ndarray, member: np.ndarray) -> dict[str, float]:
    """Accuracy and mean loss of audited points, (A, C) and (A,), on members and on others."""
    right = logits.argmax(axis=1) == labels
    losses = cross_entropy(logits, labels)
    return {
        "member_accuracy": float(right[member].mean()),
        "nonmember_accuracy": float(right[~member].mean()),
        "member_loss": float(losses[member].mean()),
        "nonmember_loss": float(losses[~member].mean()),
    }


def data_facts(points: AuditPoints, side: int, used: int, task: Task) -> DataFacts:
    """Of members (side 0) or non-members (side 1)."""
    place = (task.members, task.nonmembers)[side]
    source = points.sources[0 if task.data else side]
    audited = np.flatnonzero(points.audit[0] & (points.member[0] == (side == 0)))
    distinct = len({points.digests[position] for position in audited})
    if task.data:
        count = int((points.member[0] == (side == 0))[points.audit[0] | points.member[0]].sum())
        return DataFacts(f"{task.data}, {place}", source.fingerprint, count, used, points.kind, distinct)
    return DataFacts(str(place), source.fingerprint, len(source.labels), used, points.kind, distinct)


# From answers that are there


class Truth(NamedTuple):
    """What is known of the points that files of answers are about."""

    labels: np.ndarray  # (N,) int64
    member: np.ndarray  # (N,) bool
    names: Sequence[str]  # (N,)
    classes: tuple[str, ...] | None  # None: they have numbers only
    of_data: bool  # labels and membership are those of the task's data


def by_answers(task: Task) -> Collected:
    contents = [read_answers(entry.path) for entry in task.models]
    truth = truth_of_answers(contents[0], task)
    for entry, content in zip(task.models, contents, strict=True):
        check_same_points(entry, content, truth)
    audited = balanced_points(truth.member, task)
    order = np.random.default_rng([task.seed, 6]).permutation(len(truth.labels))  # the file's may go by class
    signals, facts = {}, []
    tables = [logits_of_answers(entry, content, truth) for entry, content in zip(task.models, contents, strict=True)]
    classes = classes_of_answers(truth, [logits.shape[1] for logits, _ in tables], task)
    for entry, (logits, scale) in zip(task.models, tables, strict=True):
        judged = (logits[audited], truth.labels[audited], truth.member[audited])
        check_accuracy(entry.name, *judged, classes, task.accept_low_accuracy)
        arrays = {"logits": logits, "labels": truth.labels, "member": truth.member, "audit": audited}
        arrays = {name: values[order] if name == "labels" else values[order][None] for name, values in arrays.items()}
        signals[entry.name] = write_signals(task, entry, arrays, sha256(entry.path))
        facts.append(facts_of_file(entry, scale, accuracy_facts(*judged)))
    path = task.models[0].path
    used = int(audited.sum()) // 2
    counts = [int(truth.member.sum()), int((~truth.member).sum())]
    sides = [DataFacts(str(path), sha256(path)[:16], count, used, "answers") for count in counts]
    names = [truth.names[place] for place in order]
    notes = tuple(note_on_classes(truth.labels[audited], truth.member[audited]))
    return Collected(signals, names, classes, tuple(facts), *sides, notes)


def logits_of_answers(entry: ModelEntry, content: AnswerFile, truth: Truth) -> tuple[np.ndarray, str]:
    """(N, C) float32 logits, and what the file's answers are. UserError where a label is none of its classes."""
    table = as_table(content.answers, entry.name)
    scale = scale_of(table)
    logits = to_logits(table, scale)
    check_labels(entry, content, truth.labels, logits.shape[1])
    return logits, scale.name


def check_labels(entry: ModelEntry, content: AnswerFile, labels: np.ndarray, classes: int) -> None:
    """UserError where a label is none of a file's classes, with what is likely to mend it."""
    least, most = labels.min(), labels.max()
    if most < classes:
        return
    from_one = content.labels is not None and least == 1 and most == classes
    hint = "store labels - 1" if from_one else "one column a class is needed, that of label 0 first"
    raise UserError(f"{entry.place}: labels run from {least} to {most}, the file has {classes} classes: {hint}")


def classes_of_answers(truth: Truth, outputs: Sequence[int], task: Task) -> tuple[str, ...]:
    """The names of the answers' columns. UserError where files, or the stated classes, differ in their number."""
    for entry, count in zip(task.models, outputs, strict=True):
        if count != outputs[0]:
            raise UserError(f"{entry.place} has {count} classes, {task.models[0].place} has {outputs[0]}")
    if task.classes:
        check_stated_classes(task.classes, outputs[0], task.models[0].place)
    names = truth.classes or ()
    return (*names, *(str(number) for number in range(len(names), outputs[0])))


def truth_of_answers(first: AnswerFile, task: Task) -> Truth:
    """Labels and membership: of the first file, else of the task's data, members first."""
    if first.labels is not None and first.member is not None:
        names = [f"row {number}" for number in range(1, 1 + len(first.labels))]
        return Truth(first.labels, first.member, names, task.classes, of_data=False)
    place = task.models[0].place
    if task.members is None or task.nonmembers is None:
        raise UserError(
            f"{place} lacks labels or member: (N,) classes, and 1 for members, else 0; or name --members and "
            "--nonmembers, in whose order the answers are"
        )
    pair = read_pair(task.members, task.nonmembers, label_column=task.label_column, classes=task.classes)
    member = np.concatenate([np.full(len(points.labels), side == 0) for side, points in enumerate(pair)])
    labels = np.concatenate([points.labels for points in pair])
    return Truth(labels, member, [*pair[0].names, *pair[1].names], pair[0].classes, of_data=True)


def check_same_points(entry: ModelEntry, content: AnswerFile, truth: Truth) -> None:
    """UserError where a file of answers is about other points than the first one, or than the task's data."""
    if len(content.answers) != len(truth.labels):
        raise UserError(f"{entry.place} is about {len(content.answers)} points, not about {len(truth.labels)}")
    for name in ("labels", "member"):
        array = getattr(content, name)
        if array is None or np.array_equal(array, getattr(truth, name)):
            continue
        if truth.of_data:
            raise UserError(NOT_OF_DATA[name].format(place=entry.place))
        raise UserError(f"{entry.place} differs in {name} from the first file: they are not about the same points")


def balanced_points(member: np.ndarray, task: Task) -> np.ndarray:
    """(N,) bool: as many members as others, drawn at random where there are more."""
    kinds = [np.flatnonzero(member), np.flatnonzero(~member)]
    count = equal_count(len(kinds[0]), auditable(len(kinds[1]), task), task.max_points, task.models[0].place)
    say_draw(*map(len, kinds), count)
    rng = np.random.default_rng([task.seed, 1])
    audited = np.zeros(len(member), dtype=bool)
    for kind in kinds:
        audited[rng.permutation(kind)[:count]] = True
    return audited


def facts_of_file(entry: ModelEntry, answers: str, measured: dict[str, float]) -> ModelFacts:
    file = FileFacts(entry.place, sha256(entry.path), entry.path.stat().st_size)
    return ModelFacts(
        name=entry.name,
        description=f"answers in {entry.path.name}",
        files=(file,),
        bytes=file.bytes,
        answers=answers,
        company=NOT_ASKED,
        runs_code=False,
        **measured,
    )


# From signals files, anybody's or those of a run


def by_signals(task: Task) -> Collected:
    return from_signals(task, {entry.name: entry.path for entry in task.models})


def by_run(task: Task) -> Collected:
    places = [entry.place.removeprefix(RUN_PREFIX) for entry in task.models]
    check_names(places)
    device = devices.choose(task.device)
    asked = {name: getattr(task, probe.flag) for name, probe in PROBES.items()}
    asked = {name: amount for name, amount in asked.items() if amount}
    ask = functools.partial(collect, asked=asked, device=device, batch_size=task.batch_size)
    targets = [open_run_variant(task.root, place) for place in places]
    for run, _ in targets:
        refuse_useless(task.answers, run.config["num_cls"])
    files = [ask(run, variant) for run, variant in targets]
    return from_signals(task, {entry.name: file for entry, file in zip(task.models, files, strict=True)})


def from_signals(task: Task, signals: dict[str, Path]) -> Collected:
    records = {name: signals_file.load(file) for name, file in signals.items()}
    first = next(iter(records.values()))
    signals_file.same_points(list(records.values()), [str(file) for file in signals.values()])
    audited = first.audit[0]
    facts = []
    for entry in task.models:
        measured = accuracy_facts(records[entry.name].logits[0, audited], first.labels[audited], first.truth)
        on_disk = ModelEntry(entry.name, str(signals[entry.name]))
        facts.append(facts_of_file(on_disk, "logits", measured))
    names = [f"point {number}" for number in range(len(first.labels))]
    path = next(iter(signals.values()))
    sides = [
        DataFacts(str(path), sha256(path)[:16], int(kind.sum()), int(audited.sum()) // 2, "signals")
        for kind in (first.member[0], audited & ~first.member[0])
    ]
    classes = tuple(str(number) for number in range(first.logits.shape[2]))
    return Collected(signals, names, classes, tuple(facts), *sides)


WAYS = {"asking": by_asking, "a file of answers": by_answers, "a signals file": by_signals, "its run": by_run}
