"""The attack stage on files of planted worlds: what it leaves out, what it keeps when it is killed, what it refuses."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import attacks
import CompLeakNR
import train
from compleak.audits import job, metrics
from compleak.audits.controls import reference_control
from compleak.audits.target import Target, folder_for
from compleak.audits.usable import without_copies
from compleak.findings.one_run import findings_of_run
from compleak.queries import signals_file
from compleak.queries.signals_file import Record
from compleak.runs.create import create_run
from core.errors import UserError
from data import splits
from tests.planted import draw_half_roles, planted_signals, write_signals

POINTS = 1505  # of a world with copies, which do not fall into the same third by their order


def write_world(folder, models=4, **changes):
    """A planted world as a signals file; changes: functions of an array by its name, which change it in place."""
    world = planted_signals(models, 300, seed=1)
    (signals,) = world.variants
    member = signals.member.copy()
    member[0, signals.audit[0]] = world.truth
    arrays = {"logits": signals.logits, "labels": signals.labels, "member": member.astype(bool), "audit": signals.audit}
    for name, change in changes.items():
        change(arrays[name])
    file = folder / "model.npz"
    np.savez(file, **arrays)
    return file, arrays


def test_a_file_of_several_jobs_is_read_once():
    original, pruned, clustered = map(Path, ("original.npz", "pruned.npz", "clustered.npz"))
    jobs = {"all": [original, pruned, clustered], "pruning": [original, pruned], "clustering": [None, clustered]}
    assert Target(None, jobs, Path("out")).files == [original, pruned, clustered]


def test_audited_points_without_a_reference_are_left_out_and_counted(tmp_path, capsys):
    _, arrays = write_world(tmp_path)
    lonely = np.flatnonzero(arrays["audit"][0] & arrays["member"][0])[:3]

    def train_everybody_on_them(member):
        member[:, lonely] = True

    file, arrays = write_world(tmp_path, member=train_everybody_on_them)
    table = CompLeakNR.main(["--signals", str(file), "--attacks", "yeom2018,rmia,base,calibrated"])
    assert "left out: 3 audited points of the victim and 0 of the shadow models" in capsys.readouterr().out
    rows = table.set_index("attack")
    assert {"yeom2018", "rmia", "base", "calibrated"} <= set(rows.index)
    audited = arrays["audit"][0]
    assert rows.loc["rmia", "n_member"] == audited.sum() // 2 - 3
    scores = np.load(tmp_path / "model/NR_scores.npz")["rmia"]
    assert len(scores) == audited.sum() and np.isnan(scores).sum() == 3
    asked = np.isfinite(scores)
    truth = arrays["member"][0, audited]
    assert metrics.auc(scores[asked], truth[asked]) == pytest.approx(rows.loc["rmia", "auc"])


def train_every_shadow_model_on(points):
    def change(member):
        member[1:, points] = True

    return change


def test_points_that_are_left_out_tell_no_attack_whether_they_are_members(tmp_path, monkeypatch):
    """All shadow models trained on two members and two others, which are few enough to be copies by chance."""
    _, arrays = write_world(tmp_path)
    audited, is_member = arrays["audit"][0], arrays["member"][0]
    lonely = np.r_[np.flatnonzero(audited & is_member)[:2], np.flatnonzero(audited & ~is_member)[:2]]
    file, _ = write_world(tmp_path, member=train_every_shadow_model_on(lonely))
    seen = []
    (gap,) = (row for row in attacks.NR if row.name == "gap")
    spy = gap._replace(run=lambda models, **options: seen.extend(models) or gap.run(models, **options))
    monkeypatch.setitem(attacks.KNOWN, "NR", (spy,))
    CompLeakNR.main(["--signals", str(file), "--attacks", "gap"])
    (view,) = seen
    assert not view.audit[0, lonely].any() and (view.member[0, lonely] == -1).all()
    assert (view.member[0, view.audit[1:].any(axis=0)] == 0).all()


def test_the_null_control_halves_all_audited_non_members_and_not_those_that_have_a_reference(tmp_path):
    """What was asked in the members' call was answered with more confidence. A third of the others are left out."""
    _, arrays = write_world(tmp_path)
    others = np.flatnonzero(arrays["audit"][0] & ~arrays["member"][0])
    assert len(others) == 60

    def add_confidence(logits):
        right = np.arange(logits.shape[2]) == arrays["labels"][:, None]
        logits[0, others[:30]] += 100 * right[others[:30]]

    changes = {"member": train_every_shadow_model_on(others[:20]), "logits": add_confidence}
    file, _ = write_world(tmp_path, **changes)
    null = CompLeakNR.main(["--signals", str(file), "--attacks", "yeom2018"]).set_index("attack").loc["null"]
    assert (null["n_member"], null["n_nonmember"], null["auc"]) == (10, 30, 1)


def test_a_shadow_model_none_of_whose_points_has_a_reference_still_serves_the_other_attacks(tmp_path, capsys):
    """The only shadow model is trained on half of the victim's non-members: no other model says how hard they are."""
    _, arrays = write_world(tmp_path, models=2)
    others = np.flatnonzero(arrays["audit"][0] & ~arrays["member"][0])
    roles = {"member": others[::2], "audit": others}

    def give_the_shadow_model(name):
        def change(array):
            array[1] = False
            array[1, roles[name]] = True

        return change

    file, _ = write_world(tmp_path, models=2, **{name: give_the_shadow_model(name) for name in roles})
    table = CompLeakNR.main(["--signals", str(file), "--attacks", "yeom2018,gap,rmia"]).set_index("attack")
    assert {"yeom2018", "gap"} <= set(table.index) and "rmia" not in table.index
    assert table.loc["yeom2018", "n_member"] == table.loc["yeom2018", "n_nonmember"] == len(others)
    assert "left out rmia: these signals hold no reference model for every audit point" in capsys.readouterr().out


def test_the_control_of_references_asks_of_each_point_the_models_that_did_not_train_on_it():
    """Point 2 has one such model and point 3 has none. The confidence of the second of two classes is z_1 - z_0."""
    confidences = np.array([[9.0, 9, 9, 9, 9], [1.0, 2, 3, 4, 5], [3.0, -2, 7, 8, 9]])
    logits = np.stack([np.zeros_like(confidences), confidences], axis=-1).astype(np.float32)
    member = np.array([[1, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 1, 1, 0]], dtype=bool)
    audit = np.array([[1, 1, 1, 1, 0], [0] * 5, [0] * 5], dtype=bool)
    record = Record(logits, np.ones(5, dtype=np.int64), member, audit, {})
    np.testing.assert_allclose(reference_control(None, record), [2, 0, 3, np.nan], atol=1e-6)
    of_victim = record._replace(logits=logits[:1], member=member[:1], audit=audit[:1])
    assert reference_control(None, of_victim) is None


def test_the_control_of_references_is_left_out_where_no_member_has_one(capsys):
    member = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], dtype=bool)
    audit = np.array([[True] * 4, [False] * 4])
    record = Record(np.zeros((2, 4, 2), dtype=np.float32), np.zeros(4, dtype=np.int64), member, audit, {})
    assert reference_control(None, record) is None
    assert "references left out: every model trained on all of the audited members" in capsys.readouterr().out


@pytest.mark.parametrize(("pairs", "says"), [(3, None), (4, "8 of 120 audited points are copies .* 116 are distinct")])
def test_many_copies_among_the_audited_points_are_counted_in_one_line(tmp_path, capsys, pairs, says):
    """Points outside the victim's audit set do not count, although all of them are copies."""
    file, arrays = write_world(tmp_path, models=2)
    audited = np.flatnonzero(arrays["audit"][0])
    group = np.full(300, 1000)
    group[audited] = np.arange(len(audited))
    group[audited[:pairs]] = group[audited[-pairs:]]
    np.savez(file, **arrays, group=group)
    CompLeakNR.main(["--signals", str(file), "--attacks", "gap"])
    printed = capsys.readouterr().out
    assert re.search(says, printed) if says else "audited points are copies" not in printed


def write_pool_twice(folder, models=2, **world) -> tuple[Path, np.ndarray]:
    """A planted world in which all points but the victim's stand twice, with the same membership; and its truth."""
    planted = planted_signals(models, POINTS, **world)
    (signals,) = planted.variants
    order = np.r_[np.arange(POINTS), np.flatnonzero(signals.member[0] == 0)]
    doubled = {name: getattr(signals, name)[:, order] for name in ("logits", "member", "audit")}
    file = folder / "twice.npz"
    write_signals(file, signals._replace(**doubled, labels=signals.labels[order], probes={}), planted.truth)
    np.savez(file, **np.load(file), group=order)
    return file, planted.truth


def test_attacks_learn_from_one_copy_of_a_shadow_models_points_and_accuse_nobody_by_the_other(tmp_path, capsys):
    """With both copies the AUC on the shadow model was 0.8, and a third of the non-members had p-values below 5 %."""
    file, truth = write_pool_twice(tmp_path, leak=0)
    table = CompLeakNR.main(["--signals", str(file), "--attacks", "calibrated"]).set_index("attack")
    assert table.loc["calibrated", "shadow_log_auc"] < 0.25  # 0.14 is chance
    p_values = np.load(tmp_path / "twice/NR_p_values.npz")["twice"]
    assert (p_values[~truth] <= 0.05).mean() < 0.12
    said = "of 1204 points of the shadow models 602 are distinct: the attacks learn from one of each"
    assert said in capsys.readouterr().out


def test_no_shadow_model_is_judged_on_a_copy_of_what_another_one_is_learned_from(tmp_path):
    file, _ = write_pool_twice(tmp_path, models=4)
    record = signals_file.load(file)
    audit = record.audit.copy()
    audit[1, :POINTS] = audit[2, POINTS:] = False  # these two models are audited on other copies
    record = record._replace(audit=audit | record.audit[0] & (np.arange(4) == 0)[:, None])
    (thinned,) = without_copies({"model": record}, seed=0).values()
    learned_from = np.flatnonzero(thinned.audit[1:].any(axis=0))
    assert len(set(record.group[learned_from])) == len(learned_from) > 500
    np.testing.assert_array_equal(thinned.audit[0], record.audit[0])
    assert not (thinned.audit & ~record.audit).any()


def test_shadow_models_with_too_few_distinct_points_are_used_with_a_warning(capsys):
    world = planted_signals(2, 300, seed=1)
    (signals,) = world.variants
    record = Record(signals.logits, signals.labels, signals.member == 1, signals.audit, {}, np.zeros(300, dtype=int))
    assert without_copies({"model": record}, seed=0)["model"] is record
    assert "of 120 points of the shadow models 1 are distinct, too few to learn from" in capsys.readouterr().out


def test_a_file_with_the_victim_alone_is_refused_in_one_line_where_shadow_models_are_asked_for(tmp_path):
    file, arrays = write_world(tmp_path)
    alone = {name: array[:1] for name, array in arrays.items() if name != "labels"}
    np.savez(file, labels=arrays["labels"], **alone)
    with pytest.raises(UserError, match="model.npz holds no shadow model, and --attacker shadows .*: add the answers"):
        CompLeakNR.main(["--signals", str(file), "--attacker", "shadows"])
    assert not (tmp_path / "model").exists()


def test_after_a_kill_finished_attacks_are_kept_even_if_the_interrupted_one_is_no_longer_asked_for(
    tmp_path, monkeypatch
):
    file, _ = write_world(tmp_path)
    done = []
    run = job.Job.result_of

    def note_and_run(self, attack, part, earlier):
        if attack.key == "gap":
            raise KeyboardInterrupt
        done.append(attack.key)
        return run(self, attack, part, earlier)

    monkeypatch.setattr(job.Job, "result_of", note_and_run)
    with pytest.raises(KeyboardInterrupt):
        CompLeakNR.main(["--signals", str(file), "--attacks", "yeom2018,rmia,base,gap"])
    assert done == ["yeom2018", "rmia"] and not (tmp_path / "model/NR.csv").exists()
    table = CompLeakNR.main(["--signals", str(file), "--attacks", "yeom2018,rmia,base"])
    assert done == ["yeom2018", "rmia", "base"]
    assert not list(tmp_path.rglob("*_unfinished"))
    monkeypatch.undo()
    undisturbed = CompLeakNR.main(["--signals", str(file), "--attacks", "yeom2018,rmia,base", "--again"])
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), undisturbed.drop(columns="seconds"))
    chosen = table.set_index("attack")["chosen"]  # survives with the result that was kept
    assert chosen["rmia"].count(",") == 3 and chosen["yeom2018"] == ""


def test_the_upper_bound_is_a_row_on_request_that_says_what_the_auditor_had_to_have(tmp_path, capsys):
    world = planted_signals(9, 300, seed=3, roles=draw_half_roles)
    file = tmp_path / "model.npz"
    write_signals(file, world.variants[0], world.truth)
    flags = ["--signals", str(file), "--attacks", "yeom2018,base"]
    rows = CompLeakNR.main([*flags, "--upper_bound"]).set_index("attack")
    assert rows.loc["upper_bound", "needs"] == (
        "8 shadow models that trained on the victim's points, too; posteriors and labels; reference models that the "
        "auditor trained on the victim's own points"
    )
    assert rows.loc["upper_bound", "auc"] > rows.loc["yeom2018", "auc"] and not rows.loc["upper_bound", "headline"]
    assert "upper_bound" not in set(CompLeakNR.main(flags)["attack"])
    write_world(tmp_path)
    assert "upper_bound" not in set(CompLeakNR.main([*flags, "--upper_bound"])["attack"])
    assert (
        "left out upper_bound: it needs, for at least half of the audit points, a reference" in capsys.readouterr().out
    )


def test_a_table_that_was_made_before_is_read_with_the_same_types_and_numbers(tmp_path, capsys):
    """Rows without a number, such as the null control's shadow_log_auc, do not turn the column into text."""
    file, _ = write_world(tmp_path)
    flags = ["--signals", str(file), "--attacks", "yeom2018,gap,base"]
    made, read = CompLeakNR.main(flags), CompLeakNR.main(flags)
    assert "done before" in capsys.readouterr().out
    pd.testing.assert_frame_equal(read, made, check_exact=True)
    assert read["shadow_log_auc"].dtype == read["null_auc"].dtype == np.float64 and "null" in set(read["attack"])


def test_a_file_with_one_reference_a_point_says_what_an_attack_with_two_needs(tmp_path, capsys):
    file, _ = write_world(tmp_path, models=2)
    CompLeakNR.main(["--signals", str(file), "--attacks", "gap,lira,bavaria"])
    reason = "it needs two reference models for every audit point of the victim; these signals have fewer"
    assert f"left out lira/per_point_variance, bavaria: {reason}" in capsys.readouterr().out


def test_the_folder_of_a_table_is_named_after_the_files():
    long = Path("a" * 90 + ".npz")
    assert folder_for([Path("a.npz"), Path("b.npz")]) == "a+b" and folder_for([long]) == "a" * 90
    assert folder_for([Path("a.npz"), long]).startswith("a+1_others_")


def test_files_of_several_folders_that_bear_the_same_names_have_different_folders():
    one, other = (folder_for([Path("a/x.npz"), Path(f"{folder}/x.npz")]) for folder in ("b", "c"))
    assert one != other and one.startswith("x+x_") and other.startswith("x+x_")


@pytest.mark.parametrize(
    ("error", "says"),
    [(attacks.Unusable("too few points"), "too few points"), (MemoryError(), "it needs more memory than there is")],
)
def test_an_attack_that_cannot_run_is_named_and_the_others_still_run(tmp_path, monkeypatch, capsys, error, says):
    file, _ = write_world(tmp_path)
    rows = list(attacks.USUAL["NR"])

    def refuse(models, **options):
        raise error

    place = [row.key for row in rows].index("rmia")
    rows[place] = rows[place]._replace(run=refuse)
    monkeypatch.setitem(attacks.KNOWN, "NR", tuple(rows))
    table = CompLeakNR.main(["--signals", str(file), "--attacks", "rmia,base"])
    assert "rmia" not in set(table["attack"]) and "base" in set(table["attack"])
    assert f"NR model: left out rmia: {says}" in capsys.readouterr().out


def test_an_auditor_whose_shadow_models_trained_on_the_victims_points_gets_the_upper_bound_and_no_membership(tmp_path):
    names = ["--dataset_name", "digits", "--width", "0.125", "--root", str(tmp_path)]
    recipe = ["--epochs", "1", "--max_points", "60"]
    flags = [*names, *recipe, "--split", "online", "--shadow_num", "16"]
    run = create_run(train.parse(flags))
    train.main(flags)
    named = [*names, "--original", "--sensitivity_draws", "0", "--attacks", "yeom2018,base"]
    assert set(CompLeakNR.main(named)["attack"]) == {"yeom2018", "base", "null", "blind"}
    table = CompLeakNR.main([*named, "--upper_bound"]).set_index("attack")
    assert "16 shadow models that trained on the victim's points, too" in table.loc["base", "needs"]
    assert {"upper_bound", "base"} <= set(table.index)
    record = signals_file.load(run.dir / "signals.npz")
    view = signals_file.attacker_view(record)
    assert (view.member[0] == -1).all() and (view.member[1:] == record.member[1:]).all()
    trained = record.member[1:, record.audit[0]].mean()
    assert 0.15 < trained < 0.35  # a quarter, where --max_points limits the members


def test_points_that_all_shadow_models_trained_on_are_left_out_of_every_finding(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(splits, "LEAST_ONLINE", 3)
    names = ["--dataset_name", "digits", "--width", "0.125", "--root", str(tmp_path), "--threads", "1"]
    recipe = ["--epochs", "1", "--max_points", "200", "--shadow_num", "3", "--split", "online"]
    run = create_run(train.parse([*names, *recipe]))
    train.main([*names, *recipe])
    table = CompLeakNR.main([*names, "--original", "--sensitivity_draws", "0"])
    record = signals_file.load(run.dir / "signals.npz")
    assert "left out upper_bound: it needs" in capsys.readouterr().out  # three models are too few for it
    lacking = record.member[1:, record.audit[0]].all(axis=0)
    assert 0 < lacking.sum() < 20
    headline = table[table["headline"]].iloc[0]
    assert headline["n_member"] + headline["n_nonmember"] == (~lacking).sum()

    findings = findings_of_run(run, ["original"])
    points = findings.points
    left_out = points[points["exposure"].isna()]
    assert set(left_out["point"]) == set(signals_file.points(run.dir / "signals.npz")[record.audit[0]][lacking])
    assert points.index[-len(left_out) :].tolist() == left_out.index.tolist()  # they stand last
    assert (left_out["found_by"] == 0).all() and (left_out["agreement"] == 0).all()
    assert findings.greedy["auc"].notna().all() and len(findings.greedy) == 1
    curve = findings.curves[findings.curves["form"] == "headline"]
    np.testing.assert_allclose(curve["auc"], headline["auc"])
    assert curve["one_nonmember"].iloc[0] == 1 / headline["n_nonmember"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shadow_num", "15"], "needs --shadow_num 16 or more"),
        (["--shadow_num", "16", "--defend", "ppb"], "add --adaptive"),
        (["--shadow_num", "16", "--defend", "dp", "--adaptive"], "does not go with --defend dp"),
    ],
)
def test_shadow_models_for_the_upper_bound_are_many_and_made_as_the_victim_is(tmp_path, words, message):
    names = ["--dataset_name", "digits", "--width", "0.125", "--root", str(tmp_path), "--max_points", "60"]
    with pytest.raises(UserError, match=message):
        train.main([*names, "--split", "online", *words])
    assert not list(tmp_path.iterdir())


def test_a_run_keeps_its_split_and_with_online_its_number_of_shadow_models(tmp_path):
    flags = ["--dataset_name", "digits", "--width", "0.125", "--root", str(tmp_path), "--max_points", "60"]
    create_run(train.parse([*flags, "--split", "online", "--shadow_num", "16"]))
    with pytest.raises(UserError, match="is of a run with --split online: give the one with --split compleak another"):
        create_run(train.parse(flags))
    with pytest.raises(UserError, match="has 16 shadow models. With --split online their number decides"):
        create_run(train.parse([*flags, "--split", "online", "--shadow_num", "17"]))
