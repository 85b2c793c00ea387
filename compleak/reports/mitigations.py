"""What an audit's report says of defences: the tables of this project's own comparisons, and what else is known."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from compleak.findings.defences import (
    DEFENCE,
    EITHER,
    PLAIN,
    TRAINED_WITH,
    against_either_attacker,
    differences_of,
    read_differences,
    read_rows,
)
from compleak.findings.early_stopping import read_beside_defences
from compleak.findings.rows import ALONE, rows_of_target, variants_of_scenario
from compleak.reports import cells
from compleak.reports.defences_page import short_table
from compleak.reports.page import Block, Bullets, Code, Heading, Table, Text
from core.project import PROJECT
from defenses import dp

PUBLISHED = PROJECT / "results/published"


class PublishedComparison(NamedTuple):
    """A comparison of defences; its folders are in PUBLISHED."""

    folder: str
    subject: str  # what the models were trained on, for readers who do not know the data set
    early_stopping_folder: str = ""  # of the same defences beside early stopping; "" where there is none


COMPARISONS = (
    PublishedComparison(
        "letters_mlp_w1_broad_defences",
        "Letter recognition (a table of 16 features, 26 classes), a small network",
        "letters_mlp_w1_broad_early_stopping",
    ),
    PublishedComparison(
        "fashion_mnist_resnet18_broad_seed7_defences",
        "Fashion-MNIST (grey images of clothes, 10 classes), a ResNet-18 at a quarter of its width",
        "fashion_mnist_resnet18_broad_seed7_early_stopping",
    ),
)


def mitigations(of_labels_alone: str) -> Iterator[Block]:
    """The section on defences. of_labels_alone: a sentence on what labels alone give away in the report's audit."""
    yield Heading("Mitigations")
    yield Text(
        f"""What this project measured. The attacker holds the original alone, or together with its compressed versions.
        Of an attacker who knows the defence and one who does not, the one with the larger AUC is shown. The attack is
        the best of many, picked with hindsight, which by itself lifts the AUC: 53 is next to nothing. The headline is
        the attack that is chosen without the audited model. Epsilon is at delta = {dp.DELTA:g}. These numbers do not
        say what a defence would do to your model: audit again with it."""
    )
    for comparison in COMPARISONS:
        yield from describe_comparison(comparison)
    yield Bullets(
        [
            "*Early stopping* is the first to try: it takes less time than training to the end. *SELENA*, *MemGuard* "
            "and *RelaxLoss* left less AUC than stopping did on the images, in one seed, but not on the letters, as "
            "far as three seeds can tell. SELENA first trains 25 networks, each on 60 % of the members.",
            "*DP-SGD* is the only one with a guarantee, and only where ε is small. It cannot train batch "
            "normalisation. Its batch size and its learning rates, of training and of fine-tuning, must be tuned.",
            "*Compression is no defence.* In other audits of this project int8 leaked about as much as the original, "
            "and 16 clusters as much, or up to about two points of AUC less. Models pruned by 90 % leaked less; how "
            "much, and at what price in accuracy, differed widely. Whoever has the original too finds what it gives "
            "away.",
            "*Answers as labels only*: the column *AUC, original, labels alone* above. Rounded, or cut to a few "
            f"classes: not measured. {of_labels_alone}",
            "*Stronger weight decay* cost more accuracy on the letters than stopping early did, for as much AUC. "
            "*Dropout and more data*: not measured by this project.",
        ]
    )
    yield Text("These commands of this project train a model with a defence:")
    yield Code(
        "python train.py --dataset_name cifar10 --model_name resnet18 --defend early_stopping\n"
        "python train.py --dataset_name cifar10 --model_name resnet18 --defend ppb --defend_arg 4\n"
        "python train.py --dataset_name cifar10 --model_name resnet18 --defend selena\n"
        "python train.py --dataset_name cifar10 --model_name resnet18_gn --defend dp --defend_arg 1 \\\n"
        "    --defend_lr 1 --defend_batch_size 512   # tune both first: reproduce.py --tune_defence dp:1"
    )


def describe_comparison(comparison: PublishedComparison) -> Iterator[Block]:
    """A published comparison: its table in short, and what its intervals say."""
    folder = PUBLISHED / comparison.folder
    rows = read_rows(folder / "runs.csv")
    seeds = cells.list_seeds(sorted(rows["seed"].unique()))
    versions = len(variants_of_scenario(rows, "NR"))
    yield Text(
        f"""{comparison.subject}: {rows["members"].max():,} members, {versions} versions of each model, {seeds}
        (percent; mean ± standard deviation where there are several seeds)."""
    )
    yield Table(short_table(against_either_attacker(rows)))
    yield Text(describe_effects(read_differences(folder / "differences.csv")))
    if comparison.early_stopping_folder:
        beside = read_beside_defences(PUBLISHED / comparison.early_stopping_folder / "beside_defences.csv")
        yield Text(compare_with_stopping(beside))


def describe_effects(differences: pd.DataFrame) -> str:
    """How much each defence changes the AUC on the original, and at what price in accuracy.

    A change is said to be sure where its interval over seeds does not contain zero. Of one seed there is no interval.
    """
    effects = rows_of_target(differences_of(differences, "defence"), *ALONE)
    effects = effects[(effects["attacker"] == EITHER) & (effects["fine_tuning"] != PLAIN)]
    prices = differences_of(differences, "accuracy")[[*TRAINED_WITH, "difference"]]
    effects = effects.merge(prices.rename(columns={"difference": "price"}), on=TRAINED_WITH).sort_values("difference")
    lowering, raising, unproven, single = [], [], [], []
    for _, row in effects.iterrows():
        name = cells.defence_name(*row[DEFENCE])
        price = f"accuracy {cells.percent(row['price'])}"
        if pd.isna(row["low"]):
            single.append(f"{name}: AUC {cells.percent(row['difference'])} points, {price}")
            continue
        change = cells.interval(row["difference"], row["low"], row["high"])
        if row["high"] < 0:
            lowering.append(f"{name}: AUC {change} points, {price}")
        elif row["low"] > 0:
            raising.append(f"{name}: {change}")
        else:
            unproven.append(name)
    parts = {
        "AUC on the original that surely falls (95 % interval over seeds), and the accuracy": "; ".join(lowering),
        "AUC that surely rises": "; ".join(raising),
        "No change that these seeds can show": ", ".join(unproven),
        "Change in one seed, which another seed may not repeat": "; ".join(single),
    }
    return " ".join(f"{title}: {text}." for title, text in parts.items() if text)


def compare_with_stopping(beside: pd.DataFrame) -> str:
    """The defences that surely leave less than stopping does; of one seed all differences, since none is sure.

    beside: of `early_stopping.beside_defences`.
    """
    is_compared = beside["stopped_auc"].notna()
    compared = beside[is_compared]
    names = names_of(compared)
    others = ", ".join(names_of(beside[~is_compared]))
    incomparable = f" Not as accurate as any moment of the undefended training: {others}." if others else ""
    if compared.empty:
        return incomparable.strip()
    if compared["low"].isna().all():
        changes = [f"{name}: {cells.percent(gap)}" for name, gap in zip(names, compared["difference"], strict=True)]
        listed = "; ".join(changes)
        return f"AUC minus that of stopping early at the same accuracy, in one seed: {listed}.{incomparable}"
    better = [name for name, is_below in zip(names, compared["high"] < 0, strict=True) if is_below]
    return (
        f"Defences that surely leave less AUC than stopping early at the same accuracy: {', '.join(better) or 'none'}."
        f"{incomparable}"
    )


def names_of(rows: pd.DataFrame) -> list[str]:
    return [cells.defence_name(*row[DEFENCE]) for _, row in rows.iterrows()]
