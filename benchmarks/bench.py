"""What everything costs on this machine: one table, with the budget beside each number that has one.

    python benchmarks/bench.py                                   # all sections; make bench
    python benchmarks/bench.py --only training attacks           # these, the table's other rows stay
    python benchmarks/bench.py --quick --out /tmp/benchmarks     # seconds, tiny sizes: does it work?

Costs about a quarter of an hour on two cores; let nothing else run meanwhile. A GPU, where there is one, is measured
beside the CPU. Gives results/benchmarks/<machine>.csv and .md, written anew after every section.
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

from benchmarks import attack_stage, loops, many, paper
from benchmarks.measure import CPU, CUDA, MIB, QUICK, Row, Size, peak_bytes
from compleak.reports.page import markdown_table
from core import arguments, console, devices
from core.errors import UserError
from core.files import write_atomically
from core.project import PROJECT
from core.provenance import commit, machine, provenance

SECTIONS: dict[str, Callable[[Size, torch.device], list[Row]]] = {
    "training": loops.training,
    "compression": loops.compression,
    "signals": loops.querying,
    "kmeans": loops.clusters,
    "attacks": attack_stage.attack_stage,
    "disk": paper.disk,
    "gpu": many.at_once,
}
APART = ("attacks", "gpu")  # sections that use the GPU from other processes
NO_DEVICE = ("kmeans", "disk")  # sections in which a GPU takes no part
ESTIMATE = "estimate"  # the section computed from the others' rows
NUMBERS = ("value", "budget", "low", "high")
COLUMNS = ["section", "device", *(name for name in Row._fields if name != "note"), "met", "note", "commit"]


def parse(argv=None) -> argparse.Namespace:
    made = arguments.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    what = made.add_argument_group("what to measure")
    what.add_argument("--only", nargs="+", choices=SECTIONS, help="these sections (default: all)")
    what.add_argument("--full", action="store_true", help="run NR on all nine models rather than one")
    what.add_argument("--quick", action="store_true", help="tiny sizes, in this process: does the code run?")
    what.add_argument("--resume", action="store_true", help="keep the sections that this commit has measured here")
    where = made.add_argument_group("where")
    where.add_argument("--device", help="only this one: cpu or cuda (default: the CPU, and CUDA where there is one)")
    where.add_argument("--out", type=Path, default=PROJECT / "results" / "benchmarks", help="folder of the table")
    return made.parse_args(argv)


def main(argv=None) -> pd.DataFrame:
    args = parse(argv)
    chosen = [devices.choose(name) for name in ([args.device] if args.device else available())]
    file = args.out / f"{slug(chosen[-1], args.quick)}.csv"
    table, failed = read(file), []
    for section, device in console.progress(plan(args, chosen), "sections"):
        if args.resume and measured(table, section, device):
            console.say(f"{section} on {device.type}: measured before")
            continue
        try:
            rows = run_section(section, size_for(args, device), device, apart=not args.quick)
        except (UserError, RuntimeError, BrokenProcessPool) as error:
            failed.append(f"{section} on {device.type} failed: {' '.join(str(error).split())[:200]}")
            console.say(failed[-1])
            continue
        table = replace(table, section, device, rows)
        table = replace(table, ESTIMATE, device, paper.estimate(as_rows(table, device), device))
        write(file, table, chosen[-1])
        console.say(f"{section} on {device.type}: {len(rows)} rows, {file}")
    console.say(markdown_table(readable(table[table["section"].isin([*(args.only or SECTIONS), ESTIMATE])])))
    if failed:
        raise UserError(f"{len(failed)} section(s) could not be measured: {failed[0]}")
    return table


def available() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def plan(args: argparse.Namespace, chosen: list[torch.device]) -> list[tuple[str, torch.device]]:
    """Sections and the device each is measured on, a GPU's first: its time is the scarcer.

    Many models at once are a GPU's matter unless asked for by name.
    """
    found = []
    for device in reversed(chosen):
        for section in args.only or SECTIONS:
            if section not in NO_DEVICE and (section != "gpu" or device.type == "cuda" or args.only):
                found.append((section, device))
    return [*found, *((section, torch.device("cpu")) for section in NO_DEVICE if section in (args.only or SECTIONS))]


def size_for(args: argparse.Namespace, device: torch.device) -> Size:
    size = QUICK if args.quick else CUDA if device.type == "cuda" else CPU
    return size._replace(every_nr=args.full)


def run_section(section: str, size: Size, device: torch.device, apart: bool) -> list[Row]:
    """A section's rows; `apart`, in a process of its own, so that its peak of memory is its own too."""
    if not apart:
        return measure(section, size, device)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, section, size, device).result()


def measure(section: str, size: Size, device: torch.device) -> list[Row]:
    """The rows of one section and the most memory it held."""
    rows = SECTIONS[section](size, device)
    note = "of the section's process, all forms together, or a script it started"
    rows.append(Row("peak memory", peak_bytes() / MIB, "MiB", note=note))
    if device.type == "cuda" and section not in APART:
        rows.append(Row("peak GPU memory", torch.cuda.max_memory_allocated(device) / MIB, "MiB"))
    return rows


def slug(device: torch.device, quick: bool) -> str:
    """The machine's name as a file's: `amd-epyc-2-threads`."""
    name = re.sub(r"[^a-z0-9]+", "-", machine(device).lower()).strip("-")
    return name + "-quick" * quick


def read(file: Path) -> pd.DataFrame:
    """The table as it stands; empty where there is none."""
    if not file.exists():
        return pd.DataFrame(columns=COLUMNS)
    kinds = {name: float if name in NUMBERS else str for name in COLUMNS}  # a commit may look like a number
    table = pd.read_csv(file, keep_default_na=False, na_values=dict.fromkeys(NUMBERS, [""]), dtype=kinds)
    if list(table.columns) != COLUMNS:
        raise UserError(f"{file} is not a table of this benchmark: delete it")
    return table


def measured(table: pd.DataFrame, section: str, device: torch.device) -> bool:
    """Whether the table has this section from this commit, changes aside: a table written here is itself one."""
    rows = table[(table["section"] == section) & (table["device"] == device.type)]
    return len(rows) > 0 and set(rows["commit"].str.rstrip("+")) == {commit().rstrip("+")}


def replace(table: pd.DataFrame, section: str, device: torch.device, rows: list[Row]) -> pd.DataFrame:
    """The table with these rows for the section, in the order of sections and devices."""
    old = table[(table["section"] != section) | (table["device"] != device.type)]
    head = {"section": section, "device": device.type, "commit": commit()}
    new = pd.DataFrame([{**row._asdict(), "met": row.met, **head} for row in rows], columns=COLUMNS)
    new = new.astype(dict.fromkeys(NUMBERS, float))
    joined = pd.concat([part for part in (old, new) if len(part)] or [new], ignore_index=True)
    order = {name: place for place, name in enumerate([*SECTIONS, ESTIMATE])}
    places = joined["device"].map({"cpu": 0}).fillna(1) * len(order) + joined["section"].map(order)
    return joined.loc[places.sort_values(kind="stable").index].reset_index(drop=True)


def as_rows(table: pd.DataFrame, device: torch.device) -> list[Row]:
    """The rows measured on a device."""
    mine = table[table["device"] == device.type]
    return [Row(**{name: line[name] for name in Row._fields}) for _, line in mine.iterrows()]


def write(file: Path, table: pd.DataFrame, device: torch.device) -> None:
    text = markdown(table, device)
    write_atomically(file, lambda part: table.to_csv(part, index=False))
    write_atomically(file.with_suffix(".md"), lambda part: part.write_text(text, encoding="utf-8"))


def markdown(table: pd.DataFrame, device: torch.device) -> str:
    """The table for people, under what it takes to make it again."""
    facts = provenance(device)
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    commits = ", ".join(sorted(set(table["commit"]) - {""})) or "unknown"
    late = table.loc[table["met"] == "no", "what"].tolist()
    return "\n".join(
        [
            f"# Benchmarks: {facts['machine']}",
            "",
            f"Made by `{facts['command']}`; commit {commits}; {versions}; trained in {facts['precision']}.",
            "What is compared was measured in turns in one process. Values are medians, in brackets the extremes.",
            f"Budgets not met: {', '.join(late) or 'none'}.",
            "",
            markdown_table(readable(table)),
            "",
        ]
    )


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The columns people read, numbers with three digits."""
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
