"""The page on early stopping: one undefended training at ten of its epochs, and other defences beside it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from compleak.audits import metrics
from compleak.findings import outputs
from compleak.findings.defences import read_rows
from compleak.findings.early_stopping import beside_defences, snapshots
from compleak.findings.rows import LABEL_ONLY
from compleak.reports import cells
from compleak.reports.figures.early_stopping import early_stopping_figure
from compleak.reports.folder import write_report
from compleak.reports.page import Block, Bullets, Code, Figure, Heading, Table, Text, to_markdown
from compleak.runs.run import Run

COLUMNS = {  # of the table: (form of attack, measure)
    "AUC": ("strongest", "auc"),
    "AUC, labels alone": (LABEL_ONLY, "auc"),
    "AUC of the headline": ("headline", "auc"),
    "TPR at 0.1 %": ("strongest", metrics.TPR),
    "TPR at 1 %": ("strongest", metrics.WIDER_TPR),
}


def write_early_stopping_page(
    runs: Sequence[Run], folder: Path, compared: Path, command: str, settings: dict[str, str]
) -> str:
    """Write runs.csv, snapshots.csv, beside_defences.csv, early_stopping.png and the page; returns the page.

    runs: the early-stopped ones and the undefended; compared: the runs.csv of a comparison of defences, which need not
    be there; command: what to type to get them again; settings: the flags of each kind of stage.
    """
    rows, curve = snapshots(runs)
    others = beside_defences(rows, read_rows(compared)) if compared.exists() else pd.DataFrame()
    numbers = sorted({run.config["seed"] for run in runs})
    seeds = cells.list_seeds(numbers)
    page = to_markdown([*_head(runs[-1], seeds, command, settings), *_curve(curve), *_others(others, compared)])
    frames = {"runs": rows, "snapshots": curve} | ({"beside_defences": others} if len(others) else {})
    notes = "; bars: standard deviations" if len(numbers) > 1 else ""
    notes += "; numbers in colour: the defence's argument" if len(others) else ""
    figure = early_stopping_figure(curve, others, f"{runs[-1].config['dataset_name']}, {seeds}, NR{notes}")
    write_report(folder, frames, {"early_stopping": figure}, page)
    return page


def _head(run: Run, seeds: str, command: str, settings: dict[str, str]) -> Iterator[Block]:
    config = run.config
    meta = outputs.original_meta(run)
    yield Heading("Early stopping: accuracy against leakage in the course of one training", level=1)
    yield Code(command)
    yield Bullets(
        [
            f"data: {config['dataset_name']} (fingerprint {config['data']}); {config['model_name']}, width "
            f"{config['width']:g}; {seeds}; shadow models: {config['shadow_num']}",
            f"stages: {cells.list_settings(settings)}",
            f"{meta['machine']}, torch {meta['versions']['torch']}, commit {meta['commit']}",
        ]
    )


def _curve(curve: pd.DataFrame) -> Iterator[Block]:
    yield Text(
        """Each line is the same undefended training, stopped after some of its epochs: the learning rates are those of
        the whole training. The attacker holds the original alone (NR), and stops the shadow models after as many epochs
        or trains them to the end, whichever gives the larger AUC in a seed. Numbers are percent; AUC and TPR are those
        of this attacker's strongest attack on the victim, picked with hindsight. Do not choose the epoch by this table:
        it was made with the victim's membership, which nobody has in practice."""
    )
    if note := cells.few_nonmembers(curve):
        yield Text(note)
    yield Figure("early_stopping.png", "Accuracy against leakage in the course of training")
    yield Table(snapshot_table(curve))


def snapshot_table(curve: pd.DataFrame) -> pd.DataFrame:
    """A line for each snapshot. curve: the spread of `early_stopping.snapshots`."""
    lines = []
    for _, own in curve.groupby("epochs", sort=True):
        first = own.iloc[0]
        line = {"epochs": first["epochs"], "share": f"{100 * first['share']:.0f} %"}
        line["accuracy on members"] = cells.plus_minus(first["train_accuracy_mean"], first["train_accuracy_sd"])
        line["accuracy on others"] = cells.plus_minus(first["accuracy_mean"], first["accuracy_sd"])
        for title, (form, key) in COLUMNS.items():
            of_form = own[own["form"] == form]
            line[title] = cells.plus_minus(*of_form.iloc[0][[f"{key}_mean", f"{key}_sd"]]) if len(of_form) else ""
        lines.append(line)
    return pd.DataFrame(lines)


def _others(others: pd.DataFrame, compared: Path) -> Iterator[Block]:
    if not len(others):
        if compared.exists():
            yield Text("The comparison of defences beside this page is of other runs, so none of it stands here.")
        return
    yield Heading("Does a defence do more than to stop earlier?")
    yield Text(
        """Each defence of the comparison beside the undefended training at the first moment when it is as accurate,
        both against the attacker who has the larger AUC in a seed. Between two snapshots accuracy and AUC are
        interpolated. `difference` is the defence's AUC less that of stopping, paired by seed, with the 95 % interval
        over seeds (Student's t) where there are several: a defence is worth its effort where the whole interval lies
        below zero. There is nothing to compare with where the network is another one, and where in some seed no
        snapshot is as accurate or the first is more accurate already."""
    )
    yield Table(beside_table(others))


def beside_table(others: pd.DataFrame) -> pd.DataFrame:
    """A line for each defence. others: of `early_stopping.beside_defences`."""
    differences = cells.intervals_of(others, "difference", "low", "high")
    lines = []
    for (_, row), difference in zip(others.iterrows(), differences, strict=True):
        has_rival = not pd.isna(row["stopped_auc"])
        lines.append(
            {
                "defence": cells.defence_name(row["defence"], row["argument"], row["recipe"]),
                "network": row["network"],
                "accuracy": cells.plus_minus(row["accuracy_mean"], row["accuracy_sd"]),
                "seeds": row["seeds"],
                "AUC": cells.plus_minus(row["auc_mean"], row["auc_sd"]),
                "AUC when stopped": cells.percent(row["stopped_auc"]) if has_rival else "no snapshot to compare with",
                "difference": difference,
            }
        )
    return pd.DataFrame(lines)
