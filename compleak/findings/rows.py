"""Selecting rows of an attack table: frames in, rows or frames out.

An attack table (PROTOCOL, section 7) has a row for each attack on each target, and a row for each control. A target is
a scenario (NR, SR or MR) with a variant: the compressed model of the pair in SR, the family of models in MR.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

import attacks
from attacks.registry import PREDICTED_AND_TRUE_LABELS
from compleak.audits.metrics import TPR
from compleak.audits.table import CHOSEN
from compleak.runs import variants

ORIGINAL = str(variants.ORIGINAL)  # as tables spell it
ALL = "all"  # the variant of MR's target that holds all compressed models
ALONE, TOGETHER = ("NR", ORIGINAL), ("MR", ALL)  # the targets of the least and of the most that an attacker holds
CONTROLS = ("null", "blind", "references")
STRONGEST, PUBLISHED, HEADLINE = "strongest", "published", "headline"  # which attack speaks: see `rows_of_form`
LEADING_FORMS = (PUBLISHED, HEADLINE)
ATTACKS = (*attacks.NR, *attacks.SR, *attacks.MR)
OURS = {attack.name for attack in ATTACKS if not attack.published}
WITHOUT_REFERENCES = "without references"  # the form of published attacks that use no model which never saw the point
REFERENCE_FREE = {attack.name for attack in ATTACKS if attack.published and not attack.references}
LABEL_ONLY = "label-only"  # the form of attacks that are told predicted labels and no posteriors
LABEL_ONLY_KEYS = {attack.key for attack in ATTACKS if attack.reads == PREDICTED_AND_TRUE_LABELS}
TARGET = ["scenario", "variant"]
LEAST_JUDGED = 0.5  # of the points that other attacks judged: an attack on fewer does not speak for a target
CONTESTED = {"auc": "AUC", TPR: "TPR"}  # measures by which a headline is compared with published attacks


def read_table(file: Path, texts: Sequence[str]) -> pd.DataFrame:
    """A table that a page has written. In the columns `texts` an empty cell is an empty text, elsewhere NaN."""
    return pd.read_csv(file, dtype=dict.fromkeys(texts, str)).fillna(dict.fromkeys(texts, ""))


def attack_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The table without its controls and without the upper bound, which is no attack."""
    return table[~table["attack"].isin((*CONTROLS, attacks.UPPER_BOUND.name))]


def published_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The attacks of the literature: neither controls nor attacks of ours, nor a choice among both."""
    rows = attack_rows(table)
    return rows[~rows["attack"].isin((*OURS, CHOSEN))]


def headline_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The attack of each target that was chosen on the shadow models; `--attacks` may leave a target without one."""
    return table[table["headline"]]


def reference_free_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The attacks of the literature that compare no point with models that were not trained on it."""
    rows = published_rows(table)
    return rows[rows["attack"].isin(REFERENCE_FREE)]


def label_only_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The attacks to which a model need only tell its predicted class."""
    rows = attack_rows(table)
    keys = [key_of(row) for _, row in rows.iterrows()]
    return rows.loc[[key in LABEL_ONLY_KEYS for key in keys]]


def rows_of_form(table: pd.DataFrame, form: str) -> pd.DataFrame:
    """The attacks among which the strongest speaks for a target.

    form: `strongest` (all attacks), `published` (those of the literature), `without references`, `headline`,
    `label-only`, or the name of an attack.
    """
    selections = {STRONGEST: attack_rows, PUBLISHED: published_rows, HEADLINE: headline_rows}
    selections |= {WITHOUT_REFERENCES: reference_free_rows, LABEL_ONLY: label_only_rows}
    if form in selections:
        return selections[form](table)
    return table[table["attack"] == form]


def on_most_points(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of attacks that judged most of the points, and not a small sample of them, as `boundary` does.

    In a small sample an attack is easily strongest by chance.
    """
    return rows[rows["n_member"] >= LEAST_JUDGED * rows["n_member"].max()]


def strongest(rows: pd.DataFrame, measure: str = "auc") -> pd.Series:
    """The row of largest AUC, or of another measure, among attacks that judged most of the points."""
    return rows.loc[on_most_points(rows)[measure].idxmax()]


def scenario_row(table: pd.DataFrame, scenario: str, variant: str, form: str) -> pd.Series | None:
    """The strongest attack of a form on one target; None where the table has none."""
    rows = rows_of_form(rows_of_target(table, scenario, variant), form)
    return strongest(rows) if len(rows) else None


def rows_of_target(table: pd.DataFrame, scenario: str, variant: str) -> pd.DataFrame:
    """All rows of one target."""
    return table[(table["scenario"] == scenario) & (table["variant"] == variant)]


def variants_of_scenario(table: pd.DataFrame, scenario: str) -> list[str]:
    """The variants that a scenario has rows of, in their order."""
    return list(table.loc[table["scenario"] == scenario, "variant"].unique())


def leading_rows(table: pd.DataFrame, forms: Sequence[str] = LEADING_FORMS) -> pd.DataFrame:
    """For each target and form the row of the strongest attack, with the form in a column of its own.

    The table's index must be unique. A target without attacks of a form has no row for it.
    """
    places, form_of_place = [], []
    for _, own in table.groupby(TARGET, sort=False):
        for form in forms:
            rows = rows_of_form(own, form)
            if len(rows):
                places.append(strongest(rows).name)
                form_of_place.append(form)
    return table.loc[places].assign(form=form_of_place)


def strongest_headlines(table: pd.DataFrame) -> pd.DataFrame:
    """The headline of largest AUC on the victim, for each scenario."""
    rows = headline_rows(table)
    return rows.loc[list(rows.groupby("scenario", sort=False)["auc"].idxmax())]


def strength_table(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each target: the headline beside the strongest published attack, by AUC and by TPR at 0.1 % FPR.

    Columns: `<measure>_headline` and `<measure>_published`, each with _lo and _hi, and `<measure>_by`, the published
    attack's name. A target without a headline or without a published attack, as `--attacks` may leave it, has no row.
    """
    return pd.DataFrame([_contest(*contest) for contest in _contests(table)])


def _contests(table: pd.DataFrame) -> Iterator[tuple[dict, pd.Series, pd.DataFrame]]:
    for target, own in table.groupby(TARGET, sort=False):
        headlines = headline_rows(own)
        published = published_rows(own)
        if len(headlines) and len(published):
            yield dict(zip(TARGET, target, strict=True)), headlines.iloc[0], published


def _contest(target: dict, headline: pd.Series, published: pd.DataFrame) -> dict:
    line = dict(target)
    for key in CONTESTED:
        best = strongest(published, key)
        for end in ("", "_lo", "_hi"):
            line[f"{key}_headline{end}"] = headline[key + end]
            line[f"{key}_published{end}"] = best[key + end]
        line[f"{key}_by"] = key_of(best)
    return line


def key_of(row: pd.Series) -> str:
    """The name of a row's scores in `<scenario>_scores.npz`."""
    return f"{row['attack']}/{row['classifier']}" if row["classifier"] else row["attack"]


def name_of(row: pd.Series) -> str:
    """Scenario, variant and attack of a row, as `NR original rmia`: unique in a table."""
    return f"{row['scenario']} {row['variant']} {key_of(row)}"
