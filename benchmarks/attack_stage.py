"""What the attack stage costs: the three scripts, run as users run them, on synthetic signals of the paper's size."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks import synthetic
from benchmarks.measure import Row, Size, row
from compleak.audits import metrics
from compleak.findings.rows import attack_rows, key_of
from compleak.runs.variants import ORIGINAL, PAPER_GRID
from core import console
from core.errors import UserError
from core.project import PROJECT

CORES = 2  # what the budgets are for
SCRIPT_BUDGETS = {"NR": 60.0, "SR": 20.0, "MR": 10.0}  # seconds
ATTACK_BUDGETS = {"samia": 30.0, "rmia": 1.0}
INTERVALS_BUDGET, STAGE_BUDGET = 5.0, 600.0
STAGE = "the whole attack stage: 9 NR + 8 SR + MR"


@contextlib.contextmanager
def two_cores(device: torch.device):
    """Children started here get two cores, where there are more and no GPU takes part."""
    if device.type != "cpu" or not hasattr(os, "sched_setaffinity"):
        yield
        return
    kept = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(kept)[:CORES])
    try:
        yield
    finally:
        os.sched_setaffinity(0, kept)


def run_script(scenario: str, files: list[Path], out: Path, device: torch.device) -> tuple[float, pd.DataFrame]:
    """Wall-clock seconds of CompLeak<scenario>.py on these files, and its table."""
    flags = ["--signals", *files, "--out", out, "--device", device]
    command = [sys.executable, PROJECT / f"CompLeak{scenario}.py", *flags]
    started = time.perf_counter()
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise UserError(f"CompLeak{scenario}.py failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    return seconds, pd.read_csv(out / f"{scenario}.csv", keep_default_na=False)


def attack_stage(size: Size, device: torch.device) -> list[Row]:
    """NR on one model (or on all), SR on every pair, MR on all together, in the order of a real audit."""
    names = [str(variant) for variant in (ORIGINAL, *PAPER_GRID[: size.compressed])]
    with tempfile.TemporaryDirectory() as folder, two_cores(device):
        original, *compressed = files = synthetic.write(Path(folder), names, size.audited, size.samia)
        out = Path(folder)  # beside the signals, where the scripts look for what an earlier one left
        models = files if size.every_nr else files[:1]
        jobs = [("NR", [file]) for file in models] + [("SR", [original, file]) for file in compressed]
        runs = {}
        for scenario, group in console.progress([*jobs, ("MR", files)], f"attacks on {device.type}"):
            runs.setdefault(scenario, []).append(run_script(scenario, group, out, device))
        intervals = interval_seconds(out / "NR_scores.npz", original)
    budgets = device.type == "cpu"
    rows = [*script_rows(runs, budgets), *attack_seconds(runs, budgets)]
    if budgets:
        rows.append(Row("all intervals of one NR table", intervals, "s", INTERVALS_BUDGET))
    return rows


def script_rows(runs: dict[str, list[tuple[float, pd.DataFrame]]], budgets: bool) -> list[Row]:
    """Seconds of each script, start of Python included, and of the stage that they make up."""
    seconds = {scenario: [taken for taken, _ in done] for scenario, done in runs.items()}
    what = {"NR": "on one model", "SR": "on one pair", "MR": "on all compressed models, after SR"}
    rows = []
    for scenario, taken in seconds.items():
        budget, note = SCRIPT_BUDGETS[scenario] if budgets else None, f"{len(taken)} run" + "s" * (len(taken) > 1)
        rows.append(row(f"CompLeak{scenario}.py {what[scenario]}", taken, "s", budget, note))
    models = 1 + len(seconds["SR"])
    whole = len(seconds["NR"]) == models
    total = sum(sum(taken) for taken in seconds.values()) + (0 if whole else (models - 1) * seconds["NR"][0])
    title = STAGE if models == 9 else f"the whole attack stage: {models} NR + {models - 1} SR + MR"
    note = "all of it run" if whole else f"{models} times the one NR, SR and MR run"
    return [*rows, Row(title, total, "s", STAGE_BUDGET if budgets else None, note=note)]


def attack_seconds(runs: dict[str, list[tuple[float, pd.DataFrame]]], budgets: bool) -> list[Row]:
    """Seconds of each attack alone, as its table says."""
    rows = []
    for scenario, done in runs.items():
        tables = [attack_rows(table) for _, table in done]
        for place in range(len(tables[0])):
            first = tables[0].iloc[place]
            budget = ATTACK_BUDGETS.get(first["attack"]) if budgets else None
            rows.append(row(f"{scenario}: {key_of(first)}", [t.iloc[place]["seconds"] for t in tables], "s", budget))
    return rows


def interval_seconds(scores_file: Path, signals_file: Path) -> float:
    """Seconds to compute an NR table's intervals from its scores: each attack's row and its null control."""
    with np.load(signals_file) as arrays:
        truth = arrays["member"][0, arrays["audit"][0]]
    with np.load(scores_file) as file:
        scores = [file[name] for name in file.files if name != "null"]
    others = ~truth
    half = np.arange(others.sum()) < others.sum() // 2
    started = time.perf_counter()
    for values in scores:
        for part, member in ((values, truth), (values[others], half)):
            metrics.evaluate(part, part >= np.median(part), member, seed=7)
    return time.perf_counter() - started
