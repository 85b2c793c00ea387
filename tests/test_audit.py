"""`audit.py` from shipped files to a report: models that were trained outside this project, in every form."""

import contextlib
import io
import json
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from onnx import helper, numpy_helper
from sklearn.metrics import roc_auc_score
from torch import nn

import audit
from compleak.queries import signals_file
from compleak.tasks import collect
from compleak.tasks.collect import refuse_audited_references, refuse_members_for_shadows
from compleak.tasks.models import OpenModel, open_entry, preprocessing_for
from compleak.tasks.points import points_of, points_of_sources, with_digests
from compleak.tasks.task import ModelEntry, ShadowEntry, ShadowTraining, Task
from core.errors import UserError
from data.foreign import Preprocessing, read_points
from tests.conftest import ROOT, script
from tests.shipped import train_network, write_npz, write_onnx

LETTERS = ROOT.parent / "shared" / "data" / "letter-recognition.csv.xz"
QUICK = ["--seed", "7", "--threads", "1"]
CHEAP = {"NR": ["yeom2018", "gap", "song2021"], "SR": ["model_updates"], "MR": ["MR"]}


@pytest.fixture(scope="module")
def letters():
    """(inputs (N, 16), labels (N,)) in random order."""
    if not LETTERS.exists():
        pytest.skip(f"letter recognition is not here: {LETTERS}")
    table = pd.read_csv(LETTERS).sample(frac=1, random_state=0)
    classes = sorted(table["letter"].unique())
    inputs = (table.drop(columns="letter").to_numpy(np.float32) - 7.5) / 2.5
    return inputs, table["letter"].map(classes.index).to_numpy()


@pytest.fixture(scope="module")
def shipped(letters, tmp_path_factory):
    """A network that memorised its 1,500 members, its dynamic int8 version, one that never saw them, and the data."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder = tmp_path_factory.mktemp("shipped")
    inputs, labels = letters
    parts = {"members": slice(0, 1500), "nonmembers": slice(1500, 3000), "others": slice(3000, 4500)}
    for name, part in parts.items():
        write_npz(folder / f"{name}.npz", inputs[part], labels[part])
    write_onnx(train_network(inputs[:1500], labels[:1500]), folder / "original.onnx")
    write_onnx(train_network(inputs[3000:4500], labels[3000:4500], epochs=20), folder / "innocent.onnx")
    quantize_dynamic(folder / "original.onnx", folder / "int8.onnx", weight_type=QuantType.QInt8)
    return folder


def data_flags(folder):
    return ["--members", str(folder / "members.npz"), "--nonmembers", str(folder / "nonmembers.npz"), *QUICK]


def run_task(folder, content, *flags):
    """The audit of a task file with this content."""
    file = folder / "task.yaml"
    file.write_text(json.dumps(content))  # YAML reads JSON
    (finished,) = audit.main([str(file), "--root", str(folder), *QUICK, *flags])
    return finished


def task_content(folder, **changes):
    return {
        "models": {"original": str(folder / "original.onnx"), "int8": str(folder / "int8.onnx")},
        "members": str(folder / "members.npz"),
        "nonmembers": str(folder / "nonmembers.npz"),
        "attacks": CHEAP,
        **changes,
    }


@pytest.fixture(scope="module")
def audited(shipped, tmp_path_factory):
    """The short form: the folder that it wrote, and what it printed."""
    out = tmp_path_factory.mktemp("audit") / "out"
    models = [str(shipped / "original.onnx"), str(shipped / "int8.onnx")]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        audit.main([*models, *data_flags(shipped), "--out", str(out)])
    return out, printed.getvalue()


def loss_on(model, shipped, name):
    data = np.load(shipped / f"{name}.npz")
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    p = np.concatenate([session.run(None, {"input": row[None]})[0] for row in data["x"]]).astype(np.float64)
    return -np.log(p[np.arange(len(p)), data["y"]] / p.sum(axis=1))


def test_the_short_form_writes_everything_that_is_promised(audited):
    out, _ = audited
    expected = ["report.html", "report.md", "audit.json", "NR.csv", "SR.csv", "MR.csv"]
    expected += ["original/NR.csv", "int8/NR.csv", "int8/SR.csv", "signals/original.npz", "signals/int8.npz"]
    assert not [name for name in expected if not (out / name).is_file()]


@pytest.mark.parametrize("name", ["original", "int8"])
def test_yeoms_auc_is_the_one_that_scikit_learn_works_out(audited, shipped, name):
    out, _ = audited
    table = pd.read_csv(out / name / "NR.csv", keep_default_na=False).set_index("attack")
    losses = [loss_on(shipped / f"{name}.onnx", shipped, side) for side in ("members", "nonmembers")]
    member = np.repeat([True, False], [len(side) for side in losses])
    expected = roc_auc_score(member, -np.concatenate(losses))
    assert table.loc["yeom2018", "auc"] == pytest.approx(expected, abs=1e-9)
    assert expected > 0.55


def test_a_network_that_memorised_does_not_read_low_and_the_audit_says_why(audited):
    out, printed = audited
    report = json.loads((out / "audit.json").read_text())
    assert report["overall"]["level"] in ("MIDDLE", "at least MIDDLE", "HIGH")
    assert f"overall: {report['overall']['level']}" in printed
    assert "right on members" in printed


def test_dynamic_int8_is_asked_point_by_point_and_the_report_says_so(audited):
    report = json.loads((audited[0] / "audit.json").read_text())
    company = {model["name"]: model["company"] for model in report["facts"]["models"]}
    assert "do not depend" in company["original"]
    assert "every point is asked alone" in company["int8"]


def test_the_attack_scripts_go_on_from_the_signals(audited, tmp_path):
    import CompLeakNR

    table = CompLeakNR.main(["--signals", str(audited[0] / "signals" / "int8.npz"), "--attacks", "gap,yeom2018"])
    assert set(table["attack"]) >= {"gap", "yeom2018", "null", "blind"}


def test_a_network_that_saw_none_of_the_points_reads_low(shipped, tmp_path):
    models = [str(shipped / "innocent.onnx"), *data_flags(shipped)]
    (finished,) = audit.main([*models, "--out", str(tmp_path / "out"), "--fail_above", "LOW"])
    assert finished.findings.overall.level == "LOW"


def test_fail_above_ends_with_code_1_where_the_level_is_higher(shipped, tmp_path):
    content = task_content(shipped, out=str(tmp_path / "out"), fail_above="LOW")
    with pytest.raises(SystemExit) as ended:
        run_task(tmp_path, content)
    assert ended.value.code == 1
    assert (tmp_path / "out" / "report.html").exists()


def test_few_points_say_that_they_are_too_few(shipped, tmp_path):
    content = task_content(shipped, models={"innocent": str(shipped / "innocent.onnx")})
    finished = run_task(tmp_path, content, "--max_points", "100", "--out", str(tmp_path / "out"))
    assert finished.findings.overall.level == "too few points to tell"


def test_a_finished_audit_asks_nothing_again(shipped, tmp_path, monkeypatch):
    content = task_content(shipped, out=str(tmp_path / "out"))
    first = run_task(tmp_path, content)
    from compleak.tasks import models

    asked = []
    open_entry = models.open_model

    def counted(spec, **options):
        model = open_entry(spec, **options)
        return model._replace(answer=lambda inputs: asked.append(len(inputs)) or model.answer(inputs))

    monkeypatch.setattr(models, "open_model", counted)
    second = run_task(tmp_path, content)
    assert sum(asked) < 2 * 3 * 40  # the look at company alone: 32 points, in a batch, again, and one by one
    assert second.findings.attacks["auc"].equals(first.findings.attacks["auc"])


def test_unequal_folders_are_audited_with_equal_numbers(shipped, letters, tmp_path, capsys):
    inputs, labels = letters
    write_npz(tmp_path / "few.npz", inputs[1500:1900], labels[1500:1900])
    content = task_content(shipped, nonmembers=str(tmp_path / "few.npz"), out=str(tmp_path / "out"))
    finished = run_task(tmp_path, content)
    assert finished.facts.members.count == 1500 and finished.facts.members.used == 400
    assert "400 of 1,500 members" in capsys.readouterr().out


# What is wrong with what was given


def refused(folder, content, message, *flags):
    with pytest.raises(UserError, match=message) as error:
        run_task(folder, content, *flags)
    assert "\n" not in str(error.value)


def test_classes_in_another_order_stop_the_audit_with_the_likely_cause(shipped, letters, tmp_path):
    inputs, labels = letters
    for name, part in (("members", slice(0, 1500)), ("nonmembers", slice(1500, 3000))):
        write_npz(tmp_path / f"{name}.npz", inputs[part], (labels[part] + 5) % 26)
    places = {key: str(tmp_path / f"{key}.npz") for key in ("members", "nonmembers")}
    content = task_content(shipped, **places, out=str(tmp_path / "out"))
    refused(tmp_path, content, "With its outputs in another order it would be right on")
    assert not (tmp_path / "out" / "report.html").exists()


def test_a_wrong_scale_of_inputs_stops_the_audit_unless_told_to_go_on(shipped, letters, tmp_path):
    inputs, labels = letters
    rng = np.random.default_rng(0)
    for name, part in (("members", slice(0, 300)), ("nonmembers", slice(1500, 1800))):
        write_npz(tmp_path / f"{name}.npz", rng.normal(size=(300, 16)), labels[part])
    places = {key: str(tmp_path / f"{key}.npz") for key in ("members", "nonmembers")}
    content = task_content(shipped, **places, out=str(tmp_path / "out"))
    refused(tmp_path, content, "Is the preprocessing right")
    run_task(tmp_path, {**content, "accept_low_accuracy": True})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modells": {}}, "modells.*models"),
        ({"attacker": "insider"}, "known_half or shadows"),
        ({"attacker": "shadows"}, "list them under shadows"),
        ({"max_points": 6}, "max_points 6 leaves 3 members and 3 non-members: 8 is the least"),
        ({"boundary_points": 3}, "boundary_points is 3: 4 is the least, or 0 for none"),
        ({"preprocessing": {"meen": 0.5}}, "meen.*mean"),
        ({"attacks": {"NR": ["yeom"]}}, "knows no attack yeom"),
        ({"attacks": {"NR": [["yeom2018"]]}}, "knows no attack .'yeom2018'"),
        ({"preprocessing": {"size": [2.5]}}, "size is .2.5.: whole numbers are needed"),
        ({"models": {}}, "models is empty"),
        ({"models": {"../x": "a.onnx"}}, "plain name"),
        ({"members": "nowhere"}, "nowhere"),
        ({"references": [{"original": "a.onnx"}]}, "models lacks int8"),
    ],
)
def test_a_wrong_task_is_refused_in_one_line(shipped, tmp_path, changes, message):
    refused(tmp_path, task_content(shipped, **changes), message)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("preprocessing: {size: [.inf]}", "size is .inf.: 1 or 2 numbers are needed"),
        ("seed: 2147483648", "seed is 2147483648: 2147483647 is the most"),
    ],
)
def test_numbers_that_are_too_large_are_refused(tmp_path, line, says):
    (tmp_path / "task.yaml").write_text(f"models: [a.onnx]\n{line}\n")
    with pytest.raises(UserError, match=says):
        audit.parse([str(tmp_path / "task.yaml")])


def test_a_yaml_with_a_python_tag_runs_nothing(tmp_path):
    file = tmp_path / "task.yaml"
    file.write_text(f"models: !!python/object/apply:os.system ['touch {tmp_path / 'ran'}']\n")
    with pytest.raises(UserError, match="task.yaml"):
        audit.main([str(file)])
    assert not (tmp_path / "ran").exists()


def test_external_data_outside_the_models_folder_is_refused(tmp_path, shipped):
    model = onnx.load(shipped / "original.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    (tmp_path / "hostile.onnx").write_bytes(model.SerializeToString())
    done = script("audit.py", tmp_path / "hostile.onnx", *data_flags(shipped), "--out", tmp_path / "out")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


# Other attackers


def test_references_make_the_calibrated_attacks_possible(shipped, tmp_path):
    content = task_content(
        shipped,
        references=[str(shipped / "innocent.onnx")],
        attacks={"NR": ["yeom2018", "calibrated", "base"], "SR": ["calibrated"], "MR": ["calibrated"]},
        out=str(tmp_path / "out"),
    )
    table = run_task(tmp_path, content).findings.attacks
    assert {"calibrated", "base"} <= set(table.loc[table["scenario"] == "NR", "attack"])


def test_shadow_models_given_as_files_attack(shipped, letters, tmp_path):
    inputs, labels = letters
    write_npz(tmp_path / "shadow_others.npz", inputs[4500:6000], labels[4500:6000])
    write_onnx(train_network(inputs[3000:4500], labels[3000:4500], seed=1), tmp_path / "shadow.onnx")
    shadow = {
        "models": {"original": str(tmp_path / "shadow.onnx")},
        "members": str(shipped / "others.npz"),
        "nonmembers": str(tmp_path / "shadow_others.npz"),
    }
    content = task_content(
        shipped,
        models={"original": str(shipped / "original.onnx")},
        shadows=[shadow],
        attacks={"NR": ["yeom2018", "calibrated"]},
        out=str(tmp_path / "out"),
    )
    finished = run_task(tmp_path, content)
    assert finished.facts.attacker == "shadows"
    record = signals_file.load(tmp_path / "out" / "signals" / "original.npz")
    assert record.member[0].sum() == 1500
    equal_rows = 3000 + 3000 - record.logits.shape[1]  # a row that stands in both models' data is one point
    assert 0 < equal_rows < 300
    np.testing.assert_array_equal(record.audit.sum(axis=1), 2 * (record.member & record.audit).sum(axis=1))


@pytest.fixture
def lists(tmp_path):
    """A task whose members and non-members are lists of 40 points, and 40 other points, each of its own content."""
    rng = np.random.default_rng(0)
    for name in ("all", "others"):
        write_npz(tmp_path / f"{name}.npz", rng.normal(size=(40, 3)), np.arange(40) % 2)
    for name, numbers in (("low", range(20)), ("high", range(20, 40)), ("few", range(10, 30))):
        (tmp_path / f"{name}.txt").write_text("\n".join(map(str, numbers)))
    entry = ModelEntry("m", "m.onnx")
    places = {"members": tmp_path / "low.txt", "nonmembers": tmp_path / "high.txt", "data": tmp_path / "all.npz"}
    return Task((entry,), "t", "", **places), ShadowEntry({"m": entry}, tmp_path / "low.txt")


def contents(points, places) -> set[bytes]:
    return {points.digests[place] for place in np.flatnonzero(places)}


def test_lists_of_a_shadow_model_with_data_of_its_own_are_of_those_data(lists, tmp_path):
    task, shadow = lists
    points = points_of(replace(task, shadows=(replace(shadow, data=tmp_path / "others.npz"),)))
    others = with_digests(read_points(tmp_path / "others.npz")).digests
    assert contents(points, points.member[1]) == set(others[:20])
    assert contents(points, points.audit[1]) == set(others)


def test_a_shadow_model_that_names_the_data_of_the_task_adds_no_points(lists):
    task, shadow = lists
    points = points_of(replace(task, shadows=(replace(shadow, data=task.data),)))
    assert len(points.labels) == 40 and points.member[1].sum() == 20


@pytest.mark.parametrize("with_data", [True, False])
def test_the_stated_audit_set_of_a_shadow_model_is_the_one_that_is_asked_about(lists, tmp_path, with_data):
    task, shadow = lists
    if not with_data:
        write_npz(tmp_path / "more.npz", np.random.default_rng(1).normal(size=(40, 3)), np.arange(40) % 2)
        task = replace(task, members=task.data, nonmembers=tmp_path / "more.npz", data=None)
    shadow = replace(shadow, data=tmp_path / "others.npz", audited=tmp_path / "few.txt")
    points = points_of(replace(task, shadows=(shadow,)))
    others = with_digests(read_points(tmp_path / "others.npz")).digests
    assert contents(points, points.audit[1]) == set(others[10:30])
    assert contents(points, points.audit[1] & points.member[1]) == set(others[10:20])


def test_a_stated_audit_set_without_data_is_refused(lists, tmp_path):
    task, shadow = lists
    write_npz(tmp_path / "more.npz", np.random.default_rng(1).normal(size=(40, 3)), np.arange(40) % 2)
    others = tmp_path / "others.npz"
    shadow = replace(shadow, members=others, nonmembers=tmp_path / "more.npz", audited=tmp_path / "nowhere.txt")
    task = replace(task, members=task.data, nonmembers=others, data=None, shadows=(shadow,))
    with pytest.raises(UserError, match="audited: lists points of data:, which is missing"):
        points_of(task)


def test_listed_members_among_the_data_for_shadow_models_are_refused(lists):
    task, _ = lists
    with pytest.raises(UserError, match="50% of these points are members of the audited model"):
        refuse_members_for_shadows(replace(task, shadow_training=ShadowTraining(task.data)))


PLUGIN = """
from torch import nn

def get_model():
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 26))
"""


def test_shadow_models_are_trained_from_a_plug_in(letters, tmp_path):
    inputs, labels = letters
    (tmp_path / "model.py").write_text(PLUGIN)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 26))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    members = torch.tensor(inputs[:300]), torch.tensor(labels[:300])
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(members[0]), members[1]).backward()
        optimizer.step()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    for name, part in (("members", slice(0, 300)), ("nonmembers", slice(300, 600)), ("pool", slice(600, 1200))):
        write_npz(tmp_path / f"{name}.npz", inputs[part], labels[part])
    content = {
        "models": {"original": "model.py"},
        "members": "members.npz",
        "nonmembers": "nonmembers.npz",
        "shadows": {"train": {"data": "pool.npz", "count": 2, "epochs": 20, "lr": 0.01}},
        "attacks": {"NR": ["yeom2018", "calibrated"]},
        "out": "out",
    }
    finished = run_task(tmp_path, content)
    record = signals_file.load(tmp_path / "out" / "signals" / "original.npz")
    assert len(record.logits) == 3 and finished.facts.attacker == "shadows"
    assert (record.audit.sum(axis=1) > 550).all()
    weights = (tmp_path / "out" / "shadows" / "1" / "original.pt").read_bytes()
    run_task(tmp_path, content)
    assert (tmp_path / "out" / "shadows" / "1" / "original.pt").read_bytes() == weights
    (tmp_path / "model.py").write_text(PLUGIN.replace("ReLU", "Tanh"))  # the same tensors, another network
    refused(
        tmp_path, content, "made with the code of model.py .* use the same code and settings, .* or delete .*shadows$"
    )


# Other forms of models


def test_answers_in_a_file_need_no_model_and_no_data(audited, tmp_path):
    record = signals_file.load(audited[0] / "signals" / "original.npz")
    p = np.exp(record.logits[0] - np.logaddexp.reduce(record.logits[0], axis=1, keepdims=True))
    np.savez(tmp_path / "a.npz", probabilities=p, labels=record.labels, member=record.member[0])
    frame = pd.DataFrame(p).assign(label=record.labels, member=record.member[0].astype(int))
    frame.to_csv(tmp_path / "b.csv", index=False)
    for file in ("a.npz", "b.csv"):
        content = {"models": [file], "attacks": CHEAP, "out": f"out_{file[0]}"}
        table = run_task(tmp_path, content).findings.attacks.set_index("attack")
        whole = pd.read_csv(audited[0] / "original" / "NR.csv", keep_default_na=False).set_index("attack")
        assert table.loc["yeom2018", "auc"] == pytest.approx(whole.loc["yeom2018", "auc"], abs=1e-4)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"answers": np.zeros((0, 3)), "labels": np.zeros(0), "member": np.zeros(0)}, r"answers has shape \(0, 3\)"),
        ({"answers": np.float64(0.5)}, r"answers has shape \(\): an array \(N, C\), a row for each point, is needed"),
        (
            {"logits": np.zeros((4, 0)), "labels": np.zeros(4), "member": np.arange(4) % 2},
            r"answers has shape \(4, 0\)",
        ),
    ],
)
def test_a_file_without_answers_is_refused_in_one_line(tmp_path, arrays, says):
    np.savez(tmp_path / "a.npz", **arrays)
    refused(tmp_path, {"models": ["a.npz"]}, says)


def write_answers(file, count=20, members=None):
    """Answers of three classes about so many points, half of them members."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    logits = rng.normal(size=(count, 3)) + 3 * np.eye(3)[labels]
    member = np.arange(count) < (count // 2 if members is None else members)
    np.savez(file, answers=logits, labels=labels, member=member.astype(int))


def write_shadow_signals(file):
    """A signals file of a model and a shadow model of it, each with an audit set of its own."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 3
    audit_sets = np.repeat([[True, False], [False, True]], 40, axis=1)
    logits = rng.normal(size=(2, 80, 3)) + 3 * np.eye(3)[labels]
    member = audit_sets & (np.arange(80) % 40 < 20)
    np.savez(file, logits=logits.astype(np.float32), labels=labels, member=member, audit=audit_sets)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("references", ["b.npz"]),
        ("shadows", {"train": {"data": "others"}}),
        ("queries", 18),
        ("label_queries", 18),
        ("noise_repeats", 1),
        ("boundary_points", 8),
        ("sensitivity_draws", 1),
        ("preprocessing", {"mean": 0.5}),
    ],
)
def test_what_files_of_answers_and_signals_have_no_use_for_is_refused_before_the_work(tmp_path, key, value):
    write_answers(tmp_path / "a.npz")
    write_shadow_signals(tmp_path / "s.npz")
    for file, reason in (("a.npz", "no model is asked"), ("s.npz", "says itself which models")):
        refused(tmp_path, {"models": [file], key: value, "out": "out"}, f"{reason}.*: leave out {key}$")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("key", "value"), [("max_points", 20), ("classes", ["a", "b", "c"]), ("members", "x.npz")])
def test_points_and_classes_of_a_signals_file_are_its_own(tmp_path, key, value):
    write_shadow_signals(tmp_path / "s.npz")
    refused(tmp_path, {"models": ["s.npz"], key: value}, f"says itself which .*: leave out {key}$")


@pytest.mark.parametrize(
    ("key", "flags"),
    [
        ("references", ["--references", "x.onnx"]),
        ("max_points", ["--max_points", "20"]),
        ("preprocessing", ["--mean", "0.5"]),
    ],
)
def test_what_a_run_has_itself_is_refused(tmp_path, key, flags):
    with pytest.raises(UserError, match=f"a run has its own data and shadow models: leave out {key}$"):
        audit.main(["run:r", "--root", str(tmp_path), *flags])


def test_a_run_is_asked_for_as_many_draws_of_noise_as_are_stated(monkeypatch):
    amounts = []
    run = SimpleNamespace(config={"num_cls": 10})
    monkeypatch.setattr(collect, "open_run_variant", lambda root, name: (run, None))
    monkeypatch.setattr(collect, "collect", lambda run, variant, *, asked, **options: amounts.append(asked))
    monkeypatch.setattr(collect, "from_signals", lambda task, signals: None)
    collect.by_run(Task((ModelEntry("m", "run:r"),), "t", "", sensitivity_draws=5))
    assert amounts == [{"sensitivity": 5}]


def test_a_signals_file_with_shadow_models_is_attacked_through_them_where_that_is_asked_for(tmp_path):
    write_shadow_signals(tmp_path / "s.npz")
    content = {"models": ["s.npz"], "attacker": "shadows", "attacks": {"NR": ["gap"]}, "out": "out"}
    assert run_task(tmp_path, content).facts.attacker == "shadows"


def tasks_of_flags(*flags):
    return audit.parse(list(map(str, flags)))


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (["run:r/original", "run:r/pruning_0.6", "run:r/pruning_0.9"], ["original", "pruning_0.6", "pruning_0.9"]),
        (["bert-v1.0", "x/bert-v1.1"], ["bert-v1.0", "bert-v1.1"]),
        (["a/model.onnx", "b/model.ONNX"], ["a_model", "b_model"]),
    ],
)
def test_models_are_named_after_their_files_without_known_endings(places, names):
    (task,) = tasks_of_flags(*places)
    assert [model.name for model in task.models] == names


def test_the_folder_that_one_is_in_gives_its_name(tmp_path, monkeypatch):
    (tmp_path / "bert").mkdir()
    monkeypatch.chdir(tmp_path / "bert")
    (task,) = tasks_of_flags(".")
    assert task.models[0].name == "bert"


@pytest.mark.parametrize("place", ["", "run:"])
def test_an_empty_path_of_a_model_is_refused(place):
    with pytest.raises(UserError, match="the path of a model is"):
        tasks_of_flags(place)


def test_flags_choose_inputs_and_outputs_of_a_task_files_models_and_name_runs_as_references(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "task.yaml"
    for models in ({"m": "m.onnx", "n": {"file": "n.onnx", "output": "old"}}, ["m.onnx", {"file": "n.onnx"}]):
        file.write_text(json.dumps({"models": models}))
        (task,) = tasks_of_flags(file, "--input", "x", "--output", "y", "--references", "run:r/original", "z.onnx")
        assert [(model.input, model.output) for model in task.models] == [("x", "y")] * 2
        assert [reference["m"].place for reference in task.references] == ["run:r/original", str(tmp_path / "z.onnx")]


def save_answers(file, **changes):
    arrays = {"answers": np.eye(3)[np.arange(20) % 3] + 0.1, "labels": np.arange(20) % 3, "member": np.arange(20) % 2}
    np.savez(file, **{key: value for key, value in {**arrays, **changes}.items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": np.where(np.arange(20) == 3, np.inf, 0)}, "labels must be numbers of classes, from 0"),
        ({"labels": np.arange(20) % 3 + 1}, "labels run from 1 to 3, the file has 3 classes: store labels - 1"),
        ({"labels": np.arange(20) % 5}, "labels run from 0 to 4, the file has 3 classes: one column a class"),
    ],
)
def test_labels_that_are_no_columns_of_the_answers_are_refused(tmp_path, changes, says):
    save_answers(tmp_path / "a.npz", **changes)
    refused(tmp_path, {"models": ["a.npz"], "out": "out"}, says)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": np.arange(20) % 3 + 1, "member": None}, "the labels in .*a.npz are not those of --members and"),
        ({"labels": None}, "member in .*a.npz is not 1 for each point of --members"),
    ],
)
def test_answers_that_are_not_in_the_order_of_the_data_are_refused(tmp_path, changes, says):
    for side, name in enumerate(("members", "nonmembers")):
        write_npz(tmp_path / f"{name}.npz", np.random.default_rng(side).normal(size=(10, 2)), np.arange(10) % 3)
    save_answers(tmp_path / "a.npz", **changes)
    content = {"models": ["a.npz"], "members": "members.npz", "nonmembers": "nonmembers.npz", "out": "out"}
    refused(tmp_path, content, says)


def test_a_damaged_archive_of_answers_is_refused_in_one_line(tmp_path):
    save_answers(tmp_path / "a.npz")
    content = bytearray((tmp_path / "a.npz").read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    content[directory : directory + 4] = b"XXXX"
    (tmp_path / "a.npz").write_bytes(content)
    refused(tmp_path, {"models": ["a.npz"], "out": "out"}, "a.npz is not a readable .npz file")


def test_an_entry_of_an_archive_that_is_no_array_is_refused_in_one_line(tmp_path):
    save_answers(tmp_path / "a.npz", answers=None)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("answers", b"1")
    refused(tmp_path, {"models": ["a.npz"], "out": "out"}, "answers is no array: save the file with numpy.savez")


def test_a_table_without_rows_is_refused_in_one_line(tmp_path):
    (tmp_path / "a.csv").write_text("label,member,cat,dog\n")
    refused(tmp_path, {"models": ["a.csv"]}, "a.csv holds no points: it needs a row for each point")


def test_a_run_of_this_project_is_audited_with_its_own_shadow_models(tiny_run, tmp_path):
    places = [f"run:{tiny_run.name}", f"run:{tiny_run.name}/quantization_int8"]
    flags = ["--root", str(tiny_run.root), "--out", str(tmp_path / "out"), "--name", "tiny", *QUICK]
    (finished,) = audit.main([*places, *flags, "--accept_low_accuracy"])
    assert finished.facts.attacker == "shadows"
    assert set(finished.findings.attacks["scenario"]) == {"NR", "SR", "MR"}


# What may mislead


def test_copies_of_images_are_one_person_and_never_a_non_member(tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(30, 8, 8, 3), dtype=np.uint8)
    members, others = images[[*range(10), 0, 1]], images[[*range(10, 30), 2, 3]]
    for name, pixels in (("members", members), ("others", others)):
        np.savez(tmp_path / f"{name}.npz", x=pixels, y=np.arange(len(pixels)) % 2)
    task = Task((ModelEntry("m", "m.onnx"),), "t", "", tmp_path / "members.npz", tmp_path / "others.npz")
    points = points_of_sources(task)
    assert points.audit[0].sum() == 20
    assert len(set(points.digests)) == 20
    printed = capsys.readouterr().out
    assert "2 of the 22 non-members have the same content as a member" in printed
    assert "2 of the 12 members repeat another one" in printed


def test_a_compressed_version_with_its_outputs_in_another_order_stops_the_audit(shipped, tmp_path):
    model = onnx.load(shipped / "original.onnx")
    order = np.random.default_rng(0).permutation(26)
    model.graph.node[-1].output[0] = "straight"
    model.graph.initializer.append(numpy_helper.from_array(order, "order"))
    model.graph.node.append(helper.make_node("Gather", ["straight", "order"], ["output"], axis=1))
    onnx.save(model, tmp_path / "mixed.onnx")
    models = {"original": str(shipped / "original.onnx"), "mixed": str(tmp_path / "mixed.onnx")}
    content = task_content(shipped, models=models, out=str(tmp_path / "out"))
    refused(tmp_path, content, "mixed is right on .* With its outputs in another order")


def with_few_outputs(source, file):
    """Write a version of an ONNX model that answers the first three of its classes."""
    model = onnx.load(source)
    model.graph.node[-1].output[0] = "all"
    model.graph.initializer.append(numpy_helper.from_array(np.arange(3), "first"))
    model.graph.node.append(helper.make_node("Gather", ["all", "first"], ["output"], axis=1))
    onnx.save(model, file)
    return str(file)


def test_a_compressed_version_with_fewer_outputs_is_refused_before_the_points_are_asked(shipped, tmp_path):
    few = with_few_outputs(shipped / "original.onnx", tmp_path / "few.onnx")
    models = {"original": str(shipped / "original.onnx"), "few": few}
    content = task_content(shipped, models=models, out=str(tmp_path / "out"))
    refused(tmp_path, content, "few.onnx answers 3 values, .*original.onnx 26: all models .* the same classes")
    assert not (tmp_path / "out" / "signals").exists()
    assert len(np.load(tmp_path / "out" / "answers" / "0_original.npz")["answers"]) < 3000


def test_fewer_names_than_outputs_are_refused(shipped, tmp_path):
    labels = np.arange(20) % 3
    for number, name in enumerate(("members", "nonmembers")):
        write_npz(tmp_path / f"{name}.npz", np.random.default_rng(number).normal(size=(20, 16)), labels)
    places = {key: f"{key}.npz" for key in ("members", "nonmembers")}
    content = task_content(shipped, **places, classes=["a", "b", "c"], out="out")
    refused(tmp_path, content, "3 classes are named, but original answers 26 values: name one for each value, in order")


def test_fewer_names_than_columns_of_answers_are_refused(tmp_path):
    write_answers(tmp_path / "a.npz")
    refused(tmp_path, {"models": ["a.npz"], "classes": ["a", "b"], "out": "out"}, "2 classes are named")


@pytest.mark.parametrize("members", [0, 1, 3, 20])
def test_answers_about_too_few_members_or_others_are_refused(tmp_path, members):
    write_answers(tmp_path / "a.npz", members=members)
    message = f"a.npz: {members} members and {20 - members} non-members are too few; 4 of each are needed"
    refused(tmp_path, {"models": ["a.npz"], "out": "out"}, message)


def test_classes_that_occur_more_often_among_members_are_noted():
    from compleak.tasks.sanity import note_on_classes

    rng = np.random.default_rng(0)
    member = np.repeat([True, False], 500)
    assert not note_on_classes(rng.integers(5, size=1000), member)
    tilted = np.where(member, rng.choice(5, size=1000, p=[0.4, 0.2, 0.2, 0.1, 0.1]), rng.integers(5, size=1000))
    assert note_on_classes(tilted, member)


def test_shadow_models_that_do_not_memorise_as_the_audited_model_does_are_noted():
    from compleak.tasks.sanity import note_on_shadows

    assert not note_on_shadows([0.3])
    assert not note_on_shadows([0.3, 0.25, 0.33])
    assert "may miss" in note_on_shadows([0.3, 0.02, 0.04])[0]


def test_exchanged_members_and_non_members_are_asked_about(shipped, tmp_path):
    places = {"members": str(shipped / "nonmembers.npz"), "nonmembers": str(shipped / "members.npz")}
    content = task_content(shipped, **places, out=str(tmp_path / "out"))
    refused(tmp_path, content, "are the two exchanged")


def test_an_audited_model_is_no_reference(shipped, tmp_path):
    content = task_content(shipped, references=[str(shipped / "original.onnx")], out=str(tmp_path / "out"))
    refused(tmp_path, content, "is one of the audited models")


def plug_ins(folder):
    """Two state dicts beside one network: the entries of two models that share their code."""
    (folder / "net.py").write_text(PLUGIN)
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        layers = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 26))
        torch.save(layers.state_dict(), folder / f"{name}.pt")
    return [ModelEntry(name, str(folder / "net.py"), weights=folder / f"{name}.pt") for name in "ab"]


def test_a_reference_may_share_the_code_of_an_audited_model_but_not_its_weights(tmp_path):
    entries = plug_ins(tmp_path)
    one, other = (open_entry(entry, Task((), "t", "")) for entry in entries)
    refuse_audited_references([one], [[other]], 1)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "net.py").write_text(f"# a copy\n{PLUGIN}")
    copy = replace(entries[0], place=str(tmp_path / "copy" / "net.py"))
    with pytest.raises(UserError, match="is one of the audited models"):
        refuse_audited_references([one], [[open_entry(copy, Task((), "t", ""))]], 1)


def test_two_models_beside_one_preprocessor_config_are_two_models(shipped, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{}")
    for name in ("original", "innocent"):
        (tmp_path / f"{name}.onnx").write_bytes((shipped / f"{name}.onnx").read_bytes())
    entries = [ModelEntry(name, str(tmp_path / f"{name}.onnx")) for name in ("original", "innocent")]
    one, other = (open_entry(entry, Task((), "t", "")) for entry in entries)
    refuse_audited_references([one], [[other]], 1)


def test_what_is_stated_of_preprocessing_leaves_the_rest_to_the_file_beside_the_model():
    beside = {"image_mean": 0.5, "image_std": 0.25, "size": 8, "resample": 2}
    model = SimpleNamespace(preprocessing=beside, input_shape=(3, 8, 8))
    task = Task((), "t", "", preprocessing=Preprocessing(resample="bicubic"))
    how = preprocessing_for(OpenModel(ModelEntry("m", "m.onnx"), model, {}), task, "images")
    assert (how.resample, how.mean, how.std, how.size) == ("bicubic", (0.5,), (0.25,), (8, 8))


def test_a_file_beside_the_model_that_is_not_understood_leaves_what_is_stated(capsys):
    model = SimpleNamespace(preprocessing={"image_processor_type": "Odd"}, input_shape=(3, 8, 8))
    opened = OpenModel(ModelEntry("m", "m.onnx"), model, {})
    with pytest.raises(UserError, match="'Odd' is not understood"):
        preprocessing_for(opened, Task((), "t", ""), "images")
    how = preprocessing_for(opened, Task((), "t", "", preprocessing=Preprocessing(mean=(0.5,))), "images")
    assert (how.mean, how.std) == ((0.5,), (1.0,))
    assert "what you state counts, and nothing of that file" in capsys.readouterr().out


def test_the_audit_of_another_model_is_not_overwritten(shipped, audited, tmp_path):
    content = task_content(shipped, models={"other": str(shipped / "innocent.onnx")}, out=str(audited[0]))
    refused(tmp_path, content, "holds the audit of other models, data or answers")


def test_members_are_no_data_for_shadow_models(letters, tmp_path):
    inputs, labels = letters
    (tmp_path / "model.py").write_text(PLUGIN)
    for name, part in (("members", slice(0, 100)), ("nonmembers", slice(100, 200))):
        write_npz(tmp_path / f"{name}.npz", inputs[part], labels[part])
    torch.save(nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 26)).state_dict(), tmp_path / "model.pt")
    write_npz(tmp_path / "pool.npz", inputs[50:150], labels[50:150])
    data = {"members": "members.npz", "nonmembers": "nonmembers.npz", "shadows": {"train": {"data": "pool.npz"}}}
    refused(tmp_path, {"models": ["model.py"], "out": "out", **data}, "must be trained on other points")
