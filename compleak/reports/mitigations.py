"""What an audit's report says of defences: the tables of this project's own comparisons, and what else is known."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from compleak.findings.defences import (
    EITHER,
    PLAIN,
    against_either_attacker,
    differences_of,
    read_differences,
    read_rows,
)
from compleak.findings.rows import ALONE, rows_of_target
from compleak.reports import cells
from compleak.reports.defences_page import short_table
from compleak.reports.page import Block, Bullets, Code, Heading, Table, Text
from core.project import PROJECT
from defenses import dp

PUBLISHED = PROJECT / "results/published"


class Comparison(NamedTuple):
    """A published comparison of defences."""

    folder: str  # in PUBLISHED
    stopped: str  # the folder of the page that compares these defences with early stopping
    subject: str  # what the models were trained on, for readers who do not know the data set


COMPARISONS = (
    Comparison(
        "letters_mlp_w1_broad_defences",
        "letters_mlp_w1_broad_early_stopping",
        "letter recognition (a table of 16 features, 26 classes), a small network",
    ),
)


def mitigations(of_labels_alone: str) -> Iterator[Block]:
    """The section. of_labels_alone: a sentence on what labels alone give away in the audit of the report."""
    yield Heading("Mitigations")
    yield Text(
        f"""What this project measured. The attacker holds the original, or it and its compressed versions, and knows of
        the defence or does not, whichever finds more. The strongest attack is taken with hindsight, so an AUC of 53 is
        next to nothing. Epsilon is at delta = {dp.DELTA:g}. These numbers do not say what a defence would do to your
        model: audit again with it."""
    )
    for comparison in COMPARISONS:
        yield from _measured(comparison)
    yield Bullets(
        [
            "*Early stopping* is the first to try: it takes less time than training to the end.",
            "*DP-SGD* is the only one with a guarantee, and only where ε is small. It cannot train batch "
            "normalisation.",
            "*Compression is no defence.* In other audits of this project, int8 and 16 clusters leaked about as much "
            "as the original. A model pruned by 90 % leaked little and was right half as often; whoever has the "
            "original too finds what the original gives away.",
            f"*Answers as labels only*: the last column above. Rounded, or cut to a few classes: not measured. "
            f"{of_labels_alone}",
            "*Stronger weight decay, dropout, more data*: not measured by this project.",
        ]
    )
    yield Text("With this project a model is trained and compressed with a defence so:")
    yield Code(
        "python train.py --dataset_name cifar10 --model_name resnet18 --defend ppb --defend_arg 4\n"
        "python train.py --dataset_name cifar10 --model_name resnet18_gn --defend dp --defend_arg 1\n"
        "python train.py --dataset_name cifar10 --model_name resnet18 --defend adv --defend_arg 1"
    )


def _measured(comparison: Comparison) -> Iterator[Block]:
    """A published comparison: its table in short, and what its intervals say."""
    folder = PUBLISHED / comparison.folder
    rows = read_rows(folder / "runs.csv")
    seeds = rows["seed"].nunique()
    yield Text(
        f"""{comparison.subject.capitalize()}: {rows["members"].iloc[0]:,} members, {_versions(rows)} versions of each
        model, {seeds} seeds (mean ± standard deviation, percent)."""
    )
    yield Table(short_table(against_either_attacker(rows)).drop(columns="network"))
    yield Text(_effects(read_differences(folder / "differences.csv"), seeds))
    yield Text(_beside_stopping(pd.read_csv(PUBLISHED / comparison.stopped / "beside_defences.csv")))


def _versions(rows: pd.DataFrame) -> int:
    """How many models the attacker can hold of each family: the original and its compressed versions."""
    return int((rows.drop_duplicates(["scenario", "variant"])["scenario"] == "NR").sum())


def _effects(differences: pd.DataFrame, seeds: int) -> str:
    """What each defence takes away from the AUC on the original, and the price in accuracy."""
    taken = rows_of_target(differences_of(differences, "defence"), *ALONE)
    taken = taken[(taken["attacker"] == EITHER) & (taken["fine_tuning"] != PLAIN)]
    prices = differences_of(differences, "accuracy")
    sure, unsure = [], []
    for _, row in taken.sort_values("difference").iterrows():
        name = cells.defence_name(row["defence"], row["argument"])
        if row["high"] < 0:
            is_same = (prices["defence"] == row["defence"]) & (prices["argument"] == row["argument"])
            price = cells.percent(-prices.loc[is_same, "difference"].iloc[0])
            sure.append(f"{name} {cells.interval(-row['difference'], -row['high'], -row['low'])} for {price}")
        else:
            unsure.append(name)
    parts = []
    if sure:
        parts.append(f"Points of AUC taken away on the original, for points of accuracy: {'; '.join(sure)}.")
    if unsure:
        parts.append(f"Nothing that {seeds} seeds can show: {', '.join(unsure)}.")
    return " ".join(parts)


def _beside_stopping(beside: pd.DataFrame) -> str:
    """Which defences surely leave less than stopping does. beside: of `early_stopping.beside_defences`."""
    less = beside[beside["high"] < 0]
    names = [cells.defence_name(row["defence"], row["argument"]) for _, row in less.iterrows()]
    return (
        "Surely less AUC than an undefended training that is stopped where it is as accurate as the defended model: "
        f"{', '.join(names) or 'no defence'}."
    )
