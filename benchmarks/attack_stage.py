"""What the attack stage costs: the three scripts, run as users run them, on synthetic signals of the paper's size."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from benchmarks import synthetic
from benchmarks.measure import Row, Size, count_of, median_row
from compleak.audits import metrics
from compleak.findings.rows import attack_rows, key_of
from compleak.runs.variants import ORIGINAL, PAPER_GRID
from core import console
from core.errors import UserError
from core.project import PROJECT

CORES = 2  # the budgets are for a machine with two cores
SCRIPT_BUDGETS = {"NR": 60.0, "SR": 20.0, "MR": 10.0}  # seconds
ATTACK_BUDGETS = {"samia": 30.0, "rmia": 1.0}
INTERVALS_BUDGET = 5.0
STAGE_BUDGET = 600.0
PAPER_MODELS = 1 + len(PAPER_GRID)  # the original and its compressed variants
INPUTS = {"NR": "on one model", "SR": "on one pair", "MR": "on all compressed models, after SR"}


class ScriptRun(NamedTuple):
    seconds: float  # wall-clock, the start of Python included
    table: pd.DataFrame


ScriptRuns = dict[str, list[ScriptRun]]  # by scenario


def stage_title(models: int) -> str:
    return f"the whole attack stage: {models} NR + {models - 1} SR + MR"


STAGE = stage_title(PAPER_MODELS)


@contextlib.contextmanager
def limit_to_two_cores(device: torch.device):
    """On a CPU with more cores, give the processes started here only two."""
    if device.type != "cpu" or not hasattr(os, "sched_setaffinity"):
        yield
        return
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_cores)[:CORES])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


def run_script(scenario: str, files: list[Path], out: Path, device: torch.device) -> ScriptRun:
    """Run CompLeak<scenario>.py on these signals files. UserError if it fails."""
    flags = ["--signals", *files, "--out", out, "--device", device]
    command = [sys.executable, PROJECT / f"CompLeak{scenario}.py", *flags]
    started = time.perf_counter()
    process = subprocess.run([str(part) for part in command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    if process.returncode:
        last_line = (process.stderr.strip() or "no message").splitlines()[-1]
        raise UserError(f"CompLeak{scenario}.py failed: {last_line}")
    return ScriptRun(seconds, pd.read_csv(out / f"{scenario}.csv", keep_default_na=False))


def measure_attack_stage(size: Size, device: torch.device) -> list[Row]:
    """Seconds of the scripts, of the whole stage, of each attack and, on a CPU, of an NR table's intervals."""
    names = [str(variant) for variant in (ORIGINAL, *PAPER_GRID[: size.compressed])]
    with tempfile.TemporaryDirectory() as folder, limit_to_two_cores(device):
        out = Path(folder)  # beside the signals, where the scripts look for what an earlier one left
        files = synthetic.write(out, names, size.audited, size.samia)
        runs = run_stage(files, size.every_nr, out, device)
        intervals = interval_seconds(out / "NR_scores.npz", files[0])
    with_budgets = device.type == "cpu"
    rows = [*script_rows(runs, with_budgets), whole_stage_row(runs, with_budgets), *attack_seconds(runs, with_budgets)]
    if with_budgets:
        rows.append(Row("all intervals of one NR table", intervals, "s", INTERVALS_BUDGET))
    return rows


def run_stage(files: list[Path], every_nr: bool, out: Path, device: torch.device) -> ScriptRuns:
    """NR on the original (or on every model), SR on every pair, MR on all together, in the order of a real audit."""
    original, *compressed = files
    inputs = [("NR", [file]) for file in (files if every_nr else [original])]
    inputs += [("SR", [original, file]) for file in compressed]
    inputs.append(("MR", files))
    runs: ScriptRuns = {}
    for scenario, signals in console.progress(inputs, f"attacks on {device.type}"):
        runs.setdefault(scenario, []).append(run_script(scenario, signals, out, device))
    return runs


def script_rows(runs: ScriptRuns, with_budgets: bool) -> list[Row]:
    """A row for each script: the seconds of one run, the start of Python included."""
    rows = []
    for scenario, script_runs in runs.items():
        what = f"CompLeak{scenario}.py {INPUTS[scenario]}"
        seconds = [run.seconds for run in script_runs]
        budget = SCRIPT_BUDGETS[scenario] if with_budgets else None
        rows.append(median_row(what, seconds, "s", budget, count_of(len(seconds), "run")))
    return rows


def whole_stage_row(runs: ScriptRuns, with_budgets: bool) -> Row:
    """The seconds of all scripts. Where NR ran on one model only, that run stands for NR on every model."""
    models = 1 + len(runs["SR"])
    total = sum(sum(run.seconds for run in script_runs) for script_runs in runs.values())
    note = "all of it run"
    if len(runs["NR"]) < models:
        total += (models - 1) * runs["NR"][0].seconds
        note = f"{models} times the one NR, SR and MR run"
    return Row(stage_title(models), total, "s", STAGE_BUDGET if with_budgets else None, note=note)


def attack_seconds(runs: ScriptRuns, with_budgets: bool) -> list[Row]:
    """A row for each attack: its seconds alone, as the scripts' tables report them."""
    rows = []
    for scenario, script_runs in runs.items():
        tables = [attack_rows(run.table) for run in script_runs]
        for position in range(len(tables[0])):
            attack = tables[0].iloc[position]
            seconds = [table.iloc[position]["seconds"] for table in tables]
            budget = ATTACK_BUDGETS.get(attack["attack"]) if with_budgets else None
            rows.append(median_row(f"{scenario}: {key_of(attack)}", seconds, "s", budget))
    return rows


def interval_seconds(scores_file: Path, signals_file: Path) -> float:
    """Seconds to compute an NR table's intervals from its scores: each attack's row and its null control."""
    with np.load(signals_file) as arrays:
        is_member = arrays["member"][0, arrays["audit"][0]]
    with np.load(scores_file) as arrays:
        all_scores = [arrays[name] for name in arrays.files if name != "null"]
    others = ~is_member
    half_of_others = np.arange(others.sum()) < others.sum() // 2
    started = time.perf_counter()
    for scores in all_scores:
        for values, member in ((scores, is_member), (scores[others], half_of_others)):
            metrics.evaluate(values, values >= np.median(values), member, seed=7)
    return time.perf_counter() - started
