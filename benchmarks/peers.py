"""Other people's attacks beside this project's, on the same signals file. benchmarks/peers.md says how to call them.

    python benchmarks/peers.py export results/<run>/signals.npz --out arrays.npz     # what other people's code takes
    python benchmarks/peers.py compare results/<run>/signals.npz --scores scores.npz # what it found, beside our rows

`scores.npz` holds an array (A,) for each attack, larger = more likely a member, over the victim's audited points in the
order of the file. Its name says which formula it is and whose, such as `rmia/privacy_meter`; the formulas, with what
they leave to choose fixed, are in FORMULAS. `compare` prints a table: AUC, TPR at 0.1 % false alarms and, where the
formula is ours as well, the rank correlation with our scores, which must be 1. Below them stand our attacks as they run
in an audit, tuned on the shadow models.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script, Python looks for packages beside this file: they lie one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

import attacks
from attacks import Signals, rmia
from attacks.common.references import known_outsiders, reference_log_p, reference_moments
from attacks.common.statistics import confidence, log_sigmoid, tempered_confidence
from compleak.audits import metrics
from compleak.queries import signals_file
from compleak.reports.cells import percent
from compleak.reports.page import Table, to_markdown
from core import arguments
from core.console import run_script, say
from core.errors import UserError
from core.files import write_atomically

A = 0.3  # RMIA's, the authors' value for CIFAR-10
SCALE, TEMPERATURE = 0.33, 2.0  # BASE's, LeakPro's defaults
TUNED = ("yeom2018", "rmia", "base", "lira/global_variance", "watson2022", "rapid")


class Audited(NamedTuple):
    """What an attacker sees of the victim's audited points, and of a population that the victim did not train on.

    All points of the population have the same number of references, k, which did not train on them.
    """

    view: Signals
    truth: np.ndarray  # (A,) bool: which audited points are members
    points: np.ndarray  # (A,) positions of the audited points in the file
    population: np.ndarray  # (Z,) positions of the population
    outsiders: np.ndarray  # (R, N) bool: the model is a reference of the point


def audited_of(file: Path) -> Audited:
    """UserError where there is no shadow model, or no point that both the victim and a shadow model left out."""
    record = signals_file.load(file)
    view = signals_file.attacker_view(record)
    outsiders = known_outsiders(view)
    if len(view.logits) < 2:
        raise UserError(f"{file} holds no shadow model: the attacks that are compared here need one")
    count = outsiders[1:].sum(axis=0)
    known = (view.member[0] == 0) & (count > 0)
    if not known.any():
        raise UserError(f"{file} holds no point that neither the victim nor a shadow model was trained on")
    usual = np.bincount(count[known]).argmax()
    population = np.flatnonzero(known & (count == usual))
    return Audited(view, record.truth, np.flatnonzero(view.audit[0]), population, outsiders)


# The formulas


def log_p_of(view: Signals, temperature: float = 1.0) -> np.ndarray:
    """(R, N) log-probability of each point's class."""
    return log_sigmoid(next(tempered_confidence(view.logits, view.labels, [temperature])))


def loss(audited: Audited) -> np.ndarray:
    return log_p_of(audited.view)[0, audited.points]


def calibrated_loss(audited: Audited) -> np.ndarray:
    log_p = log_p_of(audited.view)
    return (log_p - reference_moments(audited.outsiders, log_p).mean)[0, audited.points]


def offset_lira(audited: Audited) -> np.ndarray:
    answers = confidence(audited.view.logits, audited.view.labels)
    return (answers - reference_moments(audited.outsiders, answers).mean)[0, audited.points]


def offline_rmia(audited: Audited) -> np.ndarray:
    log_p = log_p_of(audited.view)
    reference = reference_log_p(log_p, audited.outsiders)
    population = np.zeros(log_p.shape, dtype=bool)
    population[0, audited.population] = True
    rows = np.zeros_like(audited.points), audited.points
    return rmia.score(log_p, reference, population, rows, A, (1.0,))[0]


def offline_base(audited: Audited) -> np.ndarray:
    log_p = log_p_of(audited.view, TEMPERATURE)
    return (log_p - SCALE * reference_log_p(log_p, audited.outsiders))[0, audited.points]


FORMULAS = {
    "loss": loss,
    "calibrated_loss": calibrated_loss,
    "lira": offset_lira,
    "rmia": offline_rmia,
    "base": offline_base,
}


# Export


def exported(audited: Audited) -> dict[str, np.ndarray]:
    """The arrays for other people's code: benchmarks/peers.md lists them."""
    view, points, population = audited.view, audited.points, audited.population
    p = np.exp(log_p_of(view))
    count = audited.outsiders[1:, population].sum(axis=0)[0]
    references_first = np.argsort(~audited.outsiders[1:, population], axis=0, kind="stable")[:count]
    return {
        "member": audited.truth,
        "labels": view.labels[points],
        "logits": view.logits[:, points],
        "p": p[:, points],
        "population_p": np.concatenate(
            [p[:1, population], np.take_along_axis(p[1:, population], references_first, axis=0)]
        ),
    }


# Comparison


def read_scores(file: Path, count: int) -> dict[str, np.ndarray]:
    """The scores of other people's attacks. UserError where they are not about these points."""
    try:
        with np.load(file, allow_pickle=False) as content:
            scores = {name: content[name].astype(np.float64) for name in content.files}
    except signals_file.DAMAGED as error:
        raise UserError(f"{file} cannot be read ({error}): write it with np.savez") from error
    for name, values in scores.items():
        if values.shape != (count,) or not np.isfinite(values).all():
            raise UserError(
                f"{file}: {name} has shape {values.shape}; a finite score for each of {count} points is due"
            )
    return scores


def compare(audited: Audited, scores: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row for each formula as we have it and as others have it, then a row for each of our tuned attacks."""
    formulas = dict.fromkeys(name.partition("/")[0] for name in scores)
    lines = []
    for formula in formulas:
        ours = FORMULAS[formula](audited) if formula in FORMULAS else None
        if ours is not None:
            lines.append(measured(formula, "CompLeak", ours, audited.truth))
        for name, values in scores.items():
            if name.partition("/")[0] == formula:
                line = measured(formula, name.partition("/")[2], values, audited.truth)
                same = "" if ours is None else f"{spearmanr(ours, values).statistic:.6f}"
                lines.append(line | {"rank correlation": same})
    for attack in attacks.NR:
        if attack.key in TUNED and not attacks.missing(attack, [audited.view]):
            result = attack.run([audited.view], seed=7)
            whose = f"CompLeak, tuned{': ' if result.chosen else ''}{result.chosen}"
            lines.append(measured(attack.key, whose, result.scores, audited.truth))
    return pd.DataFrame(lines).fillna("")


def measured(attack: str, whose: str, scores: np.ndarray, truth: np.ndarray) -> dict[str, str]:
    auc, tpr = metrics.auc(scores, truth), metrics.tpr_at_fpr(scores, truth)
    return {"attack": attack, "whose": whose, "AUC": percent(auc), "TPR at 0.1 %": percent(tpr)}


def parse(argv=None) -> argparse.Namespace:
    parser = arguments.script_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=arguments.Parser)
    export = commands.add_parser("export", help="write the arrays that other people's code takes")
    export.add_argument("--out", type=Path, required=True, help="the .npz file to write")
    comparison = commands.add_parser("compare", help="print the table")
    comparison.add_argument(
        "--scores", type=Path, nargs="+", required=True, help="the .npz files with other people's scores"
    )
    for command in (export, comparison):
        command.add_argument("signals", type=Path, metavar="SIGNALS", help="signals.npz of a run, or anybody's")
    return parser.parse_args(argv)


def main(argv=None) -> pd.DataFrame | None:
    args = parse(argv)
    audited = audited_of(args.signals)
    if args.command == "export":
        arrays = exported(audited)
        write_atomically(args.out, lambda part: np.savez(part, **arrays))
        say(f"wrote {args.out}: {', '.join(f'{name} {values.shape}' for name, values in arrays.items())}")
        return None
    scores = {}
    for file in args.scores:
        scores |= read_scores(file, len(audited.points))
    table = compare(audited, scores)
    say(to_markdown([Table(table)]))
    return table


if __name__ == "__main__":
    run_script(main)
