"""The attacker without shadow models: knows half of the victim's audited points, and is judged on the other half."""

import json
import math
import re
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from conftest import script
from hypothesis import given
from hypothesis import strategies as st
from planted import planted_signals, write_signals
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

import attacks
import CompLeakMR
import CompLeakNR
import CompLeakSR
from attacks.common.statistics import cross_entropy
from compleak.audits import attackers, job, metrics
from compleak.audits.chosen import choose, rarity
from compleak.audits.halves import draw_half
from compleak.audits.verdicts import join_results
from compleak.findings.controls import check_controls, control_rows
from compleak.findings.rows import key_of
from compleak.queries import signals_file
from compleak.queries.signals_file import Record
from core.errors import UserError

CHEAP = "yeom2018,song2021,gap,base,lira,joint"


class World(NamedTuple):
    """Two classes. Confidence = the point's difficulty ~ N(0, d^2) + leak, if it is a member, + noise ~ N(0, 1)."""

    leak: float = 0.0
    difficulty: float = 0.0
    references: int = 0
    size: int = 500  # members, and as many non-members
    variants: int = 1
    seed: int = 0

    def records(self) -> list[Record]:
        rng = np.random.default_rng(self.seed)
        points = 2 * self.size
        member = np.zeros((1 + self.references, points), dtype=bool)
        member[0, rng.permutation(points)[: self.size]] = True
        audit = np.zeros_like(member)
        audit[0] = True
        shared = self.difficulty * rng.normal(size=points) + self.leak * member
        confidences = shared + rng.normal(size=(self.variants, *member.shape))
        labels = np.zeros(points, dtype=np.int64)
        logits = np.stack([confidences / 2, -confidences / 2], axis=-1).astype(np.float32)
        return [Record(of_variant, labels, member, audit, {}) for of_variant in logits]

    def write(self, folder, **more) -> list[str]:
        """Signals files of all variants, with further arrays of points."""
        files = [folder / f"model_{number}.npz" for number in range(self.variants)]
        for file, record in zip(files, self.records(), strict=True):
            arrays = {key: getattr(record, key) for key in ("logits", "labels", "member", "audit")}
            np.savez(file, **arrays, **more)
        return [str(file) for file in files]


def nr(file, *flags) -> pd.DataFrame:
    """The table of CompLeakNR.py, by the key of its rows."""
    table = CompLeakNR.main(["--signals", str(file), *flags])
    return table.set_index(pd.Index([key_of(row) for _, row in table.iterrows()]))


def parts_of(record: Record, seed=7) -> list[attackers.Part]:
    attacker = attackers.Attacker("known_half", 0, len(record.logits) - 1)
    return attackers.parts_of(attacker, attackers.halves_of(attacker, record, seed), [record])


# The script on a file of one model


def test_a_file_of_one_model_gives_a_table_that_names_its_attacker(tmp_path):
    (file,) = World(leak=1.0).write(tmp_path)
    done = script("CompLeakNR.py", "--signals", file, "--attacks", f"{CHEAP},calibrated")
    assert done.returncode == 0, done.stderr
    assert "attacker known_half: knows half of the audited members and non-members" in done.stdout
    assert "base" in done.stdout and ": these signals hold no reference model for every audit point" in done.stdout
    table = pd.read_csv(tmp_path / "model_0/NR.csv", keep_default_na=False)
    assert table["attack"].tolist() == ["yeom2018", "song2021", "gap", "null"]
    assert table["needs"].tolist() == [
        *["half of the members; posteriors and labels"] * 2,
        "half of the members; predicted and true labels",
        "",
    ]
    assert table["headline"].sum() == 1 and (table["n_member"][:3] == 500).all()
    record = json.loads((tmp_path / "model_0/NR.json").read_text())
    assert record["made_from"]["attacker"] == "known_half"
    half = np.load(tmp_path / "model_0/NR_scores.npz")["half"]
    assert [(half == number).sum() for number in (0, 1)] == [500, 500]


def test_the_auc_of_yeom2018_is_that_of_the_losses_of_all_points(tmp_path):
    (file,) = World(leak=0.7, size=300).write(tmp_path)
    record = signals_file.load(tmp_path / "model_0.npz")
    losses = cross_entropy(record.logits[0], record.labels)
    auc = nr(file, "--attacks", "yeom2018").loc["yeom2018", "auc"]
    assert auc == pytest.approx(roc_auc_score(record.truth, -losses), abs=1e-12)


def test_without_a_leak_attacks_and_headline_read_one_half_over_seeds(tmp_path):
    aucs = []
    for seed in range(12):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (file,) = World(difficulty=1.0, references=1, size=1000, seed=seed).write(folder)
        table = nr(file, "--attacks", "yeom2018,song2021,lira,joint", "--seed", str(seed))
        (headline,) = table.index[table["headline"]]
        aucs.append({**table["auc"].drop("chosen", errors="ignore"), "headline": table.loc[headline, "auc"]})
    for key, mean in pd.DataFrame(aucs).mean().items():
        assert mean == pytest.approx(0.5, abs=0.01), key


@pytest.mark.parametrize(("references", "deviation"), [(1, math.sqrt(2)), (2, math.sqrt(1.5))])
def test_with_a_leak_the_auc_is_what_the_planted_world_allows_and_references_take_the_difficulty_out(
    tmp_path, references, deviation
):
    leak, difficulty = 1.5, 2.0
    (file,) = World(leak, difficulty, references, size=2000).write(tmp_path)
    table = nr(file, "--attacks", f"{CHEAP},rmia,calibrated")
    of_loss = norm.cdf(leak / math.sqrt(2) / math.hypot(difficulty, 1))
    of_difference = norm.cdf(leak / math.sqrt(2) / deviation)
    assert table.loc["yeom2018", "auc"] == pytest.approx(of_loss, abs=0.02)
    assert table.loc["lira/global_variance", "auc"] == pytest.approx(of_difference, abs=0.02)
    for key in ("calibrated", "rmia", "base", "joint"):
        assert table.loc[key, "auc"] > of_loss + 0.02, key
        assert table.loc[key, "needs"].endswith(f"; {attackers.count_models(references, 'reference')}")
    assert table.loc["null", "auc_lo"] < 0.5 < table.loc["null", "auc_hi"]
    assert abs(table.loc["rmia", "auc"] - table.loc["base", "auc"]) < 0.05  # although its fits choose a and gamma each
    assert bool(table.loc[table["headline"], "auc"].item() > of_loss + 0.05)


def test_sr_and_mr_run_on_files_of_one_model_and_mr_starts_from_what_sr_left(tmp_path, monkeypatch):
    original, *compressed = World(leak=1.5, size=150, variants=3).write(tmp_path)
    for file in compressed:
        table = CompLeakSR.main(["--signals", original, file, "--out", str(tmp_path / "out")])
        assert set(table["attack"]) == {"SR1", "SR2", "model_updates", "null"} or "chosen" in set(table["attack"])
        assert table["headline"].sum() == 1 and table["auc"].max() > 0.7

    def refuse(*args, **options):
        raise AssertionError("SR had left this answer")

    monkeypatch.setattr(attacks, "membership", refuse)
    table = CompLeakMR.main(["--signals", original, *compressed, "--out", str(tmp_path / "out")])
    assert table["attack"].tolist() == ["MR", "null"]
    assert table["headline"].tolist() == [True, False]  # a single attack needs no choice
    assert table["auc"][0] > 0.7


def test_ten_members_and_ten_others_give_a_table_and_name_what_cannot_run(tmp_path, capsys):
    (file,) = World(leak=1.0, references=2, size=10).write(tmp_path)
    table = nr(file)
    assert table.loc["yeom2018", "auc_lo"] < table.loc["yeom2018", "auc"] <= table.loc["yeom2018", "auc_hi"]
    missing = {attack.key for attack in attacks.NR} - set(table.index)
    printed = capsys.readouterr().out
    said = {key for keys in re.findall(r"left out ([^:]+):", printed) for key in keys.split(", ")}
    unasked = {attack.key for attack in attacks.NR if attack.probes & {"correct", "noise", "boundary"}}
    assert said == missing - unasked and "samia" in said
    nr(file, "--attacks", "base,label_only_noise")
    assert "left out label_only_noise: these signals hold no noise" in capsys.readouterr().out


def test_after_a_kill_between_the_halves_the_first_halfs_result_is_kept(tmp_path, monkeypatch):
    (file,) = World(leak=1.0, references=1, size=100).write(tmp_path)
    done = []
    run = job.Job.result_of

    def note_and_run(self, attack, part, earlier):
        if (attack.key, part.name) == ("joint", "half_2") and not done.count("stopped"):
            done.append("stopped")
            raise KeyboardInterrupt
        done.append(f"{attack.key} {part.name}")
        return run(self, attack, part, earlier)

    monkeypatch.setattr(job.Job, "result_of", note_and_run)
    with pytest.raises(KeyboardInterrupt):
        nr(file, "--attacks", "base,joint")
    table = nr(file, "--attacks", "base,joint")
    assert done == ["base half_1", "base half_2", "joint half_1", "stopped", "joint half_2"]
    monkeypatch.undo()
    undisturbed = nr(file, "--attacks", "base,joint", "--again")
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), undisturbed.drop(columns="seconds"))


def test_two_members_and_two_others_are_too_few_to_prove_anything(tmp_path):
    (file,) = World(leak=50.0, size=2).write(tmp_path)
    row = nr(file, "--attacks", "yeom2018").loc["yeom2018"]
    assert row["auc"] == 1 and row["auc_lo"] < 0.5


# What the attacker is shown


def test_a_fit_sees_no_membership_of_the_points_that_it_judges():
    (record,) = World(leak=1.0, references=1, size=50).records()
    for part in parts_of(record):
        swapped = record.member.copy()
        judged = np.flatnonzero(record.audit[0])[part.judged]
        swapped[0, judged] = ~swapped[0, judged]
        attacker = attackers.Attacker("known_half", 0, 1)
        view, other = (
            attackers.view_of(attacker, r, part.half, r.audit) for r in (record, record._replace(member=swapped))
        )
        for array, same in zip(view[:4], other[:4], strict=True):
            np.testing.assert_array_equal(array, same)


def test_the_victim_is_no_reference_of_its_own_judged_points():
    (record,) = World(references=0, size=50).records()
    for part in parts_of(record):
        (view,) = part.views
        assert not (view.member[:, view.audit[0]] == 0).any()
        lacks = [attacks.missing(attack, part.views) for attack in attacks.NR if attack.references == 1]
        assert all(lacks)


def test_every_point_is_judged_once_and_known_once():
    (record,) = World(size=51).records()
    parts = parts_of(record)
    np.testing.assert_array_equal(parts[0].judged, ~parts[1].judged)
    for part, other in (parts, parts[::-1]):
        np.testing.assert_array_equal(part.known_places, np.flatnonzero(other.judged))
        np.testing.assert_array_equal(part.known_truth, record.truth[other.judged])


def test_shadow_models_are_references_where_known_half_is_asked_for(tmp_path):
    world = planted_signals(4, 600, seed=3)
    file = tmp_path / "model.npz"
    write_signals(file, world.variants[0], world.truth)
    flags = ("--attacks", "yeom2018,base", "--out", str(tmp_path / "out"))
    by_default = nr(file, *flags)
    assert by_default.loc["base", "needs"] == "3 shadow models; posteriors and labels"
    assert by_default.loc["base", "chosen"].startswith("scale ") and by_default.loc["yeom2018", "chosen"] == ""
    asked_for = nr(file, *flags, "--attacker", "known_half")  # another attacker: the table is made anew
    assert asked_for.loc["base", "needs"] == "half of the members; posteriors and labels; 3 reference models"
    of_halves = asked_for.loc["base", "chosen"].split(" | ")  # one choice, or one of each half
    assert len(of_halves) in (1, 2) and all(choice.startswith("scale ") for choice in of_halves)


def test_a_model_without_an_audit_set_is_a_reference_beside_shadow_models(tmp_path):
    world = planted_signals(3, 600, seed=3)
    (signals,) = world.variants
    audit = signals.audit.copy()
    audit[2] = False
    file = tmp_path / "model.npz"
    write_signals(file, signals._replace(audit=audit, probes={}), world.truth)
    table = nr(file, "--attacks", "yeom2018,base")
    assert table.loc["yeom2018", "needs"] == "1 shadow model; posteriors and labels"
    assert table.loc["base", "needs"] == "1 shadow model; posteriors and labels; 1 reference model"


# Halves


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=4, max_size=60), st.integers(0, 3))
def test_copies_fall_into_one_half_whatever_their_membership(points, seed):
    truth = np.array([member for member, _ in points])
    group = np.array([number for _, number in points])
    try:
        half = draw_half(truth, group, seed)
    except UserError as error:
        assert "copies" in str(error)
        return
    for number in np.unique(group):
        assert len(set(half[group == number])) == 1
    for side in (half, ~half):
        assert truth[side].any() and not truth[side].all()


@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 5))
def test_each_half_has_half_of_the_members_and_half_of_the_others(members, others, seed):
    truth = np.arange(members + others) < members
    half = draw_half(truth, None, seed)
    assert abs(2 * half[truth].sum() - members) <= 1 and abs(2 * half[~truth].sum() - others) <= 1
    np.testing.assert_array_equal(half, draw_half(truth, np.arange(len(truth)) * 3, seed))


def test_halves_are_random_and_follow_the_seed():
    truth = np.arange(2000) < 1000
    halves = [draw_half(truth, None, seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(halves[0], halves[1])
    assert 0.4 < (halves[0] == halves[2]).mean() < 0.6


def test_a_fit_learns_from_one_copy_of_each_point_and_judges_all_copies():
    """With two copies a classifier knows a point from its copy, and all thresholds on its scores mean nothing."""
    (record,) = World(references=1, size=200).records()
    twice = Record(
        *(np.concatenate([array, array], axis=axis) for array, axis in zip(record[:4], (1, 0, 1, 1), strict=True)),
        probes={},
        group=np.tile(np.arange(400), 2),
    )
    parts = parts_of(twice)
    assert [part.judged.sum() for part in parts] == [400, 400]
    assert all(len(part.known_truth) == 200 for part in parts)
    (calibrated,) = (attack for attack in attacks.NR if attack.key == "calibrated")
    for part in parts:
        assert part.known_truth.mean() == 0.5
        assert metrics.auc(calibrated.run(part.views, seed=0).shadow_scores, part.known_truth) < 0.65


def test_copies_with_other_membership_do_not_give_each_other_away(tmp_path):
    """Twins of one member and one non-member each: a fit on one twin would call the other the opposite."""
    (record,) = World(size=200).records()
    rng = np.random.default_rng(0)
    group = np.empty(400, dtype=np.int64)
    for kind in (record.truth, ~record.truth):
        group[kind] = rng.permutation(200)
    logits = 3 * rng.normal(size=(200, 2)).astype(np.float32)[group]
    file = tmp_path / "model.npz"
    np.savez(file, logits=logits[None], labels=record.labels, member=record.member, audit=record.audit, group=group)
    table = nr(file, "--attacks", "shokri2017")
    assert table.loc["shokri2017/random_forest", "auc"] == pytest.approx(0.5, abs=0.005)
    half = np.load(tmp_path / "model/NR_scores.npz")["half"]
    assert all(len(set(half[group == number])) == 1 for number in range(200))


def test_shadow_models_are_used_although_copies_leave_no_two_halves_for_the_blind_control(tmp_path, capsys):
    world = planted_signals(2, 300, seed=3)
    file = tmp_path / "model.npz"
    write_signals(file, world.variants[0]._replace(probes={}), world.truth)
    np.savez(file, **np.load(file), group=np.zeros(300, dtype=int), columns=np.zeros((300, 1)))
    assert "blind" not in nr(file, "--attacks", "gap").index
    assert "blind left out: the audited points cannot be split" in capsys.readouterr().out


def test_points_that_are_all_copies_are_refused_in_one_line_before_the_work(tmp_path):
    (file,) = World(size=20).write(tmp_path, group=np.zeros(40, dtype=np.int64))
    with pytest.raises(UserError, match="cannot be split into two halves .* group"):
        nr(file)
    assert not (tmp_path / "model_0/NR.csv").exists()


# Further arrays of a signals file


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"group": np.zeros(39, dtype=int)}, r"group has shape \(39,\), expected \(40,\)"),
        ({"group": np.zeros(40)}, "group has type float64: store"),
        ({"columns": np.zeros(40)}, r"columns has shape \(40,\), expected \(40, columns\)"),
        ({"columns": np.zeros((40, 0))}, "a row for each point"),
        ({"columns": np.zeros((40, 2, 2))}, r"store columns.reshape\(40, -1\)"),
        ({"columns": np.full((40, 1), "a")}, "numbers are needed"),
        ({"columns": np.full((40, 1), np.inf)}, "columns is not finite"),
    ],
)
def test_wrong_arrays_of_points_are_refused_in_one_line(tmp_path, more, says):
    (file,) = World(size=20).write(tmp_path, **more)
    with pytest.raises(UserError, match=says):
        nr(file)


def test_files_that_disagree_about_copies_are_not_of_one_audit(tmp_path):
    first, second = World(size=20, variants=2).write(tmp_path)
    arrays = dict(np.load(second))
    np.savez(second, **arrays, group=np.arange(40))
    with pytest.raises(UserError, match="differ in group"):
        CompLeakSR.main(["--signals", first, second])


@pytest.mark.parametrize("attacker", ["known_half", "shadows"])
def test_the_blind_control_reads_the_columns_of_a_file(tmp_path, capsys, attacker):
    world = planted_signals(2, 2000, seed=3)
    (signals,) = world.variants
    file = tmp_path / "model.npz"
    write_signals(file, signals._replace(probes={}), world.truth)
    arrays = dict(np.load(file))
    shown = np.random.default_rng(0).normal(size=(2000, 2)).astype(np.float32)
    telling = shown + 2 * arrays["member"][0][:, None]
    for columns, is_telling in ((shown, False), (telling, True)):
        np.savez(file, **arrays, columns=columns, group=np.arange(2000))
        row = nr(file, "--attacks", "gap", "--attacker", attacker).loc["blind"]
        assert (row["auc_lo"] > 0.5) == is_telling
        assert row["n_member"] == 200
    np.savez(file, **arrays)
    assert "blind" not in nr(file, "--attacks", "gap", "--attacker", attacker).index
    assert "blind left out: it needs what the points look like" in capsys.readouterr().out


def test_the_blind_control_says_that_it_has_too_few_points(tmp_path, capsys):
    (file,) = World(size=31).write(tmp_path, columns=np.arange(62.0)[:, None])
    assert "blind" not in nr(file, "--attacks", "gap").index
    assert "blind left out: half of the audited points are 15 members" in capsys.readouterr().out


# A reference that trained on the points


@pytest.mark.parametrize("saw", ["nothing", "members", "others"])
def test_a_reference_that_trained_on_audited_points_invents_a_leak_and_the_control_of_references_fails(tmp_path, saw):
    (record,) = World(difficulty=1.5, references=1, size=1500, seed=3).records()
    seen = {"nothing": np.zeros(3000, dtype=bool), "members": record.truth, "others": ~record.truth}[saw]
    record.logits[1, seen] += np.array([1.5, -1.5], dtype=np.float32)
    file = tmp_path / "model.npz"
    np.savez(file, **{key: getattr(record, key) for key in ("logits", "labels", "member", "audit")})
    table = nr(file, "--attacks", "yeom2018,joint")
    row = table.loc["references"]
    failed = not check_controls(control_rows(table[table["attack"] == "references"])).passed
    assert row["auc_lo"] <= row["auc"] <= row["auc_hi"] and row["n_member"] == row["n_nonmember"] == 1500
    assert not row["headline"] and row["needs"] == ""
    scores = np.load(tmp_path / "model/NR_scores.npz")["references"]
    assert metrics.auc(scores, record.truth) == pytest.approx(row["auc"])
    assert failed == (saw != "nothing")
    assert (table.loc["joint", "auc"] > 0.6) == (saw != "nothing")
    assert table.loc["null", "auc_lo"] < 0.5 < table.loc["null", "auc_hi"]


# The headline, which the judged points do not choose


def error(first, second, part):
    return 0.05


def test_each_half_chooses_by_its_own_points_and_the_first_of_equals_counts():
    assert choose({"a": [0.2, 0.3], "b": [0.4, 0.1], "c": [0.4, 0.3]}, error) == ["b", "a"]
    assert choose({"a": [np.nan, np.nan], "b": [0.1, 0.1]}, error) == ["b", "b"]
    assert choose({"a": [np.nan, np.nan], "b": [np.nan, np.nan]}, error) is None
    assert choose({"a": [np.nan, np.nan]}, error) == ["a", "a"]


def test_the_average_is_chosen_unless_another_attack_is_better_by_two_standard_errors():
    assert choose({"a": [0.49, 0.51], "combined": [0.4, 0.4]}, error) == ["combined", "a"]
    assert choose({"a": [0.49], "combined": [np.nan]}, error) == ["a"]
    assert choose({"a": [np.nan], "combined": [0.4], "b": [0.3]}, error) == ["combined"]


def test_the_error_of_a_lead_is_how_much_it_varies_from_sample_to_sample():
    def leads_of(seed):
        rng = np.random.default_rng(seed)
        member = np.arange(2000) % 2
        first = rng.normal(size=2000) + member
        return first, first + 0.5 * rng.normal(size=2000), member

    worlds = map(leads_of, range(100))
    leads = [metrics.log_auc(first, member) - metrics.log_auc(second, member) for first, second, member in worlds]
    error = metrics.log_auc_difference_error(*leads_of(0), seed=0)
    assert 0.6 < error / np.std(leads) < 1.6


def test_where_the_halves_choose_different_attacks_their_choices_are_the_headline(tmp_path):
    for seed in range(20):
        (file,) = World(leak=1.0, size=200, seed=seed).write(tmp_path)
        table = nr(file, "--attacks", "yeom2018,song2021,entropy,nasr2018", "--again")
        if "chosen" in table.index:
            break
    row = table.loc["chosen"]
    first, second = row["chosen"].split(" | ")
    assert first != second and table["headline"].tolist() == (table.index == "chosen").tolist()
    assert table["chosen"]["yeom2018"] == "" and " | " not in first + second
    scores = np.load(tmp_path / "model_0/NR_scores.npz")
    for number, key in enumerate((first, second)):
        judged = scores["half"] == number
        assert order_of(scores["chosen"][judged]) == order_of(scores[key][judged])
    assert row["auc_lo"] <= row["auc"] <= row["auc_hi"]
    null = np.isfinite(scores["null"])
    np.testing.assert_array_equal(scores["null"][null], scores["chosen"][null])


def order_of(scores) -> list[int]:
    """Which distinct score each point has, from the lowest."""
    return np.unique(scores, return_inverse=True)[1].tolist()


SCORE = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e60, 1e60), st.sampled_from([1.0, 1 + 2**-52, 1e-300]))


@given(st.lists(SCORE, min_size=1, max_size=30), st.lists(SCORE, min_size=1, max_size=30))
def test_the_common_scale_keeps_order_and_ties_of_any_scores(scores, others):
    mapped = rarity(np.array(scores), np.array(others), np.zeros(len(others)))
    assert np.isfinite(mapped).all()
    assert order_of(mapped) == order_of(np.array(scores))


def test_the_common_scale_is_the_log_of_the_false_positive_rate():
    others = np.random.default_rng(0).exponential(size=20_000)
    mapped = rarity(np.array([0.5, 2.0, 5.0, 20.0]), others, np.zeros(len(others)))
    np.testing.assert_allclose(mapped, [0.5, 2.0, 5.0, 20.0], rtol=0.1)  # P(X >= x) = exp(-x), beyond the largest too


def test_fits_on_other_scales_are_put_on_one_and_equal_fits_are_left_as_they_are():
    (record,) = World(leak=1.0, size=300).records()
    parts = parts_of(record)
    plain = [attacks.NR[4].run(part.views, seed=0) for part in parts]
    assert attacks.NR[4].key == "yeom2018"
    scaled = [plain[0], plain[1]._replace(scores=100 + plain[1].scores, shadow_scores=100 + plain[1].shadow_scores)]
    losses = cross_entropy(record.logits[0], record.labels)
    np.testing.assert_array_equal(join_results(parts, plain).scores, -losses)
    auc = metrics.auc(-losses, record.truth)
    assert metrics.auc(join_results(parts, scaled).scores, record.truth) == pytest.approx(auc, abs=0.01)


# Intervals: the fits of two halves err together


def cross_fitted_worlds(rng, size, features, leak, worlds=300):
    """(scores, decisions, member, half, AUC, balanced accuracy): a linear fit on each half, judged on the other.

    The truth is the mean of what the two fits have on all possible points.
    """
    means = np.zeros(features)
    means[0] = leak
    member = np.arange(2 * size) % 2 == 0
    half = np.arange(2 * size) // 2 % 2
    for _ in range(worlds):
        points = rng.normal(size=(2 * size, features)) + means * member[:, None]
        scores = np.empty(2 * size)
        truths = []
        for number in (0, 1):
            known, judged = half != number, half == number
            direction, threshold = linear_fit(points[known], member[known])
            scores[judged] = (points[judged] @ direction - threshold) / np.linalg.norm(direction)
            reach, edge = direction @ means / np.linalg.norm(direction), threshold / np.linalg.norm(direction)
            truths.append((norm.cdf(reach / math.sqrt(2)), (norm.sf(edge - reach) + norm.cdf(edge)) / 2))
        yield scores, scores >= 0, member, half, *np.mean(truths, axis=0)


def linear_fit(points, member):
    """Fisher's discriminant: direction (F,) and threshold."""
    direction = points[member].mean(axis=0) - points[~member].mean(axis=0)
    return direction, direction @ (points[member].mean(axis=0) + points[~member].mean(axis=0)) / 2


def holds(bounds, truth) -> bool:
    return bounds[0] <= truth <= bounds[1]


@pytest.mark.parametrize("leak", [0.0, 1.0])
@pytest.mark.parametrize(("size", "features"), [(20, 2), (200, 1), (200, 10)])
def test_intervals_of_cross_fitted_attacks_hold_the_truth(size, features, leak):
    rng = np.random.default_rng(size + features)
    covered = []
    for scores, decisions, member, half, auc, acc in cross_fitted_worlds(rng, size, features, leak):
        options = {"seed": 0, "replicates": 50, "scored_by": half}
        covered.append(
            (
                holds(metrics.auc_interval(scores, member, **options), auc),
                holds(metrics.accuracy_interval(decisions, member, **options), acc),
            )
        )
    assert (np.mean(covered, axis=0) >= 0.93).all()


def test_intervals_of_all_points_together_would_be_too_narrow_for_two_fits():
    rng = np.random.default_rng(1)
    worlds = cross_fitted_worlds(rng, 200, 10, 0.0)
    covered = [
        holds(metrics.auc_interval(scores, member, seed=0, replicates=50), auc)
        for scores, _, member, _, auc, _ in worlds
    ]
    assert np.mean(covered) < 0.9


def test_the_interval_of_a_difference_holds_the_truth_for_cross_fitted_attacks():
    rng = np.random.default_rng(2)
    covered = []
    first = cross_fitted_worlds(rng, 200, 10, 0.0)
    second = cross_fitted_worlds(rng, 200, 3, 0.5)
    for (scores, _, member, half, auc, _), (others, *_, other_auc, _) in zip(first, second, strict=True):
        _, *bounds = metrics.paired_difference(others, scores, member, seed=0, replicates=50, scored_by=half)
        covered.append(holds(bounds, other_auc - auc))
    assert np.mean(covered) >= 0.93


def test_an_interval_holds_its_own_value_although_the_fits_disagree():
    member = np.arange(800) % 2 == 0
    half = np.arange(800) // 2 % 2
    scores = np.where(half == 0, 0, 100) + member  # each fit is perfect, but its scale is its own
    row = metrics.evaluate(scores, member, member, seed=0, scored_by=half)
    assert row["auc"] == 0.75 == row["auc_lo"]
