"""The end of a run: its tables, figures and the page `summary.md`, all in the run's folder."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

import attacks
from compleak.audits import metrics
from compleak.findings import claims, controls, exposure, outputs, rows
from compleak.findings.one_run import RunFindings, findings_of_run
from compleak.reports import cells
from compleak.reports.figures.cost import cost_figure
from compleak.reports.figures.degrees import degrees_figure
from compleak.reports.figures.exposed import exposed_figure
from compleak.reports.figures.family import family_figure
from compleak.reports.figures.greedy import greedy_figure
from compleak.reports.figures.roc import roc_figure
from compleak.reports.folder import write_report
from compleak.reports.leakage_table import leakage_table
from compleak.reports.page import Block, Bullets, Code, Figure, Heading, Table, Text, to_markdown
from compleak.runs.run import Run, dataset, defence_in_words
from compleak.training.make import describe_privacy
from data.inputs import InputKind
from data.splits import ONLINE, SELENA

CLAIM_TEXTS = {
    "C1": "the 90 % pruned model leaks less than the original, lightly compressed ones about as much",
    "C2": "original and compressed model together (SR) leak more than either alone (NR)",
    "C3": "all compressed models together (MR) leak more than the best pair (SR)",
}
WHOSE_POINTS = {  # of the shadow models, where the split is not the usual one
    ONLINE: ", trained on the victim's points, too (`--split online`)",
    SELENA: " (`--split selena`)",
}
INTERVALS = "bars are 95 % intervals over audit points"


class RunFacts(NamedTuple):
    """What the page says of the run itself."""

    run: Run
    original: dict  # meta.json of the victim's original
    minutes: float  # of all stages
    command: str  # that makes the run again
    settings: dict[str, str]  # the flags that each kind of stage was given

    @property
    def kind(self) -> InputKind:
        return self.run.kind


def write_run_page(run: Run, variants: Sequence[str], command: str, settings: dict[str, str]) -> str:
    """Write the run's tables, figures and page into its folder; returns the page.

    variants: see `findings_of_run`; command: what to type to get them again; settings: the flags each kind of stage was
    given, "" where none.
    """
    findings = findings_of_run(run, variants)
    facts = RunFacts(run, outputs.original_meta(run), outputs.minutes(run), command, settings)
    page = to_markdown(page_of_run(facts, findings))
    frames = {"summary": findings.attacks, "models": findings.models, "claims": findings.claims}
    frames |= {"family": findings.family, "greedy": findings.greedy, "points": findings.points}
    write_report(run.dir, frames, draw_figures(facts, findings), page)
    return page


def draw_figures(facts: RunFacts, findings: RunFindings) -> dict:
    """The figures of the page by the names of their files."""
    name = facts.run.name
    victim = outputs.victim_models(findings.models)
    leading = rows.leading_rows(findings.attacks)
    figures = {
        "roc": roc_figure(findings.curves, name),
        "degrees": degrees_figure(leading, list(victim["variant"]), f"{name}; {INTERVALS}"),
        "cost": cost_figure(victim, name),
        "family": family_figure(findings.family, f"{name}; {INTERVALS}"),
    }
    if len(findings.greedy):
        figures["greedy"] = greedy_figure(findings.greedy, f"{name}; {INTERVALS}")
    if facts.kind.showable:
        data = dataset(facts.run)
        figures["exposed"] = exposed_figure(findings.points, data.images, data.classes, name)
    return figures


def page_of_run(facts: RunFacts, findings: RunFindings) -> list[Block]:
    """The whole page, from finished frames."""
    return [
        *_head(facts, findings.attacks),
        *_leakage(findings),
        *_claims(findings.claims),
        *_family(findings),
        *_accusations(findings.attacks),
        *_exposure(facts, findings.points),
        *_strength(findings.attacks),
        *_upper_bound(findings.attacks),
        *_tails(findings),
        *_controls(facts, findings.attacks),
        Text("Every attack's row is in [summary.csv](summary.csv), every model's in [models.csv](models.csv)."),
    ]


def _head(facts: RunFacts, table: pd.DataFrame) -> Iterator[Block]:
    config = facts.run.config
    members, others = table["n_member"].max(), table["n_nonmember"].max()
    meta = facts.original
    yield Heading(facts.run.name, level=1)
    yield Code(facts.command)
    yield Bullets(
        [
            f"data: {config['dataset_name']} (fingerprint {config['data']}), seed {config['seed']}",
            f"shadow models: {config['shadow_num']}{WHOSE_POINTS.get(config.get('layout'), '')}; "
            f"audited: {members} members and {others} non-members",
            f"network: {config['model_name']} at width {config['width']:g}, {describe_recipe(meta['made_from'])}",
            f"defence: {defence_in_words(facts.run) or 'none'}{describe_privacy(meta)}",
            f"stages: {cells.list_settings(facts.settings)}",
            f"cost: {facts.minutes:.0f} minutes, all stages added up, on {meta['machine']} "
            f"(torch {meta['versions']['torch']}, commit {meta['commit']})",
        ]
    )


def describe_recipe(made_from: dict) -> str:
    """How a model was trained."""
    augment = "with" if made_from["augment"] else "without"
    noise = f", {made_from['label_noise']:.0%} of all labels drawn anew" if made_from["label_noise"] else ""
    steps = f"{made_from['epochs']} epochs, lr {made_from['lr']:g}, batch {made_from['batch_size']}"
    optimizer = "" if "optimizer" not in made_from else f"{made_from['optimizer']}, "
    return f"{optimizer}{steps}, {augment} augmentation{noise}"


def _leakage(findings: RunFindings) -> Iterator[Block]:
    yield Text(
        f"""All numbers are percent with 95 % intervals; TPR is at a false-positive rate of at most 0.1 %. `published`
        is the attack of the literature with the largest AUC on the victim; no attacker knows which one that is.
        `headline` was chosen on the shadow models, each of which stood in for the victim in turn: `combined`, unless
        another attack, of the literature or ours, did better there by two standard errors (of the area under the ROC
        curve over the logarithm of the false-positive rate, from 0.1 % up). The headlines, and how many targets each
        was chosen for: {_count_headlines(findings.attacks)}.
        """
    )
    victim = outputs.victim_models(findings.models).set_index("variant")
    models = pd.DataFrame({"accuracy": victim["test_accuracy"].map(cells.percent)})
    models["MB"] = victim["bytes"].map(cells.megabytes)
    leading = rows.leading_rows(findings.attacks)
    yield Table(leakage_table(models, leading, cells.row_interval))
    if note := cells.few_nonmembers(leading):
        yield Text(note)
        yield Table(_wider_table(leading))
    yield Figure("roc.png", "ROC")
    yield Figure("degrees.png", "Leakage against compression")
    yield Figure("cost.png", "Accuracy and size")


def _count_headlines(table: pd.DataFrame) -> str:
    """`NR joint 9; SR joint 7, calibrated 1; ...`."""
    parts = []
    for scenario, chosen in rows.headline_rows(table).groupby("scenario", sort=False):
        counts = chosen.apply(rows.key_of, axis=1).value_counts()
        parts.append(f"{scenario} " + ", ".join(f"{key} {count}" for key, count in counts.items()))
    return "; ".join(parts)


def _claims(compared: pd.DataFrame) -> Iterator[Block]:
    yield Heading("The paper's claims")
    yield Table(claims_table(claims.overview(compared)))
    yield Text(
        f"""Differences are of AUC, in points, paired on the same audit points. "About as much" (C1) holds where the
        whole interval lies within {100 * claims.MARGIN:g} points of zero. `published` compares the attacks of the
        literature with the largest AUC on the victim. For C1 the attack that is strongest on the original is used on
        the compressed model, too, where another may be stronger. For C2 and C3 each side has its own. There are more
        candidates for NR than for SR, and more for SR than for MR, which favours the side with more of them. `without
        references` compares those of them that use no reference models, as the paper's own attacks do not. `headline`
        is chosen on the shadow models.
        """
    )
    differences = cells.intervals_of(compared, "difference", "low", "high")
    yield Table(compared.assign(difference=differences)[["claim", "form", "what", "difference", "verdict"]])


def claims_table(overview: pd.DataFrame) -> pd.DataFrame:
    """`claims.overview` for people."""
    return pd.DataFrame(
        {
            "claim": overview["claim"],
            "says": overview["claim"].map(CLAIM_TEXTS),
            "attacks": overview["form"],
            "verdict": overview["verdict"],
            "comparisons": [count_comparisons(row) for row in overview.itertuples()],
        }
    )


def count_comparisons(row) -> str:
    """`3 of 8 hold, 1 fails`: of a row of `claims.overview`, since a single one that fails decides the verdict."""
    failing = f", {row.fail} {'fails' if row.fail == 1 else 'fail'}" if row.fail else ""
    return f"{row.hold} of {row.comparisons} hold{failing}"


def _family(findings: RunFindings) -> Iterator[Block]:
    yield Heading("What each compressed model adds")
    yield Text(
        """`adds` is the AUC of the headline attack on original and compressed model together minus that on the original
        alone."""
    )
    yield Table(_family_table(findings.family))
    yield Figure("family.png", "Leakage against size and accuracy")
    if findings.greedy.empty:
        yield Text("The order in which models add most is not known: `joint` cannot be fitted on so few points.")
        return
    yield Text(
        """An attacker who chooses by the shadow models, and attacks with `joint`, adds the models in this order:"""
    )
    yield Table(_greedy_table(findings.greedy))
    yield Figure("greedy.png", "What each further model adds")


def _family_table(family: pd.DataFrame) -> pd.DataFrame:
    shown = pd.DataFrame({"variant": family["variant"], "accuracy": family["accuracy"].map(cells.percent)})
    shown["MB"] = family["bytes"].map(cells.megabytes)
    for key in ("alone", "with_original", "adds"):
        shown[key.replace("_", " ")] = cells.intervals(family, key)
    return shown


def _wider_table(leading: pd.DataFrame) -> pd.DataFrame:
    """TPR at 1 % false alarms of the attacks that speak for each target."""
    shown = leading[[*rows.TARGET, "form", "attack"]].copy()
    shown["TPR at 1% FPR"] = cells.intervals(leading, metrics.WIDER_TPR)
    return shown


def _greedy_table(steps: pd.DataFrame) -> pd.DataFrame:
    shown = steps[["models", "added"]].copy()
    for key, title in (("auc", "AUC"), (metrics.TPR, "TPR at 0.1% FPR"), ("gain", "gain of AUC")):
        shown[title] = cells.intervals(steps, key)
    return shown


def _accusations(table: pd.DataFrame) -> Iterator[Block]:
    yield Heading("What an accusation is worth")
    yield Text(
        f"""The headline of each scenario with the largest AUC on the victim, at the threshold that gives 0.1 % false
        alarms on the shadow models: how many members it finds, how many others it accuses, and which share of the
        accused are members where {cells.PRIORS_IN_WORDS} % of all points are members (PPV)."""
    )
    yield Table(accusations_table(rows.strongest_headlines(table)))


def accusations_table(headlines: pd.DataFrame) -> pd.DataFrame:
    """What the strict threshold of these attacks does."""
    shown = pd.DataFrame({"attack": [rows.name_of(row) for _, row in headlines.iterrows()]})
    for key, title in cells.ACCUSATION.items():
        shown[title] = cells.intervals(headlines, key)
    return shown


def _exposure(facts: RunFacts, points: pd.DataFrame) -> Iterator[Block]:
    yield Heading("Who is exposed")
    if facts.kind.showable:
        yield Figure("exposed.png", "The members that are found first")
    yield Text(
        f"""How many points are found while at most {exposure.FOUND_AT:.0%} of the non-members are accused. Only attacks
        that find at least one point at this rate count, on the original or on all models together:"""
    )
    yield Table(exposure.found_table(points))
    yield Text(
        """Members that the headline on each version alone finds at the same rate (`found`); those of them that no other
        version finds with fewer false alarms, where ties count for the version listed first (`first`); and those that
        no other version finds (`alone`):"""
    )
    yield Table(exposure.versions_table(points))
    yield from _accused(exposure.accused_table(points))
    yield Text("`points.csv` has every audit point with its scores and ranks, the most exposed first.")


def _accused(lists: pd.DataFrame) -> Iterator[Block]:
    if lists.empty:
        yield Text(
            """There is no list of accused: a p-value takes non-members that the attack has not seen, and the headline
            was fitted on all that there are."""
        )
        return
    yield Text(
        """A list of accused that comes with a guarantee: the expected share of non-members on it is at most `q`, if the
        victim's non-members score as those of the shadow models do (Benjamini and Hochberg, with ranks among known
        non-members as p-values). `wrong` is the share that turned out to be non-members:"""
    )
    shown = lists.assign(q=lists["q"].map("{:.0%}".format), wrong=lists["wrong"].map(cells.percent))
    yield Table(shown)


def _strength(table: pd.DataFrame) -> Iterator[Block]:
    yield Heading("Honest strength")
    yield Text(
        """The headline should not fall behind the strongest published attack on the same models and points, although
        the latter is picked with hindsight, for AUC and for TPR apart."""
    )
    yield Table(strength_cells(rows.strength_table(table)))


def strength_cells(strength: pd.DataFrame) -> pd.DataFrame:
    """`rows.strength_table` for people."""
    if strength.empty:
        return strength
    shown = strength[rows.TARGET].copy()
    for key, title in rows.CONTESTED.items():
        shown[f"{title} headline"] = cells.intervals(strength, f"{key}_headline")
        shown[f"{title} published"] = cells.intervals(strength, f"{key}_published")
        shown[f"{title} by"] = strength[f"{key}_by"]
    return shown


def _upper_bound(table: pd.DataFrame) -> Iterator[Block]:
    """Only where shadow models were trained on the victim's points."""
    bounds = table[table["attack"] == attacks.UPPER_BOUND.name].set_index("variant")
    if bounds.empty:
        return
    yield Heading("What could be known")
    yield Text(
        """AUC on one model. `upper bound` is no attack: it compares the victim with shadow models that trained on a
        point and shadow models that did not. The headline uses the same shadow models here. A usual run of the same
        seed says what an attacker from outside has."""
    )
    headlines = rows.headline_rows(table[table["scenario"] == "NR"]).set_index("variant").reindex(bounds.index)
    shown = pd.DataFrame({"variant": bounds.index})
    for title, of_form in (("upper bound", bounds), ("headline", headlines)):
        shown[title] = cells.intervals(of_form, "auc")
    yield Table(shown)


def _tails(findings: RunFindings) -> Iterator[Block]:
    yield Heading("Without any shadow model")
    yield Text(f"{cells.TNR_IN_WORDS} Beside it stands the TPR of the headline on the same model.")
    yield Table(_tail_cells(findings))


def _tail_cells(findings: RunFindings) -> pd.DataFrame:
    table = findings.attacks
    headlines = [rows.scenario_row(table, "NR", variant, "headline") for variant in findings.tails["variant"]]
    shown = findings.tails[["variant"]].assign(TNR=cells.intervals(findings.tails, "tnr"))
    found = ["" if row is None else cells.row_interval(row, metrics.TPR) for row in headlines]
    return shown.assign(**{"headline's TPR at 0.1% FPR": found})


def _controls(facts: RunFacts, table: pd.DataFrame) -> Iterator[Block]:
    control_rows = controls.control_rows(table)
    attacks = rows.attack_rows(table)
    yield Heading("Controls")
    yield Text(
        f"""Both controls must sit at an AUC of 50. `null` is the headline attack of each table on non-members alone.
        `blind` is a classifier that sees the {facts.kind.name} and no model, fitted on half of these points and
        judged on the rest. {controls.count_at_chance(control_rows)} of {len(control_rows)} intervals (95 %) contain 50;
        by chance alone about one in twenty would not.
        {describe_control_test(controls.check_controls(control_rows))}
        All `null` rows compare the same two halves of the non-members, on related models, so they differ from 50
        together.
        """
    )
    yield Table(cells.attack_table(control_rows)[["scenario", "variant", "attack", "AUC"]])
    yield Text(
        f"""The `null_auc` columns of [summary.csv](summary.csv) hold the same control for every attack:
        {controls.count_at_chance(attacks, "null_auc")} of {len(attacks)} are at 50 within their interval."""
    )


def describe_control_test(test: controls.ControlTest) -> str:
    """One sentence; a failure is written so that nobody overlooks it."""
    verdict = "they do not differ from 50 by more than chance"
    if not test.passed:
        verdict = "they DIFFER from 50: do not trust the other numbers"
    return (
        f"Taken together {verdict}: the smallest of {test.count} p-values (Mann-Whitney) is {test.smallest:.3f}, "
        f"{test.corrected:.2f} after Bonferroni's correction."
    )
