"""All attacks on one target, fitted once, or once for each half of the points: one block of a table."""

import time
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial

import numpy as np
import torch

import attacks
from compleak.audits import metrics
from compleak.audits.accused import p_values_of
from compleak.audits.attackers import Part
from compleak.audits.chosen import choose
from compleak.audits.controls import null_control
from compleak.audits.first_stage import FIRST_STAGE_ROW, PairFile, first_stage, keep_first_stage
from compleak.audits.table import CHOSEN, UnfinishedTable, control_names, measured_row, names_of
from compleak.audits.verdicts import Verdicts, join_results
from compleak.queries.probes import PROBES
from core.console import progress, say
from core.errors import UserError

FEWEST_SCORED = 2  # members, and as many non-members, that an attack must score to be measured

Rows = dict[str, dict]  # by the attack's key
Results = dict[str, list[attacks.Result]]  # by the attack's key, one for each part


class Job:
    """The attacks on one target.

    parts: the fits, and the points that each of them judges; pairs: for each part the files of MR's first stages;
    truth: (A,) bool, the victim's membership, which no attack sees; in_call: (A,) bool, of `in_members_call`; needs:
    what the attacker of an attack had to have, in words; quiet_keys: keys of attacks that are left out without a line
    on the terminal where the signals lack what the attacks read; refused_probes: why a probe could not be had, by its
    name.
    """

    def __init__(
        self,
        scenario: str,
        name: str,
        parts: Sequence[Part],
        pairs: Sequence[list[PairFile]],
        truth: np.ndarray,
        in_call: np.ndarray,
        options: dict,
        needs: Callable[[attacks.Attack], str],
        unfinished: UnfinishedTable,
        quiet_keys: Set[str],
        refused_probes: Mapping[str, str],
    ) -> None:
        self.scenario, self.name = scenario, name
        self.parts, self.truth, self.in_call = parts, truth, in_call
        self.pairs = {part.name: files for part, files in zip(parts, pairs, strict=True)}
        self.options, self.needs, self.unfinished = options, needs, unfinished
        self.quiet_keys, self.refused_probes = quiet_keys, refused_probes
        self.left_out: dict[str, str] = {}  # attacks that could not run, by key, with the reason
        self.keys_lacking_input: set[str] = set()  # keys of those whose probes these signals lack
        self.p_values: np.ndarray | None = None  # (A,) of the headline, once it is known; None where it has none

    def run(self, chosen: Sequence[attacks.Attack]) -> tuple[list[dict], dict[str, np.ndarray]]:
        """The rows of all attacks that can run and of the null control, and their scores (A,) by key.

        UserError where none can.
        """
        rows: Rows = {}
        results: Results = {}
        shadow_log_aucs = {}
        for attack in chosen:
            of_parts, seconds = self.timed_results_of(attack, results)
            if of_parts is not None:
                results[attack.key] = of_parts
                shadow_log_aucs[attack.key] = self.shadow_log_aucs_of(attack, of_parts)
                rows[attack.key] = self.row_of_attack(attack, of_parts, shadow_log_aucs[attack.key], seconds)
        self.say_what_is_left_out()
        if not rows:
            raise UserError(f"no attack of {self.scenario} can run on these signals")
        verdicts = {key: join_results(self.parts, of_parts) for key, of_parts in results.items()}
        choices = choose(shadow_log_aucs, partial(self.error_of_lead, results))
        headline = self.choose_headline(choices, rows, results, verdicts, shadow_log_aucs) if choices else None
        self.p_values = self.p_values_of_choices(choices, results, shadow_log_aucs)
        for key, row in rows.items():
            row["headline"] = key == headline
        # Every row carries its own null as well; this one is the headline's, or the first row's where there is none.
        controlled = verdicts[headline or next(iter(verdicts))]
        null = self.null_row(controlled) | {"headline": False, "needs": "", "chosen": ""}
        scores = {key: verdict.scores for key, verdict in verdicts.items()}
        return [*rows.values(), null], {**scores, "null": np.where(self.truth, np.nan, controlled.scores)}

    def choose_headline(
        self, choices: list[str], rows: Rows, results: Results, verdicts: dict[str, Verdicts], shadow_log_aucs: dict
    ) -> str:
        """The key of the headline.

        choices: the attack that each part deploys. Where the parts differ, a row and verdicts are added for both.
        """
        if len(set(choices)) == 1:
            return choices[0]
        of_parts = [results[key][number] for number, key in enumerate(choices)]
        verdicts[CHOSEN] = join_results(self.parts, of_parts)
        names = control_names(self.scenario, self.name, CHOSEN)
        rows[CHOSEN] = self.row_of(names, verdicts[CHOSEN], seconds=0.0)
        of_choices = [shadow_log_aucs[key][number] for number, key in enumerate(choices)]
        rows[CHOSEN]["shadow_log_auc"] = float(np.mean(of_choices))
        rows[CHOSEN]["needs"] = " | ".join(dict.fromkeys(rows[key]["needs"] for key in choices))
        rows[CHOSEN]["chosen"] = " | ".join(choices)
        return CHOSEN

    def p_values_of_choices(
        self, choices: list[str] | None, results: Results, shadow_log_aucs: dict
    ) -> np.ndarray | None:
        """The headline's p-values (A,); None without a headline, or where it was fitted on its known points."""
        if choices is None or any(np.isnan(shadow_log_aucs[key][number]) for number, key in enumerate(choices)):
            return None
        return p_values_of(self.parts, [results[key][number] for number, key in enumerate(choices)])

    def timed_results_of(self, attack: attacks.Attack, earlier: Results) -> tuple[list[attacks.Result] | None, float]:
        """One attack's results, one for each part, and the seconds of all.

        None where a part has no result, or where the attack scored too few points to be measured.
        """
        results = []
        seconds = 0.0
        for number, part in enumerate(self.parts):
            earlier_of_part = {key: of_parts[number] for key, of_parts in earlier.items()}
            result, seconds_of_part = self.timed_result_of(attack, part, earlier_of_part)
            if result is None:
                return None, seconds
            results.append(result)
            seconds += seconds_of_part
        if not self.can_be_measured(results):
            self.left_out[attack.key] = too_few_points(attack)
            return None, seconds
        return results, seconds

    def can_be_measured(self, results: Sequence[attacks.Result]) -> bool:
        """Whether an attack scored enough points for intervals and for the null control.

        The interval of each part needs a member and a non-member. The null control compares one half of all scored
        non-members with the other.
        """
        counts = np.array([self.count_scored(*pair) for pair in zip(self.parts, results, strict=True)])  # (parts, 2)
        return bool((counts >= 1).all() and (counts.sum(axis=0) >= FEWEST_SCORED).all())

    def count_scored(self, part: Part, result: attacks.Result) -> tuple[int, int]:
        """How many members and how many non-members the attack scored among the points that a part judges."""
        member = self.truth[part.judged]
        is_scored = ~np.isnan(result.scores)
        return int((is_scored & member).sum()), int((is_scored & ~member).sum())

    def timed_result_of(
        self, attack: attacks.Attack, part: Part, earlier: dict[str, attacks.Result]
    ) -> tuple[attacks.Result | None, float]:
        """One attack's result and its seconds: those that a killed run of the same table left, or new ones."""
        file = self.unfinished.file("_".join(filter(None, (self.name, part.name))), attack.key)
        if kept := self.unfinished.read(file):
            return kept
        started = time.monotonic()
        result = self.result_of(attack, part, earlier)
        seconds = time.monotonic() - started
        if result is not None:
            self.unfinished.keep(file, result, seconds)
        return result, seconds

    def result_of(
        self, attack: attacks.Attack, part: Part, earlier: dict[str, attacks.Result]
    ) -> attacks.Result | None:
        """One attack's result; None where it cannot run on these signals, which `left_out` then says."""
        if refused := sorted(attack.probes & self.refused_probes.keys()):
            self.left_out[attack.key] = self.refused_probes[refused[0]]
            return None
        if lacks := attacks.missing(attack, part.views):
            self.keys_lacking_input.add(attack.key)
            self.left_out[attack.key] = lack_in_words(lacks)
            return None
        options = {**self.options, "earlier": earlier, "progress": lambda epochs: progress(epochs, attack.key)}
        try:
            if attack.name == "MR":
                options["memberships"] = self.first_stages(part)
            result = attack.run(part.views, **options)
        except attacks.Unusable as error:
            self.left_out[attack.key] = str(error)
            return None
        except (MemoryError, torch.OutOfMemoryError):
            self.left_out[attack.key] = "it needs more memory than there is"
            return None
        if attack.key == FIRST_STAGE_ROW:
            keep_first_stage(self.pairs[part.name][0], attacks.Membership(result.shadow_scores, result.scores))
        return result

    def say_what_is_left_out(self) -> None:
        """One line for each reason."""
        keys_of: dict[str, list[str]] = {}
        for key, reason in self.left_out.items():
            if key not in self.quiet_keys & self.keys_lacking_input:
                keys_of.setdefault(reason, []).append(key)
        for reason, keys in keys_of.items():
            say(f"{self.scenario} {self.name}: left out {', '.join(keys)}: {reason}")

    def first_stages(self, part: Part) -> list[attacks.Membership]:
        """The membership probabilities of each compressed model that MR starts from."""
        original, *compressed = part.views
        pairs = list(zip(compressed, self.pairs[part.name], strict=True))
        seed = self.options["seed"]
        shown = progress(pairs, "first stage of each compressed model")
        return [first_stage(original, view, pair, seed) for view, pair in shown]

    def shadow_log_aucs_of(self, attack: attacks.Attack, results: Sequence[attacks.Result]) -> list[float]:
        """How well an attack does for each part on the points whose membership is known; NaN where not eligible."""
        if not attack.eligible:
            return [np.nan] * len(results)
        pairs = zip(self.parts, results, strict=True)
        return [metrics.log_auc(result.shadow_scores, part.known_truth) for part, result in pairs]

    def error_of_lead(self, results: Results, key: str, other: str, part: int) -> float:
        """The standard error of how much better one attack did than another on a part's known points."""
        scores = results[key][part].shadow_scores, results[other][part].shadow_scores
        return metrics.log_auc_difference_error(*scores, self.parts[part].known_truth, seed=self.options["seed"])

    def row_of_attack(
        self,
        attack: attacks.Attack,
        results: Sequence[attacks.Result],
        shadow_log_aucs: Sequence[float],
        seconds: float,
    ) -> dict:
        """The attack's row: how it does on the victim, on non-members alone, and where membership is known."""
        names = names_of(self.scenario, self.name, attack)
        row = self.row_of(names, join_results(self.parts, results), seconds)
        chosen = " | ".join(dict.fromkeys(result.chosen for result in results))
        return row | {"shadow_log_auc": float(np.mean(shadow_log_aucs)), "needs": self.needs(attack), "chosen": chosen}

    def row_of(self, names: dict, verdicts: Verdicts, seconds: float) -> dict:
        """How these verdicts do on the victim and on non-members alone, and whom the strict threshold accuses.

        Only points that the attack scored count: `boundary` scores a sample.
        """
        judged, truth = verdicts.of(verdicts.is_scored), self.truth[verdicts.is_scored]
        row = measured_row(
            names,
            judged.scores,
            judged.decision,
            truth,
            seed=self.options["seed"],
            seconds=seconds,
            scored_by=judged.scored_by,
        )
        null = self.null_row(verdicts)
        row |= {f"null_{key}": null[key] for key in ("auc", "auc_lo", "auc_hi")}
        return row | metrics.accusations(judged.strict, truth)

    def null_row(self, verdicts: Verdicts) -> dict:
        """The null control of one attack."""
        is_scored = verdicts.is_scored
        judged = verdicts.of(is_scored)
        controlled = null_control(judged.scores, judged.decision, self.truth[is_scored], self.in_call[is_scored])
        names = control_names(self.scenario, self.name, "null")
        return measured_row(names, *controlled, seed=self.options["seed"], seconds=0.0)


def lack_in_words(lacks: Sequence[str]) -> str:
    """Why an attack that lacks what `attacks.missing` names is left out, in words."""
    if lacks == [attacks.TWO_REFERENCES]:
        return f"it needs {attacks.TWO_REFERENCES}; these signals have fewer"
    return f"these signals hold no {' and no '.join(lacks)}"


def too_few_points(attack: attacks.Attack) -> str:
    """Why an attack that scored too few points is left out, in words."""
    reason = "it scored too few members or non-members"
    return f"{reason}: raise --{PROBES['boundary'].flag}" if "boundary" in attack.probes else reason
