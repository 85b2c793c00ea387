"""The page that compares defences, with its tables and figure."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from compleak.audits import metrics
from compleak.findings import outputs
from compleak.findings.defences import (
    DEFENCE,
    DEFENDED,
    LEAST_PROTECTION,
    PLAIN,
    SETTING,
    Audit,
    DefencesFindings,
    count_signs,
    differences_of,
    findings_of_defences,
    null_controls,
    spread_over_seeds,
)
from compleak.findings.rows import ALONE, HEADLINE, LABEL_ONLY, STRONGEST, TOGETHER, rows_of_target
from compleak.reports import cells
from compleak.reports.figures.tradeoff import tradeoff_figure
from compleak.reports.folder import write_report
from compleak.reports.page import Block, Bullets, Code, Figure, Heading, Table, Text, to_markdown
from defenses import dp

LEAKAGE_TABLES = (  # title, form of attack, measure
    ("AUC of the strongest attack", "strongest", "auc"),
    ("AUC of the headline", "headline", "auc"),
    ("AUC of the strongest attack that reads labels alone", LABEL_ONLY, "auc"),
    ("TPR at 0.1 % false alarms, strongest attack", "strongest", metrics.TPR),
    ("TPR at 1 % false alarms, strongest attack", "strongest", metrics.WIDER_TPR),
    ("AUC of the calibrated attack", "calibrated", "auc"),
    ("AUC of the strongest published attack", "published", "auc"),
)


class DefencesFacts(NamedTuple):
    """What the page says of the runs themselves."""

    config: dict  # of the first run
    originals: list[dict]  # meta.json of each run's victim
    seeds: list[int]
    command: str  # that makes the runs again
    settings: dict[str, str]  # the flags that each kind of stage was given


def write_defences_page(audits: Sequence[Audit], folder: Path, command: str, settings: dict[str, str]) -> str:
    """Write the tables (runs, summary, differences, after_compression), tradeoff.png and the page; returns the page.

    command: what to type to get them again; settings: the flags each kind of stage was given, "" where none.
    """
    findings = findings_of_defences(audits)
    seeds = sorted(findings.rows["seed"].unique())
    originals = [outputs.original_meta(audit.run) for audit in audits]
    facts = DefencesFacts(audits[0].run.config, originals, seeds, command, settings)
    page = to_markdown(page_of_defences(facts, findings))
    frames = {"runs": findings.rows, "summary": findings.spread, "differences": findings.differences}
    if len(findings.after_compression):
        frames["after_compression"] = findings.after_compression
    write_report(folder, frames, {"tradeoff": draw_tradeoff(facts, findings)}, page)
    return page


def draw_tradeoff(facts: DefencesFacts, findings: DefencesFindings):
    bars = " (bars: standard deviations)" if len(facts.seeds) > 1 else ""
    about = f"{facts.config['dataset_name']}, {cells.list_seeds(facts.seeds)}{bars}"
    return tradeoff_figure(findings.spread, f"{about}; numbers: how strong a defence is")


def page_of_defences(facts: DefencesFacts, findings: DefencesFindings) -> list[Block]:
    """The whole page, from finished frames."""
    return [
        *_head(facts),
        *_explanation(facts, findings.rows),
        *_in_short(findings.either),
        *_leakage(findings),
        *_after_compression(findings),
        *_price_and_effect(findings.differences),
        *_knowing(findings.differences),
        *_more_models(findings.differences),
        *_control(findings.rows),
        Text(
            """Everything is in [summary.csv](summary.csv), each run in [runs.csv](runs.csv), the paired differences in
            [differences.csv](differences.csv)."""
        ),
    ]


def _head(facts: DefencesFacts) -> Iterator[Block]:
    config = facts.config
    first = facts.originals[0]
    commits = " ".join(dict.fromkeys(meta["commit"] for meta in facts.originals))
    data = f"data: {config['dataset_name']} (fingerprint {config['data']})"
    seeds = cells.list_seeds(facts.seeds)
    yield Heading("Defences against an attacker with one model, two, or all", level=1)
    yield Code(facts.command)
    yield Bullets(
        [
            f"{data}; width {config['width']:g}; {seeds}; shadow models: {config['shadow_num']}",
            f"stages: {cells.list_settings(facts.settings)}",
            f"{first['machine']}, torch {first['versions']['torch']}, commit {commits}",
        ]
    )


def _explanation(facts: DefencesFacts, rows: pd.DataFrame) -> Iterator[Block]:
    spread = "mean ± standard deviation over seeds" if len(facts.seeds) > 1 else "of a single seed"
    yield Text(f"Numbers are percent, {spread}.")
    yield Text(
        f"""A defence is at work in training and in the fine-tuning of every compression; where `fine-tuning` says
        plain, it is at work in training alone. A defence of answers (MemGuard and the like) stands between undefended
        models and whoever asks them. The shadow models of a non-adaptive attacker are undefended, those of an adaptive
        attacker have the same defence. {_on_networks(rows)}`accuracy` is that of the victim's original on points it was
        not trained on. It was trained on {_members(rows)} members. Epsilon is that of all models together at delta =
        {dp.DELTA:g}, by Opacus' accountant, and holds as long as the seed is secret. All defences but early stopping
        use the same number of epochs and, but for what is said behind a name, the same learning rate and batch size."""
    )
    yield Text(
        """`strongest` is the attack, of the literature or ours, that does best on the victim, picked with hindsight,
        for AUC and for TPR apart: what a defence has to withstand. An attacker who holds several models can also attack
        one or two of them. The best of many attacks is above 50 where nothing leaks, and more so with more models to
        attack. `headline` is the attack that was chosen on the shadow models, in which the victim has no say. The
        strongest attack that reads labels alone needs no more than the predicted class. `calibrated` alone can fall far
        below `strongest` where victim and shadow models are of different kinds, as those of a non-adaptive attacker
        are."""
    )
    if note := cells.few_nonmembers(rows):
        yield Text(note)
    yield Figure("tradeoff.png", "Accuracy against leakage")


def _on_networks(rows: pd.DataFrame) -> str:
    """Why a second network is there, where one is."""
    if rows["network"].nunique() == 1:
        return ""
    return (
        "DP-SGD cannot train batch normalisation: it trains a network with group normalisation, and the same network "
        "without a defence stands beside it. "
    )


def _members(rows: pd.DataFrame) -> str:
    """How many members the victims were trained on, by defence where that differs."""
    counts = rows.groupby("defence", sort=False)["members"].first()
    if counts.nunique() == 1:
        return f"{counts.iloc[0]}"
    return ", ".join(f"{cells.DEFENCE_NAMES[name]} {count}" for name, count in counts.items())


def _in_short(either: pd.DataFrame) -> Iterator[Block]:
    yield Heading("In short")
    yield Text(
        """AUC of the strongest attack, and beside it that of the headline, by `either` attacker: seed by seed the one
        with the larger AUC, whose shadow models have the defence or have none. Without a defence there is one attacker,
        and the larger of two numbers is a little larger by chance. Fine-tuning is defended."""
    )
    yield Table(short_table(either))


def short_table(either: pd.DataFrame) -> pd.DataFrame:
    """A line for each defence: accuracy, epsilon and AUC. either: of `defences.against_either_attacker`."""
    spread = spread_over_seeds(either[either["fine_tuning"] != PLAIN])
    lines = []
    for _, own in spread.groupby(SETTING, sort=False, dropna=False):
        original, together = (rows_of_target(own, *target).set_index("form") for target in (ALONE, TOGETHER))
        strongest = original.loc[STRONGEST]
        line = {"defence": cells.defence_name(*strongest[DEFENCE]), "network": strongest["network"]}
        line["accuracy"] = _over_seeds(strongest, "accuracy")
        line["epsilon, all models"] = _epsilon(together["epsilon"].max())
        line["AUC, original"] = _over_seeds(strongest, "auc")
        line["AUC of the headline, original"] = _over_seeds(original.loc[HEADLINE], "auc")
        line["AUC, all models"] = _over_seeds(together.loc[STRONGEST], "auc") if len(together) else ""
        line["AUC, original, labels alone"] = _over_seeds(original.loc[LABEL_ONLY], "auc")
        lines.append(line)
    return pd.DataFrame(lines)


def _leakage(findings: DefencesFindings) -> Iterator[Block]:
    for title, form, key in LEAKAGE_TABLES:
        own = findings.spread[findings.spread["form"] == form]
        is_shown = key != metrics.WIDER_TPR or cells.few_nonmembers(findings.rows)
        if len(own) and is_shown:
            yield Heading(f"Leakage: {title}")
            yield Table(leakage_by_victim(own, key))


def leakage_by_victim(rows: pd.DataFrame, key: str) -> pd.DataFrame:
    """A line for each defence, attacker and way of fine-tuning: accuracy, epsilon, and a measure of every target.

    rows: of `defences.spread_over_seeds`, of one form.
    """
    lines = []
    for _, own in rows.groupby(SETTING, sort=False, dropna=False):
        line = _setting_cells(own.iloc[0])
        line["accuracy"] = _over_seeds(rows_of_target(own, *ALONE).iloc[0], "accuracy")
        line["epsilon, all models"] = _epsilon(rows_of_target(own, *TOGETHER)["epsilon"].max())
        targets = {f"{row['scenario']} {row['variant']}": _over_seeds(row, key) for _, row in own.iterrows()}
        lines.append({**line, **targets})
    return pd.DataFrame(lines).fillna("")


def _setting_cells(row: pd.Series) -> dict[str, str]:
    """The cells that say which runs a line is about."""
    name = cells.defence_name(row["defence"], row["argument"], row["recipe"])
    shown = {"network": row["network"], "attacker": row["attacker"], "fine-tuning": row["fine_tuning"]}
    return {"defence": name, **{key: text or "-" for key, text in shown.items()}}


def _after_compression(findings: DefencesFindings) -> Iterator[Block]:
    rows = findings.after_compression
    if not len(rows):
        return
    yield Heading("After compression: what is left of the protection where fine-tuning is plain")
    yield Text(
        f"""AUC of the strongest attack by an attacker who knows the defence: with defended fine-tuning → with plain
        fine-tuning of the same defended original. In brackets, how much of what the defence takes away from the
        undefended AUC is still taken away: 100 % where nothing is undone, 0 % where all is. It is left out where the
        defence takes away less than {100 * LEAST_PROTECTION:g} points. An attacker of SR and MR can attack the
        original, which is the same under both: what fine-tuning does is in the columns of NR."""
    )
    yield Table(_by_target(rows, _protection_cell))
    added = differences_of(findings.differences, "fine-tuning")
    yield Text(
        f"""AUC with plain less that with defended fine-tuning, paired by seed, with the 95 % interval over seeds
        (Student's t). Of the two attackers on single models: {describe_signs(added)}."""
    )
    yield Table(difference_table(added))
    yield Text("Test accuracy of the same compressed models, with defended → with plain fine-tuning.")
    yield Table(_by_target(rows[rows["scenario"] == "NR"], _accuracy_cell))


def _by_target(rows: pd.DataFrame, cell: Callable[[pd.Series], str]) -> pd.DataFrame:
    """A line for each defence, a column for each target, of the adaptive attacker."""
    lines = {}
    for _, row in rows[rows["attacker"] == "adaptive"].iterrows():
        name = cells.defence_name(row["defence"], row["argument"], row["recipe"])
        line = lines.setdefault((name, row["network"]), {"defence": name, "network": row["network"]})
        line[f"{row['scenario']} {row['variant']}"] = cell(row)
    return pd.DataFrame(lines.values()).fillna("")


def _protection_cell(row: pd.Series) -> str:
    left = "" if np.isnan(row["left"]) else f" ({100 * row['left']:.0f} %)"
    return f"{cells.percent(row[DEFENDED])} → {cells.percent(row[PLAIN])}{left}"


def _accuracy_cell(row: pd.Series) -> str:
    return f"{cells.percent(row[f'{DEFENDED}_accuracy'])} → {cells.percent(row[f'{PLAIN}_accuracy'])}"


def _over_seeds(row: pd.Series, key: str) -> str:
    return cells.plus_minus(row[f"{key}_mean"], row[f"{key}_sd"])


def _epsilon(value: float) -> str:
    """Empty without DP-SGD, where it is infinite, and where nothing attacks all models."""
    return f"{value:.1f}" if value < np.inf else ""


def _price_and_effect(differences: pd.DataFrame) -> Iterator[Block]:
    yield Heading("Price: accuracy of the defended original less the undefended")
    yield Table(difference_table(differences_of(differences, "accuracy")))
    effect = differences_of(differences, "defence")
    yield Heading("What the defence takes away")
    yield Text(
        f"""AUC of the strongest attack with the defence less without it, same network and target, paired by seed, with
        the 95 % interval over seeds (Student's t). Of the two attackers on single models: {describe_signs(effect)}."""
    )
    yield Table(difference_table(effect))


def _knowing(differences: pd.DataFrame) -> Iterator[Block]:
    yield Heading("Against whom: does knowing the defence help?")
    strongest = differences_of(differences, "knowing")
    yield Text(
        f"""AUC of the adaptive attacker less the non-adaptive one's. Strongest attack on single models:
        {describe_signs(strongest)}."""
    )
    yield Table(difference_table(strongest))
    yield from _calibrated(differences, "knowing")


def _more_models(differences: pd.DataFrame) -> Iterator[Block]:
    yield Heading("Against whom: do more models help?")
    strongest = differences_of(differences, "family")
    yield Text(
        f"""AUC of SR and MR less that on the original alone, under the same defence. That of the strongest attack is
        never below zero, since whoever holds more can still attack the original: {describe_rises(strongest)}. Targets
        that share models can share the attack, and so repeat each other."""
    )
    yield Table(difference_table(strongest))
    yield from _calibrated(differences, "family")


def _calibrated(differences: pd.DataFrame, what: str) -> Iterator[Block]:
    calibrated = differences_of(differences, what, "calibrated")
    yield Text(f"Calibrated attack: {describe_signs(calibrated)}.")
    yield Table(difference_table(calibrated))


def difference_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Answers to one question: a line for each defence and attacker, a column for each target."""
    shown = rows.assign(cell=cells.intervals_of(rows, "difference", "low", "high"))
    lines = {}
    for _, row in shown.iterrows():
        line = _setting_cells(row.fillna({"attacker": ""}))
        column = "accuracy"
        if row["what"] == "accuracy":
            line = {key: line[key] for key in ("defence", "network")}
        else:
            column = f"{row['scenario']} {row['variant']}"
        lines.setdefault(tuple(line.values()), line)[column] = row["cell"]
    return pd.DataFrame(lines.values()).fillna("")


def describe_signs(rows: pd.DataFrame) -> str:
    """How many differences under a defence lie above zero with their whole interval, and how many below."""
    signs = count_signs(rows)
    if signs is None:
        return "one seed, no intervals"
    return (
        f"of {signs.count} intervals {signs.above} lie above zero and {signs.below} below, where chance alone would "
        f"put {signs.by_chance:.1f} on either side"
    )


def describe_rises(rows: pd.DataFrame) -> str:
    """How many differences that cannot be below zero lie above it with their whole interval."""
    signs = count_signs(rows)
    return "one seed, no intervals" if signs is None else f"{signs.above} of {signs.count} intervals lie above it"


def _control(rows: pd.DataFrame) -> Iterator[Block]:
    nulls = null_controls(rows)
    yield Heading("Control")
    yield Text(
        f"""`null`, the strongest attack on non-members alone, in each run and target: {nulls.off} of {nulls.count}
        intervals do not contain 50; by chance alone about one in twenty would not. Targets that share models can share
        the attack, and all runs of a seed compare the same two halves of the non-members, so they differ from 50
        together; mean AUC by seed: {cells.listing(nulls.mean_by_seed)}."""
    )
