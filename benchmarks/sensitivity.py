"""How many draws of noise does SAMIA need? Asks a run's models anew, so that their weights must be there.

    python benchmarks/sensitivity.py --dataset_name digits --run_name digits_resnet18_smoke
    python benchmarks/sensitivity.py --dataset_name cifar10 --run_name cifar10_resnet18_quick --draws 1 2 5 10

The run must have been attacked: the plain answers come from its signals.npz. Each model is asked about its audit set.
For each number of draws it prints the seconds that asking took, SAMIA's AUC and TPR at 0.1 % false alarms with their
intervals, and what the AUC lacks to that with the most draws.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script, Python looks for packages beside this file: they lie one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from attacks.samia import samia
from compleak.audits import metrics
from compleak.queries import signals_file
from compleak.queries.answers import Question, spread, subject_of
from compleak.queries.boundary import draw_balanced
from compleak.queries.sensitivity import EPSILON, differences
from compleak.queries.subject import Subject
from compleak.queries.targets import targets_of
from compleak.reports.cells import interval
from compleak.reports.page import Table, to_markdown
from compleak.runs.flags import run_settings, stage_parser
from compleak.runs.run import Run, open_run
from compleak.runs.variants import ORIGINAL, Variant, parse_variant
from compleak.training.finished import load_model
from core import arguments, devices
from core.console import progress, run_script, say
from core.errors import UserError
from core.threads import threads_for_stage, use_threads


class Asked(NamedTuple):
    """The sensitivity after some draws, and what they took."""

    sensitivity: np.ndarray  # (R, N, C) float32, NaN outside the audit sets
    seconds: float


def ask(subject: Subject, draws: Sequence[int]) -> tuple[list[np.ndarray], np.ndarray]:
    """The sensitivity (n, C) after each of these numbers of draws, ascending, and the seconds up to each of them."""
    parts = [[] for _ in draws]
    seconds = np.zeros(len(draws))
    for start, batch in subject.batches():
        logits = subject.logits[start : start + len(batch)]
        still = torch.from_numpy(logits).to(subject.device).double().softmax(dim=1)
        generator = torch.Generator(subject.device).manual_seed(start)
        moved = torch.zeros_like(still)
        started = time.perf_counter()
        drawn = differences(subject.model, batch, still, generator, draws[-1], subject.kind)
        for number, of_draw in enumerate(drawn, start=1):
            moved += of_draw
            if number in draws:
                place = draws.index(number)
                parts[place].append((moved / (number * EPSILON)).float().cpu().numpy())
                seconds[place] += time.perf_counter() - started
            subject.advance(len(batch))
    return [np.concatenate(of_count) for of_count in parts], seconds


def ask_all(
    run: Run, variant: Variant, record: signals_file.Record, draws: Sequence[int], device: torch.device, batch_size: int
) -> dict[int, Asked]:
    """What all models of the variant answer about their audit sets, by the number of draws."""
    targets = targets_of(run)
    answers = {count: np.full(record.logits.shape, np.nan, dtype=np.float32) for count in draws}
    total = np.zeros(len(draws))
    with progress(None, "asking", total=int(record.audit.sum()) * draws[-1]) as bar:
        for row, role in enumerate(run.roles):
            question = Question(run, targets, variant, role, {})
            about = (record.logits[row], record.audit[row], device, batch_size, bar.update)
            subject = subject_of(question, load_model(run, variant, role), *about)
            of_model, seconds = ask(subject, draws)
            total += seconds
            for count, values in zip(draws, of_model, strict=True):
                answers[count][row] = spread(values, record.audit[row])
    return {count: Asked(answers[count], seconds) for count, seconds in zip(draws, total, strict=True)}


def thinned(record: signals_file.Record, count: int) -> signals_file.Record:
    """The record with audit sets of `count` points, half of them members."""
    audit = np.zeros_like(record.audit)
    for row, audited in enumerate(map(np.flatnonzero, record.audit)):
        audit[row, audited[draw_balanced(record.member[row, audited], count)]] = True
    return record._replace(audit=audit)


def table_of(record: signals_file.Record, asked: dict[int, Asked], recipe: str, seed: int) -> pd.DataFrame:
    """A row for each number of draws, the most first."""
    view, truth = signals_file.attacker_view(record), record.truth
    best = None
    lines = []
    for count in sorted(asked, reverse=True):
        probes = {"sensitivity": asked[count].sensitivity}
        scores = samia(view._replace(probes=probes), seed=seed, recipe=recipe).scores
        best = scores if best is None else best
        auc, tpr = metrics.auc(scores, truth), metrics.tpr_at_fpr(scores, truth)
        line = {"draws": count, "seconds to ask": f"{asked[count].seconds:.1f}"}
        line["AUC of SAMIA"] = interval(auc, *metrics.auc_interval(scores, truth, seed=seed))
        line["TPR at 0.1 %"] = interval(tpr, *metrics.tpr_interval(scores, truth))
        difference = interval(*metrics.paired_difference(scores, best, truth, seed=seed))
        lines.append(line | {"AUC minus that with the most draws": difference if lines else ""})
    return pd.DataFrame(lines)


def parse(argv=None) -> argparse.Namespace:
    parser = stage_parser(__doc__)
    parser.add_argument("--draws", type=arguments.positive_int, nargs="+", default=[1, 2, 3, 5, 10])
    parser.add_argument("--points", type=arguments.positive_int, help="of each audit set (default: all)")
    parser.add_argument("--variant", type=parse_variant, default=ORIGINAL, help="pruning_0.9, ... (default: original)")
    parser.add_argument("--recipe", choices=("fast", "paper"), default="fast", help="of SAMIA's training")
    parser.add_argument("--seed", type=arguments.seed, default=7, help="of SAMIA and intervals (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv=None) -> pd.DataFrame:
    args = parse(argv)
    use_threads(threads_for_stage(args.threads))
    run = open_run(run_settings(args))
    file = run.signals_file(args.variant)
    if not file.exists():
        raise UserError(f"{file} is not there: attack {args.variant} first, by CompLeakNR.py or reproduce.py")
    record = signals_file.load(file)
    record = thinned(record, args.points) if args.points else record
    draws = sorted(set(args.draws))
    asked = ask_all(run, args.variant, record, draws, devices.choose(args.device), args.batch_size)
    table = table_of(record, asked, args.recipe, args.seed)
    say(to_markdown([Table(table)]))
    return table


if __name__ == "__main__":
    run_script(main)
