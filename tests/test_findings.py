"""What tables say: rows selected, claims judged, points ranked, families and seeds and defences compared."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from planted import gaussian_signals
from scipy.stats import spearmanr

from attacks.joint import joint
from compleak.audits import metrics
from compleak.audits.metrics import TPR, WIDER_TPR
from compleak.findings import ablation, claims, controls, defences, early_stopping, exposure, outputs, roc, rows, seeds
from compleak.runs.variants import PAPER_GRID, parse_variant
from defenses import dp

COMPRESSED = tuple(map(str, PAPER_GRID))
VARIANTS = ("original", *COMPRESSED)


def claim_world(shifts):
    """A table and scores in which each (scenario, variant, attack) separates members by its shift."""
    rng = np.random.default_rng(0)
    truth = np.arange(2000) < 1000
    noise = rng.normal(size=2000)
    lines = []
    scores = {}
    for (scenario, variant, attack), shift in shifts.items():
        values = noise + shift * truth + 0.05 * rng.normal(size=2000)
        scores[scenario, variant, attack] = values
        line = {"scenario": scenario, "variant": variant, "attack": attack, "classifier": ""}
        line |= {"headline": attack == "joint", "auc": metrics.auc(values, truth), "shadow_log_auc": shift}
        line |= {"n_member": 1000, "n_nonmember": 1000}
        lines.append(line)
    return pd.DataFrame(lines), lambda row: scores[row["scenario"], row["variant"], row["attack"]], truth


# Rows


def table_of(*lines):
    """A table of (scenario, variant, attack, headline, auc, tpr)."""
    table = pd.DataFrame(lines, columns=["scenario", "variant", "attack", "headline", "auc", TPR])
    table = table.assign(classifier="", n_member=50, n_nonmember=50)
    for key in ("auc", TPR):
        table[f"{key}_lo"] = table[key] - 0.1
        table[f"{key}_hi"] = table[key] + 0.1
    return table


TABLE = table_of(
    ("NR", "original", "yeom2018", False, 0.6, 0.05),
    ("NR", "original", "rmia", False, 0.7, 0.01),
    ("NR", "original", "joint", True, 0.65, 0.02),
    ("NR", "original", "null", False, 0.9, 0.9),
    ("SR", "pruning_0.9", "SR2", False, 0.8, 0.03),
)


def test_the_leading_row_of_a_form_is_the_strongest_and_never_a_control():
    leading = rows.leading_rows(TABLE)
    leaders = leading[["scenario", "form", "attack"]].apply(tuple, axis=1).tolist()
    assert leaders == [("NR", "published", "rmia"), ("NR", "headline", "joint"), ("SR", "published", "SR2")]
    assert rows.scenario_row(TABLE, "NR", "original", "yeom2018")["auc"] == 0.6
    assert rows.scenario_row(TABLE, "NR", "original", "without references")["attack"] == "yeom2018"
    assert rows.scenario_row(TABLE, "SR", "pruning_0.9", "without references")["attack"] == "SR2"
    assert rows.scenario_row(TABLE, "MR", "all", "headline") is None


def test_an_attack_on_a_small_sample_of_the_points_does_not_speak_for_a_target():
    lucky = TABLE.iloc[[0]].assign(attack="boundary", auc=0.99, n_member=20, n_nonmember=20)
    table = pd.concat([TABLE, lucky], ignore_index=True)
    assert rows.scenario_row(table, "NR", "original", "published")["attack"] == "rmia"
    assert list(rows.leading_rows(table)["attack"]) == list(rows.leading_rows(TABLE)["attack"])
    assert rows.strength_table(table)["auc_by"].tolist() == ["rmia"]
    assert rows.strongest(lucky)["attack"] == "boundary"  # where no other ran


def test_the_headline_is_compared_with_the_strongest_published_attack_by_each_measure():
    (line,) = rows.strength_table(TABLE).to_dict("records")
    assert (line["auc_headline"], line["auc_published"], line["auc_by"]) == (0.65, 0.7, "rmia")
    assert (line[f"{TPR}_headline"], line[f"{TPR}_published"], line[f"{TPR}_by"]) == (0.02, 0.05, "yeom2018")
    assert line["auc_published_lo"] == pytest.approx(0.6)


@pytest.mark.parametrize("attack", ["yeom2018", "joint"])
def test_tables_without_a_headline_or_a_published_attack_have_findings_of_one_form(attack):
    targets = (("NR", "original"), ("NR", "pruning_0.9"), ("SR", "pruning_0.9"), ("MR", "all"))
    table, scores, truth = claim_world({(*target, attack): 1.0 for target in targets})
    form = "headline" if attack == "joint" else "published"
    forms = {"headline"} if attack == "joint" else {"published", "without references"}  # yeom2018 needs none
    compared = claims.compare(table, scores, truth, seed=0)
    expected = {(claim, form) for claim in claims.NAMES for form in forms}
    assert set(zip(compared["claim"], compared["form"], strict=True)) == expected
    overview = claims.overview(compared)
    assert overview.loc[~overview["form"].isin(forms), "verdict"].eq("undecided").all()
    assert len(rows.strongest_headlines(table)) == (3 if attack == "joint" else 0)
    assert rows.strength_table(table).empty
    assert set(rows.leading_rows(table)["form"]) == {form}


def test_a_page_reads_the_tables_of_its_own_variants_and_mr_only_where_it_has_several(tiny_run, tmp_path):
    run = replace(tiny_run, root=tmp_path)
    for scenario, variant in (("NR", "original"), ("NR", "pruning_0.6"), ("NR", "pruning_0.9"), ("MR", "all")):
        file = outputs.table_file(run, scenario, variant)
        file.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"scenario": [scenario], "variant": [variant]}).to_csv(file, index=False)
    table = outputs.attack_table(run, ["original", "pruning_0.9"])
    assert table.to_numpy().tolist() == [["NR", "original"], ["NR", "pruning_0.9"], ["MR", "all"]]
    assert outputs.attack_table(run, ["original"]).to_numpy().tolist() == [["NR", "original"]]


def test_only_variants_that_are_trained_and_attacked_count(tiny_run, tmp_path):
    run = replace(tiny_run, root=tmp_path)

    def finish(variant, run=run, roles=run.roles):
        for role in roles:
            folder = run.role_dir(parse_variant(variant), role)
            folder.mkdir(parents=True)
            (folder / "meta.json").touch()

    for variant in ("clustering_32", "pruning_slim_0.6", "clustering_4", "original", "pruning_0.9"):
        finish(variant)
    finish("clustering_8", roles=["victim_model"])  # made when the run had fewer shadow models
    finish("pruning_0.8", replace(run, name="tiny_other"))
    run.role_dir(parse_variant("pruning_0.6"), "victim_model").mkdir(parents=True)  # not finished
    for variant in ("original", "clustering_4", "clustering_8", "pruning_slim_0.6"):
        outputs.table_file(run, "NR", variant).touch()
    variants = ["original", "pruning_0.9", "clustering_4", "clustering_32", "pruning_slim_0.6"]
    assert outputs.variants_of(run) == variants
    assert outputs.attacked_variants(run) == ["original", "clustering_4", "pruning_slim_0.6"]


# Claims


def overall_verdict(world, claim, form):
    compared = claims.compare(*world, seed=0)
    return claims.overall(compared.loc[(compared["claim"] == claim) & (compared["form"] == form), "verdict"])


@pytest.mark.parametrize(
    ("pair", "alone", "verdict"), [(2.0, 1.0, "holds"), (1.0, 2.0, "does not hold"), (1.0, 1.0, "undecided")]
)
def test_verdicts_follow_the_paired_interval(pair, alone, verdict):
    nr = {("NR", variant, attack): alone for variant in VARIANTS for attack in ("yeom2018", "joint")}
    sr = {("SR", COMPRESSED[0], attack): pair for attack in ("SR2", "joint")}
    assert overall_verdict(claim_world(nr | sr), "C2", "headline") == verdict


def test_the_headlines_baseline_is_chosen_on_the_shadow_models_and_not_on_the_victim():
    shifts = {
        ("NR", "original", "joint"): 1.0,
        ("NR", COMPRESSED[0], "joint"): 2.0,
        ("SR", COMPRESSED[0], "joint"): 1.5,
    }
    table, scores, truth = claim_world(shifts)
    for preferred, verdict in (("original", "holds"), (COMPRESSED[0], "does not hold")):
        table["shadow_log_auc"] = (table["variant"] == preferred).astype(float)
        compared = claims.compare(table, scores, truth, seed=0)
        (line,) = compared[compared["claim"] == "C2"].to_dict("records")
        assert line["verdict"] == verdict and preferred in line["what"]


def test_c1_holds_if_heavy_compression_leaks_less_and_light_compression_the_same():
    same = {("NR", variant, attack): 1.0 for variant in VARIANTS for attack in ("yeom2018", "joint")}
    less = {target: 0.3 if target[1] == "pruning_0.9" else shift for target, shift in same.items()}
    more = {**less, ("NR", "quantization_int8", "yeom2018"): 2.0}
    assert overall_verdict(claim_world(less), "C1", "published") == "holds"
    assert overall_verdict(claim_world(more), "C1", "published") == "does not hold"
    assert len(claims.compare(*claim_world(less), seed=0)) == len(claims.CLAIM_FORMS) * 4


def test_claims_are_judged_for_the_variants_in_the_table():
    shifts = {("NR", variant, "joint"): 1.0 for variant in ("original", "clustering_16", "pruning_0.5")}
    compared = claims.compare(*claim_world(shifts), seed=0)
    assert compared["key"].tolist() == ["clustering_16 - original"]


@pytest.mark.parametrize(
    ("key", "low", "high", "verdict"),
    [
        ("pruning_0.9 - original", -0.2, -0.1, "holds"),
        ("pruning_0.9 - original", 0.0, 0.1, "does not hold"),
        ("pruning_0.9 - original", -0.1, 0.1, "undecided"),
        ("clustering_16 - original", -0.02, 0.02, "holds"),
        ("clustering_16 - original", -0.1, -0.03, "does not hold"),
        ("clustering_16 - original", -0.03, 0.01, "undecided"),
        ("MR - best SR", 0.01, 0.02, "holds"),
        ("MR - best SR", -0.01, 0.0, "does not hold"),
    ],
)
def test_a_comparison_is_judged_by_the_direction_that_its_claim_states(key, low, high, verdict):
    assert claims.judge(key, low, high) == verdict


# Controls


def test_the_controls_are_judged_together():
    def test(*aucs):
        return controls.check_controls(pd.DataFrame({"auc": aucs, "n_member": 2500, "n_nonmember": 2500}))

    assert test(*[0.5] * 19, 0.48).passed  # p = 0.014 in one row of twenty
    assert not test(0.48).passed
    assert not test(*[0.5] * 19, 0.46).passed


def test_the_blind_control_of_all_variants_counts_once():
    table = pd.DataFrame({"attack": ["blind", "blind", "null", "rmia"], "auc": [0.5, 0.5, 0.51, 0.7]})
    table = table.assign(auc_lo=table["auc"] - 0.02, auc_hi=table["auc"] + 0.02)
    control_lines = controls.control_rows(table)
    assert control_lines["attack"].tolist() == ["blind", "null"] and controls.count_at_chance(control_lines) == 2
    assert controls.count_at_chance(table) == 3


# Points


def test_exposure_is_the_false_positive_rate_at_which_a_point_is_first_accused():
    truth = np.array([True, False, True, False, False])
    rates = exposure.first_false_positive_rate(np.array([5.0, 4.0, 4.0, 1.0, 0.0]), truth)
    np.testing.assert_allclose(rates, [1 / 4, 1 / 3, 2 / 4, 2 / 3, 1])  # of three non-members and a member
    np.testing.assert_array_equal(exposure.first_false_positive_rate(np.zeros(5), truth), 1)
    scores, of_some = np.array([5.0, 4.0, np.nan, 1.0, np.nan]), [0, 1, 3]
    expected = np.full(5, np.nan)
    expected[of_some] = exposure.first_false_positive_rate(scores[of_some], truth[of_some])
    np.testing.assert_array_equal(exposure.first_false_positive_rate(scores, truth), expected)


def test_agreement_is_the_rank_correlation_of_common_members():
    rng = np.random.default_rng(0)
    tables = {}
    for run in range(2):
        exposed = np.roll(np.arange(200) + rng.normal(scale=60, size=200), -50 * run)
        tables[f"seed {run}"] = pd.DataFrame({"point": np.arange(200) + 50 * run, "member": 1, "exposure": exposed})
    line = exposure.agreement(tables).iloc[0]
    first, second = (table["exposure"] for table in tables.values())
    expected = spearmanr(first[50:], second[:150]).statistic
    assert line["members of both"] == 150 and line["correlation"] == pytest.approx(expected)
    assert line["correlation_lo"] < expected < line["correlation_hi"]


def test_a_curve_is_that_of_the_strongest_attack_and_the_null_control_halves_the_non_members():
    shifts = {
        ("NR", "original", "yeom2018"): 0.5,
        ("NR", "pruning_0.9", "yeom2018"): 1.0,
        ("NR", "original", "null"): 0,
    }
    table, scores, truth = claim_world(shifts)
    curves = roc.roc_curves(table, scores, truth)
    ends = curves.groupby("form", sort=False).last()
    assert ends.loc["published", "variant"] == "pruning_0.9" and ends.loc["published", ["fpr", "tpr"]].tolist() == [
        1,
        1,
    ]
    assert ends["one_nonmember"].tolist() == [1 / 1000, 1 / 500]


# Families of models


def test_greedy_takes_the_strongest_model_first_and_never_uses_the_victims_membership():
    world = gaussian_signals(4, 4000, (0.3, 1.5, 0.6), seed=1)
    views = dict(zip(("weak", "strong", "middle"), world.variants, strict=True))
    steps = ablation.greedy_order(views, world.truth, seed=0)
    assert steps["added"].iloc[0] == "strong" and steps["models"].tolist() == [1, 2, 3]
    last = metrics.auc(joint([views[name] for name in steps["added"]]).scores, world.truth)
    assert steps["auc"].iloc[-1] == pytest.approx(last)
    shuffled = ablation.greedy_order(views, np.random.default_rng(0).permutation(world.truth), seed=0)
    assert shuffled["added"].tolist() == steps["added"].tolist()


# Seeds


def test_a_headline_that_could_not_be_judged_on_the_shadow_models_is_no_baseline():
    targets = (("NR", "original"), ("NR", "pruning_0.9"), ("SR", "pruning_0.9"))
    table, scores, truth = claim_world({(*target, "joint"): 1.0 for target in targets})
    table["shadow_log_auc"] = table["shadow_log_auc"].astype(object)
    table.loc[table["variant"] == "original", "shadow_log_auc"] = ""  # as read from a file
    (line,) = claims.compare(table, scores, truth, seed=0).query("claim == 'C2'").to_dict("records")
    assert line["what"].endswith("- NR pruning_0.9 joint")
    table["shadow_log_auc"] = ""
    assert claims.compare(table, scores, truth, seed=0).query("claim == 'C2'").empty


def test_what_one_seed_alone_has_does_not_count_over_seeds():
    line = {"claim": "C3", "form": "headline", "key": "MR - best SR", "difference": 0.01, "verdict": "holds"}
    both = [pd.DataFrame([line | {"difference": value}]) for value in (0.01, 0.02)]
    both[0] = pd.concat([both[0], pd.DataFrame([line | {"key": "another"}])])
    assert seeds.claims_over_seeds(both)["key"].tolist() == ["MR - best SR"]
    assert seeds.claims_over_seeds([both[0], both[1].iloc[:0]]).empty


def test_the_interval_over_seeds_is_students_t_interval():
    mean, low, high = seeds.t_interval(np.array([1.0, 2.0, 3.0]))
    assert mean == 2 and high - mean == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)  # t of 2 degrees, 97.5 %
    assert mean - low == pytest.approx(high - mean)


def test_a_value_that_one_seed_lacks_is_undefined_over_seeds():
    row = {"scenario": "NR", "variant": "original", "attack": "rmia", "classifier": "", "headline": True}
    row |= dict.fromkeys(seeds.MEASURED, 0.5) | {"n_member": 50}
    tables = [pd.DataFrame([{**row, "ppv_0.01": precision}]) for precision in (0.25, "")]  # "" where nobody is accused
    spread = seeds.spread_over_seeds(tables).iloc[0]
    assert spread["seeds"] == 2 and spread["auc_mean"] == 0.5
    assert np.isnan(spread["ppv_0.01_mean"]) and np.isnan(spread["ppv_0.01_sd"])
    leading = seeds.leading_row(seeds.leading_over_seeds(tables), "NR", "original", "headline")
    assert np.isnan(leading["ppv_0.01"]) and leading["auc"] == 0.5 and leading["auc_sd"] == 0
    assert seeds.leading_row(seeds.leading_over_seeds(tables), "MR", "all", "headline") is None


def test_a_claim_is_judged_by_the_spread_over_seeds():
    def judged(*differences):
        row = {"claim": "C3", "form": "headline", "key": "MR - best SR", "low": 0.001, "high": 0.1, "verdict": "holds"}
        tables = [pd.DataFrame([{**row, "difference": difference}]) for difference in differences]
        return seeds.claims_over_seeds(tables).iloc[0][["verdict", "alone"]].tolist()

    assert judged(0.02, 0.021, 0.019) == [claims.HOLDS, 3]
    assert judged(0.02, 0.2, 0.001) == [claims.UNDECIDED, 0]


# Defences


def defence_rows(*seed_numbers):
    """Rows of runs in which the original has an AUC of 0.5, and with PPB 0.3, or 0.35 for an adaptive attacker."""
    settings = (("", np.nan, "", 0.5), ("ppb", 4.0, "non-adaptive", 0.3), ("ppb", 4.0, "adaptive", 0.35))
    head = {"network": "n", "scenario": "NR", "variant": "original", "epsilon": math.inf, "recipe": ""}
    head |= {"accuracy": 0.5, "train_accuracy": 1.0, "acc": 0.6, TPR: 0.1, WIDER_TPR: 0.2, "n_nonmember": 100}
    return pd.DataFrame(
        [
            {**head, "form": form, "seed": seed, "defence": name, "argument": argument, "attacker": attacker}
            | {"auc": auc + seed, "null_auc": 0.5, "fine_tuning": "defended" if name else ""}
            for seed in seed_numbers
            for form in defences.COMPARED_FORMS
            for name, argument, attacker, auc in settings
        ]
    )


def test_differences_are_paired_by_seed():
    compared = defences.differences(defence_rows(1, 2, 3))
    effect = defences.differences_of(compared, "defence", "calibrated").set_index("attacker")
    assert effect.loc["non-adaptive", "difference"] == pytest.approx(-0.2)
    knowing = defences.differences_of(compared, "knowing", "calibrated").iloc[0]
    assert knowing["difference"] == pytest.approx(0.05) and knowing["high"] - knowing["low"] < 1e-9
    signs = defences.count_signs(defences.differences_of(compared, "defence"))
    assert (signs.count, signs.above, signs.below) == (2, 0, 2)
    once_more = defence_rows(1, 2, 3).query("defence != ''").assign(fine_tuning="plain")
    both = defences.differences(pd.concat([defence_rows(1, 2, 3), once_more], ignore_index=True))
    assert defences.count_signs(defences.differences_of(both, "defence")) == signs  # it is the same original


def test_a_single_seed_has_differences_and_no_intervals():
    rows_of_one = defence_rows(1)
    compared = defences.differences_of(defences.differences(rows_of_one), "defence")
    assert compared["difference"].tolist() == pytest.approx([-0.2, -0.15]) and compared["low"].isna().all()
    assert defences.count_signs(compared) is None
    assert not (defences.differences(rows_of_one)["what"] == "fine-tuning").any()  # there was one way of fine-tuning
    assert defences.spread_over_seeds(rows_of_one)["auc_sd"].isna().all()


def test_plain_fine_tuning_is_compared_with_defended_and_with_no_defence():
    original = defence_rows(1)
    compressed = original.assign(variant="pruning_0.6", auc=original["auc"] - 0.1)
    undone = compressed[compressed["defence"] == "ppb"].assign(fine_tuning="plain", auc=1.35, accuracy=0.7)
    spread = defences.spread_over_seeds(pd.concat([original, compressed, undone]))
    left = defences.after_compression(spread).set_index("attacker")
    assert len(left) == 2 and set(left["variant"]) == {"pruning_0.6"}  # an original is not fine-tuned
    expected = {"undefended": 1.4, "defended": 1.25, "plain": 1.35, "defended_accuracy": 0.5, "plain_accuracy": 0.7}
    assert left.loc["adaptive", [*expected, "left"]].tolist() == pytest.approx([*expected.values(), 1 / 3])
    added = defences.differences_of(defences.differences(pd.concat([original, compressed, undone])), "fine-tuning")
    assert added.set_index("attacker")["difference"].to_dict() == pytest.approx({"non-adaptive": 0.15, "adaptive": 0.1})
    weak = spread.assign(auc_mean=spread["auc_mean"].where(spread["defence"] == "ppb", 1.26))
    assert np.isnan(defences.after_compression(weak).set_index("attacker").loc["adaptive", "left"])
    assert defences.after_compression(defences.spread_over_seeds(compressed)).empty


def test_label_only_rows_are_those_of_attacks_that_read_no_posterior():
    kinds = [("gap", ""), ("rmia", ""), ("boundary", "hop_skip_jump"), ("boundary", "carlini_wagner"), ("null", "")]
    table = pd.DataFrame(kinds, columns=["attack", "classifier"])
    assert rows.rows_of_form(table, rows.LABEL_ONLY).index.tolist() == [0, 2]
    assert rows.rows_of_form(table[4:], rows.LABEL_ONLY).empty


def test_of_two_attackers_the_one_who_does_better_in_a_seed_counts():
    rows_of_both = defence_rows(1, 2)
    rows_of_both.loc[(rows_of_both["seed"] == 2) & (rows_of_both["attacker"] == "adaptive"), "auc"] = 2.2
    either = defences.against_either_attacker(rows_of_both)
    strongest = either[either["form"] == "strongest"]
    assert strongest.loc[strongest["defence"] == "ppb", "auc"].tolist() == pytest.approx([1.35, 2.3])
    assert set(strongest["attacker"]) == {"", defences.EITHER} and len(strongest) == 4


def rows_of_victims(defence, seeds, accuracies, aucs, **columns):
    """Rows of the strongest attack on the original of one defence, in each of these seeds."""
    head = {"form": "strongest", "scenario": "NR", "variant": "original", "defence": defence, "argument": 1.0}
    head |= {"recipe": "", "network": "n", "attacker": "adaptive" if defence else "", "fine_tuning": "", "run": ""}
    head |= {"epsilon": math.inf, "n_nonmember": 100} | dict.fromkeys(defences.MEASURED, 0.5)
    lines = zip(seeds, accuracies, aucs, strict=True)
    return pd.DataFrame([head | {"seed": seed, "accuracy": at, "auc": auc} | columns for seed, at, auc in lines])


def test_a_defence_stands_beside_the_undefended_training_where_that_is_as_accurate():
    snapshots = [("early_stopping", 1, (0.5, 0.5)), ("early_stopping", 2, (0.6, 0.7)), ("", 4, (0.8, 0.8))]
    curve = [rows_of_victims(name, (1, 2), (0.2 * at,) * 2, aucs, epochs=at) for name, at, aucs in snapshots]
    undefended = rows_of_victims("", (1, 2, 3), (0.8,) * 3, (0.8,) * 3)
    compared = [
        rows_of_victims("ppb", (1, 2, 3), (0.3, 0.4, 0.1), (0.60, 0.75, 0.9)),  # where stopping gives 0.55 and 0.7
        rows_of_victims("adv", (1, 2, 3), (0.3, 0.9, 0.1), (0.6, 0.6, 0.6)),  # in seed 2 above every snapshot
        rows_of_victims("dp", (1, 2, 3), (0.1, 0.1, 0.1), (0.6, 0.6, 0.6), network="another"),
    ]
    others = pd.concat([undefended, *compared])
    beside = early_stopping.beside_defences(pd.concat(curve), others).set_index("defence")
    assert beside.loc["ppb", ["auc_mean", "stopped_auc", "difference"]].tolist() == pytest.approx([0.675, 0.625, 0.05])
    assert beside.loc[["adv", "dp"], ["stopped_auc", "difference"]].isna().all(axis=None)
    assert beside["seeds"].tolist() == [2, 2, 2]  # seed 3 has no snapshots
    assert early_stopping.beside_defences(pd.concat(curve), others.assign(run="of other data")).empty


def test_the_epsilon_of_a_family_counts_the_originals_training_once():
    original = {"privacy": {"history": [[1.0, 0.1, 100]]}}
    tuned = {"privacy": {"history": [[1.0, 0.1, 100], [1.0, 0.1, 20]]}}
    assert defences.epsilon_of([original, tuned, tuned]) == pytest.approx(dp.epsilon([[1.0, 0.1, 140]]))
    assert defences.epsilon_of([original, {}]) == math.inf


def test_models_are_added_in_no_order_if_the_joint_attack_cannot_be_fitted():
    world = gaussian_signals(2, 10, (0.3, 1.5), seed=1)
    views = dict(zip(("weak", "strong"), world.variants, strict=True))
    steps = ablation.greedy_order(views, world.truth, seed=0)
    assert steps.empty and list(steps.columns) == ablation.GREEDY_COLUMNS
