"""The report of an audit of shipped models: what it says in which case, and that users' names do nothing in it."""

import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted import planted_signals, write_signals

import CompLeakNR
from compleak.audits import metrics
from compleak.findings import controls, levels, privbox, shipped
from compleak.findings.rows import key_of, name_of
from compleak.findings.shipped import AuditFacts, DataFacts, FileFacts, ModelFacts
from compleak.reports import audit_report, mitigations
from compleak.reports.html import embedded, inline, to_html
from compleak.reports.page import Bullets, Callout, Code, Figure, Heading, Table, Text, escaped, to_markdown

ROOT = Path(__file__).resolve().parents[1]
POINTS = 2000  # half of them members
CLASSES = ("ant", "bee", "cat")
MODELS = ("original.onnx", "int8.onnx", "pruned.onnx")
HOSTILE = "<script>alert(1)</script> | `x` *y* [z](javascript:alert(2)) $\\frac$ \x1b[31m\u202e & \ud800"


def model_facts(name):
    file = FileFacts(f"models/{name}", "ab" * 32, 1_500_000)
    accuracy = {"member_accuracy": 0.99, "nonmember_accuracy": 0.62, "member_loss": 0.02, "nonmember_loss": 1.7}
    return ModelFacts(name, "ONNX", (file,), 1_500_000, **accuracy, answers="logits", company="", runs_code=False)


def audit_facts(names=MODELS, **changes):
    facts = AuditFacts(
        name="demo",
        command="python audit.py original.onnx int8.onnx --members data/train --nonmembers data/test",
        models=tuple(model_facts(name) for name in names),
        members=DataFacts("data/train", "17057ceb46aa3de6", 50_000, POINTS // 2, "image"),
        nonmembers=DataFacts("data/test", "27057ceb46aa3de6", 10_000, POINTS // 2, "image"),
        classes=CLASSES,
        release={},
        attacker="shadows",
        attacker_has=("Two shadow models.",),
        questions_per_point=1,
        not_run=(("samia", "it needs answers about noisy copies"),),
        notes=(),
        provenance={"commit": "123", "versions": {"torch": "2.14"}, "machine": "a machine"},
        seed=3,
        seconds=33.0,
        redact=False,
    )
    return facts._replace(**changes)


class World:
    """A table with true intervals, whose attacks find `leak` standard deviations, and its scores."""

    def __init__(self, facts, leak=1.5, controls=("null",), control_leak=0.0, points=POINTS):
        rng = np.random.default_rng(0)
        self.facts = facts
        self.truth = np.arange(points) % 2 == 0
        self.labels = rng.integers(len(facts.classes), size=points)
        self.names = [f"record {place}" for place in range(points)]
        self.scores_of_row = {}
        rows = []
        for scenario, variant in shipped.targets_of(facts):
            leaks = {"rmia": 1.0, "yeom2018": 0.6, "gap": 0.4} | dict.fromkeys(controls, control_leak)
            for attack, share in leaks.items():
                shift = share if attack in controls else share * leak
                scores = rng.normal(size=points) + shift * self.truth
                line = {"scenario": scenario, "variant": variant, "attack": attack, "classifier": ""}
                line |= metrics.evaluate(scores, scores > 0.7, self.truth, seed=0, replicates=50)
                line |= metrics.accusations(scores > 3, self.truth)
                line |= {"needs": "2 shadow models; posteriors and labels", "headline": attack == "rmia"}
                self.scores_of_row[name_of(pd.Series(line))] = scores
                rows.append(line)
        self.table = pd.DataFrame(rows)

    def findings(self, **changes):
        inputs = {"facts": self.facts, "table": self.table} | changes
        scored_by = np.arange(len(self.truth)) // 2 % 2 if inputs["facts"].attacker == "known_half" else None
        scores = lambda row: self.scores_of_row[name_of(row)]  # noqa: E731
        return shipped.audit_findings(
            inputs["facts"], inputs["table"], scores, self.truth, self.labels, self.names, scored_by
        )

    def page(self, **changes):
        """report.md, without writing it."""
        facts = changes.get("facts", self.facts)
        return to_markdown(audit_report.page_of_audit(facts, self.findings(**changes)))


@pytest.fixture(scope="module")
def leaky():
    return World(audit_facts())


@pytest.fixture(scope="module")
def written(leaky, tmp_path_factory):
    """The folder of a written report."""
    folder = tmp_path_factory.mktemp("report")
    audit_report.write_audit_report(folder, leaky.facts, leaky.findings())
    return folder


# Blocks


def test_blocks_become_html():
    blocks = [
        Heading("Title", level=1),
        Callout("HIGH", "Mind `this`.", "bad"),
        Heading("What *next*?"),
        Text("one\n two 5 % [there](#what-next)"),
        Bullets(["x", "y"]),
        Code("a < b"),
        Table(pd.DataFrame({"level": ["HIGH"], "AUC": ["71.2 [70.5, 71.9]"]}), {"HIGH": "bad"}),
        Figure("figures/a.svg", "What it shows"),
    ]
    page = to_html(blocks, {"figures/a.svg": '<?xml version="1.0"?>\n<svg><g id="b"/></svg>'})
    for part in (
        "<title>Title</title>",
        '<div class="word">HIGH</div>\n<p>Mind <code>this</code>.</p>',
        '<h2 id="what-next">What <em>next</em>?</h2>',
        '5\N{NO-BREAK SPACE}% <a href="#what-next">there</a>',
        "<li>x</li>",
        "<code>a &lt; b</code>",
        '<span class="badge bad">HIGH</span>',
        '<td class="number">71.2 [70.5, 71.9]</td>',
        'aria-label="What it shows"><svg><g id="a-b"/></svg>',
        "<figcaption>What it shows</figcaption>",
    ):
        assert part in page, part


def test_a_callout_is_a_quotation_in_markdown_and_a_fence_is_longer_than_those_in_a_command():
    assert to_markdown([Callout("HIGH", "Mind\n this.", "bad")]) == "> **HIGH**: Mind this.\n"
    assert to_markdown([Code("echo '```'")]) == "````bash\necho '```'\n````\n"


def test_markup_in_a_name_is_shown_and_not_obeyed():
    name = "`a` *b* [c](d) <e> | \\ & _f_"
    assert inline(escaped(name)) == "`a` *b* [c](d) &lt;e&gt; | \\ &amp; _f_"
    assert "|" not in escaped("a|b").replace("\\|", "")
    assert escaped("a\nb\x00c\u202ed\ud800") == "a\N{REPLACEMENT CHARACTER}b" + "".join(
        f"\N{REPLACEMENT CHARACTER}{letter}" for letter in ("c", "d", "")
    )
    assert len(escaped("x" * 500)) == 80
    assert escaped("a" * 100 + "_int8.onnx").endswith("a\\_int8.onnx")


def test_a_link_leads_to_the_web_or_within_the_page_and_runs_nothing():
    assert inline("[a](https://b.c)") == '<a href="https://b.c">a</a>'
    assert inline("[a](b.json)") == '<a href="b.json">a</a>'
    for target in ("javascript:x", "JavaScript:x", "data:text/html,x", "vbscript:x"):
        assert "href" not in inline(f"[a]({target})")


def test_parts_of_figures_on_one_page_have_names_of_their_own():
    svg = (
        '<?xml?><!DOCTYPE svg><svg><metadata>x</metadata><path id="p"/><use xlink:href="#p" clip-path="url(#p)"/></svg>'
    )
    assert embedded(svg, "roc") == ('<svg><path id="roc-p"/><use xlink:href="#roc-p" clip-path="url(#roc-p)"/></svg>')


# Findings


def test_targets_are_each_model_each_pair_and_all_together():
    assert shipped.targets_of(audit_facts(MODELS[:1])) == [("NR", "original.onnx")]
    pairs = [("NR", "original.onnx"), ("NR", "int8.onnx"), ("SR", "int8.onnx"), ("MR", "all")]
    assert shipped.targets_of(audit_facts(MODELS[:2])) == pairs
    assert shipped.targets_of(audit_facts())[-1] == ("MR", "all") and len(shipped.targets_of(audit_facts())) == 6


def test_a_target_without_attacks_is_not_measured_and_keeps_the_audit_from_reading_low():
    world = World(audit_facts(MODELS[:2]), leak=0.0)
    assert world.findings().overall.level == levels.LOW
    without = world.table[world.table["scenario"] == "NR"]
    findings = world.findings(table=without)
    assert findings.overall.level == levels.NOT_MEASURED and findings.overall.scenario == "SR"
    assert "See [Coverage](#coverage)" in world.page(table=without)


def test_advantage_and_privbox_level_follow_from_the_accuracy(leaky):
    row = leaky.findings().headlines.iloc[0]
    for end in ("", "_lo", "_hi"):
        assert row[f"advantage{end}"] == pytest.approx(2 * row[f"acc{end}"] - 1)
    assert row["privbox"] == privbox.level(row["acc"])


def test_what_a_version_adds_is_the_paired_difference_of_the_attacks_chosen_beforehand(leaky):
    added = leaky.findings().added
    assert list(added["scenario"]) == ["SR", "SR", "MR"]
    pair, alone = (leaky.scores_of_row[name] for name in ("SR int8.onnx rmia", "NR original.onnx rmia"))
    expected = metrics.paired_difference(pair, alone, leaky.truth, seed=leaky.facts.seed)
    assert tuple(added.loc[0, ["difference", "low", "high"]]) == pytest.approx(expected)
    assert added.loc[0, "baseline"] == "original.onnx alone"


def test_an_attacker_with_half_of_the_points_has_wider_intervals(leaky):
    facts = leaky.facts._replace(attacker="known_half")
    one, two = leaky.findings(), leaky.findings(facts=facts)
    for frame in ("classes", "added"):
        narrow, wide = getattr(one, frame), getattr(two, frame)
        ends = ("auc_lo", "auc_hi") if frame == "classes" else ("low", "high")
        assert (wide[ends[1]] - wide[ends[0]]).mean() > 1.2 * (narrow[ends[1]] - narrow[ends[0]]).mean()
    with pytest.raises(ValueError, match="the fit behind each score"):
        shipped.audit_findings(facts, leaky.table, None, leaky.truth, leaky.labels, leaky.names)


def test_an_attack_that_errs_is_turned_round_wherever_people_and_versions_are_named():
    world = World(audit_facts(MODELS[:2]), leak=-1.5)
    findings = world.findings()
    assert findings.overall.level == levels.HIGH and "inverted" in findings.overall.reason
    assert " inverted on " in findings.exposed_by and findings.classes["auc"].min() > 0.8
    first = np.argmin(np.where(world.truth, world.scores_of_row[f"{name_of(leading_row(findings))}"], np.inf))
    assert findings.records.loc[0, "place"] == first
    alone, pair = (world.scores_of_row[f"{name} rmia"] for name in ("NR original.onnx", "SR int8.onnx"))
    difference = metrics.auc(-pair, world.truth) - metrics.auc(-alone, world.truth)
    assert findings.added.loc[0, "difference"] == pytest.approx(difference)
    assert findings.curves.loc[findings.curves["form"] == "headline", "auc"].min() > 0.8
    audit_report.draw_figures(world.facts, findings)


def leading_row(findings):
    headlines = findings.headlines
    return headlines.loc[(headlines["auc"] - 0.5).abs().idxmax()]


def test_classes_with_few_points_are_left_out_and_the_rest_are_measured_alone(leaky):
    labels = leaky.labels.copy()
    rare = np.flatnonzero(labels == 2)
    labels[rare[30:]] = 0
    world = World(leaky.facts)
    world.labels = labels
    classes = world.findings().classes.set_index("name")
    assert set(classes.index) == {"ant", "bee"}
    headlines = world.findings().headlines
    scores = world.scores_of_row[name_of(headlines.loc[headlines["auc"].idxmax()])]
    assert classes.loc["bee", "auc"] == pytest.approx(metrics.auc(scores[labels == 1], world.truth[labels == 1]))
    assert (classes["n_member"] + classes["n_nonmember"]).sum() == POINTS - 30


def test_records_are_the_members_that_are_accused_first(leaky):
    findings = leaky.findings()
    scores = leaky.scores_of_row[name_of(findings.headlines.loc[findings.headlines["auc"].idxmax()])]
    members = np.flatnonzero(leaky.truth)
    first = members[np.argmax(scores[members])]
    assert findings.records.loc[0, "name"] == f"record {first}"
    assert len(findings.records) == shipped.RECORDS and findings.records["exposure"].is_monotonic_increasing
    assert findings.found_alone == (scores[leaky.truth] > scores[~leaky.truth].max()).sum() > 0


def test_a_table_read_from_its_file_gives_the_same_findings(tmp_path):
    world = World(audit_facts(MODELS[:2]), leak=0.5)
    world.table["ppv_0.01"] = np.nan
    world.table.loc[0, "ppv_0.01"] = 0.25
    world.table.to_csv(tmp_path / "table.csv", index=False)
    read = pd.read_csv(tmp_path / "table.csv", keep_default_na=False)
    as_made, as_read = (shipped.as_data(world.facts, world.findings(table=table)) for table in (world.table, read))
    assert as_made == as_read
    assert as_read["attacks"][0]["ppv_0.01"] == 0.25 and as_read["attacks"][1]["ppv_0.01"] is None


def test_points_that_an_attack_left_out_are_in_no_number():
    world = World(audit_facts(MODELS[:1]))
    whole = world.findings()
    scores = world.scores_of_row["NR original.onnx rmia"]
    first = int(whole.records.loc[0, "place"])
    scores[first] = np.nan
    findings = world.findings()
    assert first not in set(findings.records["place"]) and findings.found_alone == whole.found_alone - 1


# The report


def test_a_report_is_one_page_in_two_forms_with_its_numbers_and_figures(written, leaky):
    files = {str(file.relative_to(written)) for file in written.rglob("*") if file.is_file()}
    figures = {"figures/levels.svg", "figures/roc.svg", "figures/classes.svg"}
    assert files == {"report.html", "report.md", "audit.json"} | figures
    page, text = (written / "report.html").read_text(), (written / "report.md").read_text()
    headings = re.findall(r"^## (.*)$", text, re.M)
    assert headings == [
        *("What to do next", "How much leaks", "What an accusation is worth", "Controls", "Who is exposed"),
        *(
            "What the losses alone say",
            "What the attacker has",
            "Coverage",
            "Mitigations",
            "The rule of the levels",
            "Limits",
            "What was audited",
        ),
    ]
    assert re.findall(r"<h2 [^>]*>(.*)</h2>", page) == headings
    assert page.count("<svg") == 3
    for place in ("mitigations", "coverage"):
        assert f'href="#{place}"' in page and f'id="{place}"' in page


def test_the_page_says_level_reason_numbers_and_what_was_audited(written, leaky):
    text = (written / "report.md").read_text()
    assert "> **HIGH**: An attacker tells members from others far better than by guessing." in text
    row = leaky.findings().headlines.iloc[0]
    assert f"{100 * row['auc']:.1f} [{100 * row['auc_lo']:.1f}, {100 * row['auc_hi']:.1f}]" in text
    for part in (
        "PPV at 0.1 %",
        "original.onnx is right on 99.0 % of the members and on 62.0 % of the others",
        "| samia | it needs answers about noisy copies |",
        "Not declared: who gets these models",
        "Testing is evidence of resistance to these attacks only",
        "`blind` did not run",
        "ab" * 32,
        "17057ceb46aa3de6",
        "commit 123; torch 2.14; on a machine",
    ):
        assert part in text, part


def test_labels_alone_are_spoken_for_by_the_strongest_attack_that_reads_no_more(leaky):
    findings = leaky.findings()
    others = findings.attacks["attack"] != "gap"
    noise = findings.attacks.assign(attack=findings.attacks["attack"].replace("rmia", "label_only_noise"))
    pages = [
        to_markdown(audit_report.page_of_audit(leaky.facts, findings._replace(attacks=table)))
        for table in (findings.attacks, noise, findings.attacks[others])
    ]
    assert "Labels alone still give the attack `gap` an AUC of" in pages[0]
    assert "Labels alone still give the attack `label_only_noise` an AUC of" in pages[1]
    assert "No attack that needs labels alone was run." in pages[2]


def test_the_page_loads_nothing_and_runs_nothing(written):
    page = (written / "report.html").read_text()
    parser = Elements()
    parser.feed(page)
    assert not parser.names & {"script", "link", "iframe", "object", "embed", "img", "form"}
    assert not [name for name in parser.attributes if name.startswith("on")]
    assert all(re.match(r"#|[\w.]+$", target) for target in parser.targets), parser.targets
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    assert len(parser.ids) == len(set(parser.ids))
    for need in ('<html lang="en">', "prefers-color-scheme: dark", "@media print", 'name="viewport"'):
        assert need in page


class Elements(html.parser.HTMLParser):
    """The names of elements and attributes, the targets of links and the ids of a page."""

    def __init__(self):
        super().__init__()
        self.names, self.attributes, self.targets, self.ids = set(), set(), set(), []

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.targets |= {value for name, value in attrs if name in ("href", "xlink:href", "src")}
        self.ids += [value for name, value in attrs if name == "id"]


def test_whatever_users_name_does_nothing_in_either_page(tmp_path):
    models = (model_facts(HOSTILE), model_facts("int8"), model_facts("pruned"))
    data = DataFacts(HOSTILE, "17057ceb46aa3de6", 10, 10, "image")
    facts = audit_facts(classes=(HOSTILE, "bee", "cat"), models=models, name=HOSTILE, command=HOSTILE, members=data)
    facts = facts._replace(release={HOSTILE: HOSTILE}, notes=(HOSTILE,), not_run=((HOSTILE, HOSTILE),))
    world = World(facts)
    world.names = [HOSTILE] * POINTS
    audit_report.write_audit_report(tmp_path, facts, world.findings())
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    parser = Elements()
    parser.feed(page)
    assert "script" not in parser.names and "b" not in parser.names
    assert not [target for target in parser.targets if "javascript" in target]
    assert "&lt;script&gt;alert(1)" in page
    outside_commands = re.sub(r"```.*?```", "", text, flags=re.S)
    assert "<script" not in outside_commands.replace("\\<", "")
    assert not re.search(r"(?<!\\)\]\(javascript", outside_commands)
    assert "\x1b" not in page + text and "\u202e" not in page + text
    assert json.loads((tmp_path / "audit.json").read_text())["facts"]["name"] == HOSTILE
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_records_are_redacted_on_demand(leaky, tmp_path):
    facts = leaky.facts._replace(redact=True)
    audit_report.write_audit_report(tmp_path, facts, leaky.findings(facts=facts))
    for file in ("report.html", "report.md", "audit.json"):
        assert not re.search(r"record \d", (tmp_path / file).read_text()), file
    assert json.loads((tmp_path / "audit.json").read_text())["records"] is None
    assert "Names and places of records are left out" in (tmp_path / "report.md").read_text()
    assert "record " in leaky.page()


def test_a_model_that_leaks_nothing_reads_low_and_has_nothing_to_do():
    text = World(audit_facts(MODELS[:1]), leak=0.0).page()
    assert "> **LOW**: None of the attacks that were run" in text
    assert "Nothing has to be done against these attacks." in text
    assert "What each further version adds" not in text


def test_members_above_all_others_are_evidence_only_from_six_on(leaky):
    findings = leaky.findings()
    pages = {
        count: to_markdown(audit_report.page_of_audit(leaky.facts, findings._replace(found_alone=count)))
        for count in (0, 1, 5, 6)
    }
    for count in (0, 1, 5):
        assert f"{count} of 1000 members score above every one of the 1000 others. Chance alone gives 1" in pages[count]
        assert "this is no evidence" in pages[count] and "can name" not in pages[count].replace("can name anybody", "")
    assert "an attacker can name most of them" in pages[6] and "this is no evidence" not in pages[6]


def test_chance_alone_puts_six_members_above_all_others_in_one_world_of_64():
    ranks = np.random.default_rng(0).permuted(np.tile(np.arange(400), (4000, 1)), axis=1)
    alone = (ranks[:, :200] > ranks[:, 200:].max(axis=1, keepdims=True)).sum(axis=1)
    assert alone.mean() == pytest.approx(1, abs=0.1)
    assert (alone >= shipped.ALONE_BY_CHANCE).mean() == pytest.approx(1 / 64, abs=0.007)


def test_the_list_of_records_is_called_noise_where_the_level_is_low(leaky):
    assert "This list is noise" in World(audit_facts(MODELS[:1]), leak=0.0).page()
    assert "This list is noise" not in leaky.page()


def test_a_few_members_above_all_others_are_no_noise_although_the_whole_reads_low():
    quiet = World(audit_facts(MODELS[:1]), leak=0.0)
    some = quiet.findings()._replace(found_alone=40)
    text = to_markdown(audit_report.page_of_audit(quiet.facts, some))
    assert some.overall.level == levels.LOW and "an attacker can name most of them" in text
    assert "This list is noise" not in text and "Nothing has to be done" not in text and "look at these records" in text


def test_no_accusation_is_called_certain_because_no_other_was_accused():
    world = World(audit_facts(MODELS[:1]), leak=0.0)
    accused = np.zeros(POINTS, bool)
    accused[0] = world.truth[0]
    cells = [
        audit_report.accusation_cells(
            world.facts,
            world.findings(table=world.table.assign(**metrics.accusations(decision, world.truth))).headlines,
        )["PPV at 1 %"][0]
        for decision in (accused, accused | (np.arange(POINTS) == 1), np.zeros(POINTS, bool))
    ]
    assert cells[0].startswith("[0.") and cells[0].endswith(", 100.0]")
    assert cells[1].startswith("1.0 [") and cells[2] == ""


def test_copies_among_the_audited_points_are_said_and_do_not_count():
    facts = audit_facts(MODELS[:1])
    world = World(facts._replace(members=facts.members._replace(distinct=120)), leak=0.0)
    text = world.page()
    assert world.findings().overall.level == levels.TOO_FEW
    assert "With 120 members and 1000 others of distinct content" in text
    assert "Of 1,000 audited members, 120 have distinct content. Copies are no further people" in text
    facts = facts._replace(members=facts.members._replace(distinct=1000))
    assert "Copies are no further people" not in world.page(facts=facts)
    assert world.findings(facts=facts).overall.level == levels.LOW


def test_a_small_sample_asks_for_more_points():
    world = World(audit_facts(MODELS[:1]), leak=0.0, points=100)
    text = world.page()
    assert "> **too few points to tell**: Nothing is shown" in text
    assert f"Put at least {levels.smallest_size()} members" in text
    assert "No class has enough members and others to be measured alone" in text


def test_only_what_leaks_in_company_is_advised_against():
    world = World(audit_facts(MODELS[:2]), leak=0.0)
    leak = World(audit_facts(MODELS[:2]), leak=2.0)
    both = pd.concat([world.table[world.table["scenario"] == "NR"], leak.table[leak.table["scenario"] == "SR"]])
    world.scores_of_row |= {name: scores for name, scores in leak.scores_of_row.items() if name.startswith("SR")}
    text = world.page(table=both.reset_index(drop=True))
    assert "No model alone gives this: ship one version" in text
    assert "That is about somebody who holds original.onnx and int8.onnx, the worst of 4 cases." in text


class WorldOfClasses(World):
    """50 classes of 60 members and 60 others, of which the first `exposed` leak."""

    def __init__(self, exposed, leak=3.0, points=6000):
        self.facts = audit_facts(MODELS[:1], classes=tuple(f"class {label}" for label in range(50)))
        rng = np.random.default_rng(1)
        self.truth = np.arange(points) % 2 == 0
        self.labels = np.arange(points) // 4 % 50
        self.names = [f"record {place}" for place in range(points)]
        scores = rng.normal(size=points) + leak * (self.truth & (self.labels < exposed))
        self.scores_of_row = {"NR original.onnx rmia": scores}
        measured = metrics.evaluate(scores, scores > 0.7, self.truth, seed=0, replicates=50)
        names = {"scenario": "NR", "variant": "original.onnx", "attack": "rmia", "classifier": "", "headline": True}
        self.table = pd.DataFrame([names | measured])


def test_an_exposed_class_keeps_an_audit_from_reading_low():
    world = WorldOfClasses(exposed=1)
    findings = world.findings()
    assert [verdict.level for verdict in findings.verdicts] == [levels.LOW]
    assert (findings.overall.level, findings.overall.proven) == (levels.HIGH, True)
    assert findings.overall.reason.startswith("On class class 0 alone, rmia on original.onnx alone has AUC 9")
    assert list(findings.classes["level"]) == [levels.HIGH] + [""] * 49
    text = world.page()
    assert text.index("> **Exposed classes**: 1 of 50 measured classes") < text.index("## What to do next")
    assert "Nothing has to be done" not in text
    assert "Members of some classes are found far better than by guessing; all together read LOW." in text
    for level, leak in ((levels.AT_LEAST_MIDDLE, 1.6), (levels.LOW, 0.3)):
        assert WorldOfClasses(exposed=1, leak=leak).findings().overall.level == level


def test_no_class_of_50_is_exposed_by_chance_and_both_halves_count():
    world = WorldOfClasses(exposed=0)
    assert world.findings().overall.level == levels.LOW
    facts = world.facts._replace(attacker="known_half")
    halves = WorldOfClasses(exposed=1).findings(facts=facts)
    assert halves.overall.level == levels.HIGH
    assert halves.classes["auc_proven"].iloc[0] < WorldOfClasses(exposed=1).findings().classes["auc_proven"].iloc[0]


def test_a_class_adds_nothing_to_middle_unless_it_reaches_high():
    middle = World(audit_facts(MODELS[:1]), leak=0.72).findings()
    assert set(middle.classes["level"]) == {levels.AT_LEAST_MIDDLE} and middle.overall.level == levels.MIDDLE


def test_a_weak_attack_on_more_models_gives_no_better_level_and_is_called_weak():
    world = World(audit_facts(), leak=0.0)
    leak = World(audit_facts(), leak=2.0)
    original = "NR original.onnx"
    leaking = (leak.table["scenario"] == "NR") & (leak.table["variant"] == "original.onnx")
    table = pd.concat([leak.table[leaking], world.table[~leaking]], ignore_index=True)
    world.scores_of_row |= {name: scores for name, scores in leak.scores_of_row.items() if name.startswith(original)}
    level_of = {(v.scenario, v.variant): v.level for v in world.findings(table=table).verdicts}
    assert level_of.pop(("NR", "int8.onnx")) == level_of.pop(("NR", "pruned.onnx")) == levels.LOW
    assert set(level_of.values()) == {levels.HIGH}
    text = world.page(table=table)
    assert "Whoever holds original.onnx and int8.onnx can attack original.onnx alone, which reads HIGH:" in text
    assert "the attack on both is weaker here; holding more never takes anything away" in text


@pytest.mark.parametrize("name", ["null", "blind", "references"])
def test_a_control_that_finds_something_is_said_first(name):
    world = World(audit_facts(MODELS[:1]), controls=(name,), leak=0.0, control_leak=0.8)
    text = world.page()
    assert name in world.findings().failed_controls
    assert text.index("> **A control failed**: `" + name) < text.index("## What to do next")
    assert f"`{name}` FAILED" in text and "Mend what the failed control points to" in text
    assert "Nothing has to be done" not in text and "> **not measured**: There is no level" in text
    overall = world.findings().overall
    assert overall.level == levels.NOT_MEASURED and f"the control {name} failed" in overall.reason


def test_high_stays_beside_a_failed_control_and_says_so():
    text = World(audit_facts(MODELS[:1]), controls=("blind",), control_leak=0.8).page()
    assert (
        "> **HIGH**: An attacker tells members from others far better than by guessing, but the control blind" in text
    )
    assert "HIGH, but the control blind failed: the data may differ by themselves." in text


def test_null_is_no_success_where_the_audit_asked_in_one_mixed_order_by_itself(leaky):
    asked = leaky.page(facts=leaky.facts._replace(asked=True))
    assert "`null` can only confirm here what is so by construction" in asked and "`null` passed" not in asked
    assert "`null` passed: AUC" in leaky.page()


def test_without_blind_the_page_says_that_no_control_looks_at_the_data(leaky):
    sentence = "So no control looks at the data: if members and others differ by themselves"
    assert f"`blind` did not run. {sentence}" in leaky.page()
    assert sentence not in World(audit_facts(MODELS[:1]), controls=("null", "blind")).page()
    assert sentence in leaky.page(table=leaky.table[leaky.table["attack"] != "null"])


def test_a_failed_null_control_concerns_its_own_target_alone():
    world = World(audit_facts(MODELS[:2]), leak=0.0)
    failing = (world.table["attack"] == "null") & (world.table["scenario"] == "SR")
    findings = world.findings(table=world.table.assign(auc=world.table["auc"].where(~failing, 0.7)))
    assert [verdict.level for verdict in findings.verdicts][:2] == [levels.LOW, levels.LOW]
    assert {verdict.level for verdict in findings.verdicts[2:]} == {levels.NOT_MEASURED}
    assert findings.overall.level == levels.NOT_MEASURED and findings.failed_controls == ("null",)


def test_clean_controls_of_many_audits_fail_together_in_one_audit_of_a_hundred():
    rng = np.random.default_rng(0)
    deviation = np.sqrt(1501 / (12 * 750 * 750))
    failing = 0
    for _ in range(400):
        aucs = 0.5 + deviation * rng.normal(size=6)
        names = ["null"] * 5 + ["blind"]
        table = pd.DataFrame({"attack": names, "auc": aucs, "auc_lo": 0, "auc_hi": 1})
        failing += len(controls.failed_controls(table.assign(n_member=750, n_nonmember=750))) > 0
    assert 0 < failing <= 10


def test_without_an_attack_chosen_beforehand_or_controls_the_page_says_so(leaky, tmp_path):
    table = leaky.table.assign(headline=False)
    table = table[table["attack"] != "null"]
    findings = leaky.findings(table=table)
    audit_report.write_audit_report(tmp_path, leaky.facts, findings)
    text = (tmp_path / "report.md").read_text()
    assert "No attack could be chosen beforehand" in text and "No control ran" in text
    assert not (tmp_path / "figures").exists()
    assert findings.overall.level == levels.HIGH


def test_what_the_report_says_of_defences_follows_the_published_tables(written):
    section = (written / "report.md").read_text().partition("## Mitigations")[2].partition("\n## ")[0]
    page = (ROOT / "results/published/letters_mlp_w1_broad_defences/summary.md").read_text()
    table = page.partition("## In short")[2].partition("\n## ")[0]
    assert table.count("| mlp |") == 9 and re.search(r"\n\|.*\|\n", table, re.S)[0] in section
    published = pd.read_csv(ROOT / "results/published/letters_mlp_w1_broad_defences/differences.csv")
    rows = published[(published["what"] == "defence") & (published["variant"] == "original")]
    rows = rows[rows["fine_tuning"] != "plain"]
    rows = rows[(rows["attacker"] == "either") & (rows["form"] == "strongest") & (rows["of"] == "auc")]
    assert len(rows) == 8
    for _, row in rows.iterrows():
        shown = f"AUC {100 * row['difference']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}] points"
        assert (shown in section) == (row["high"] < 0)
    assert "No change that these seeds can show: MemGuard 1, AdvReg 1, label smoothing 0.1." in section


def test_a_defence_that_surely_raises_the_auc_is_said_to_and_each_recipe_has_its_own_price():
    def line(what, recipe, difference, low=np.nan, high=np.nan):
        names = {"defence": "dp", "argument": 1.0, "recipe": recipe, "network": "mlp", "fine_tuning": "defended"}
        of = {"attacker": "either", "scenario": "NR", "variant": "original", "form": "strongest", "of": "auc"}
        return {**names, **of, "what": what, "difference": difference, "low": low, "high": high}

    rows = [line("accuracy", "", -0.1), line("accuracy", "lr 3", -0.2)]
    rows += [line("defence", "", -0.03, -0.05, -0.01), line("defence", "lr 3", 0.02, 0.01, 0.03)]
    text = mitigations.describe_effects(pd.DataFrame(rows))
    assert "DP-SGD 1: AUC -3.0 [-5.0, -1.0] points, accuracy -10.0." in text
    assert "AUC that surely rises: DP-SGD 1 (lr 3): 2.0 [1.0, 3.0]." in text and "No change" not in text


def test_of_one_seed_nothing_is_sure_and_the_differences_stand_as_measured():
    names = {"defence": "ppb", "argument": 4.0, "recipe": "", "network": "mlp", "fine_tuning": "defended"}
    of = {"attacker": "either", "scenario": "NR", "variant": "original", "form": "strongest", "of": "auc"}
    none = {"low": np.nan, "high": np.nan}
    rows = [
        {**names, **of, **none, "what": what, "difference": gap}
        for what, gap in (("accuracy", -0.04), ("defence", -0.06))
    ]
    assert mitigations.describe_effects(pd.DataFrame(rows)) == (
        "Change in one seed, which another seed may not repeat: PPB 4: AUC -6.0 points, accuracy -4.0."
    )
    beside = [{**names, **none, "stopped_auc": 0.6, "difference": 0.01}]
    beside.append({**names, **none, "defence": "label_smoothing", "argument": 0.1, "stopped_auc": np.nan})
    assert mitigations.compare_with_stopping(pd.DataFrame(beside)) == (
        "AUC minus that of stopping early at the same accuracy, in one seed: PPB 4: 1.0. "
        "Not as accurate as any moment of the undefended training: label smoothing 0.1."
    )


# audit.json


def test_audit_json_follows_its_schema(written, leaky):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "compleak/reports/audit.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    content = json.loads((written / "audit.json").read_text(), parse_constant=pytest.fail)
    jsonschema.validate(content, schema)
    small = World(audit_facts(MODELS[:1]), leak=0.0, controls=(), points=60)
    facts = small.facts._replace(redact=True)
    jsonschema.validate(shipped.as_data(facts, small.findings(facts=facts)), schema)
    del content["overall"]["reason"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema)


def test_the_losses_alone_are_judged_for_each_model_and_left_out_where_nobody_looked_at_them(leaky):
    findings = leaky.findings()
    assert list(findings.tails["variant"]) == [model.name for model in leaky.facts.models]
    losses = -leaky.scores_of_row["NR original.onnx yeom2018"]
    allowed = np.sort(losses[leaky.truth])[-1 - leaky.truth.sum() // 1000]
    assert findings.tails["tnr"][0] == (losses[~leaky.truth] > allowed).mean() > 0.01
    assert "What the losses alone say" in leaky.page()
    scores = leaky.scores_of_row["NR original.onnx yeom2018"]
    leaky.scores_of_row["NR original.onnx yeom2018"] = np.where(np.arange(len(scores)) < 4, np.nan, scores)
    assert leaky.findings().tails["tnr"][0] > 0  # copies of points are left out of a table
    leaky.scores_of_row["NR original.onnx yeom2018"] = scores
    without = leaky.table[leaky.table["attack"] != "yeom2018"]
    assert leaky.findings(table=without).tails.empty
    assert "What the losses alone say" not in leaky.page(table=without)


def test_audit_json_holds_every_row_and_null_for_what_has_no_value(leaky):
    table = leaky.table.assign(**{"ppv_0.01": np.nan})
    content = shipped.as_data(leaky.facts, leaky.findings(table=table))
    assert content["schema"] == "compleak-audit/1"
    assert len(content["attacks"]) == len(table) and content["attacks"][0]["ppv_0.01"] is None
    assert content["attacks"][0]["auc"] == leaky.table.loc[0, "auc"]
    json.dumps(content, allow_nan=False)


def test_the_documentation_names_every_part_of_audit_json():
    schema = json.loads((ROOT / "compleak/reports/audit.schema.json").read_text())
    page = (ROOT / "docs/audit-report.md").read_text()
    for name in schema["required"]:
        assert f"`{name}`" in page, name


def test_the_documentation_has_the_limits_and_sizes_of_the_rule():
    page = (ROOT / "docs/audit-report.md").read_text()
    for limit in levels.LIMITS:
        low, middle = f"{100 * limit.low:g}", f"{100 * limit.middle:g}"
        assert f"| {limit.title} | below {low} % | below {middle} % | from {middle} % on |" in page
    size, with_known_half = levels.smallest_size(), levels.smallest_size(halves=2)
    sentence = f"{size:,} members and {size:,} others with shadow models, and {with_known_half:,} with `known_half`"
    assert sentence in " ".join(page.split())


# With the attack stage


def test_tables_of_the_attack_stage_become_a_report(tmp_path):
    world = planted_signals(1, 1500, classes=3, leak=3.0, seed=1)
    write_signals(tmp_path / "model.npz", world.variants[0], world.truth)
    attacks = "yeom2018,gap,song2021,calibrated"
    table = CompLeakNR.main(["--signals", str(tmp_path / "model.npz"), "--attacks", attacks])
    table = table.assign(variant="model.onnx")
    scores = np.load(tmp_path / "model/NR_scores.npz")
    facts = audit_facts(("model.onnx",), attacker="known_half")
    signals = world.variants[0]
    labels = signals.labels[signals.audit[0]]
    names = [str(place) for place in range(len(labels))]
    findings = shipped.audit_findings(
        facts, table, lambda row: scores[key_of(row)], world.truth, labels, names, scores["half"]
    )
    audit_report.write_audit_report(tmp_path, facts, findings)
    assert findings.overall.level in (levels.AT_LEAST_MIDDLE, levels.HIGH)
    assert "Half of the audited points are known to the attacker" in (tmp_path / "report.md").read_text()
