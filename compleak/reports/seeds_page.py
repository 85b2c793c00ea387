"""The page over runs that differ in nothing but their seed, with its tables and figure."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from compleak.findings import outputs
from compleak.findings.exposure import FOUND_AT, USUAL_SHARE
from compleak.findings.rows import ALL, ALONE, CONTESTED, TARGET, TOGETHER, attack_rows
from compleak.findings.seeds import SeedsFindings, findings_of_seeds, leading_row
from compleak.reports import cells
from compleak.reports.figures.degrees import degrees_figure
from compleak.reports.folder import write_report
from compleak.reports.leakage_table import leakage_table
from compleak.reports.page import Block, Bullets, Code, Figure, Heading, Table, Text, to_markdown
from compleak.runs.run import Run, defence_in_words

ACCUSERS = (ALONE, TOGETHER)  # targets whose headlines the page judges as accusations


class SeedsFacts(NamedTuple):
    """What the page says of the runs themselves."""

    name: str
    seed_runs: Sequence[Run]
    minutes: float  # of all stages of all runs
    command: str  # that makes them again


def write_seeds_page(seed_runs: Sequence[Run], folder: Path, command: str) -> str:
    """Write tables, figure and page over all runs into `folder`; returns the page. Each run's page must exist.

    command: what to type to get them again.
    """
    findings = findings_of_seeds(seed_runs)
    minutes = sum(outputs.minutes(run) for run in seed_runs)
    facts = SeedsFacts(folder.name, seed_runs, minutes, command)
    page = to_markdown(page_of_seeds(facts, findings))
    frames = {"summary": findings.spread, "claims": findings.claims, "agreement": findings.agreement}
    frames |= {"records": findings.records}
    write_report(folder, frames, {"degrees": draw_degrees(facts, findings)}, page)
    return page


def draw_degrees(facts: SeedsFacts, findings: SeedsFindings):
    subtitle = f"{facts.name}: mean over {len(facts.seed_runs)} seeds; bars from the lowest to the highest seed"
    variants = outputs.victim_models(findings.models)["variant"].unique()
    return degrees_figure(findings.leading, list(variants), subtitle)


def page_of_seeds(facts: SeedsFacts, findings: SeedsFindings) -> list[Block]:
    """The whole page, from finished frames."""
    return [
        *_head(facts, findings.tables[0]),
        *_leakage(facts, findings),
        *_claims(findings.claims),
        *_strength(findings.strength),
        *_accusations(findings.leading),
        *_exposure(findings),
        *_controls(findings),
        Text("Every attack's row is in [summary.csv](summary.csv)."),
    ]


def _head(facts: SeedsFacts, table: pd.DataFrame) -> Iterator[Block]:
    first = facts.seed_runs[0]
    config = first.config
    data = f"data: {config['dataset_name']} (fingerprint {config['data']})"
    links = [f"[seed {run.config['seed']}](../{run.name}/summary.md)" for run in facts.seed_runs]
    members, others = table["n_member"].max(), table["n_nonmember"].max()
    yield Heading(facts.name, level=1)
    yield Code(facts.command)
    yield Bullets(
        [
            f"{data}; network: {config['model_name']} at width {config['width']:g}",
            f"every seed has a split, training, compressions and attacks of its own: {', '.join(links)}",
            f"defence: {defence_in_words(first) or 'none'}",
            f"shadow models: {config['shadow_num']}; audited in each run: {members} members and {others} non-members",
            f"cost: {facts.minutes:.0f} minutes, all stages of all runs added up",
        ]
    )


def _leakage(facts: SeedsFacts, findings: SeedsFindings) -> Iterator[Block]:
    yield Text(
        f"""All numbers are percent: mean ± standard deviation over {len(facts.seed_runs)} seeds. TPR is at a
        false-positive rate of at most 0.1 %. `published` is each run's attack of the literature with the largest AUC on
        the victim, `headline` the attack that was chosen on the run's shadow models."""
    )
    leading = findings.leading
    shown = leading[(leading["scenario"] != "MR") | (leading["variant"] == ALL)]
    yield Table(leakage_table(_model_cells(findings.models), shown, cells.row_plus_minus))
    yield Figure("degrees.png", "Leakage against compression")


def _model_cells(models: pd.DataFrame) -> pd.DataFrame:
    victims = outputs.victim_models(models).groupby("variant", sort=False)
    accuracy = victims["test_accuracy"].agg(["mean", "std"])
    shown = pd.DataFrame({"accuracy": [cells.plus_minus(*row) for row in accuracy.to_numpy()]}, accuracy.index)
    shown["MB"] = victims["bytes"].mean().map(cells.megabytes)
    return shown


def _claims(claims: pd.DataFrame) -> Iterator[Block]:
    yield Heading("The paper's claims")
    yield Text(
        """Differences are of AUC, in points, paired in each run on the same audit points: mean over seeds with the 95 %
        interval of Student's t. `without references` are the published attacks that use no reference models, as the
        paper's own do not. `alone` counts the runs whose own interval, over audit points, gives the same verdict.
        """
    )
    differences = cells.intervals_of(claims, "difference", "low", "high")
    yield Table(claims.assign(difference=differences)[["claim", "form", "key", "difference", "verdict", "alone"]])


def _strength(strength: pd.DataFrame) -> Iterator[Block]:
    yield Heading("Headline against the strongest published attack")
    yield Text(
        """The headline's AUC and TPR minus those of the strongest published attack, which is picked with hindsight, for
        AUC and for TPR apart: mean over seeds with its interval."""
    )
    shown = strength[TARGET].copy()
    for key, title in zip(CONTESTED, ("AUC", "TPR at 0.1% FPR"), strict=True):
        shown[title] = cells.intervals(strength, key)
    yield Table(shown)


def _accusations(leading: pd.DataFrame) -> Iterator[Block]:
    yield Heading("What an accusation is worth")
    yield Text(
        f"""The headlines at the threshold that gives 0.1 % false alarms on the shadow models. PPV is the share of
        members among the accused where {cells.PRIORS_IN_WORDS} % of all points are members; it is undefined where a run
        accuses nobody."""
    )
    lines = []
    for scenario, variant in ACCUSERS:
        row = leading_row(leading, scenario, variant, "headline")
        if row is not None:
            accusation = {title: cells.row_plus_minus(row, key) for key, title in cells.ACCUSATION.items()}
            lines.append({"scenario": scenario, "variant": variant, **accusation})
    yield Table(pd.DataFrame(lines))


def _exposure(findings: SeedsFindings) -> Iterator[Block]:
    agreement = findings.agreement
    yield Heading("Who is exposed: the same points again?")
    yield Text("Rank correlation (Spearman) of exposure between runs, over points that are members in both.")
    shown = agreement[["run", "other", "members of both"]].copy()
    if "correlation" in agreement:
        columns = agreement[["correlation", "correlation_lo", "correlation_hi"]].itertuples(index=False)
        shown["correlation"] = [f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in columns]
    yield Table(shown)
    if len(findings.found_again):
        yield from _found_again(findings)


def _found_again(findings: SeedsFindings) -> Iterator[Block]:
    yield Text(
        f"""How often a point that is a member in several runs is found, while at most {FOUND_AT:.0%} of the non-members
        are accused, and how many points there would be `by chance` if runs found members independently of each other:
        """
    )
    shown = findings.found_again
    yield Table(shown.assign(by_chance=shown["by_chance"].map("{:.1f}".format)))
    records = findings.records
    accused, wrong = records["accused_in"].sum(), records["wrongly_accused_in"].sum()
    often = int((records["accused_in"] > 1).sum())
    yield Text(
        f"""The lists of accused of all runs, of which at most {USUAL_SHARE:.0%} are expected to be non-members, hold
        {accused} members and {wrong} non-members, all runs added up; {often} points stand on more than one list as
        members. `records.csv` has each record."""
    )


def _controls(findings: SeedsFindings) -> Iterator[Block]:
    yield Heading("Controls")
    count = len(attack_rows(findings.tables[0]))
    yield Text(
        f"""`null` is every attack on non-members alone. Its mean AUC over all {count} rows of a run is
        {cells.listing(findings.null_means)} in the runs. The rows of one run compare the same two halves of the
        non-members, so they differ from 50 together. Each run's own page judges them, and `blind`, with intervals."""
    )
