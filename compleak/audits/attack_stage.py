"""The attack stage: signals in, one table of attacks with intervals and controls out, the same for NR, SR and MR."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

import attacks
from compleak.audits.attackers import Attacker, as_known, attacker_of, halves_of, parts_of
from compleak.audits.attackers_split_ai import with_split_ai
from compleak.audits.columns import with_columns
from compleak.audits.controls import blind_control, in_members_call, reference_control
from compleak.audits.first_stage import pair_files
from compleak.audits.job import Job
from compleak.audits.table import TableFiles, UnfinishedTable, control_names, measured_row
from compleak.audits.target import Target, check_out, target_of
from compleak.audits.usable import copies_in_words, with_references, without_copies
from compleak.audits.verdicts import number_of_part
from compleak.queries import signals_file
from compleak.queries.probes import PROBES
from compleak.runs.run import Run, defence_in_words
from compleak.runs.settings import AttackSettings
from core import devices
from core.console import say
from core.files import sha256
from core.provenance import provenance
from core.threads import threads_for_stage, use_threads
from data import inputs
from data.splits import DEFAULT_SEED, ONLINE
from defenses import selena

START = "Start Membership Inference Attacks"  # the line that the authors' artifact prints


def attack(settings: AttackSettings, announce: bool = True) -> pd.DataFrame:
    """Run a scenario's attacks on its target, and write the table and the scores; returns the table of PROTOCOL §7.

    Models of a run that have not been asked are asked first. Nothing is attacked where a table of the same signals,
    settings and code is there, unless the settings say again. announce: print that attacks begin, and who attacks.
    """
    if settings.out:
        check_out(settings.out)
    device = devices.choose(settings.device)
    use_threads(threads_for_stage(settings.threads))
    target = target_of(settings, device)
    if is_online(target) and settings.scenario == "NR" and settings.attacks is None:
        settings = replace(settings, upper_bound=True)
    records = {path: signals_file.load(path) for path in target.files}
    signals_file.same_points(list(records.values()), [str(path) for path in records])
    attacker = attacker_of(settings.attacker, records)
    made_from = made_from_of(settings, target, attacker)
    files = TableFiles(target.out, settings.scenario)
    if not settings.again and files.hold(made_from):
        say(f"{settings.scenario}: done before, {files.table}; --again makes it anew")
        return files.read()

    if announce:
        say_who_attacks(settings, target, attacker)
    return make_table(settings, target, attacker, records, made_from, device)


def say_who_attacks(settings: AttackSettings, target: Target, attacker: Attacker) -> None:
    """Print that attacks begin, which defence stands against them, and what the attacker knows."""
    say(START)
    if target.run and target.run.defence.name:
        say(f"{target.run.name}: {defence_in_words(target.run)}")
    if settings.answers.name:
        whose = "all models" if settings.answers.adaptive else "the victim"
        say(f"answers of {whose} defended by {settings.answers}")
    say(attacker.describe())


def make_table(
    settings: AttackSettings,
    target: Target,
    attacker: Attacker,
    records: dict[Path, signals_file.Record],
    made_from: dict,
    device: torch.device,
) -> pd.DataFrame:
    """Run the attacks on what the files of the target hold, and write the table and the scores; returns the table."""
    records = with_columns(records, target.run, chosen_attacks(settings))
    usable = without_copies(with_references(as_known(attacker, records)), made_from["seed"])
    if warning := copies_in_words(next(iter(usable.values()))):
        say(warning)
    unfinished = UnfinishedTable(target.out, settings.scenario, made_from)
    whole_audit = next(iter(records.values())).audit
    attacked = attack_jobs(settings, target, attacker, usable, whole_audit, made_from, device, unfinished)
    table = pd.DataFrame(attacked.rows)
    facts = {"made_from": made_from, "left_out": attacked.left_out, **provenance(device)}
    arrays = [in_file_order(values, records, usable) for values in (attacked.scores, attacked.p_values)]
    TableFiles(target.out, settings.scenario).write(table, *arrays, facts)
    unfinished.remove()
    return table


def is_online(target: Target) -> bool:
    """Whether the target is a run whose shadow models were trained on the victim's points, too."""
    return target.run is not None and target.run.config["layout"] == ONLINE


class Attacked(NamedTuple):
    """What the attacks on all targets of a table gave."""

    rows: list[dict]
    scores: dict[str, np.ndarray]  # (A,) each
    p_values: dict[str, np.ndarray]  # (A,) of each block's headline, by the block's name
    left_out: dict[str, str]  # attacks that could not run on some target, by key, with the reason


def in_file_order(scores: dict[str, np.ndarray], records: dict, usable: dict) -> dict[str, np.ndarray]:
    """Arrays over all audit points of the victim, in file order, NaN on those that were left out."""
    path = next(iter(records))
    audited, attacked = records[path].audit[0], usable[path].audit[0]
    if np.array_equal(audited, attacked):
        return scores
    place = attacked[audited]
    whole = {key: np.full(len(place), np.nan) for key in scores}
    for key, values in scores.items():
        whole[key][place] = values
    return whole


def made_from_of(settings: AttackSettings, target: Target, attacker: Attacker) -> dict:
    """All that the numbers of a table follow from: signals, attacker, settings, and the code of attacks and audits."""
    digests = {None: None, **{path: sha256(path) for path in target.files}}
    made_from = {
        "signals": {name: [digests[path] for path in files] for name, files in target.jobs.items()},
        "attacker": attacker.name,
        "seed": seed_of(settings, target),
        "recipe": settings.recipe,
        "code": code_hash(),
    }
    if settings.answers.name:
        made_from["answers"] = [str(settings.answers), settings.answers.adaptive]
    if chosen_attacks(settings) != attacks.USUAL[settings.scenario]:
        made_from["attacks"] = list(dict.fromkeys(row.name for row in chosen_attacks(settings)))
    return made_from


def seed_of(settings: AttackSettings, target: Target) -> int:
    if settings.seed is not None:
        return settings.seed
    return target.run.config["seed"] if target.run else DEFAULT_SEED


def code_hash() -> str:
    """A short hash of the code of all attacks, of metrics and this stage, and of three modules that they read.

    Those say what the blind control looks at, what an attacker knows, and how an attacker's own Split-AI is trained.
    """
    digest = hashlib.sha256()
    files = [Path(module.__file__) for module in (inputs, signals_file, selena)]
    for folder in (Path(attacks.__file__).parent, Path(__file__).parent):
        files += sorted(folder.rglob("*.py"))
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def chosen_attacks(settings: AttackSettings) -> tuple[attacks.Attack, ...]:
    """The rows of the table: the usual ones, or all that go by the names asked for; and the upper bound, if wanted."""
    further = (attacks.UPPER_BOUND,) if settings.upper_bound else ()
    if settings.attacks is None:
        return (*attacks.USUAL[settings.scenario], *further)
    return (*(row for row in attacks.KNOWN[settings.scenario] if row.name in settings.attacks), *further)


def needs_extra_answers(attack: attacks.Attack) -> bool:
    """Whether the attack reads a probe that is asked only on request.

    Where it was not asked, no line says that the attack is left out, unless the attack was named.
    """
    return any(probe in PROBES and not PROBES[probe].is_usual for probe in attack.probes)


def attack_jobs(
    settings: AttackSettings,
    target: Target,
    attacker: Attacker,
    records: dict[Path, signals_file.Record],
    whole_audit: np.ndarray,
    made_from: dict,
    device,
    unfinished: UnfinishedTable,
) -> Attacked:
    """The rows of all jobs, then of the controls that a table has once, and the scores (A,) behind them.

    whole_audit: (R, N) bool, the audit sets as the files have them; the records may leave points out. Scores go by
    `attack` or `attack/classifier`. Those of the second job and all after it begin with `<job>/`. Of an attacker who
    knows half of the points, `half` says which fit judged each point.
    """
    chosen = chosen_attacks(settings)
    seed, code = made_from["seed"], made_from["code"]
    records, refused_probes = with_split_ai(records, target.run, attacker, chosen, seed, device)
    file, record = next(iter(records.items()))
    truth = record.truth
    in_call = in_members_call(record, whole_audit)
    halves = halves_of(attacker, record, seed)
    first_stage_folder = None if target.run else settings.out
    options = {"seed": seed, "recipe": settings.recipe, "device": device}
    quiet_keys = set() if settings.attacks else {row.key for row in chosen if needs_extra_answers(row)}
    rows, scores, p_values, left_out = [], {}, {}, {}
    for name, files in target.jobs.items():
        parts = parts_of(attacker, halves, [records[path] if path else None for path in files], whole_audit)
        hashes = made_from["signals"][name]
        pairs = [pair_files(files, hashes, seed, code, first_stage_folder, part.name) for part in parts]
        job = Job(
            settings.scenario,
            name,
            parts,
            pairs,
            truth,
            in_call,
            options,
            attacker.needs,
            unfinished,
            quiet_keys,
            refused_probes,
        )
        job_rows, job_scores = job.run(chosen)
        prefix = f"{name}/" if rows else ""
        scores |= {prefix + key: values for key, values in job_scores.items()}
        rows += job_rows
        left_out |= job.left_out
        if job.p_values is not None:
            p_values[name] = job.p_values
    judged_by = number_of_part(parts)
    if judged_by is not None:
        scores["half"] = judged_by.astype(np.float64)
    for control, of_points in control_scores(target.run, file, record, seed, code).items():
        names = control_names(settings.scenario, next(iter(target.jobs)), control)
        rows.append(control_row(names, of_points, truth, seed))
        scores[control] = of_points
    return Attacked(rows, scores, p_values, left_out)


def control_scores(
    run: Run | None, file: Path, record: signals_file.Record, seed: int, code: str
) -> dict[str, np.ndarray]:
    """The scores (A,) of each control that a table has once and that can run, by its name."""
    scores = {"blind": blind_control(run, file, record, seed, code), "references": reference_control(run, record)}
    return {name: of_points for name, of_points in scores.items() if of_points is not None}


def control_row(names: dict, scores: np.ndarray, truth: np.ndarray, seed: int) -> dict:
    """The row of a control, measured where its scores (A,) are not NaN. A score is a log-odds: from 0 on it accuses."""
    judged = ~np.isnan(scores)
    row = measured_row(names, scores[judged], scores[judged] >= 0, truth[judged], seed=seed, seconds=0.0)
    return row | {"headline": False, "needs": "", "chosen": ""}
