"""Task files of PrivBox: they are read as they stand, run, and their numbers are right."""

import importlib.util
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from attacks.common.signals import Unusable
from attacks.common.statistics import posterior
from attacks.label_only import label_only
from attacks.ml_leak import Classifier, balanced_batches, has_stalled, largest_outputs, ml_leak, perceptron, split_rows
from compleak.audits import metrics
from compleak.findings.privbox import Attack, PrivBoxFindings, level, measure
from compleak.reports.privbox_page import print_privbox, summarise
from compleak.tasks.privbox import KEYS, is_privbox, read_privbox
from compleak.tasks.privbox_models import AskedModel, ask, open_run
from compleak.tasks.privbox_run import fitting, make_alike, run_privbox
from compleak.tasks.yaml_files import check_keys, read_yaml
from compleak.training import plugin as plugin_training
from compleak.training.plugin import train_plugin, try_plugin
from core.errors import UserError
from data.views import angles, rotate


def write_task(folder: Path, text: str) -> Path:
    file = folder / "task.yaml"
    file.write_text(text, encoding="utf-8")
    return file


# Reading YAML


def test_plain_yaml_is_read_and_numbers_with_an_exponent_are_numbers(tmp_path):
    file = write_task(tmp_path, "lr: 2e-4\nrate: 1.5E3\nday: 2024-13-45\nlist: [1, two, -3e+2]\nnone:\n")
    content = {"lr": 2e-4, "rate": 1500.0, "day": "2024-13-45", "list": [1, "two", -300.0], "none": None}
    assert read_yaml(file) == content


def test_an_alias_that_does_not_grow_is_read(tmp_path):
    assert read_yaml(write_task(tmp_path, "a: &x [1, 2]\nb: *x\n")) == {"a": [1, 2], "b": [1, 2]}


BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
CHAIN = "- &a0 1\n" + "".join(f"- &a{n} [*a{n - 1}]\n" for n in range(1, 60))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "a: 1\nb: !!python/object/apply:os.system ['touch RAN']\n",
            "line 2: the tag '!!python/object/apply:os.system'",
        ),
        ("a: !mine 1\n", "line 1: the tag '!mine' has no place"),
        ("a: 1\nb: !!bool maybe\n", "line 2: the tag '!!bool' has no place"),
        ('a: "\\0"\n', "line 1: '\\x00' holds a character that no text holds"),
        ('a: "\\ud800"\n', "line 1: '\\ud800' holds a character"),
        (CHAIN, "line 41: with its aliases written out it is nested more than 40 deep"),
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' stands twice"),
        ("a:\n\tb: 1\n", "line 2: a tab where YAML wants spaces"),
        (BOMB, "with its aliases written out it holds more than 20,000 values"),
        ("a: &a\n  <<: [*a, *a]\n", "an alias holds itself"),
        ("[" * 100_000, "line 1: lists and mappings are nested more than 40 deep"),
        ("a: {b: [1\n", "line 2: "),
        ("a: 1\n---\nb: 1\n", "line 2: a second document"),
        ("a: 1\nb: 0x_\n", "line 2: '0x_' cannot be read as a number"),
        ("a: " + "9" * 5000 + "\n", "cannot be read as a number"),
        ("a: 1\nb: \x01\n", "line 2: a character that no text holds"),
        ("? [1, 2]\n: 3\n", "line 1: found unhashable key"),
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("#" * 1_000_001, "has more than 1,000,000 bytes"),
    ],
    ids=lambda value: value[:25].strip(),
)
def test_hostile_and_broken_yaml_is_refused_in_one_line_and_nothing_is_run(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refusal:
        read_yaml(write_task(tmp_path, text))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400
    assert [file.name for file in tmp_path.iterdir()] == ["task.yaml"]


def test_a_file_that_is_no_text_or_not_there_is_refused_in_one_line(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(UserError, match="line 2: not UTF-8"):
        read_yaml(tmp_path / "bytes.yaml")
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(UserError, match="is not a file"):
            read_yaml(path)


KNOWN = {"models": list, "name": str, "rate": float, "count": int, "flag": bool, "seed": (int, type(None))}


@pytest.mark.parametrize(
    "content", [{}, {"rate": 1, "count": 2, "flag": True, "seed": None}, {"rate": 0.5, "models": [], "name": "x"}]
)
def test_keys_that_are_known_and_of_their_type_pass(content):
    check_keys(content, KNOWN, "task.yaml")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"modles": []}, "there is no key 'modles'; did you mean 'models'?"),
        ({"zzz": 1}, "there is no key 'zzz'; the keys are models, name, rate, count, flag, seed"),
        ({3: 1}, "there is no key 3; the keys are"),
        ({"models": "a"}, "models must be a list, not a text ('a')"),
        ({"count": True}, "count must be a whole number, not true or false (True)"),
        ({"count": 1.5}, "count must be a whole number, not a number (1.5)"),
        ({"rate": float("nan")}, "rate must be a number, not a number (nan)"),
        ({"rate": False}, "rate must be a number"),
        ({"seed": "x"}, "seed must be a whole number or nothing, not a text ('x')"),
        ({"name": None}, "name must be a text, not nothing"),
        ({"rate": 1}, "the key 'name' is missing: add it"),
        (["name"], "a mapping (key: value) is wanted here, not a list"),
    ],
)
def test_unknown_wrong_and_missing_keys_are_named_in_one_line(content, words):
    with pytest.raises(UserError) as refusal:
        check_keys(content, KNOWN, "task.yaml", required=["name"] if content == {"rate": 1} else ())
    assert str(refusal.value).startswith("task.yaml: ")
    assert words in str(refusal.value)


# Numbers


def decisions(hits: int, members: int, alarms: int, others: int):
    """Decisions with so many right accusations among members and so many wrong ones among others, and membership."""
    decision = np.concatenate([np.arange(members) < hits, np.arange(others) < alarms])
    return decision, np.repeat([True, False], [members, others])


def test_the_numbers_of_privboxs_own_example_are_right():
    """82.344 % of 50,000 members and 59.27 % of 10,000 others are predicted rightly; "right" means "member".

    PrivBox's README prints precision 0.82344, recall 0.8742 and AUC 0.5949 for this.
    """
    decision, member = decisions(41_172, 50_000, 5_927, 10_000)
    numbers = measure(decision.astype(float), decision, member, seed=0)
    assert numbers["accuracy"] == pytest.approx((41_172 + 4_073) / 60_000)
    assert numbers["precision"] == pytest.approx(41_172 / (41_172 + 5_927))
    assert numbers["recall"] == pytest.approx(0.82344)
    assert numbers["auc"] == pytest.approx((0.82344 + 1 - 0.5927) / 2)
    rounded = {key: round(numbers[key], 3) for key in ("accuracy", "precision", "recall", "auc")}
    assert rounded == {"accuracy": 0.754, "precision": 0.874, "recall": 0.823, "auc": 0.615}
    assert numbers["balanced_accuracy"] == pytest.approx(numbers["auc"])
    for key in (*rounded, "balanced_accuracy", "tpr_at_fpr_0.01"):
        assert numbers[f"{key}_lo"] <= numbers[key] <= numbers[f"{key}_hi"]


def test_precision_is_undefined_where_nobody_is_accused():
    decision, member = decisions(0, 5, 0, 5)
    numbers = measure(decision.astype(float), decision, member, seed=0)
    assert np.isnan(numbers["precision"]) and (numbers["precision_lo"], numbers["precision_hi"]) == (0, 1)
    assert numbers["recall"] == 0


@pytest.mark.parametrize(
    ("accuracy", "word"), [(0, "LOW"), (0.549, "LOW"), (0.55, "MIDDLE"), (0.799, "MIDDLE"), (0.8, "HIGH"), (1, "HIGH")]
)
def test_privboxs_rule(accuracy, word):
    assert level(accuracy) == word


def findings_of(*attacks: Attack) -> PrivBoxFindings:
    return PrivBoxFindings("task.yaml", 0, [], [], attacks)


def attack_with(decision, member, name="BASELINE") -> Attack:
    numbers = measure(decision.astype(float), decision, member, seed=0)
    return Attack(name, "net", 1, numbers)


def test_the_page_says_that_accuracy_misleads_where_members_are_many():
    attack = attack_with(*decisions(500, 500, 100, 100))
    assert (attack.level, attack.balanced_level) == ("HIGH", "LOW")
    text = "\n".join(summarise(findings_of(attack)))
    assert "of 500 members and 100 others, a guess that calls every point a member is right for 83.3 %" in text
    assert "HIGH by its accuracy of 83.3 %, LOW by its balanced accuracy of 50.0 %" in text
    balanced = attack_with(*decisions(60, 100, 20, 100))
    assert "misleading" not in "\n".join(summarise(findings_of(balanced)))


def test_the_summary_names_the_worst_first_and_each_recommendation_once():
    middle = attack_with(*decisions(70, 100, 30, 100), name="ML-LEAK")
    high = attack_with(*decisions(95, 100, 5, 100))
    low = attack_with(*decisions(50, 100, 50, 100), name="LABEL-ONLY")
    lines = summarise(findings_of(low, middle, high))
    assert [line.split(" ")[0] for line in lines[:2]] == ["BASELINE", "ML-LEAK"]
    assert len(lines) == 2 + 4 == len(set(lines))
    assert "Masking" not in "\n".join(summarise(findings_of(high)))
    assert len(summarise(findings_of(low))) == 1 and "no more" in summarise(findings_of(low))[0]


# The two attacks that learn


CLASSIFIER = Classifier(epochs=20, lr=0.01, batch_size=64, early_stopping=False)


def planted_outputs(rng, members: int, others: int, leak: float):
    """Outputs (n, 5) of a model whose largest output is higher by `leak` for members, and membership."""
    member = np.repeat([1, 0], [members, others])
    outputs = rng.normal(size=(members + others, 5))
    outputs[:, 2] = 3 + leak * member + rng.normal(size=members + others)
    return outputs, member


def test_ml_leak_tells_members_by_the_largest_outputs_as_well_as_that_output_itself():
    rng = np.random.default_rng(1)
    shadow, member = planted_outputs(rng, 400, 400, leak=2)
    target, truth = planted_outputs(rng, 300, 300, leak=2)
    result = ml_leak(shadow, member, target, topk=3, classifier=CLASSIFIER, seed=0)
    assert metrics.auc(result.scores, truth) > metrics.auc(target.max(axis=1), truth) - 0.02 > 0.85
    assert metrics.balanced_accuracy(result.decision, truth) > 0.78
    assert np.array_equal(result.decision, result.scores > 0)
    assert result.shadow_scores.shape == (800,)


def test_ml_leak_finds_nothing_where_nothing_is():
    rng = np.random.default_rng(2)
    shadow, member = planted_outputs(rng, 300, 300, leak=0)
    target, truth = planted_outputs(rng, 500, 500, leak=0)
    result = ml_leak(shadow, member, target, topk=3, classifier=CLASSIFIER, seed=0)
    assert abs(metrics.auc(result.scores, truth) - 0.5) < 0.06


def test_a_shadow_with_many_more_members_does_not_make_everybody_a_member():
    rng = np.random.default_rng(3)
    shadow, member = planted_outputs(rng, 500, 60, leak=2)
    target, truth = planted_outputs(rng, 200, 200, leak=2)
    result = ml_leak(shadow, member, target, topk=1, classifier=CLASSIFIER, seed=0)
    assert 0.1 < result.decision[truth == 0].mean() < 0.4


def test_the_attacks_are_repeatable_and_leave_the_generators_alone():
    rng = np.random.default_rng(4)
    shadow, member = planted_outputs(rng, 40, 30, leak=1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (
        ml_leak(shadow, member, shadow, topk=2, classifier=CLASSIFIER, seed=seed).scores for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_the_largest_outputs_stand_in_descending_order():
    outputs = np.array([[1.0, 3.0, 2.0], [-1.0, -3.0, -2.0]])
    assert np.array_equal(largest_outputs(outputs, 2), [[3, 2], [-1, -2]])
    with pytest.raises(ValueError, match="4 largest of 3"):
        largest_outputs(outputs, 4)


def test_the_classifier_has_two_hidden_layers_of_64_with_tanh():
    sizes = [tuple(layer.weight.shape) for layer in perceptron(3) if isinstance(layer, torch.nn.Linear)]
    assert sizes == [(64, 3), (64, 64), (2, 64)]
    assert sum(isinstance(layer, torch.nn.Tanh) for layer in perceptron(3)) == 2


def test_an_epoch_holds_as_many_members_as_others_and_all_of_the_larger_kind():
    member = np.repeat([1, 0], [10, 4])
    batches = list(balanced_batches(np.arange(14), member, 8, np.random.default_rng(0)))
    drawn = np.concatenate(batches)
    assert [len(batch) for batch in batches] == [8, 8, 4]
    counts = np.bincount(drawn, minlength=14)
    assert (counts[:10] == 1).all() and sorted(counts[10:]) == [2, 2, 3, 3]


def test_a_fifth_of_each_kind_is_held_out():
    member = np.repeat([1, 0], [50, 10])
    trained_on, held_out = split_rows(member, np.random.default_rng(0), 0.2)
    assert sorted([*trained_on, *held_out]) == list(range(60))
    assert member[held_out].sum() == 10 and len(held_out) == 12
    with pytest.raises(Unusable, match="1 members"):
        split_rows(np.array([1, 0, 0]), np.random.default_rng(0), 0.2)


@pytest.mark.parametrize(
    ("losses", "stalled"),
    [
        ([0.7], False),
        ([0.7, 0.695], False),
        ([0.7, 0.695, 0.691], True),
        ([0.7, 0.695, 0.68], False),
        ([0.7, 0.695, 0.685, 0.68], False),
        ([0.7, 0.6, 0.65, 0.61], True),
    ],
)
def test_training_stops_after_two_epochs_that_gain_less_than_a_hundredth(losses, stalled):
    assert has_stalled(losses) == stalled


def test_only_early_stopping_ends_the_training_before_the_last_epoch():
    rng = np.random.default_rng(6)
    shadow, member = planted_outputs(rng, 100, 100, leak=0)
    for early_stopping in (True, False):
        seen = []
        classifier = Classifier(epochs=30, lr=1e-5, batch_size=64, early_stopping=early_stopping)
        count = lambda epochs, seen=seen: (seen.append(epoch) or epoch for epoch in epochs)  # noqa: E731
        ml_leak(shadow, member, shadow, topk=3, classifier=classifier, seed=0, progress=count)
        assert len(seen) == (3 if early_stopping else 30)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 1, 7, 7), (2, 1, 6, 10)])
def test_a_quarter_turn_and_a_half_turn_are_numpys(shape):
    pictures = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert np.allclose(rotate(pictures, 180), pictures[:, :, ::-1, ::-1], atol=1e-5)
    if shape[2] == shape[3]:
        assert np.allclose(rotate(pictures, 90), np.rot90(pictures, axes=(2, 3)), atol=1e-5)


def test_a_small_turn_moves_a_pixel_by_as_much_on_a_wide_picture_as_on_a_high_one():
    """8 pixels right of the centre a point goes 8 sin(10°) = 1.39 pixels up, 8 pixels below it 1.39 to the right."""
    wide = np.zeros((1, 1, 11, 41), np.float32)
    wide[0, 0, 5, 28] = 1
    high = np.zeros((1, 1, 41, 11), np.float32)
    high[0, 0, 28, 5] = 1
    rows, columns = np.nonzero(rotate(wide, 10)[0, 0])
    weights = rotate(wide, 10)[0, 0][rows, columns]
    assert np.average(rows, weights=weights) == pytest.approx(5 - 1.39, abs=0.15)
    assert np.average(columns, weights=weights) == pytest.approx(20 + 7.88, abs=0.15)
    rows, columns = np.nonzero(rotate(high, 10)[0, 0])
    weights = rotate(high, 10)[0, 0][rows, columns]
    assert np.average(columns, weights=weights) == pytest.approx(5 + 1.39, abs=0.15)


def test_no_turn_changes_nothing_and_angles_are_whole_degrees_on_both_sides():
    pictures = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    assert rotate(pictures, 0) is pictures
    assert list(angles(2)) == [-2, -1, 0, 1, 2]


def test_label_only_tells_members_by_how_often_turned_pictures_are_recognised():
    rng = np.random.default_rng(7)
    member = np.repeat([1, 0], [200, 200])
    chance = np.where(member == 1, 0.95, 0.75)[:, None]
    shadow, target = (rng.random((400, 13)) < chance for _ in range(2))
    result = label_only(shadow, member, target, classifier=CLASSIFIER, seed=0)
    assert metrics.auc(result.scores, member) > metrics.auc(target.sum(axis=1), member) - 0.05 > 0.85


# Training a plug-in's network


def tiny_network() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(16, 8),
        torch.nn.BatchNorm1d(8),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(8, 3),
    )


POINTS = np.random.default_rng(8).normal(size=(33, 1, 4, 4)).astype(np.float32)
LABELS = np.arange(33) % 3
TRAINING = {"epochs": 4, "lr": 0.01, "batch_size": 8, "seed": 3, "desc": "shadow"}


def weights_of(network: torch.nn.Module) -> np.ndarray:
    return np.concatenate([tensor.detach().double().numpy().ravel() for tensor in network.state_dict().values()])


def train_tiny(inputs=POINTS, **changes) -> np.ndarray:
    return weights_of(train_plugin(tiny_network, inputs, LABELS, **{**TRAINING, **changes}))


def test_a_training_depends_on_its_settings_alone_and_leaves_all_generators_alone():
    states = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    first = train_tiny()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1]) and random.getstate() == states[2]
    torch.manual_seed(99)
    assert np.array_equal(first, train_tiny())
    assert np.array_equal(first, train_tiny(inputs=lambda index: POINTS[index]))
    for change in ({"epochs": 5}, {"lr": 0.02}, {"batch_size": 11}, {"seed": 4}, {"optimizer": "sgd"}):
        assert not np.array_equal(first, train_tiny(**change)), change


def test_a_network_learns_its_points_and_comes_back_for_evaluation():
    points = POINTS + LABELS[:, None, None, None].astype(np.float32)
    network = train_plugin(tiny_network, points, LABELS, **{**TRAINING, "epochs": 60})
    assert not network.training
    with torch.no_grad():
        predicted = network(torch.from_numpy(points)).argmax(dim=1).numpy()
    assert (predicted == LABELS).mean() > 0.9


def test_a_stopped_training_goes_on_to_the_same_weights_and_a_finished_one_is_not_repeated(tmp_path):
    class Stopped(Exception):
        pass

    loads = []

    def load(index):
        if len(loads) == 12:  # the first points, twice five batches, and then one of the third epoch
            raise Stopped
        loads.append(index)
        return POINTS[index]

    file = tmp_path / "resume.pt"
    with pytest.raises(Stopped):
        train_tiny(load, resume_file=file)
    resumed = train_tiny(resume_file=file)
    assert np.array_equal(resumed, train_tiny())
    loads.clear()
    assert np.array_equal(resumed, train_tiny(load, resume_file=file))
    assert len(loads) == 1  # the first points, which tell whose state it is
    with pytest.raises(UserError, match="lr"):
        train_tiny(resume_file=file, lr=0.5)
    with pytest.raises(UserError, match="made with the code of network.py None, not 12ab: look again$"):
        train_tiny(resume_file=file, code={"network.py": "12ab"}, advice="look again")


SHARED_NETWORK = tiny_network()


@pytest.mark.parametrize(
    ("make_network", "changes", "words"),
    [
        (lambda: SHARED_NETWORK, {}, "get_model() gives the same network each time"),
        (torch.nn.Flatten, {}, "without parameters to train"),
        (lambda: None, {}, "get_model() gives NoneType: let it return a torch.nn.Module"),
        (lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3)), {}, "with lazy layers"),
        (tiny_network, {"batch_size": 2}, "one of the batches would be a single point"),
        (lambda: torch.nn.Linear(5, 3), {}, "does not take points of shape (1, 4, 4)"),
        (lambda: torch.nn.Conv2d(1, 3, 1), {}, "the network answers (33, 3, 4, 4); one output for each class"),
        (
            lambda: tiny_network()[:2],
            {"labels": LABELS + 7},
            "the labels go from 7 to 9, and the network has 8 outputs",
        ),
        (tiny_network, {"optimizer": "lion"}, "there is no optimizer 'lion'; use adam or sgd"),
        (tiny_network, {"lr": 1e30, "optimizer": "sgd"}, "lower the learning rate"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_in_one_line(make_network, changes, words):
    options = {**TRAINING, "labels": LABELS, **changes}
    with pytest.raises(UserError) as refusal:
        train_plugin(make_network, POINTS, options.pop("labels"), **options)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("given", [None, [tiny_network()]])
def test_what_is_no_network_is_refused_in_one_line_when_it_is_tried(given):
    with pytest.raises(UserError, match="gives (NoneType|list): let it return a torch.nn.Module"):
        try_plugin(lambda: given, POINTS, LABELS, seed=3, desc="shadow")


def test_a_network_with_the_same_weights_at_every_seed_is_warned_of(capsys):
    def load_trained():
        network = tiny_network()
        network.load_state_dict(SHARED_NETWORK.state_dict())
        return network

    train_plugin(load_trained, POINTS, LABELS, **TRAINING)
    assert "the same weights at every seed" in capsys.readouterr().out
    train_tiny()
    assert capsys.readouterr().out == ""


def test_a_network_that_ends_in_a_softmax_learns_as_the_one_without_it():
    layers = (torch.nn.Flatten, lambda: torch.nn.Linear(16, 3), lambda: torch.nn.Softmax(dim=1))
    without, ending = (
        weights_of(
            train_plugin(
                lambda number=number: torch.nn.Sequential(*(layer() for layer in layers[:number])),
                POINTS,
                LABELS,
                **TRAINING,
            )
        )
        for number in (2, 3)
    )
    assert np.allclose(without, ending, atol=1e-4)


# Task files

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "privbox"

DATASET = """
import numpy as np
import torch
from torch.utils.data import TensorDataset

def get_dataset():
    rng = np.random.default_rng({seed})
    pictures = rng.normal(size=({points}, *{shape})).astype(np.float32)
    return TensorDataset(torch.from_numpy(pictures), torch.from_numpy(rng.integers(3, size={points})))
"""
MODEL = """
import torch
from torch import nn

def get_model():
    return nn.Sequential(nn.Flatten(), nn.Linear({inputs}, {width}), nn.Tanh(), nn.Linear({width}, 3))
"""
LATE_MODEL = """
from torch import nn

class Net(nn.Sequential):
    def forward(self, inputs):
        from models.parts import FACTOR
        return FACTOR * super().forward(inputs)

def get_model():
    return Net(nn.Flatten(), nn.Linear(36, 3))
"""
SETS = {"members": (0, 30), "others": (1, 14), "shadow_members": (2, 24), "shadow_others": (3, 21), "more": (4, 26)}
SHADOW_ARGS = {
    "target_datasets": ["members", "others"],
    "target_model": "target",
    "shadow_model": "shadow",
    "shadow_datasets": ["shadow_members", "shadow_others"],
    "shadow_epoch": 3,
    "shadow_lr": 0.02,
    "classifier_epoch": 4,
    "classifier_lr": 0.01,
    "batch_size": 8,
}
ARGS = {
    "BASELINE": {"test_datasets": ["members", "others"], "target_model": "target"},
    "ML-LEAK": {**SHADOW_ARGS, "topk": 2},
    "LABEL-ONLY": {**SHADOW_ARGS, "attack_type": "r", "r": 3},
}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A working directory with plug-ins: five data sets, three models of which two have weights."""
    monkeypatch.chdir(tmp_path)
    for name, (seed, points) in SETS.items():
        write_plugin(tmp_path / name, DATASET.format(seed=seed, points=points, shape=(1, 6, 6)))
    for seed, (name, width) in enumerate([("target", 12), ("shadow", 10), ("other", 7)]):
        write_plugin(tmp_path / name, MODEL.format(inputs=36, width=width))
        torch.manual_seed(seed)
        network = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(36, width), torch.nn.Tanh(), torch.nn.Linear(width, 3)
        )
        torch.save(network.state_dict(), tmp_path / name / f"{name}.pt")
    return tmp_path


def write_plugin(folder: Path, code: str) -> None:
    folder.mkdir()
    (folder / f"{folder.name}.py").write_text(code)


def write_entries(file: Path, *entries: tuple[str, dict]) -> Path:
    content = [{"type": "MEMBERSHIP_INFERENCE_ATTACK", "name": name, "args": args} for name, args in entries]
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump(content))
    return file


def run_entries(folder: Path, *entries: tuple[str, dict], seed: int = 0) -> tuple[PrivBoxFindings, dict]:
    """The findings and the stored scores of a run in a folder of its own."""
    file = write_entries(folder / "task.yaml", *entries)
    result = run_privbox(read_privbox(file), folder / "out", task_file=file, seed=seed)
    with np.load(folder / "out" / "privbox.npz") as scores:
        return result, dict(scores)


def test_the_example_is_read_as_it_stands_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    baseline, ml_leak_task, label_only_task = read_privbox(EXAMPLE / "tasks" / "mem_inf.yaml")
    assert [task.attack for task in (baseline, ml_leak_task, label_only_task)] == list(KEYS)
    assert [plugin.name for plugin in baseline.datasets] == ["digits_members", "digits_others"]
    assert baseline.shadow is None and baseline.target.folder == EXAMPLE / "models" / "digits_net"
    assert ml_leak_task.shadow.model.name == "shadow_net" and ml_leak_task.topk == 3 and ml_leak_task.r is None
    assert label_only_task.r == 6 and label_only_task.topk is None
    assert (ml_leak_task.classifier.early_stopping, label_only_task.classifier.early_stopping) == (True, False)


def test_paths_are_of_the_working_directory_first_and_then_of_the_task_files_folder(world):
    file = write_entries(world / "tasks" / "task.yaml", ("BASELINE", ARGS["BASELINE"]))
    assert read_privbox(file)[0].target.folder == world / "target"
    write_plugin(world / "tasks" / "target", MODEL.format(inputs=36, width=12))
    assert read_privbox(file)[0].target.folder == world / "target"
    (world / "target").rename(world / "elsewhere")
    assert read_privbox(file)[0].target.folder == world / "tasks" / "target"


def test_only_a_list_is_of_privboxs_form():
    assert is_privbox([{"type": "x"}]) and not is_privbox({"models": []}) and not is_privbox("text")


def change(name: str, **changes) -> tuple[str, dict]:
    args = {**ARGS[name], **changes}
    return name, {key: value for key, value in args.items() if value is not None}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (change("ML-LEAK", topk=None), "entry 1 (ML-LEAK): the key 'topk' is missing"),
        (change("ML-LEAK", top_k=3), "there is no key 'top_k'; did you mean 'topk'?"),
        (change("BASELINE", batch_size=3), "there is no key 'batch_size'"),
        (change("ML-LEAK", shadow_epoch=0), "shadow_epoch is 0; it must be larger than 0"),
        (change("ML-LEAK", shadow_lr=-1), "shadow_lr is -1; it must be larger than 0"),
        (change("ML-LEAK", classifier_epoch=2.5), "classifier_epoch must be a whole number"),
        (change("LABEL-ONLY", attack_type="d"), "attack_type is 'd'; PrivBox knows r alone"),
        (change("LABEL-ONLY", r=181), "an angle of at most 180 degrees"),
        (change("BASELINE", target_model="nowhere"), "there is no folder nowhere"),
        (change("BASELINE", test_datasets=["members"]), "must be a list of two folders"),
        (change("BASELINE", test_datasets=["members", 3]), "must be a list of two folders"),
        (change("BASELINE", test_datasets=["members", "members"]), "names members twice"),
        (("BASE", ARGS["BASELINE"]), "name is 'BASE'; did you mean BASELINE?"),
        (("ml-leak", ARGS["ML-LEAK"]), "name is 'ml-leak'; did you mean ML-LEAK?"),
        (("ZZZ", {}), "name is 'ZZZ'; use BASELINE or ML-LEAK or LABEL-ONLY"),
    ],
)
def test_a_wrong_entry_is_refused_in_one_line_before_anything_is_run(world, entry, words):
    for plugin in world.glob("*/*.py"):
        plugin.write_text("raise SystemExit('was run')")
    with pytest.raises(UserError) as refusal:
        read_privbox(write_entries(world / "task.yaml", entry))
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models: []\n", "is not a task file of PrivBox"),
        ("[]\n", "is not a task file of PrivBox"),
        ("- 3\n", "entry 1: a mapping (key: value) is wanted here"),
        (
            "- type: MODEL_INVERSION\n  name: BASELINE\n  args: {}\n",
            "entry 1: type is 'MODEL_INVERSION'; use MEMBERSHIP",
        ),
        ("- type: MEMBERSHIP_INFERENCE_ATTACK\n  name: BASELINE\n", "entry 1: the key 'args' is missing"),
    ],
)
def test_a_file_of_another_form_is_refused_in_one_line(tmp_path, text, words):
    with pytest.raises(UserError) as refusal:
        read_privbox(write_task(tmp_path, text))
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("second.py", "holds 2 Python files (second.py, target.py): exactly one is wanted"),
        ("second.pth", "holds 2 files of weights (second.pth, target.pt): leave one"),
        ("target.pdparams", "target.pdparams: these are Paddle weights, which PyTorch cannot read: load them with"),
    ],
)
def test_a_folder_that_is_no_plugin_is_refused_in_one_line(world, file, words):
    (world / "target" / file).write_text("")
    with pytest.raises(UserError) as refusal:
        read_privbox(write_entries(world / "task.yaml", ("BASELINE", ARGS["BASELINE"])))
    assert words in str(refusal.value) and "\n" not in str(refusal.value)
    (world / "target" / "target.py").unlink()


# Running them


def test_a_run_gives_the_report_the_numbers_and_the_scores(world, capsys):
    result, scores = run_entries(world / "run", *ARGS.items())
    printed = capsys.readouterr().out
    assert "warning" not in printed
    assert [attack.name for attack in result.attacks] == list(ARGS)
    assert [attack.questions for attack in result.attacks] == [1, 1, 7]
    assert [(model.name, model.role) for model in result.models] == [("target", "target"), ("shadow", "shadow")]
    points = {dataset.name: dataset.points for dataset in result.datasets}
    assert points == {name: number for name, (_, number) in SETS.items() if name != "more"}
    assert scores["member_2"].tolist() == [True] * 30 + [False] * 14
    target, shadow = result.models
    baseline = result.attacks[0].numbers
    assert baseline["recall"] == target.member_accuracy == scores["decision_1"][:30].mean()
    assert baseline["auc"] == pytest.approx((target.member_accuracy + 1 - target.other_accuracy) / 2)
    assert set(target.sha256) == {"target.py", "target.pt"} and set(shadow.sha256) == {"shadow.py"}
    content = json.loads((world / "run" / "out" / "privbox.json").read_text())
    assert content["attacks"][1]["settings"] == {
        key: value for key, value in ARGS["ML-LEAK"].items() if not isinstance(value, list | str)
    }
    page = (world / "run" / "out" / "privbox.md").read_text()
    for part in (
        "target/target.pt",
        "shadow\\_others",
        "turned by -3 to 3 degrees",
        "## Summary",
        "a guess that calls every",
    ):
        assert part in page
    assert len(list((world / "run" / "out" / "shadows").iterdir())) == 1  # both attacks use the same one


def test_the_report_is_printed_in_privboxs_order(world, capsys):
    result, _ = run_entries(world / "run", ("BASELINE", ARGS["BASELINE"]))
    capsys.readouterr()
    print_privbox(result)
    lines = capsys.readouterr().out.splitlines()
    headings = [line for line in lines if not line.startswith(" ")]
    assert headings[1:] == ["Models:", "Data sets:", "Attacks:", "Summary:"]
    assert "  - members: 30 points, members of target" in lines


CHANGES = {
    "target_datasets": ["members", "more"],
    "target_model": "other",
    "shadow_model": "other",
    "shadow_datasets": ["shadow_members", "more"],
    "shadow_epoch": 4,
    "shadow_lr": 0.03,
    "classifier_epoch": 2,
    "classifier_lr": 0.02,
    "batch_size": 12,
    "topk": 3,
    "r": 2,
}


@pytest.mark.slow
def test_each_key_changes_what_happens(world):
    """All but `attack_type`, whose only value is r."""
    for name in ("ML-LEAK", "LABEL-ONLY"):
        keys = KEYS[name].keys() - {"attack_type"}
        entries = [change(name), *(change(name, **{key: CHANGES[key]}) for key in sorted(keys))]
        _, scores = run_entries(world / name, *entries)
        usual = scores["scores_1"]
        for number, key in enumerate(sorted(keys), start=2):
            changed = scores[f"scores_{number}"]
            assert changed.shape != usual.shape or not np.array_equal(changed, usual), (name, key)
    entries = [change("BASELINE"), change("BASELINE", target_model="other")]
    _, scores = run_entries(world / "baseline", *entries, change("BASELINE", test_datasets=["members", "more"]))
    assert not np.array_equal(scores["scores_1"], scores["scores_2"])
    assert len(scores["scores_3"]) == 30 + 26


def test_the_keys_of_the_shadows_training_reach_it(world):
    changes = ({}, {"shadow_epoch": 4}, {"shadow_lr": 0.03}, {"batch_size": 12}, {"classifier_epoch": 2})
    run_entries(world / "run", *(change("ML-LEAK", **keys) for keys in changes))
    files = sorted((world / "run" / "out" / "shadows").iterdir())
    weights = {torch.load(file, weights_only=True)["model"]["1.weight"].numpy().tobytes() for file in files}
    assert len(files) == len(weights) == 4  # the classifier's keys need no other shadow model


def test_the_keys_of_the_classifier_and_the_seed_reach_it(world):
    tasks = read_privbox(write_entries(world / "task.yaml", ("LABEL-ONLY", ARGS["LABEL-ONLY"])))
    options = fitting(tasks[0], open_run(tasks, world / "out", 5, torch.device("cpu"), 1))
    assert options["classifier"] == Classifier(epochs=4, lr=0.01, batch_size=8, early_stopping=False)
    assert options["seed"] == 5


def test_a_run_is_repeatable_and_goes_by_its_seed(world):
    scores = [run_entries(world / name, *ARGS.items(), seed=seed)[1] for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    for number in (2, 3):
        first, again, other = (of_run[f"scores_{number}"] for of_run in scores)
        assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_no_weights_are_loaded_into_the_shadow_and_none_is_trained_twice(world, monkeypatch):
    _, first = run_entries(world / "run", ("ML-LEAK", ARGS["ML-LEAK"]))
    (world / "shadow" / "shadow.pt").unlink()
    monkeypatch.setattr(plugin_training, "train_epoch", None)  # a training that is repeated fails
    _, again = run_entries(world / "run", ("ML-LEAK", ARGS["ML-LEAK"]))
    assert np.array_equal(first["scores_1"], again["scores_1"])


def test_a_shadow_may_import_from_its_folder_whenever_it_answers(world):
    (world / "shadow" / "models").mkdir()
    (world / "shadow" / "models" / "parts.py").write_text("FACTOR = 2\n")
    (world / "shadow" / "shadow.py").write_text(LATE_MODEL)
    result, _ = run_entries(world / "run", ("ML-LEAK", ARGS["ML-LEAK"]))
    assert result.attacks[0].name == "ML-LEAK"


def test_a_shadow_is_trained_anew_where_a_module_beside_its_file_has_changed(world):
    (world / "shadow" / "models").mkdir()
    (world / "shadow" / "shadow.py").write_text(LATE_MODEL)
    for factor in (2, 3):
        (world / "shadow" / "models" / "parts.py").write_text(f"FACTOR = {factor}\n")
        run_entries(world / "run", ("ML-LEAK", ARGS["ML-LEAK"]))
    assert len(list((world / "run" / "out" / "shadows").iterdir())) == 2


def test_a_shadow_on_the_targets_own_data_swapped_is_run_with_a_warning(world, capsys):
    """As PrivBox's example has it for LABEL-ONLY."""
    result, _ = run_entries(world / "run", change("LABEL-ONLY", shadow_datasets=["others", "members"]))
    assert result.attacks[0].shared_data == ("others", "members")
    (warning,) = json.loads((world / "run" / "out" / "privbox.json").read_text())["attacks"][0]["warnings"]
    assert "the shadow model's data sets are the target's own (others, members)" in warning and "mean little" in warning
    assert f"warning: {warning}" in capsys.readouterr().out
    assert warning in (world / "run" / "out" / "privbox.md").read_text()


def test_members_and_others_are_asked_in_one_mixed_order_and_answers_come_back_in_the_order_of_the_points(world):
    file = write_entries(world / "task.yaml", ("BASELINE", ARGS["BASELINE"]))
    tasks = read_privbox(file)
    run = open_run(tasks, world / "out", 0, torch.device("cpu"), 1)
    pair = run.pairs[tasks[0].datasets]
    in_order = np.stack([*pair.members.load(np.arange(30)), *pair.others.load(np.arange(14))])
    asked = []

    def answer(inputs):
        asked.append(inputs)
        return inputs.reshape(len(inputs), -1)

    model = AskedModel("echo", "target", tasks[0].target, answer, ())
    assert np.array_equal(ask(run, model, tasks[0].datasets, 8), in_order.reshape(44, -1))
    assert [len(inputs) for inputs in asked[-6:]] == [8, 8, 8, 8, 8, 4]
    members = {picture.tobytes() for picture in in_order[:30]}
    shares = [np.mean([picture.tobytes() in members for picture in inputs]) for inputs in asked[-6:-1]]
    assert all(0 < share < 1 for share in shares)
    asked.clear()
    ask(run, model, tasks[0].datasets, 8)
    assert not asked  # a question is asked once


def test_a_model_whose_answers_depend_on_the_batch_is_asked_point_by_point_and_once(world, capsys):
    tasks = read_privbox(write_entries(world / "task.yaml", ("BASELINE", ARGS["BASELINE"])))
    sizes = []

    def answer(inputs):
        sizes.append(len(inputs))
        return inputs.reshape(len(inputs), -1) * inputs.max()

    model = AskedModel("scaled", "target", tasks[0].target, answer, ())
    answers = []
    for _ in range(2):
        sizes.clear()
        run = open_run(tasks, world / "out", 0, torch.device("cpu"), 1)
        answers += [ask(run, model, tasks[0].datasets, 8, angle) for angle in (0, 90)]
        answers_asked = sizes[2 + 32 :]  # after a batch, the same batch, and its points alone
        assert answers_asked == ([] if len(answers) > 2 else [1] * 2 * 44)
    np.testing.assert_array_equal(answers[:2], answers[2:])
    assert "the target model target: answers depend on what else is in the batch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("entry", "replaced", "words"),
    [
        (change("ML-LEAK", topk=4), {}, "topk is 4, and a model has 3 outputs"),
        (change("LABEL-ONLY"), {"shape": (36,)}, "LABEL-ONLY turns pictures, and the points of"),
        (change("LABEL-ONLY"), {"shape": (6, 6, 1)}, "have shape (6, 6, 1)"),
        (change("BASELINE"), {"shape": (1, 5, 5)}, "gives no answer to inputs"),
    ],
)
def test_points_and_models_that_do_not_fit_a_task_are_refused_before_training(
    world, monkeypatch, entry, replaced, words
):
    monkeypatch.setattr(plugin_training, "train_epoch", None)
    if replaced:
        for name, (seed, points) in SETS.items():
            (world / name / f"{name}.py").write_text(DATASET.format(seed=seed, points=points, **replaced))
    with pytest.raises(UserError) as refusal:
        run_entries(world / "run", entry)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)
    assert not (world / "run" / "out").exists()


def test_data_sets_of_unequal_shape_are_refused(world):
    (world / "others" / "others.py").write_text(DATASET.format(seed=0, points=9, shape=(1, 6, 5)))
    with pytest.raises(UserError, match="members are 30 arrays of 1 x 6 x 6 .*, non-members are 9 arrays of 1 x 6 x 5"):
        run_entries(world / "run", change("BASELINE"))


def test_a_model_with_a_softmax_and_one_without_are_compared_as_posteriors():
    rng = np.random.default_rng(9)
    shadow, target = (rng.normal(size=(n, 4)).astype(np.float32) for n in (5, 6))
    posteriors = posterior(shadow), posterior(target)
    for shadow_outputs, outputs in ((shadow, posteriors[1]), (posteriors[0], target), posteriors):
        assert all(np.allclose(*pair) for pair in zip(make_alike(shadow_outputs, outputs), posteriors, strict=True))
    unchanged = make_alike(shadow, target)
    assert unchanged[0] is shadow and unchanged[1] is target


def test_the_example_runs_and_finds_that_its_target_memorised(tmp_path, monkeypatch):
    """With fewer epochs than the example has, so that it is quick."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EXAMPLE, tmp_path / "privbox", ignore=shutil.ignore_patterns("*.pt", "__pycache__"))
    spec = importlib.util.spec_from_file_location("train_target", tmp_path / "privbox" / "train_target.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "EPOCHS", 60)
    script.main()
    file = tmp_path / "privbox" / "tasks" / "mem_inf.yaml"
    file.write_text(file.read_text().replace("shadow_epoch: 200", "shadow_epoch: 20").replace("r: 6", "r: 1"))
    result = run_privbox(read_privbox(file), tmp_path / "out", task_file=file, seed=0)
    assert [attack.name for attack in result.attacks] == list(KEYS)
    assert result.attacks[0].numbers["auc_lo"] > 0.52
    assert {dataset.points for dataset in result.datasets} == {600, 300, 297}
