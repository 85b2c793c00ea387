"""The attack stage: signals in, one table of attacks with intervals and controls out, the same for NR, SR and MR."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import attacks
from compleak.audits import metrics
from compleak.audits.controls import blind_control, null_control
from compleak.audits.first_stage import FIRST_STAGE_ROW, PairFile, first_stage, keep_first_stage, pair_files
from compleak.audits.table import TableFiles, UnfinishedTable, control_names, measured_row, names_of
from compleak.audits.target import Target, check_out, target_of
from compleak.audits.usable import check_shadow_models, with_references
from compleak.queries import signals_file
from compleak.runs.run import defence_in_words
from compleak.runs.settings import AttackSettings
from core import devices
from core.console import progress, say
from core.errors import UserError
from core.files import sha256
from core.provenance import provenance
from core.threads import threads_for_stage, use_threads
from data import inputs
from data.splits import DEFAULT_SEED

START = "Start Membership Inference Attacks"  # the line that the authors' artifact prints


def attack(settings: AttackSettings) -> pd.DataFrame:
    """Run a scenario's attacks on its target, and write the table and the scores; returns the table of PROTOCOL §7.

    Nothing is attacked where a table of the same signals, settings and code is there, unless the settings say again.
    """
    if settings.out:
        check_out(settings.out)
    device = devices.choose(settings.device)
    use_threads(threads_for_stage(settings.threads))
    target = target_of(settings, device)
    records = {path: signals_file.load(path) for files in target.jobs.values() for path in files if path}
    signals_file.same_points(list(records.values()), [str(path) for path in records])
    check_shadow_models(records)
    made_from = made_from_of(settings, target)
    files = TableFiles(target.out, settings.scenario)
    if not settings.again and files.hold(made_from):
        say(f"{settings.scenario}: done before, {files.table}; --again makes it anew")
        return files.read()

    say(START)
    if target.run and target.run.defence.name:
        say(f"{target.run.name}: {defence_in_words(target.run)}")
    usable = with_references(records)
    unfinished = UnfinishedTable(target.out, settings.scenario, made_from)
    rows, scores = attack_jobs(settings, target, usable, made_from, device, unfinished)
    table = pd.DataFrame(rows)
    files.write(table, in_file_order(scores, records, usable), {"made_from": made_from, **provenance(device)})
    unfinished.remove()
    return table


def in_file_order(scores: dict[str, np.ndarray], records: dict, usable: dict) -> dict[str, np.ndarray]:
    """Scores over all audit points of the victim, in file order, NaN on those that were left out."""
    path = next(iter(records))
    audited, kept = records[path].audit[0], usable[path].audit[0]
    if np.array_equal(audited, kept):
        return scores
    place = kept[audited]
    whole = {key: np.full(len(place), np.nan) for key in scores}
    for key, values in scores.items():
        whole[key][place] = values
    return whole


def made_from_of(settings: AttackSettings, target: Target) -> dict:
    """All that the numbers of a table follow from: signals, settings, and the code of attacks and audits."""
    hashes = {name: [sha256(path) if path else None for path in files] for name, files in target.jobs.items()}
    made_from = {"signals": hashes, "seed": seed_of(settings, target), "recipe": settings.recipe, "code": code_hash()}
    if chosen_attacks(settings) != attacks.USUAL[settings.scenario]:
        made_from["attacks"] = list(settings.attacks)
    return made_from


def seed_of(settings: AttackSettings, target: Target) -> int:
    if settings.seed is not None:
        return settings.seed
    return target.run.config["seed"] if target.run else DEFAULT_SEED


def code_hash() -> str:
    """A short hash of the code of all attacks, of metrics and this stage, and of what the blind control looks at."""
    digest = hashlib.sha256()
    files = [Path(inputs.__file__)]
    for folder in (Path(attacks.__file__).parent, Path(__file__).parent):
        files += sorted(folder.rglob("*.py"))
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def chosen_attacks(settings: AttackSettings) -> tuple[attacks.Attack, ...]:
    """The rows of the table: the usual ones, or all that go by the names asked for."""
    if settings.attacks is None:
        return attacks.USUAL[settings.scenario]
    return tuple(row for row in attacks.KNOWN[settings.scenario] if row.name in settings.attacks)


def attack_jobs(
    settings: AttackSettings, target: Target, records: dict, made_from: dict, device, unfinished: UnfinishedTable
) -> tuple[list[dict], dict[str, np.ndarray]]:
    """The rows of all jobs and of the blind control, and the scores (A,) behind them.

    Scores go by `attack` or `attack/classifier`. Those of the second job and all after it begin with `<job>/`.
    """
    truth = next(iter(records.values())).truth
    seed, code = made_from["seed"], made_from["code"]
    first_stage_folder = None if target.run else settings.out
    options = {"seed": seed, "recipe": settings.recipe, "device": device}
    rows, scores = [], {}
    for name, files in target.jobs.items():
        views = [signals_file.attacker_view(records[path]) if path else None for path in files]
        pairs = pair_files(files, made_from["signals"][name], seed, code, first_stage_folder)
        job = Job(settings.scenario, name, views, pairs, truth, options, unfinished)
        job_rows, job_scores = job.run(chosen_attacks(settings))
        prefix = f"{name}/" if rows else ""
        scores |= {prefix + key: values for key, values in job_scores.items()}
        rows += job_rows
    file, record = next(iter(records.items()))
    blind = blind_control(target.run, file, record, seed, code)
    if blind is not None:
        names = control_names(settings.scenario, next(iter(target.jobs)), "blind")
        judged = ~np.isnan(blind)
        row = measured_row(names, blind[judged], blind[judged] >= 0, truth[judged], seed=seed, seconds=0.0)
        rows.append(row | {"headline": False, "needs": ""})
        scores["blind"] = blind
    return rows, scores


class Job:
    """The attacks on one target: one block of a table.

    views: what the attacker knows of each model, None in the original's place where the attacker does not have it;
    pairs: MR's first stages; truth: (A,) bool, the victim's membership, which the metrics alone read.
    """

    def __init__(
        self,
        scenario: str,
        name: str,
        views: list,
        pairs: list[PairFile],
        truth: np.ndarray,
        options: dict,
        unfinished: UnfinishedTable,
    ) -> None:
        self.scenario, self.name = scenario, name
        self.views, self.pairs, self.truth = views, pairs, truth
        self.options, self.unfinished = options, unfinished
        self.shadow_truth = shadow_membership(views)
        self.knowledge = knowledge_of_shadows(views)

    def run(self, chosen: Sequence[attacks.Attack]) -> tuple[list[dict], dict[str, np.ndarray]]:
        """The rows of all attacks that can run and of the null control, and their scores (A,) by key.

        UserError where none can.
        """
        results: dict[str, attacks.Result] = {}
        rows = []
        for attack in chosen:
            result, seconds = self.timed_result_of(attack, results)
            if result is not None:
                results[attack.key] = result
                rows.append(self.row_of(attack, result, seconds) | {"needs": attacks.needs(attack, self.knowledge)})
        if not rows:
            raise UserError(f"no attack of {self.scenario} can run on these signals")
        best = headline_of(rows)
        for number, row in enumerate(rows):
            row["headline"] = number == best
        # Every row carries its own null as well; this one is the headline's, or the first row's where there is none.
        controlled = results[list(results)[best or 0]]
        rows.append(self.null_row(controlled) | {"headline": False, "needs": ""})
        scores = {key: result.scores for key, result in results.items()}
        return rows, {**scores, "null": np.where(self.truth, np.nan, controlled.scores)}

    def timed_result_of(self, attack: attacks.Attack, earlier: dict) -> tuple[attacks.Result | None, float]:
        """One attack's result and its seconds: those that a killed run of the same table left, or new ones."""
        file = self.unfinished.file(self.name, attack.key)
        if kept := self.unfinished.read(file):
            return kept
        started = time.monotonic()
        result = self.result_of(attack, earlier)
        seconds = time.monotonic() - started
        if result is not None:
            self.unfinished.keep(file, result, seconds)
        return result, seconds

    def result_of(self, attack: attacks.Attack, earlier: dict[str, attacks.Result]) -> attacks.Result | None:
        """One attack's result. An attack that cannot run on these signals is named and left out: None."""
        if lacks := attacks.missing(attack, self.views):
            reason = f"these signals hold no {' and no '.join(lacks)}"
            say(f"{self.scenario} {self.name}: {attack.key} left out, {reason}")
            return None
        options = {**self.options, "earlier": earlier, "progress": lambda epochs: progress(epochs, attack.key)}
        try:
            if attack.name == "MR":
                options["memberships"] = self.first_stages()
            result = attack.run(self.views, **options)
        except attacks.Unusable as error:
            say(f"{self.scenario} {self.name}: {attack.key} left out, {error}")
            return None
        except (MemoryError, torch.OutOfMemoryError):
            say(f"{self.scenario} {self.name}: {attack.key} left out, it needs more memory than there is")
            return None
        if attack.key == FIRST_STAGE_ROW:
            keep_first_stage(self.pairs[0], attacks.Membership(result.shadow_scores, result.scores))
        return result

    def first_stages(self) -> list[attacks.Membership]:
        """SR's answer on the original and each compressed model, which MR starts from."""
        original, *compressed = self.views
        pairs = progress(list(zip(compressed, self.pairs, strict=True)), "SR of each compressed model")
        return [first_stage(original, view, pair, self.options["seed"]) for view, pair in pairs]

    def row_of(self, attack: attacks.Attack, result: attacks.Result, seconds: float) -> dict:
        """The attack's row: how it does on the victim, on non-members alone, and on the shadow models."""
        names = names_of(self.scenario, self.name, attack)
        seed = self.options["seed"]
        row = measured_row(names, result.scores, result.decision, self.truth, seed=seed, seconds=seconds)
        null = self.null_row(result)
        row |= {f"null_{key}": null[key] for key in ("auc", "auc_lo", "auc_hi")}
        # The strict threshold gives 0.1 % false alarms on the shadow models; the columns say whom it accuses.
        strict = metrics.strict_threshold(result.shadow_scores, self.shadow_truth)
        row |= metrics.accusations(result.scores >= strict, self.truth)
        quality = metrics.log_auc(result.shadow_scores, self.shadow_truth) if attack.eligible else np.nan
        return row | {"shadow_log_auc": quality}

    def null_row(self, result: attacks.Result) -> dict:
        """The null control of one result."""
        scores, decision, first_half = null_control(result.scores, result.decision, self.truth)
        names = control_names(self.scenario, self.name, "null")
        return measured_row(names, scores, decision, first_half, seed=self.options["seed"], seconds=0.0)


def shadow_membership(views: Sequence[attacks.Signals | None]) -> np.ndarray:
    """(M,) of 0/1: the truth behind attacks' `shadow_scores`."""
    view = next(view for view in views if view is not None)
    return view.member[attacks.audit_rows(view)[0]]


def knowledge_of_shadows(views: Sequence[attacks.Signals | None]) -> str:
    """The models whose members the attacker knows, in words: `1 shadow model`, `8 shadow models`."""
    view = next(view for view in views if view is not None)
    count = int(view.audit[1:].any(axis=1).sum())
    return f"{count} shadow model{'s' * (count > 1)}"


def headline_of(rows: Sequence[dict]) -> int | None:
    """The row of the attack that an attacker deploys: the best on the shadow models; None where none is eligible."""
    worth = [row["shadow_log_auc"] for row in rows]
    return None if np.isnan(worth).all() else int(np.nanargmax(worth))
