"""The page over runs of several data sets and networks, with its tables and figure."""

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from compleak.findings.across import AcrossFindings, findings_across
from compleak.findings.claims import CLAIM_FORMS, MARGIN, NAMES
from compleak.reports import cells
from compleak.reports.figures.across import across_figure
from compleak.reports.folder import write_report
from compleak.reports.page import Block, Code, Figure, Heading, Table, Text, to_markdown
from compleak.reports.run_page import CLAIM_TEXTS, count_comparisons

FORM = "headline"  # the attacks whose differences the figure shows


def write_across_page(runs: Sequence[Path], folder: Path) -> str:
    """Write settings.csv, claims.csv, strength.csv, across.png and the page into `folder`; returns the page.

    runs: folders of finished runs, published ones included.
    """
    findings = findings_across(runs)
    command = shlex.join(["python", "reproduce.py", "--compare", *map(str, runs)])
    page = to_markdown(page_across(findings, folder, command))
    frames = {"settings": findings.settings, "claims": findings.claims, "strength": findings.strength}
    write_report(folder, frames, {"across": draw_claims(findings)}, page)
    return page


def draw_claims(findings: AcrossFindings):
    claims = findings.claims
    subtitle = f"{FORM} attacks; bars are 95 % intervals, over audit points for one run and over seeds for several"
    return across_figure(claims[claims["form"] == FORM], subtitle)


def page_across(findings: AcrossFindings, folder: Path, command: str) -> list[Block]:
    """The whole page, from finished frames. folder: where it will lie, as its links need it."""
    return [
        Heading("The paper's claims across data sets and networks", level=1),
        Code(command),
        *_claims(findings),
        *_strength(findings.strength),
        *_settings(findings, folder),
        Text("Every comparison is in [claims.csv](claims.csv), every setting in [settings.csv](settings.csv)."),
    ]


def _claims(findings: AcrossFindings) -> Iterator[Block]:
    for claim, says in CLAIM_TEXTS.items():
        yield Text(f"**{claim}**: {says}.")
    yield Figure("across.png", "Every comparison of the claims, with its interval")
    yield Text(
        f"""The verdict on each claim, and how many of its comparisons hold. A claim holds where all of them do, and
        does not hold where one fails. If nothing differed in eight independent comparisons, one of them would fail by
        chance in 18 % of cases. "About as much" (C1) holds where the whole interval lies within {100 * MARGIN:g} points
        of zero. `published` compares the strongest attacks of the literature, picked with hindsight, `without
        references` those of them that use no reference models, as the paper's own do not; `headline` compares the
        attacks that were chosen on the shadow models. For C1 the attack that is strongest on the original is used on
        the compressed model, too."""
    )
    yield Table(verdict_table(findings.verdicts))
    yield Text(
        f"""The differences of AUC behind the verdicts on `{FORM}` attacks, in points: from the lowest to the highest of
        a claim's comparisons."""
    )
    yield Table(range_table(findings.claims[findings.claims["form"] == FORM]))


def verdict_table(verdicts: pd.DataFrame) -> pd.DataFrame:
    """A line a setting, a column for each claim and form."""
    lines: dict[tuple, dict] = {}
    for row in verdicts.itertuples():
        line = lines.setdefault((row.data, row.network), {"data": row.data, "network": row.network})
        line[f"{row.claim} {row.form}"] = f"{row.verdict} ({count_comparisons(row)})"
    columns = ["data", "network", *(f"{claim} {form}" for claim in NAMES for form in CLAIM_FORMS)]
    return pd.DataFrame(lines.values(), columns=columns)


def range_table(claims: pd.DataFrame) -> pd.DataFrame:
    """A line a setting, a column a claim: the lowest and the highest difference, each with its comparison."""
    lines: dict[tuple, dict] = {}
    for (data, network, claim), own in claims.groupby(["data", "network", "claim"], sort=False):
        line = lines.setdefault((data, network), {"data": data, "network": network})
        ends = own.loc[list(dict.fromkeys([own["difference"].idxmin(), own["difference"].idxmax()]))]
        line[claim] = " to ".join(f"{100 * row.difference:+.2f} ({row.key})" for row in ends.itertuples())
    return pd.DataFrame(lines.values(), columns=["data", "network", *NAMES]).fillna("")


def _strength(strength: pd.DataFrame) -> Iterator[Block]:
    if strength.empty:
        return
    yield Heading("The headline against one published attack")
    yield Text(
        """AUC on one model (NR), mean over the original and all compressed models, and over seeds. The published attack
        is the one that does best by this mean, the same for all models of a setting, but picked with hindsight. The
        lead of the headline has an interval over seeds (Student's t)."""
    )
    shown = strength[["data", "network", "attack"]].copy()
    shown["its AUC"] = strength["published"].map(cells.percent)
    shown["headline"] = strength["headline"].map(cells.percent)
    shown["lead"] = cells.intervals(strength, "lead")
    yield Table(shown)


def _settings(findings: AcrossFindings, folder: Path) -> Iterator[Block]:
    yield Heading("The runs")
    yield Text(
        """Accuracies and AUCs are percent, means over seeds. NR is the headline attack on the original alone, MR the
        one on all models together. The controls, `null` and `blind`, must sit at 50: how many have it within their 95 %
        interval, and whether all together differ from it by more than chance."""
    )
    yield Table(settings_table(findings, folder))


def settings_table(findings: AcrossFindings, folder: Path) -> pd.DataFrame:
    """`AcrossFindings.settings` for people, with links to the runs' own pages."""
    settings = findings.settings
    shown = settings[["data", "network", "members", "shadows"]].copy()
    shown["seeds"] = [_links(folders, folder) for folders in findings.folders]
    titles = {"train_accuracy": "accuracy on members", "test_accuracy": "on others", "NR_auc": "NR", "MR_auc": "MR"}
    for key, title in titles.items():
        shown[title] = ["" if pd.isna(value) else cells.percent(value) for value in settings[key]]
    shown["controls"] = [
        f"{row.controls_at_chance} of {row.controls}, {'passed' if row.controls_passed else 'FAILED'}"
        for row in settings.itertuples()
    ]
    return shown


def _links(runs: Sequence[Path], folder: Path) -> str:
    """`[1](../a/summary.md) [2](../b/summary.md)`."""
    places = [os.path.relpath(run / "summary.md", folder) for run in runs]
    return " ".join(f"[{number}]({place})" for number, place in enumerate(places, start=1))
