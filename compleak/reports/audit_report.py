"""The report of an audit of shipped models: report.html, report.md, audit.json and the figures.

Both pages are made from the same blocks. Whatever a user named goes through `escaped`.
"""

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from compleak.audits import metrics
from compleak.findings import levels
from compleak.findings.rows import attack_rows, key_of, label_only_rows, strongest
from compleak.findings.shipped import (
    ALONE_BY_CHANCE,
    KNOWN_HALF,
    AuditFacts,
    AuditFindings,
    ModelFacts,
    as_data,
    exposed_classes,
    in_words,
)
from compleak.reports import cells
from compleak.reports.figures.classes import classes_figure
from compleak.reports.figures.levels import levels_figure
from compleak.reports.figures.roc import roc_figure
from compleak.reports.html import to_html
from compleak.reports.mitigations import mitigations
from compleak.reports.page import (
    Block,
    Bullets,
    Callout,
    Code,
    Figure,
    Heading,
    Table,
    Text,
    escaped,
    printable,
    to_markdown,
)
from core.files import write_json, write_text

FIGURES = "figures"  # the folder beside the page
SHOWN_RECORDS = 20
SHOWN_CLASSES = 25
NAMED_CLASSES = 5  # exposed ones, at the top
FIGURE_NAME = 28  # characters of a name in a figure
WIDE_GAP = 0.1  # of accuracy between members and others, from which the report speaks of it

TONES = {
    levels.LOW: "good",
    levels.MIDDLE: "fair",
    levels.AT_LEAST_MIDDLE: "bad",
    levels.HIGH: "bad",
    levels.TOO_FEW: "unknown",
    levels.NOT_MEASURED: "unknown",
}
MEANING = {
    levels.LOW: "None of the attacks that were run tells members from others much better than guessing does.",
    levels.MIDDLE: "An attacker may tell members from others noticeably better than by guessing.",
    levels.HIGH: "It is not ruled out that an attacker tells members from others far better than by guessing.",
    levels.AT_LEAST_MIDDLE: """An attacker tells members from others noticeably better than by guessing; how much
        better, so few points cannot say.""",
    levels.TOO_FEW: "Nothing is shown, neither a leak nor that there is none: the sample is too small.",
    levels.NOT_MEASURED: "Part of what the level rests on was not measured, so there is no level.",
}
PROVEN = {
    levels.MIDDLE: "An attacker tells members from others noticeably better than by guessing.",
    levels.HIGH: "An attacker tells members from others far better than by guessing.",
}
HOW_WELL = {levels.AT_LEAST_MIDDLE: "noticeably better than", levels.HIGH: "far better than"}
CONTROL_TEXTS = {
    "null": """the attack finds a difference between two halves of the non-members, where there is nothing to find:
        the numbers of this report may say how points were prepared or asked about, and not what models remember""",
    "blind": """a classifier that sees the data and no model tells members from others: the two sets differ by
        themselves (in source, time, format or classes), and attacks may find that difference and no memory""",
    "references": """models that are said not to have trained on these points answer them otherwise if they are members:
        one of them did train on some of the points, or was made from a model that did, or the two sets differ in
        difficulty. Attacks that compare with these models may then find a leak that is none, or miss one""",
}
NOISE = """This list is noise: where the level is LOW, an order like this one comes about by chance. It names nobody who
    is found out."""
NO_LOOK_AT_THE_DATA = """So no control looks at the data: if members and others differ by themselves (in source, time,
    format or classes), nothing here shows it, and the level may be too good or too bad."""
NO_TOOL = "Testing is evidence of resistance to these attacks only, and no proof that others find nothing."


def write_audit_report(folder: Path, facts: AuditFacts, findings: AuditFindings) -> None:
    """Write figures/*.svg, audit.json, report.md and, last, report.html into the folder."""
    figures = draw_figures(facts, findings)
    blocks = page_of_audit(facts, findings)
    page, text = to_html(blocks, figures), to_markdown(blocks)
    data = as_data(facts, findings)
    for file, svg in figures.items():
        write_text(folder / file, svg)
    write_json(folder / "audit.json", data)
    write_text(folder / "report.md", text)
    write_text(folder / "report.html", page)


def draw_figures(facts: AuditFacts, findings: AuditFindings) -> dict[str, str]:
    """The figures as SVG by their files; none of what was not measured."""
    import matplotlib

    subtitle = f"{printable(facts.name)}; bars are 95 % intervals over audited points"
    figures = {}
    # Users' names may hold `$`, which must not be read as mathematics.
    with matplotlib.rc_context({"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "compleak"}):
        if len(findings.headlines):
            names = [_short_holder(row, facts) for _, row in findings.headlines.iterrows()]
            figures[f"{FIGURES}/levels.svg"] = _as_svg(levels_figure(findings.headlines, names, subtitle))
            curves = findings.curves.assign(variant=findings.curves["variant"].map(_short))
            figures[f"{FIGURES}/roc.svg"] = _as_svg(roc_figure(curves, printable(facts.name)))
        if len(findings.classes):
            classes = findings.classes.assign(name=findings.classes["name"].map(_short))
            figures[f"{FIGURES}/classes.svg"] = _as_svg(classes_figure(classes, subtitle))
    return figures


def _as_svg(figure) -> str:
    file = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the reader's own fonts are used
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def page_of_audit(facts: AuditFacts, findings: AuditFindings) -> list[Block]:
    """The whole page, what decides first."""
    return [
        *_head(facts, findings),
        *_next_steps(facts, findings),
        *_leakage(facts, findings),
        *_accusations(facts, findings),
        *_controls(facts, findings),
        *_exposed(facts, findings),
        *_tails(findings),
        *_attacker(facts),
        *_coverage(facts, findings),
        *mitigations(_label_only(findings)),
        *_rule(facts, findings),
        *_limits(facts),
        *_audited(facts),
    ]


def _holder(row, facts: AuditFacts) -> str:
    return in_words(row["scenario"], row["variant"], facts, escaped)


def _short(name: str) -> str:
    """A name as a figure has room for it."""
    return printable(name, FIGURE_NAME)


def _short_holder(row, facts: AuditFacts) -> str:
    """What the attacker of a row holds, on two lines where it is a pair."""
    if row["scenario"] == "SR":
        return f"{_short(facts.models[0].name)} and\n{_short(row['variant'])}"
    return in_words(row["scenario"], row["variant"], facts, _short)


def _target(verdict: levels.Verdict, facts: AuditFacts) -> str:
    return in_words(verdict.scenario, verdict.variant, facts, escaped)


# What it comes to


def _head(facts: AuditFacts, findings: AuditFindings) -> Iterator[Block]:
    overall = findings.overall
    yield Heading(f"Membership audit of {escaped(facts.name)}", level=1)
    meaning = _meaning(findings)
    holder = f"somebody who holds {_target(overall, facts)}"
    where = (
        f"That is about {holder}, the worst of {len(findings.verdicts)} cases." if len(findings.verdicts) > 1 else ""
    )
    yield Callout(overall.level, f"{meaning} {where}", TONES[overall.level])
    yield Text(
        f"""The question behind it: can somebody who asks {_these_models(facts)} find out whether a certain record was
        in the training data? Why this level: {escaped_sentence(overall.reason)}"""
    )
    yield from _exposed_classes(findings)
    for name in findings.failed_controls:
        yield Callout("A control failed", f"`{name}`: {CONTROL_TEXTS[name]}. Settle this first.", "bad")
    yield from _copies(facts)
    for note in facts.notes:
        yield Callout("Note", escaped_sentence(note), "unknown")
    for model in facts.models:
        if model.runs_code:
            yield Callout("Note", f"To open {escaped(model.name)}, Python code that came with it was run.", "unknown")


def _meaning(findings: AuditFindings) -> str:
    """What the overall level means, in a sentence."""
    level, proven = findings.overall.level, findings.overall.proven
    meaning = PROVEN[level] if proven and level in PROVEN else MEANING[level]
    if _is_of_a_class(findings):
        whole = levels.worst_of(findings.verdicts).level
        meaning = f"Members of some classes are found {HOW_WELL[level]} by guessing; all together read {whole}."
    if not findings.failed_controls:
        return meaning
    failed = levels.name_failed(findings.failed_controls)
    if level == levels.HIGH:
        return f"{meaning.removesuffix('.')}, but {failed}: the data may differ by themselves."
    return f"There is no level, because {failed}: the attacks may find or miss something else than memory."


def _is_of_a_class(findings: AuditFindings) -> bool:
    """Whether the overall verdict is on a class and on no target as a whole."""
    return findings.overall not in findings.verdicts


def _exposed_classes(findings: AuditFindings) -> Iterator[Block]:
    """Which classes surely are exposed, where there are any."""
    exposed = exposed_classes(findings.classes)
    if exposed.empty:
        return
    named = [
        f"{escaped(line['name'])} (AUC {cells.row_interval(line, 'auc')} %: {line['level']})"
        for _, line in exposed.head(NAMED_CLASSES).iterrows()
    ]
    if len(exposed) > NAMED_CLASSES:
        named.append(f"and {len(exposed) - NAMED_CLASSES} more")
    yield Callout(
        "Exposed classes",
        f"""{len(exposed)} of {len(findings.classes)} measured classes, by intervals that allow for their number:
        {"; ".join(named)}. See [Who is exposed](#who-is-exposed).""",
        "bad",
    )


def _copies(facts: AuditFacts) -> Iterator[Block]:
    """A note where audited points are copies of each other."""
    for role, data in (("members", facts.members), ("others", facts.nonmembers)):
        if data.people < data.used:
            yield Callout(
                "Note",
                f"""Of {data.used:,} audited {role}, {data.people:,} have distinct content. Copies are no further
                people: the sample counts as {data.people:,} {role}, and all intervals are too narrow.""",
                "unknown",
            )


def _these_models(facts: AuditFacts) -> str:
    return "this model" if len(facts.models) == 1 else f"these {len(facts.models)} models"


def escaped_sentence(text: str) -> str:
    """Sentences that may hold users' names, of any length."""
    pieces = [escaped(word) for word in text.split()]
    return " ".join(pieces)


def _next_steps(facts: AuditFacts, findings: AuditFindings) -> Iterator[Block]:
    yield Heading("What to do next")
    yield Bullets([*_steps(facts, findings)])


def _steps(facts: AuditFacts, findings: AuditFindings) -> Iterator[str]:
    level = findings.overall.level
    if findings.failed_controls:
        yield "Mend what the failed control points to, then audit again: the numbers may not be about memory."
    elif level == levels.NOT_MEASURED:
        yield "See [Coverage](#coverage) for what did not run and why, and supply what is missing."
    if levels.worst_of(findings.verdicts).level in (levels.TOO_FEW, levels.AT_LEAST_MIDDLE):
        size = levels.smallest_size(facts.halves)
        yield f"Put at least {size:,} members and {size:,} others into the audit: LOW takes so many."
    if level in (levels.HIGH, levels.AT_LEAST_MIDDLE, levels.MIDDLE):
        yield from _steps_against_a_leak(facts, findings)
    if level == levels.LOW and not findings.failed_controls:
        yield from _steps_where_low(findings)
    if len(facts.models) == 1:
        yield "Audit again before a compressed version ships: give it to the same command, behind the original."
    else:
        yield "Audit again before a further version ships: whoever holds several versions may find more than with one."
    if facts.not_run:
        count = "An attack" if len(facts.not_run) == 1 else f"{len(facts.not_run)} attacks"
        yield f"{count} did not run ([Coverage](#coverage)). An attacker who has what it takes may find more."


def _steps_where_low(findings: AuditFindings) -> Iterator[str]:
    if findings.found_alone < ALONE_BY_CHANCE:
        yield "Nothing has to be done against these attacks."
        return
    yield (
        "As a whole little leaks, but some members score above all others ([Who is exposed](#who-is-exposed)): look at "
        "these records, and train without them if they must not be found."
    )


def _steps_against_a_leak(facts: AuditFacts, findings: AuditFindings) -> Iterator[str]:
    original = facts.models[0]
    if _is_of_a_class(findings):
        yield (
            f"{findings.overall.level} is what the exposed classes give to {_target(findings.overall, facts)}: decide "
            "whether those who get it may know this much about their members."
        )
    else:
        yield from _steps_by_target(facts, findings)
    if original.gap >= WIDE_GAP:
        yield (
            f"{escaped(original.name)} is right on {cells.percent(original.member_accuracy)} % of the members and on "
            f"{cells.percent(original.nonmember_accuracy)} % of the others. Such a gap is what attacks live on: train "
            "for less of it, and audit again."
        )
    yield "To lower it, train with a defence ([Mitigations](#mitigations)), and audit again with the same command."


def _steps_by_target(facts: AuditFacts, findings: AuditFindings) -> Iterator[str]:
    """What gives the overall level, and what gives less."""
    worst = [verdict for verdict in findings.verdicts if verdict.level == findings.overall.level]
    names = "; ".join(_target(verdict, facts) for verdict in worst)
    if len(worst) == len(findings.verdicts) > 1:
        names = "every model, alone and with others"
    yield f"{findings.overall.level} is what this gives: {names}. Decide whether those who get it may know this much."
    alone = [verdict for verdict in worst if verdict.scenario == "NR"]
    if not alone:
        yield "No model alone gives this: ship one version, and do not let the others out."
    elif len(alone) < len(facts.models):
        better = [v for v in findings.verdicts if v.scenario == "NR" and v not in alone]
        names = ", ".join(_target(verdict, facts) for verdict in better)
        yield f"Better than that: {names}. It helps only as long as nobody can ask the others."


# Leakage


def _leakage(facts: AuditFacts, findings: AuditFindings) -> Iterator[Block]:
    yield Heading("How much leaks")
    if findings.headlines.empty:
        yield Text("No attack could be chosen beforehand, so no attack speaks for a target.")
    else:
        yield Text(
            """Each line is what one attacker holds, and what the attack finds that was chosen beforehand, without a
            look at the points that it is judged on. All numbers are percent with 95 % intervals. TPR is the share of
            members found while at most 0.1 % or 1 % of the others are accused; a guess has 0.1 and 1. AUC is how often
            a random member scores higher than a random other; a guess has 50. An AUC below 50 counts by how far below
            it lies: whoever turns the attack round gets 100 minus it. The advantage is the share of members that are
            called members minus the share of others that are; a guess has 0."""
        )
        yield Table(leakage_cells(facts, findings.headlines), TONES)
        if note := cells.few_nonmembers(findings.headlines):
            yield Text(note)
        yield Figure(
            f"{FIGURES}/levels.svg",
            """What each attacker finds, with 95 % intervals, and where a measure reads LOW, MIDDLE and HIGH. The upper
            end of an interval counts, and for an AUC below 50 % the lower one.""",
        )
        yield Figure(
            f"{FIGURES}/roc.svg",
            """Members found against others accused, on logarithmic axes: the strongest of the attacks chosen beforehand
            in each scenario. The `null` control must follow the line of guessing.""",
        )
    yield Heading("Why these levels", level=3)
    yield Table(reason_cells(facts, findings), TONES)
    yield Heading("Accuracy and size", level=3)
    yield Table(model_cells(facts))
    if len(findings.added):
        yield Heading("What each further version adds", level=3)
        yield Text(
            """The difference of AUC between two attackers on the same points, in percentage points. An interval that
            holds 0 does not show that the further version adds anything. One below 0 says something about the attacks
            and not about the models: whoever holds more may always leave it aside."""
        )
        yield Table(added_cells(facts, findings.added))


def reason_cells(facts: AuditFacts, findings: AuditFindings) -> pd.DataFrame:
    """The verdict on each target with its reason."""
    lines = []
    for verdict in findings.verdicts:
        line = {"the attacker holds": _target(verdict, facts), "level": verdict.level}
        lines.append(line | {"why": escaped_sentence(verdict.reason)})
    return pd.DataFrame(lines)


def leakage_cells(facts: AuditFacts, headlines: pd.DataFrame) -> pd.DataFrame:
    """The attack that speaks for each target."""
    shown = pd.DataFrame({"the attacker holds": [_holder(row, facts) for _, row in headlines.iterrows()]})
    shown["level"] = list(headlines["level"])
    shown["TPR at 0.1 %"] = cells.intervals(headlines, metrics.TPR)
    shown["TPR at 1 %"] = cells.intervals(headlines, metrics.WIDER_TPR)
    shown["AUC"] = cells.intervals(headlines, "auc")
    shown["advantage"] = cells.intervals(headlines, "advantage")
    shown["attack"] = [escaped_sentence(levels.attack_in_words(row)) for _, row in headlines.iterrows()]
    return shown


def model_cells(facts: AuditFacts) -> pd.DataFrame:
    """Each model's accuracy on members and others, and its size."""
    lines = []
    for model in facts.models:
        line = {"model": escaped(model.name), "right on members, %": cells.percent(model.member_accuracy)}
        line["right on others, %"] = cells.percent(model.nonmember_accuracy)
        line["gap"] = cells.percent(model.gap)
        line["loss on members"] = f"{model.member_loss:.3f}"
        line["loss on others"] = f"{model.nonmember_loss:.3f}"
        lines.append(line | {"MB": cells.megabytes(model.bytes)})
    return pd.DataFrame(lines)


def added_cells(facts: AuditFacts, added: pd.DataFrame) -> pd.DataFrame:
    """The differences for people."""
    holders = [in_words(row.scenario, row.variant, facts, escaped) for row in added.itertuples()]
    shown = pd.DataFrame({"the attacker holds": holders, "instead of": added["baseline"].map(escaped_sentence)})
    rounded = added[["difference", "low", "high"]].astype(float).round(3) + 0.0  # no -0.0
    shown["adds to AUC"] = cells.intervals_of(rounded, "difference", "low", "high")
    shown["so"] = [_what_it_adds(row.scenario, row.low, row.high) for row in added.itertuples()]
    return shown


def _what_it_adds(scenario: str, low: float, high: float) -> str:
    if high < 0:
        held = "both" if scenario == "SR" else "all"
        return f"the attack on {held} is weaker here; holding more never takes anything away"
    return "more is found" if low > 0 else "no difference is shown"


def _accusations(facts: AuditFacts, findings: AuditFindings) -> Iterator[Block]:
    if findings.headlines.empty or "strict_tpr" not in findings.headlines:
        return
    yield Heading("What an accusation is worth")
    yield Text(
        f"""The attacker sets a threshold beforehand that should give 0.1 % false alarms, and accuses whom scores above
        it. PPV is the share of members among the accused. It depends on how many of those whom the attacker asks about
        are members at all: {cells.PRIORS_IN_WORDS} % here. The PPV is empty where nobody is accused. Where only members
        are accused, only its interval is shown, since a single member would already give 100 %."""
    )
    yield Table(accusation_cells(facts, findings.headlines))


def accusation_cells(facts: AuditFacts, headlines: pd.DataFrame) -> pd.DataFrame:
    """What the strict threshold of each headline does."""
    shown = pd.DataFrame({"the attacker holds": [_holder(row, facts) for _, row in headlines.iterrows()]})
    rows = list(headlines.iterrows())
    for key, title in cells.ACCUSATION.items():
        shown[title] = cells.intervals(headlines, key)
        if key.startswith("ppv_"):
            shown[title] = [_ends_alone(row, key, cell) for (_, row), cell in zip(rows, shown[title], strict=True)]
    return shown


def _ends_alone(row: pd.Series, key: str, cell: str) -> str:
    """The cell of a PPV; without its value where no other is accused."""
    if not cell or row["strict_fpr"] > 0:
        return cell
    low, high = (cells.percent(row[key + end]) for end in ("_lo", "_hi"))
    return f"[{low}, {high}]"


def _tails(findings: AuditFindings) -> Iterator[Block]:
    if findings.tails.empty:
        return
    yield Heading("What the losses alone say")
    yield Text(f"{cells.TNR_IN_WORDS} Nothing is trained for it, and no level rests on it.")
    models = [escaped(name) for name in findings.tails["variant"]]
    yield Table(pd.DataFrame({"model": models, "TNR": cells.intervals(findings.tails, "tnr")}))


# Can it be trusted, and whom does it concern


def _controls(facts: AuditFacts, findings: AuditFindings) -> Iterator[Block]:
    yield Heading("Controls")
    if findings.controls is None:
        yield Text("No control ran, so nothing here says that the attacks find memory and not something else.")
        yield Text(NO_LOOK_AT_THE_DATA)
        return
    yield Text(
        """`null` is an attack on non-members alone, half of which stand for members. `blind` is a classifier that sees
        the data and no model. `references` is how sure shadow models and references are of points that they are said
        not to have trained on, where there are such models. None of them may find anything: their AUC must be 50. All
        of them together are tested at 1 %, and where one fails, no level better than HIGH rests on it."""
    )
    for name in findings.failed_controls:
        yield Text(f"`{name}` FAILED: {CONTROL_TEXTS[name]}.")
    ran = findings.attacks[findings.attacks["attack"].isin(CONTROL_TEXTS)]
    for name in CONTROL_TEXTS:
        own = ran[ran["attack"] == name]
        if own.empty:
            yield Text(f"`{name}` did not run. {NO_LOOK_AT_THE_DATA if name == 'blind' else ''}")
        elif name not in findings.failed_controls:
            yield Text(_what_it_shows(name, f"AUC {_range(own)}, no further from 50 than chance takes it", facts))


def _what_it_shows(name: str, result: str, facts: AuditFacts) -> str:
    """What a control shows that did not fail."""
    if name == "null" and facts.asked:
        return (
            "`null` can only confirm here what is so by construction: this audit asked about all points along one path "
            f"in one mixed order. {result}. It does not see whether members and others differ by themselves."
        )
    return f"`{name}` passed: {result}."


def _range(rows: pd.DataFrame) -> str:
    low, high = cells.percent(rows["auc"].min()), cells.percent(rows["auc"].max())
    return low if low == high else f"{low} to {high} in {len(rows)} tables"


def _exposed(facts: AuditFacts, findings: AuditFindings) -> Iterator[Block]:
    yield Heading("Who is exposed")
    if not findings.exposed_by:
        yield Text("Not measured: no attack could be chosen beforehand.")
        return
    yield Text(f"By the strongest of the attacks chosen beforehand: {escaped_sentence(findings.exposed_by)}.")
    yield Heading("Classes", level=3)
    if findings.classes.empty:
        yield Text("No class has enough members and others to be measured alone: it takes 20 of each.")
    else:
        yield Text("Classes with fewer than 20 members or 20 others are left out. Intervals are wider than above.")
        yield Text(
            f"""A level stands where the lower end of AUC or TPR reaches it, with an interval that allows for
            {len(findings.classes)} classes (Bonferroni)."""
        )
        yield Table(class_cells(findings.classes.head(SHOWN_CLASSES)), TONES)
        yield Figure(f"{FIGURES}/classes.svg", "AUC of each class with its 95 % interval; a guess has 50.")
    yield Heading("Records", level=3)
    yield Text(_found_alone(facts, findings))
    if facts.redact:
        yield Text("Names and places of records are left out, as asked.")
    elif len(findings.records):
        is_noise = findings.overall.level == levels.LOW and findings.found_alone < ALONE_BY_CHANCE
        noise = NOISE if is_noise else ""
        yield Text(
            f"The members that are found first, with the share of others that is accused with or before them. {noise}"
        )
        yield Table(record_cells(findings.records.head(SHOWN_RECORDS)))


def _found_alone(facts: AuditFacts, findings: AuditFindings) -> str:
    """How many members score above every other, and whether that is more than chance gives."""
    count = findings.found_alone
    counted = (
        f"{count} of {facts.members.used} members score above every one of the {facts.nonmembers.used} others. Chance "
        f"alone gives 1 on average, and {ALONE_BY_CHANCE} or more in one audit of {2**ALONE_BY_CHANCE}"
    )
    if count < ALONE_BY_CHANCE:
        return f"{counted}: this is no evidence that an attacker can name anybody."
    return f"{counted}: an attacker can name most of them, without a false alarm in this sample."


def class_cells(classes: pd.DataFrame) -> pd.DataFrame:
    shown = pd.DataFrame({"class": classes["name"].map(escaped), "members": classes["n_member"]})
    shown["others"] = classes["n_nonmember"]
    shown["AUC"] = cells.intervals(classes, "auc")
    shown["TPR at 1 %"] = cells.intervals(classes, metrics.WIDER_TPR)
    shown["level"] = classes["level"]
    return shown


def record_cells(records: pd.DataFrame) -> pd.DataFrame:
    shown = pd.DataFrame({"record": records["name"].map(escaped), "class": records["class"].map(escaped)})
    shown["others accused, %"] = [f"{100 * value:.2g}" for value in records["exposure"]]
    return shown


# What was tried


def _attacker(facts: AuditFacts) -> Iterator[Block]:
    yield Heading("What the attacker has")
    times = "once" if facts.questions_per_point == 1 else f"{facts.questions_per_point} times"
    yield Bullets(
        [*map(escaped_sentence, facts.attacker_has), f"The attacker asks each model {times} about each point."]
    )
    if facts.attacker == KNOWN_HALF:
        yield Text(
            """Half of the audited points are known to the attacker, who is judged on the other half, and then the
            halves change places. That is an insider, or the auditor. A stranger who knows nobody finds less; somebody
            with reference models may find more. Intervals allow for both halves erring together."""
        )
    yield Heading("The release, as declared", level=3)
    if facts.release:
        lines = [(escaped(key), escaped_sentence(text)) for key, text in facts.release.items()]
        yield Table(pd.DataFrame(lines, columns=["question", "declared"]))
    else:
        yield Text("Not declared: who gets these models, how they can be asked, and what for.")


def _coverage(facts: AuditFacts, findings: AuditFindings) -> Iterator[Block]:
    yield Heading("Coverage")
    yield Text(
        """What ran, by what the attacker holds: one model (NR), the original and one compressed model (SR), all models
        (MR). The largest AUC is picked with hindsight."""
    )
    yield Table(coverage_cells(attack_rows(findings.attacks)))
    if facts.not_run:
        yield Heading("What did not run", level=3)
        lines = [(escaped(name), escaped_sentence(why)) for name, why in facts.not_run]
        yield Table(pd.DataFrame(lines, columns=["attack", "why"]))
    else:
        yield Text("Every attack that this audit knows was run.")


def coverage_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """Every attack with the number of its targets, its largest AUC and what it needs."""
    lines = []
    for (scenario, key), own in rows.groupby(["scenario", rows.apply(key_of, axis=1)], sort=False):
        row = strongest(own)
        line = {"scenario": scenario, "attack": f"`{key}`", "targets": len(own)}
        line["largest AUC"] = cells.row_interval(row, "auc")
        lines.append(line | {"needs": row.get("needs", "")})
    return pd.DataFrame(lines)


# What helps


def _label_only(findings: AuditFindings) -> str:
    """What the attacks surely find that need no more of an answer than its label.

    Some of them score a small sample of the points, so the lower ends of their intervals are compared.
    """
    rows = label_only_rows(findings.attacks)
    if rows.empty:
        return "No attack that needs labels alone was run."
    row = rows.loc[rows["auc_lo"].idxmax()]
    return f"Labels alone still give the attack `{key_of(row)}` an AUC of {cells.row_interval(row, 'auc')} % here."


# The rule and its limits


def _rule(facts: AuditFacts, findings: AuditFindings) -> Iterator[Block]:
    yield Heading("The rule of the levels")
    yield Table(limit_cells())
    yield Bullets(
        [
            "The attack chosen beforehand counts with the *upper* end of each interval, because LOW is a promise; the "
            "worst of the three measures is the level.",
            "An AUC below 50 % counts inverted, as 100 % minus it: an attacker who learns that an attack errs turns it "
            "round.",
            "Every other attack counts with the *lower* end: what it surely reaches. So the luck of the best of many "
            "attacks raises no level, and an attack that was badly chosen hides no leak.",
            f"LOW can be read only from a sample on which a model that leaks nothing would read LOW: at least "
            f"{levels.smallest_size(facts.halves):,} members and as many others for this attacker. A smaller sample "
            f"says *{levels.TOO_FEW}*, unless lower ends already prove HIGH or *{levels.AT_LEAST_MIDDLE}*.",
            "Whoever holds more cannot find less: a pair reads no better than each of its models, and all models no "
            "better than any of them or any pair.",
            "The level of the audit is that of the worst target, or of the most exposed class where this is worse: a "
            "class counts with the lower end of an interval that allows for the number of classes.",
            "The limits are this project's choice. Those of the TPR at 0.1 % come from what an accusation is worth "
            "where one of a hundred is a member: with 3 % a quarter of the accused are members, and with 10 % half.",
        ]
    )
    if len(findings.headlines):
        yield Text(
            """For those who know PrivBox: its rule looks at an attack's accuracy alone, below 55 % LOW, below 80 %
            MIDDLE, else HIGH, with no interval and no look at few false alarms. Accuracy is the balanced accuracy
            here."""
        )
        yield Table(privbox_cells(facts, findings.headlines))


def limit_cells() -> pd.DataFrame:
    lines = []
    for limit in levels.LIMITS:
        low, middle = f"{100 * limit.low:g}", f"{100 * limit.middle:g}"
        line = {"measure": limit.title, "LOW": f"below {low} %", "MIDDLE": f"below {middle} %"}
        lines.append(line | {"HIGH": f"from {middle} % on"})
    return pd.DataFrame(lines)


def privbox_cells(facts: AuditFacts, headlines: pd.DataFrame) -> pd.DataFrame:
    shown = pd.DataFrame({"the attacker holds": [_holder(row, facts) for _, row in headlines.iterrows()]})
    shown["balanced accuracy"] = cells.intervals(headlines, "acc")
    shown["PrivBox's rule"] = list(headlines["privbox"])
    shown["this report"] = list(headlines["level"])
    return shown


def _limits(facts: AuditFacts) -> Iterator[Block]:
    yield Heading("Limits")
    yield Bullets(
        [
            NO_TOOL,
            "Intervals say how far numbers would move with other points, not with another training of the model.",
            "The audit asks whether a record was in the training data. It does not ask whether records can be "
            "reconstructed or attributes inferred, nor what somebody finds who reads the weights.",
            "The audit is valid only if the members really were in the training data, and the others come from the "
            "same source. The controls see some errors in this, and not all.",
            "Intervals of many targets and classes stand side by side and are not corrected for their number. The "
            "level of a class is.",
        ]
    )


def _audited(facts: AuditFacts) -> Iterator[Block]:
    yield Heading("What was audited")
    yield Table(file_cells(facts.models))
    yield Bullets([_describe(model) for model in facts.models])
    yield Table(data_cells(facts))
    yield Text(
        f"Classes: {len(facts.classes)}. Made by this command, in {_duration(facts.seconds)}, seed {facts.seed}:"
    )
    yield Code(" ".join(map(_without_controls, facts.command.splitlines())))
    record = facts.provenance
    versions = ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())
    yield Text(
        f"""Code: commit {escaped(record.get("commit") or "unknown")}; {escaped_sentence(versions)}; on
        {escaped_sentence(record.get("machine", "an unknown machine"))}. All numbers are in
        [audit.json](audit.json)."""
    )


def _without_controls(line: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)


def file_cells(models: tuple[ModelFacts, ...]) -> pd.DataFrame:
    lines = []
    for model in models:
        for file in model.files:
            line = {"model": escaped(model.name), "file": escaped(file.path), "bytes": f"{file.bytes:,}"}
            lines.append(line | {"SHA-256": f"`{file.sha256}`"})
    return pd.DataFrame(lines)


def _describe(model: ModelFacts) -> str:
    parts = [model.description, f"answers: {model.answers}", model.company]
    return f"{escaped(model.name)}: {escaped_sentence('; '.join(part for part in parts if part))}."


def data_cells(facts: AuditFacts) -> pd.DataFrame:
    lines = []
    for role, data in (("members", facts.members), ("others", facts.nonmembers)):
        line = {"data": role, "source": escaped(data.source), "kind": data.kind}
        line |= {"points": f"{data.count:,}", "audited": f"{data.used:,}"}
        line["of distinct content"] = "not counted" if data.distinct is None else f"{data.distinct:,}"
        lines.append(line | {"fingerprint": f"`{data.fingerprint}`"})
    return pd.DataFrame(lines)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
