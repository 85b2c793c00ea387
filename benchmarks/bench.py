"""What everything costs on this machine: one table, with the budget beside each number that has one.

    python benchmarks/bench.py                                   # all sections; make bench
    python benchmarks/bench.py --only training attacks           # these sections; the table's other rows stay
    python benchmarks/bench.py --quick --out /tmp/benchmarks     # seconds, tiny sizes: does it work?

Takes about a quarter of an hour on two cores; let nothing else run meanwhile. Where there is a GPU, it is measured as
well as the CPU. Gives results/benchmarks/<machine>.csv and .md, written anew after every section.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script, Python looks for packages beside this file: they lie one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import math
import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pandas as pd
import torch

from benchmarks import attack_stage, loops, models_at_once, paper
from benchmarks.measure import CPU_SIZE, CUDA_SIZE, MIB, QUICK_SIZE, Row, Size, peak_bytes
from compleak.reports.page import markdown_table
from core import arguments, console, devices
from core.errors import UserError
from core.files import write_atomically, write_text
from core.project import PROJECT
from core.provenance import commit, machine, provenance

SECTIONS: dict[str, Callable[[Size, torch.device], list[Row]]] = {
    "training": loops.measure_training,
    "compression": loops.measure_compression,
    "signals": loops.measure_queries,
    "kmeans": loops.measure_kmeans,
    "attacks": attack_stage.measure_attack_stage,
    "disk": paper.measure_disk,
    "gpu": models_at_once.measure_models_at_once,
}
GPU_IN_OTHER_PROCESSES = ("attacks", "gpu")  # sections that use the GPU from processes of their own
CPU_ONLY = ("kmeans", "disk")
ESTIMATE = "estimate"  # the section that is computed from the other sections' rows
NUMBERS = ("value", "budget", "low", "high")
COLUMNS = ["section", "device", *(name for name in Row._fields if name != "note"), "met", "note", "commit"]


def parse(argv=None) -> argparse.Namespace:
    parser = arguments.script_parser(__doc__)
    what = parser.add_argument_group("what to measure")
    what.add_argument("--only", nargs="+", choices=SECTIONS, help="these sections (default: all)")
    what.add_argument("--full", action="store_true", help="run NR on all nine models rather than one")
    what.add_argument("--quick", action="store_true", help="tiny sizes, in this process: does the code run?")
    what.add_argument("--resume", action="store_true", help="skip the sections that this commit has measured here")
    where = parser.add_argument_group("where")
    where.add_argument("--device", help="only this one: cpu or cuda (default: the CPU, and CUDA where there is one)")
    where.add_argument("--out", type=Path, default=PROJECT / "results" / "benchmarks", help="folder of the table")
    return parser.parse_args(argv)


def main(argv=None) -> pd.DataFrame:
    args = parse(argv)
    chosen = [devices.choose(name) for name in ([args.device] if args.device else available())]
    table, failures = measure_sections(args, chosen)
    shown = table[table["section"].isin([*(args.only or SECTIONS), ESTIMATE])]
    console.say(markdown_table(readable(shown)))
    if failures:
        raise UserError(f"{len(failures)} section(s) could not be measured: {failures[0]}")
    return table


def available() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def measure_sections(args: argparse.Namespace, chosen: list[torch.device]) -> tuple[pd.DataFrame, list[str]]:
    """The table, written after every section, and a line for each section that failed."""
    file = args.out / f"{slug(chosen[-1], args.quick)}.csv"
    table = read(file)
    failures = []
    for section, device in console.progress(plan(args, chosen), "sections"):
        if args.resume and is_measured(table, section, device):
            console.say(f"{section} on {device.type}: measured before")
            continue
        try:
            rows = run_section(section, size_for(args, device), device, apart=not args.quick)
        except (UserError, RuntimeError, BrokenProcessPool) as error:
            failures.append(f"{section} on {device.type} failed: {' '.join(str(error).split())[:200]}")
            console.say(failures[-1])
            continue
        table = replace_rows(table, section, device, rows)
        table = replace_rows(table, ESTIMATE, device, paper.estimate_preset(as_rows(table, device), device))
        write(file, table, chosen[-1])
        console.say(f"{section} on {device.type}: {len(rows)} rows, {file}")
    return table, failures


def plan(args: argparse.Namespace, chosen: list[torch.device]) -> list[tuple[str, torch.device]]:
    """The sections and the device each is measured on, a GPU's first, because its time is scarcer."""
    sections = args.only or list(SECTIONS)
    jobs = []
    for device in reversed(chosen):
        for section in sections:
            # training many models at once is of interest on a GPU; a CPU does it only if the user names the section
            wanted = section != "gpu" or device.type == "cuda" or args.only
            if section not in CPU_ONLY and wanted:
                jobs.append((section, device))
    return jobs + [(section, torch.device("cpu")) for section in CPU_ONLY if section in sections]


def size_for(args: argparse.Namespace, device: torch.device) -> Size:
    size = CUDA_SIZE if device.type == "cuda" else CPU_SIZE
    if args.quick:
        size = QUICK_SIZE
    return size._replace(every_nr=args.full)


def run_section(section: str, size: Size, device: torch.device, apart: bool) -> list[Row]:
    """A section's rows. `apart` measures it in a process of its own, so that the peak of memory is the section's."""
    if not apart:
        return measure_section(section, size, device)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measure_section, section, size, device).result()


def measure_section(section: str, size: Size, device: torch.device) -> list[Row]:
    """The rows of one section, and the most memory that it held."""
    rows = SECTIONS[section](size, device)
    note = "of the section's process, all forms together, or a script it started"
    rows.append(Row("peak memory", peak_bytes() / MIB, "MiB", note=note))
    if device.type == "cuda" and section not in GPU_IN_OTHER_PROCESSES:
        rows.append(Row("peak GPU memory", torch.cuda.max_memory_allocated(device) / MIB, "MiB"))
    return rows


def slug(device: torch.device, quick: bool) -> str:
    """The machine's name as a file name: `amd-epyc-2-threads`."""
    name = re.sub(r"[^a-z0-9]+", "-", machine(device).lower()).strip("-")
    return f"{name}-quick" if quick else name


def read(file: Path) -> pd.DataFrame:
    """The table in the file; empty where there is no file. UserError where it is another table."""
    if not file.exists():
        return pd.DataFrame(columns=COLUMNS)
    types = {name: float if name in NUMBERS else str for name in COLUMNS}  # a commit may look like a number
    table = pd.read_csv(file, keep_default_na=False, na_values=dict.fromkeys(NUMBERS, [""]), dtype=types)
    if list(table.columns) != COLUMNS:
        raise UserError(f"{file} is not a table of this benchmark: delete it")
    return table


def is_measured(table: pd.DataFrame, section: str, device: torch.device) -> bool:
    """Whether the table has this section from this commit.

    The mark of uncommitted changes is ignored, because the table that this benchmark writes is itself such a change.
    """
    rows = table[(table["section"] == section) & (table["device"] == device.type)]
    return len(rows) > 0 and set(rows["commit"].str.rstrip("+")) == {commit().rstrip("+")}


def replace_rows(table: pd.DataFrame, section: str, device: torch.device, rows: list[Row]) -> pd.DataFrame:
    """The table with these rows for the section, sorted by device and section."""
    old = table[(table["section"] != section) | (table["device"] != device.type)]
    shared = {"section": section, "device": device.type, "commit": commit()}
    new = pd.DataFrame([{**row._asdict(), "met": row.met, **shared} for row in rows], columns=COLUMNS)
    new = new.astype(dict.fromkeys(NUMBERS, float))
    parts = [part for part in (old, new) if len(part)]
    joined = pd.concat(parts or [new], ignore_index=True)
    return joined.loc[positions(joined).sort_values(kind="stable").index].reset_index(drop=True)


def positions(table: pd.DataFrame) -> pd.Series:
    """A number for each line that says where it belongs: the CPU's sections come first, each device's in order."""
    order = {name: position for position, name in enumerate([*SECTIONS, ESTIMATE])}
    return table["device"].map({"cpu": 0}).fillna(1) * len(order) + table["section"].map(order)


def as_rows(table: pd.DataFrame, device: torch.device) -> list[Row]:
    """The rows measured on a device."""
    lines = table[table["device"] == device.type]
    return [Row(**{name: line[name] for name in Row._fields}) for _, line in lines.iterrows()]


def write(file: Path, table: pd.DataFrame, device: torch.device) -> None:
    text = markdown(table, device)  # first, so that an error here leaves both files as they were
    write_atomically(file, lambda part: table.to_csv(part, index=False))
    write_text(file.with_suffix(".md"), text)


def markdown(table: pd.DataFrame, device: torch.device) -> str:
    """The table as a page for people; the page says how to make the table again."""
    facts = provenance(device)
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    commits = ", ".join(sorted(set(table["commit"]) - {""})) or "unknown"
    over_budget = table.loc[table["met"] == "no", "what"].tolist()
    return "\n".join(
        [
            f"# Benchmarks: {facts['machine']}",
            "",
            f"Made by `{facts['command']}`; commit {commits}; {versions}; trained in {facts['precision']}.",
            "What is compared was measured in turns in one process. Values are medians, in brackets the extremes.",
            f"Budgets not met: {', '.join(over_budget) or 'none'}.",
            "",
            markdown_table(readable(table)),
            "",
        ]
    )


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that people read; numbers have three digits."""
    shown = table[["section", "device", "what"]].copy()
    shown["value"] = [cell(*line) for line in table[["value", "low", "high", "unit"]].itertuples(index=False)]
    budgets = table[["budget", "unit"]].itertuples(index=False)
    shown["at most"] = ["" if pd.isna(most) else f"{digits(most)} {unit}" for most, unit in budgets]
    return shown.assign(met=table["met"], note=table["note"])


def cell(value: float, low: float, high: float, unit: str) -> str:
    """`181 [178, 183] images/s`; a dash where there is no value."""
    if not math.isfinite(value):
        return "-"
    extremes = f" [{digits(low)}, {digits(high)}]" if low < high else ""
    return f"{digits(value)}{extremes} {unit}"


def digits(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    console.run_script(main)
