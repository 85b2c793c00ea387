"""A whole audit of shipped models: collect answers, attack, work the findings out, write the report."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from compleak.audits.attack_stage import attack
from compleak.audits.attackers import Attacker, attacker_of
from compleak.audits.table import TableFiles
from compleak.findings.levels import exceeds
from compleak.findings.rows import key_of
from compleak.findings.shipped import AuditFacts, AuditFindings, audit_findings
from compleak.queries import signals_file
from compleak.reports.audit_report import write_audit_report
from compleak.reports.privbox_page import print_privbox
from compleak.runs.settings import AttackSettings, RunSettings
from compleak.tasks.collect import Collected, collect_signals
from compleak.tasks.privbox_run import run_privbox
from compleak.tasks.task import Task
from core import devices
from core.console import progress, say
from core.errors import UserError
from core.files import read_json, write_atomically, write_json
from core.provenance import provenance
from core.threads import threads_for_stage, threads_in_use, use_threads

SUBJECT = "subject.json"  # what the folder's audit is about


class Target(NamedTuple):
    """One call of the attack stage: a scenario, its signals files, and the folder of its table."""

    scenario: str
    files: tuple[Path, ...]
    folder: Path


class Audit(NamedTuple):
    """A finished audit."""

    facts: AuditFacts
    findings: AuditFindings
    fails: bool  # the overall level lies above the task's limit


def run_audit(task: Task) -> Audit:
    """Carry a task out. UserError where it cannot be done; the report is written when everything else is there."""
    started = time.monotonic()
    refuse_other_audit(task)
    use_threads(threads_for_stage(task.threads))
    if task.privbox:
        run_privbox_attacks(task)
    collected = collect_signals(task)
    write_json(task.folder / SUBJECT, subject_of(task))
    first_file = next(iter(collected.signals.values()))
    first = signals_file.load(first_file)
    attacker = attacker_of(task.attacker, {first_file: first})
    targets = list(targets_of(task, collected))
    tables = [
        attack(settings_of(task, target, attacker.name), announce=target is targets[0])
        for target in progress(targets, "attacking")
    ]
    table = joined(targets, tables)
    write_joined_tables(task.folder, table)
    facts = facts_of(task, collected, attacker, targets, time.monotonic() - started)
    audited = np.flatnonzero(first.audit[0])
    names = [collected.names[place] for place in audited]
    scores = Scores(targets)
    subject = (first.truth, first.labels[audited], names, scores.halves())
    findings = audit_findings(facts, table, scores, *subject)
    write_audit_report(task.folder, facts, findings)
    fails = task.fail_above is not None and exceeds(findings.overall.level, task.fail_above)
    return Audit(facts, findings, fails)


def refuse_other_audit(task: Task) -> None:
    """UserError where the folder holds an audit of other models or data, which this one would overwrite."""
    file = task.folder / SUBJECT
    if file.exists() and read_json(file) != subject_of(task):
        raise UserError(
            f"{task.folder} holds the audit of other models, data or answers: choose another --name or --out, or "
            "delete it"
        )


def subject_of(task: Task) -> dict:
    """What is audited: models and data by their places, and what is done to answers."""
    subject = {
        "models": {entry.name: os.path.abspath(entry.place) for entry in task.models},
        "data": [str(place and os.path.abspath(place)) for place in (task.members, task.nonmembers, task.data)],
    }
    return subject | {"answers": str(task.answers), "adaptive": task.answers.adaptive} if task.answers.name else subject


def run_privbox_attacks(task: Task) -> None:
    """PrivBox's own attacks with PrivBox's own numbers; privbox.md lies beside the report."""
    device = devices.choose(task.device)
    options = {"seed": task.seed, "device": device, "threads": threads_in_use()}
    print_privbox(run_privbox(task.privbox, task.folder, task_file=task.privbox_file, **options))


def targets_of(task: Task, collected: Collected) -> Iterator[Target]:
    """NR for each model; SR for each compressed model with the original; MR for all."""
    original, *compressed = collected.signals
    files = collected.signals
    for name, file in files.items():
        yield Target("NR", (file,), task.folder / name)
    for name in compressed:
        yield Target("SR", (files[original], files[name]), task.folder / name)
    if compressed:
        yield Target("MR", tuple(files.values()), task.folder)


def settings_of(task: Task, target: Target, attacker: str) -> AttackSettings:
    return AttackSettings(
        run=RunSettings(root=task.root),
        device=task.device,
        threads=task.threads,
        scenario=target.scenario,
        files=target.files,
        attacks=task.attacks.get(target.scenario),
        attacker=attacker,
        out=target.folder,
        seed=task.seed,
        recipe=task.recipe,
        again=task.again,
    )


def joined(targets: list[Target], tables: list[pd.DataFrame]) -> pd.DataFrame:
    """All rows; in NR and SR the variant is the model's name, which is the folder's."""
    named = [
        table.assign(variant=target.folder.name) if target.scenario != "MR" else table
        for target, table in zip(targets, tables, strict=True)
    ]
    return pd.concat(named, ignore_index=True)


def write_joined_tables(folder: Path, table: pd.DataFrame) -> None:
    """NR.csv and SR.csv of all models, beside MR.csv, which the attack stage has written there."""
    for scenario in ("NR", "SR"):
        rows = table[table["scenario"] == scenario]
        if len(rows):
            write_atomically(folder / f"{scenario}.csv", lambda part, rows=rows: rows.to_csv(part, index=False))


class Scores:
    """The scores (A,) behind a row of the joined table, read from the file beside the row's own table."""

    def __init__(self, targets: list[Target]) -> None:
        self.files = {
            (target.scenario, target.folder.name if target.scenario != "MR" else "all"): TableFiles(
                target.folder, target.scenario
            ).scores
            for target in targets
        }

    def halves(self) -> np.ndarray | None:
        """(A,) which fit judged each point, where there are two."""
        with np.load(next(iter(self.files.values())), allow_pickle=False) as scores:
            return scores.get("half")

    def __call__(self, row: pd.Series) -> np.ndarray:
        with np.load(self.files[row["scenario"], row["variant"]], allow_pickle=False) as scores:
            return scores[key_of(row)]


def facts_of(
    task: Task,
    collected: Collected,
    attacker: Attacker,
    targets: Sequence[Target],
    seconds: float,
) -> AuditFacts:
    has = [attacker.describe()]
    return AuditFacts(
        name=task.name,
        command=task.command,
        models=collected.models,
        members=collected.members,
        nonmembers=collected.nonmembers,
        classes=collected.classes,
        release=dict(task.release),
        attacker=attacker.name,
        attacker_has=tuple(has),
        questions_per_point=task.questions_per_point,
        not_run=tuple(attacks_not_run(targets)),
        notes=collected.notes,
        provenance=provenance(devices.choose(task.device)),
        seed=task.seed,
        seconds=seconds,
        redact=task.redact,
        asked=collected.asked,
    )


def attacks_not_run(targets: Sequence[Target]) -> Iterator[tuple[str, str]]:
    """Each attack that some target was spared, with the reason, once for a scenario."""
    reasons: dict[str, str] = {}
    for target in targets:
        for key, reason in read_json(TableFiles(target.folder, target.scenario).record)["left_out"].items():
            reasons.setdefault(f"{target.scenario} {key}", reason)
    yield from reasons.items()


def say_result(task: Task, audit: Audit) -> None:
    """The end of an audit on the terminal: a line for each target, then where the report lies."""
    for verdict in audit.findings.verdicts:
        say(f"{verdict.scenario} {verdict.variant}: {verdict.level} ({verdict.reason})")
    for control in audit.findings.failed_controls:
        say(f"control {control} FAILED: the numbers may not be about memory; see Controls in the report")
    say(f"overall: {audit.findings.overall.level}; {task.folder / 'report.html'}")
    if audit.fails:
        say(f"failed: the level is not shown to be {task.fail_above} or better (--fail_above {task.fail_above})")
