"""Pages and pictures: what a block looks like, what the pages say, and that no two names in a picture overlap."""

import itertools
import re

import matplotlib.text
import numpy as np
import pandas as pd
import pytest

from compleak.audits import metrics
from compleak.audits.metrics import TPR
from compleak.findings import ablation, claims, exposure, roc, rows, seeds, tails
from compleak.findings.one_run import RunFindings
from compleak.findings.rows import key_of
from compleak.reports import cells, run_page, seeds_page
from compleak.reports.defences_page import difference_table, leakage_by_victim
from compleak.reports.early_stopping_page import beside_table
from compleak.reports.figures import degrees, early_stopping, exposed, family, greedy, tradeoff
from compleak.reports.figures import roc as roc_picture
from compleak.reports.figures.labels import Label, label_points
from compleak.reports.figures.style import new_figure, split_variant
from compleak.reports.folder import write_report
from compleak.reports.page import Bullets, Code, Figure, Heading, Table, Text, to_markdown
from compleak.runs.run import Run
from compleak.runs.settings import UNDEFENDED

VARIANTS = ("original", "pruning_0.9", "clustering_4")
POINTS = 400
CONFIG = {"dataset_name": "digits", "data": "abc", "seed": 3, "shadow_num": 1, "model_name": "resnet18", "width": 0.5}
CONFIG |= {"features": None, **UNDEFENDED.as_config()}
META = {
    "made_from": {"augment": False, "label_noise": 0.2, "epochs": 3, "lr": 0.1, "batch_size": 32},
    "machine": "a machine",
    "versions": {"torch": "2.7"},
    "commit": "123",
}


# Pages


def test_blocks_become_markdown():
    table = Table(pd.DataFrame({"a": ["x"], "b": [1]}))
    blocks = [Heading("Title", level=1), Text("one\n    line"), Bullets(["x", "y\n z"]), Code("python a.py"), table]
    expected = "# Title\n\none line\n\n- x\n- y z\n\n```bash\npython a.py\n```\n\n| a | b |\n| --- | --- |\n| x | 1 |\n"
    assert to_markdown(blocks) == expected
    assert to_markdown([Heading("Part"), Figure("a.png", "What it shows")]) == "## Part\n\n![What it shows](a.png)\n"


def test_cells_are_percent_with_their_interval_or_deviation():
    assert cells.interval(0.7124, 0.705, 0.719) == "71.2 [70.5, 71.9]"
    assert cells.plus_minus(0.5, 0.0) == "50.0 ± 0.0"
    assert cells.plus_minus(0.5, np.nan) == "50.0"
    assert cells.plus_minus(np.nan, np.nan) == "undefined"
    frame = pd.DataFrame({"auc": [0.5, np.nan], "auc_lo": [0.4, np.nan], "auc_hi": [0.6, np.nan]})
    assert cells.intervals(frame, "auc") == ["50.0 [40.0, 60.0]", ""]
    assert cells.intervals(frame, "tpr") == ["", ""]
    assert cells.defence_name("ppb", 4.0) == "PPB 4" and cells.defence_name("", np.nan) == "none"


def test_no_file_of_a_report_is_written_before_its_page_is_complete(tmp_path):
    with pytest.raises(AttributeError):
        write_report(tmp_path, {"summary": None}, {}, "page")
    assert not list(tmp_path.iterdir())


# The page of a run


def attack_lines(rng, truth):
    """Rows of all scenarios with their scores: yeom2018 and joint on each model, and their null control."""
    targets = [("NR", variant) for variant in VARIANTS] + [("SR", variant) for variant in VARIANTS[1:]]
    for scenario, variant in [*targets, ("MR", "all")]:
        published = {"NR": "yeom2018", "SR": "SR2", "MR": "MR"}[scenario]
        for attack, shift in ((published, 0.8), ("joint", 1.0), ("null", 0.0)):
            scores = rng.normal(size=POINTS) + shift * truth
            line = {"scenario": scenario, "variant": variant, "attack": attack, "classifier": "", "artifact_row": ""}
            line |= metrics.evaluate(scores, scores > 0, truth, seed=0) | metrics.accusations(scores > 2, truth)
            line |= metrics.interval_columns({"null_auc": (0.5, 0.45, 0.55)})
            yield {**line, "headline": attack == "joint", "shadow_log_auc": shift}, scores


@pytest.fixture(scope="module")
def findings():
    """Of a run with two compressed models."""
    rng = np.random.default_rng(0)
    truth = np.arange(POINTS) < POINTS // 2
    lines = list(attack_lines(rng, truth))
    table = pd.DataFrame([line for line, _ in lines])
    by_name = {rows.name_of(row): scores for (_, row), (_, scores) in zip(table.iterrows(), lines, strict=True)}
    models = pd.DataFrame({"variant": VARIANTS, "role": "victim_model", "bytes": (3e6, 1e6, 5e5)})
    models = models.assign(train_accuracy=(1.0, 0.9, 0.8), test_accuracy=(0.6, 0.5, 0.6), seconds=1.0, property="")

    def scores_of(row):
        return by_name[rows.name_of(row)]

    steps = pd.DataFrame({"models": (1, 2, 3), "added": VARIANTS})
    for key, values in {"auc": (0.7, 0.8, 0.8), TPR: (0.1, 0.1, 0.2), "gain": (np.nan, 0.1, 0.0)}.items():
        steps = steps.assign(**{key: values, f"{key}_lo": np.subtract(values, 0.05), f"{key}_hi": np.add(values, 0.05)})
    return RunFindings(
        attacks=table,
        models=models,
        claims=claims.compare(table, scores_of, truth, seed=0),
        family=ablation.family_table(table, models, scores_of, truth, seed=0),
        greedy=steps,
        points=exposure.points_table(table, scores_of, truth, np.arange(POINTS), np.arange(POINTS) % 10),
        curves=roc.roc_curves(table, scores_of, truth),
        tails=pd.DataFrame([{"variant": name, **tails.tail_of(rng.gamma(1, size=POINTS), truth)} for name in VARIANTS]),
    )


def facts_of(tmp_path, **config):
    run = Run(tmp_path, "small", {**CONFIG, **config})
    return run_page.RunFacts(run, META, 2.0, "python reproduce.py", {"train": "--epochs 3", "attack": ""})


def test_a_page_shows_and_counts_only_the_variants_of_its_findings(findings, tmp_path):
    page = to_markdown(run_page.page_of_run(facts_of(tmp_path), findings))
    assert "eight" not in page and "nan" not in page and "None" not in page
    lines = page.splitlines()
    for line in ("- stages: train `--epochs 3`", "- defence: none", "python reproduce.py"):
        assert line in lines
    shown = [line.split(" | ")[0].strip("| ") for line in lines if line.startswith("| ")]
    assert shown[2 : 2 + 4] == [*VARIANTS, "all (MR)"]
    counts = re.findall(r"\d of (\d) hold", page)
    assert counts == ["1"] * 3 + ["2"] * 3 + ["1"] * 3  # C1: 90 % pruned alone; C2: a pair for each compressed model
    assert "NR joint 3; SR joint 2; MR joint 1" in page


def test_a_table_of_features_has_no_pictures_of_its_points(findings, tmp_path):
    facts = facts_of(tmp_path, dataset_name="location", model_name="mlp")
    page = to_markdown(run_page.page_of_run(facts, findings))
    assert "sees the features and no model" in page and "exposed.png" not in page
    assert "exposed" not in run_page.draw_figures(facts, findings)


def test_every_figure_and_table_that_a_page_names_is_written(findings, tmp_path, monkeypatch):
    class Data:
        images = np.zeros((POINTS, 32, 32, 3), np.uint8)
        classes = tuple("0123456789")

    facts = facts_of(tmp_path)
    monkeypatch.setattr(run_page, "findings_of_run", lambda run, variants: findings)
    monkeypatch.setattr(run_page.outputs, "original_meta", lambda run: META)
    monkeypatch.setattr(run_page.outputs, "minutes", lambda run: 2.0)
    monkeypatch.setattr(run_page, "dataset", lambda run: Data)
    page = run_page.write_run_page(facts.run, ["original"], facts.command, facts.settings)
    folder = facts.run.dir
    assert (folder / "summary.md").read_text() == page
    named = set(re.findall(r"[(`]([a-z]+\.(?:png|csv))", page))
    written = {file.name for file in folder.iterdir()}
    assert named <= written
    assert written == named | {"claims.csv", "family.csv", "greedy.csv", "summary.md"}
    assert all(file.stat().st_size < 150_000 for file in folder.glob("*.png"))


def test_a_page_shows_the_upper_bound_beside_the_headline_and_says_whose_points_the_shadow_models_had(
    tmp_path, findings
):
    line = findings.attacks.iloc[0].to_dict() | {"attack": "upper_bound", "auc": 0.9, "auc_lo": 0.8, "auc_hi": 0.95}
    table = pd.concat([findings.attacks, pd.DataFrame([line | {"headline": False}])], ignore_index=True)
    facts = facts_of(tmp_path, layout="online")
    page = to_markdown(run_page.page_of_run(facts, findings._replace(attacks=table)))
    assert "trained on the victim's points, too (`--split online`)" in page
    headline = rows.scenario_row(table, "NR", "original", "headline")
    shown = cells.interval(headline["auc"], headline["auc_lo"], headline["auc_hi"])
    assert f"| original | 90.0 [80.0, 95.0] | {shown} |" in page
    assert "What could be known" not in to_markdown(run_page.page_of_run(facts_of(tmp_path), findings))


def test_a_page_says_clearly_that_the_controls_failed(findings, tmp_path):
    assert "do not differ from 50" in to_markdown(run_page.page_of_run(facts_of(tmp_path), findings))
    table = findings.attacks.copy()
    table.loc[table["attack"] == "null", ["auc", "auc_lo", "auc_hi"]] = (0.8, 0.7, 0.9)
    page = to_markdown(run_page.page_of_run(facts_of(tmp_path), findings._replace(attacks=table)))
    assert "DIFFER from 50: do not trust the other numbers" in page


def test_a_page_over_seeds_says_how_many_seeds_and_links_their_pages(findings, tmp_path):
    tables = [findings.attacks, findings.attacks]
    points = {"seed 1": findings.points, "seed 2": findings.points}
    over_seeds = seeds.SeedsFindings(
        tables=tables,
        models=pd.concat([findings.models] * 2),
        spread=seeds.spread_over_seeds(tables),
        leading=seeds.leading_over_seeds(tables),
        claims=seeds.claims_over_seeds([findings.claims] * 2),
        strength=seeds.strength_over_seeds(tables),
        agreement=exposure.agreement(points),
        records=exposure.records_over_seeds(points),
        found_again=exposure.found_again(points),
        null_means=[0.5, 0.5],
    )
    seed_runs = [Run(tmp_path, f"small_seed{seed}", {**CONFIG, "seed": seed}) for seed in (1, 2)]
    facts = seeds_page.SeedsFacts("small_seeds", seed_runs, 4.0, "python reproduce.py --seeds 1 2")
    page = to_markdown(seeds_page.page_of_seeds(facts, over_seeds))
    assert "over 2 seeds" in page and "[seed 2](../small_seed2/summary.md)" in page and "1.00 [1.00, 1.00]" in page
    assert "±" in page and "nan" not in page and "eight" not in page
    assert seeds_page.draw_degrees(facts, over_seeds)


# Defences


def spread_of_defences():
    """Of one network without defence and with two arguments of PPB, original alone and all models."""
    lines = []
    settings = [("", np.nan, "", 0.9), ("ppb", 1.0, "adaptive", 0.8), ("ppb", 4.0, "adaptive", 0.6)]
    for (defence, argument, attacker, auc), (scenario, variant) in itertools.product(
        settings, (rows.ALONE, rows.TOGETHER)
    ):
        line = {"defence": defence, "argument": argument, "network": "resnet18", "attacker": attacker, "recipe": ""}
        line["fine_tuning"] = "defended" if defence else ""
        line |= {"scenario": scenario, "variant": variant, "form": "strongest", "epsilon": np.inf}
        lines.append(line | {"auc_mean": auc, "auc_sd": 0.01, "accuracy_mean": auc - 0.2, "accuracy_sd": np.nan})
    return pd.DataFrame(lines)


def test_a_line_of_the_leakage_table_names_the_defence_and_its_argument():
    shown = leakage_by_victim(spread_of_defences(), "auc")
    assert shown["defence"].tolist() == ["none", "PPB 1", "PPB 4"]
    first = ["PPB 1", "resnet18", "adaptive", "defended", "60.0", "", "80.0 ± 1.0", "80.0 ± 1.0"]
    assert shown.iloc[1].tolist() == first
    assert cells.defence_name("dp", 1.0, "lr 0.5, batch 256") == "DP-SGD 1 (lr 0.5, batch 256)"


def test_differences_have_a_line_for_each_attacker_and_a_column_for_each_target():
    head = {"defence": "ppb", "argument": 4.0, "network": "resnet18", "what": "defence", "difference": -0.1}
    head |= {"recipe": "", "fine_tuning": "defended"}
    targets = [("adaptive", "NR", "original", -0.2), ("adaptive", "MR", "all", np.nan)]
    lines = [
        {**head, "attacker": attacker, "scenario": scenario, "variant": variant, "low": low, "high": low + 0.2}
        for attacker, scenario, variant, low in targets
    ]
    (line,) = difference_table(pd.DataFrame(lines)).to_dict("records")
    assert line["NR original"] == "-10.0 [-20.0, 0.0]" and line["MR all"] == "-10.0"  # a single seed has no interval


def test_a_defence_without_a_snapshot_to_compare_with_says_so():
    own = spread_of_defences().query("defence != '' and scenario == 'NR'").reset_index(drop=True)
    beside = own.assign(
        seeds=3, stopped_auc=[0.7, np.nan], difference=[0.1, np.nan], low=[0.05, np.nan], high=[0.15, np.nan]
    )
    table = beside_table(beside)
    assert table["difference"].tolist() == ["10.0 [5.0, 15.0]", ""]
    assert table["AUC when stopped"].tolist() == ["70.0", "no snapshot to compare with"]


# Pictures


def texts_of(figure):
    """All names and titles of a figure, and the rectangles that they take, in pixels."""
    figure.draw_without_rendering()
    texts = list(figure.texts)
    for axes in figure.axes:
        low, high = axes.get_xlim()
        texts += axes.texts
        texts += [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    # an annotation's own extent includes the line to its point
    return [(text.get_text(), matplotlib.text.Text.get_window_extent(text)) for text in texts if text.get_text()]


def assert_readable(figure):
    """No text leaves the picture, and none covers another by more than a rounding error."""
    texts = texts_of(figure)
    for text, box in texts:
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for (text, box), (other, other_box) in itertools.combinations(texts, 2):
        width = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
        height = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
        assert width <= 1 or height <= 1, (text, other)


def test_the_line_from_a_point_to_its_name_crosses_no_other_name():
    figure, axes = new_figure("title", "subtitle", 4)
    points = [(0.5 + 0.012 * column, 0.5 + 0.02 * row) for column in range(3) for row in range(2)]
    axes.plot(*zip(*points, strict=True), "o")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    label_points(figure, axes, [Label(*point, f"defence {place}", "black") for place, point in enumerate(points)])
    figure.draw_without_rendering()
    boxes = [matplotlib.text.Text.get_window_extent(text) for text in axes.texts]
    lines = [(text, box) for text, box in zip(axes.texts, boxes, strict=True) if text.arrow_patch]
    assert lines
    for text, box in lines:
        start, end = axes.transData.transform(text.xy), (box.get_points()[0] + box.get_points()[1]) / 2
        places = start + np.linspace(0, 1, 200)[:, None] * (end - start)
        others = [other for other in boxes if other is not box]
        assert not any(other.contains(*place) for other in others for place in places), text.get_text()


LONG_NAME = (
    "cifar10_resnet18_w0.25_quick_seed7_ppb_4_undefended_original_adaptive; bars are 95 % intervals, and more of it"
)


def test_no_title_or_name_of_a_picture_is_cut_off_or_covers_another(findings):
    leading = rows.leading_rows(findings.attacks)
    assert_readable(degrees.degrees_figure(leading, VARIANTS, LONG_NAME))
    assert_readable(family.family_figure(findings.family, LONG_NAME))
    assert_readable(greedy.greedy_figure(findings.greedy, LONG_NAME))
    spread = spread_of_defences()
    plain = spread[spread["defence"] != ""].assign(fine_tuning="plain", auc_mean=0.85)
    assert_readable(tradeoff.tradeoff_figure(pd.concat([spread, plain]), LONG_NAME))
    curve = spread.head(2).assign(accuracy_mean=[0.5, 0.6], auc_mean=[0.7, 0.8], epochs=[1, 10], share=[0.1, 1.0])
    beside = spread[(spread["defence"] != "") & (spread["scenario"] == "NR")]
    assert_readable(early_stopping.early_stopping_figure(curve, beside, LONG_NAME))
    assert_readable(roc_picture.roc_figure(findings.curves, LONG_NAME))
    images = np.zeros((POINTS, 32, 32, 3), np.uint8)
    assert_readable(exposed.exposed_figure(findings.points, images, [f"class {i}" for i in range(10)], LONG_NAME))


def test_of_several_arguments_the_least_accurate_stands_behind_the_defences_name_and_the_others_alone():
    columns = ["defence", "argument", "recipe", "network", "attacker", "accuracy_mean", "auc_mean"]
    rows_of_points = [
        ("ppb", 1.0, "", "mlp", "adaptive", 0.8, 0.7),
        ("ppb", 4.0, "", "mlp", "adaptive", 0.7, 0.6),
        ("ppb", 4.0, "", "mlp", "non-adaptive", 0.7, 0.5),
        ("dp", 1.0, "lr 3", "mlp", "adaptive", 0.6, 0.55),
        ("label", np.nan, "", "mlp", "adaptive", 0.9, 0.55),
        ("", np.nan, "", "mlp", "-", 0.9, 0.8),
    ]
    labels = tradeoff.labels_of(pd.DataFrame(rows_of_points, columns=columns))
    places = {label.text: (round(label.x), round(label.y)) for label in labels}
    assert places == {
        "DP-SGD 1": (60, 55),
        "PPB 4": (70, 50),
        "1": (80, 70),
        "labels alone": (90, 55),
        "no defence": (90, 80),
    }


@pytest.mark.parametrize("spread", [0.0, 0.001, 0.02])
def test_names_of_points_that_lie_close_together_do_not_cover_each_other(findings, spread):
    variants = ("original", "pruning_0.6", "pruning_0.7", "quantization_int8", "clustering_4", "clustering_16")
    family_table = pd.DataFrame({"variant": variants, "technique": [name.split("_")[0] for name in variants]})
    offsets = spread * np.arange(len(variants))
    family_table = family_table.assign(accuracy=0.5 + offsets, bytes=1e6 * (1 + offsets), alone=0.7 + offsets)
    family_table = family_table.assign(alone_lo=family_table["alone"], alone_hi=family_table["alone"])
    assert_readable(family.family_figure(family_table, "name"))


def test_the_figure_of_degrees_can_be_drawn_from_one_form_and_without_sr_and_mr(findings):
    table = findings.attacks
    only_nr = table[(table["scenario"] == "NR") & (table["attack"] != "joint")]
    assert_readable(degrees.degrees_figure(rows.leading_rows(only_nr), VARIANTS, "name"))


def test_an_attacks_scores_are_named_by_attack_and_classifier():
    assert key_of(pd.Series({"attack": "SR2", "classifier": "random_forest"})) == "SR2/random_forest"
    assert key_of(pd.Series({"attack": "joint", "classifier": ""})) == "joint"


def test_a_variant_is_named_by_its_technique_and_degree():
    assert split_variant("pruning_slim_0.7") == ("pruning", "slim_0.7")
    assert split_variant("original") == ("original", "")
