"""The signals file: what is read back, what is refused and in which words, and what the attacker is not shown."""

import numpy as np
import pytest

from compleak.queries import signals_file
from core.errors import UserError


def sound_arrays() -> dict[str, np.ndarray]:
    """Two models, eight points, three classes; each model is audited on two members and two non-members."""
    rng = np.random.default_rng(0)
    return {
        "logits": rng.normal(size=(2, 8, 3)).astype(np.float32),
        "labels": np.arange(8) % 3,
        "member": np.array([[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]], dtype=bool),
        "audit": np.repeat([[1, 0], [0, 1]], 4, axis=1).astype(bool),
    }


def write(tmp_path, **changes):
    """A file of the sound arrays with these changes; None leaves an array out."""
    file = tmp_path / "signals.npz"
    arrays = {**sound_arrays(), **changes}
    np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
    return file


def test_a_sound_file_is_read_back(tmp_path):
    record = signals_file.load(write(tmp_path))
    assert record.truth.tolist() == [True, True, False, False]
    assert record.probes == {}
    for name, array in sound_arrays().items():
        np.testing.assert_array_equal(getattr(record, name), array)


def test_a_probe_is_stored_as_an_array_of_its_name(tmp_path):
    sensitivity = np.ones((2, 8, 3), dtype=np.float32)
    file = tmp_path / "signals.npz"
    signals_file.write(file, {**sound_arrays(), "sensitivity": sensitivity}, {"made": "here"})
    record = signals_file.load(file)
    assert list(record.probes) == ["sensitivity"]
    np.testing.assert_array_equal(record.probes["sensitivity"], sensitivity)
    assert signals_file.read_source(file) == {"made": "here"}


def test_single_rows_can_be_read_and_no_file_is_opened_for_none(tmp_path):
    sensitivity = np.random.default_rng(1).random((2, 8, 3))
    file = write(tmp_path, sensitivity=sensitivity)
    nothing, second = signals_file.read_rows(file, [None, 1])
    assert nothing is None
    np.testing.assert_array_equal(second.logits, sound_arrays()["logits"][1])
    np.testing.assert_array_equal(second.probes["sensitivity"], sensitivity[1])
    (whole,) = signals_file.read_rows(file, [...])
    assert whole.logits.shape == (2, 8, 3)
    assert signals_file.read_rows(tmp_path / "nothing.npz", [None]) == [None]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": None}, "labels is missing"),
        ({"logits": None, "probs": np.zeros(3)}, r"logits is missing \(the file holds probs\)"),
        ({"logits": np.zeros((2, 8, 0))}, "logits has shape"),
        ({"logits": np.zeros((2, 8, 3), int)}, "whole numbers"),
        ({"logits": np.zeros((2, 8, 3), bool)}, "logits has type bool"),
        ({"labels": np.arange(8)}, "outside 0..2"),
        ({"labels": np.arange(8) - 1}, "outside 0..2"),
        ({"labels": np.zeros(7, int)}, "labels has shape"),
        ({"labels": np.array(["cat"] * 8)}, "labels has type <U3: .* column"),
        ({"member": np.full((2, 8), 0.3)}, "member has type float64: bool"),
        ({"member": np.zeros((2, 8), bool)}, "0 members of 4 points"),
        ({"audit": np.ones((2, 8), bool)}, "2 members of 8 points"),
        ({"audit": np.arange(4)}, "audit has type int64: bool of shape"),
        ({"sensitivity": np.zeros((2, 8, 2))}, "sensitivity has shape"),
        ({"sensitivity": np.full((2, 8, 3), np.nan)}, "sensitivity is not finite"),
        ({"sensitivity": np.full((2, 8, 3), -1.0)}, "sensitivity is negative"),
    ],
)
def test_a_wrong_file_is_refused_with_a_message_that_says_why(tmp_path, changes, says):
    with pytest.raises(UserError, match=says):
        signals_file.load(write(tmp_path, **changes))


LOGITS = sound_arrays()["logits"]


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def with_value(value, dtype=np.float32):
    logits = LOGITS.astype(dtype)
    logits[1, 2, 0] = value
    return logits


def one_model_of_probabilities():
    return np.stack([LOGITS[0], softmax(LOGITS[1])])


def one_hot(classes):
    return np.eye(3, dtype=np.float32)[classes]


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        ("logits", softmax(LOGITS), "probabilities"),
        ("logits", softmax(LOGITS).astype(np.float16), "probabilities"),
        ("logits", softmax(LOGITS).round(3), "probabilities"),
        ("logits", softmax(LOGITS[..., :2]), "probabilities"),
        ("logits", softmax(100 * LOGITS), "probabilities"),
        ("logits", one_model_of_probabilities(), "probabilities .* as model 1 shows"),
        ("logits", 100 * softmax(LOGITS), "percentages"),
        ("logits", (100 * softmax(30 * LOGITS)).astype(np.float16), "percentages"),
        ("logits", np.round(255 * softmax(LOGITS)), "counts"),
        ("logits", -np.log(softmax(LOGITS)), "negative log-probabilities"),
        ("logits", LOGITS[..., :1], "one value per point: two columns"),
        ("logits", LOGITS[..., 0], "one value per point: two columns"),
        ("logits", 1 / (1 + np.exp(-LOGITS[..., :1])), "one probability per point: two columns"),
        ("logits", with_value(-np.inf), "not finite: 1 values, the first -inf of model 1, point 2"),
        ("logits", with_value(1e300, np.float64), r"values up to 1e\+300, beyond float32"),
        ("logits", softmax(LOGITS) - 1e-8, "probabilities"),
        ("logits", LOGITS.transpose(1, 0, 2), "expected"),
        ("logits", LOGITS.transpose(0, 2, 1), "expected"),
        ("logits", LOGITS.transpose(2, 1, 0), "expected"),
        ("labels", np.arange(8) % 3 + 1, "from 1 to 3"),
        ("labels", one_hot(np.arange(8) % 3), "one-hot"),
        ("labels", one_hot(np.arange(8) % 3).astype(int), "one-hot"),
        ("labels", (np.arange(8) % 3).astype(float), "type float64"),
        ("labels", (np.arange(8) % 3)[:, None], "shape"),
        ("labels", np.stack([np.arange(8) % 3] * 2), "the same row for each model"),
        ("labels", np.arange(8) % 2 == 1, "type bool"),
        ("member", sound_arrays()["member"].astype(int), "holds 0 and 1: bool is needed"),
        ("member", sound_arrays()["member"].astype(float), "holds 0 and 1: bool is needed"),
        ("member", np.where(sound_arrays()["member"], 1, -1), "holds -1 and 1: bool is needed"),
        ("audit", sound_arrays()["audit"].astype(np.uint8), "holds 0 and 1: bool is needed"),
        ("audit", sound_arrays()["audit"].T, "shape"),
    ],
)
def test_an_array_of_another_meaning_is_refused_with_a_line_of_code_that_corrects_it(tmp_path, name, array, says):
    with pytest.raises(UserError, match=says) as refusal:
        signals_file.load(write(tmp_path, **{name: array}))
    line, _, definition = mending_line(str(refusal.value)).partition(" with p = ")
    names = {"np": np, name: array}
    if definition:
        names["p"] = eval(definition, names)
    mended = {"labels": np.arange(8) % 2, name: eval(line, names)}  # two classes, since some cases have no third
    signals_file.load(write(tmp_path, **mended))


def mending_line(message: str) -> str:
    """`store LINE; see docs`, or after another sentence `..., or of this array LINE; see docs`."""
    line = message.split("; see docs")[0].split("store ")[-1]
    return line.split("or of this array ")[-1]


@pytest.mark.parametrize(
    ("logits", "says"),
    [
        (with_value(np.nan), "not finite: 1 values, the first nan of model 1, point 2"),
        (with_value(np.inf), "not finite: 1 values, the first inf of model 1, point 2: ask the model again"),
        (one_hot(np.arange(16).reshape(2, 8) % 3), "one-hot answers"),
        (np.zeros((8, 3)), r"logits\[None\]"),
        (LOGITS.astype(object), "logits holds Python objects: store np.array\\(logits.tolist"),
    ],
)
def test_logits_that_no_line_of_code_can_correct_are_refused_too(tmp_path, logits, says):
    with pytest.raises(UserError, match=says):
        signals_file.load(write(tmp_path, logits=logits))


@pytest.mark.parametrize(
    "logits",
    [
        np.log(softmax(LOGITS)),
        LOGITS.astype(np.float16),
        LOGITS.astype(">f8"),
        LOGITS - LOGITS.mean(axis=-1, keepdims=True),  # centred: rows sum to 0
        np.maximum(LOGITS, 0),
        np.zeros_like(LOGITS),
        np.full_like(LOGITS, 0.7),
        np.abs(LOGITS) * 0.1,
        LOGITS * 1e-3 + [0.2, 1.5, 0.4],  # a model that has unlearnt all but the bias of its last layer
    ],
)
def test_logits_of_any_kind_are_taken_as_they_are(tmp_path, logits):
    record = signals_file.load(write(tmp_path, logits=logits))
    np.testing.assert_array_equal(record.logits, logits)
    assert record.logits.dtype.isnative


def test_values_between_0_and_1_that_do_not_sum_to_1_are_taken_with_a_warning(tmp_path, capsys):
    signals_file.load(write(tmp_path, logits=1 / (1 + np.exp(-3 * LOGITS))))
    assert "all logits lie between 0 and 1" in capsys.readouterr().out
    signals_file.load(write(tmp_path))
    assert capsys.readouterr().out == ""


def test_a_truncated_file_is_named(tmp_path):
    file = write(tmp_path)
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(UserError, match="signals.npz is not a complete"):
        signals_file.load(file)


def test_a_flipped_bit_never_ends_in_a_traceback(tmp_path):
    """Every 40th bit; among them streams that zlib refuses, and entries that seem encrypted or of another version."""
    file = tmp_path / "signals.npz"
    signals_file.write(file, sound_arrays(), {})
    sound = file.read_bytes()
    refused = 0
    for bit in range(0, 8 * len(sound), 40):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        assert signals_file.read_source(file) in (None, {})
        try:
            signals_file.load(file)
        except UserError:
            refused += 1
    assert refused > 50


def test_files_about_different_points_are_refused_together(tmp_path):
    record = signals_file.load(write(tmp_path))
    signals_file.same_points([record, record], ["a", "b"])
    with pytest.raises(UserError, match="a and b differ in labels"):
        signals_file.same_points([record, record._replace(labels=record.labels[::-1])], ["a", "b"])
    with pytest.raises(UserError, match="a and b differ in the shape of logits"):
        signals_file.same_points([record, record._replace(logits=record.logits[..., :2])], ["a", "b"])


def test_only_the_victims_membership_is_withheld(tmp_path):
    record = signals_file.load(write(tmp_path))
    view = signals_file.attacker_view(record)
    assert view.member.tolist() == [[-1, -1, -1, -1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]]
    swapped = record.member.copy()
    swapped[0, :4] = ~swapped[0, :4]
    assert np.array_equal(signals_file.attacker_view(record._replace(member=swapped)).member, view.member)


def test_points_that_no_shadow_model_saw_are_not_known_to_lie_outside_the_victims_data(tmp_path):
    record = signals_file.load(write(tmp_path))
    extra = [np.concatenate([array, array[:, :2]], axis=1) for array in (record.logits, record.member, record.audit)]
    logits, member, audit = extra
    member[:, -2:] = audit[:, -2:] = False  # asked about, and nobody's
    wider = record._replace(logits=logits, member=member, audit=audit, labels=np.r_[record.labels, 0, 0])
    assert signals_file.attacker_view(wider).member[0].tolist() == [-1, -1, -1, -1, 0, 0, 0, 0, -1, -1]


def test_where_shadow_models_saw_the_victims_points_no_point_is_known_to_lie_outside(tmp_path):
    record = signals_file.load(write(tmp_path))
    member = record.member.copy()
    member[1, 0] = True  # one of the victim's audited points
    assert (signals_file.attacker_view(record._replace(member=member)).member[0] == -1).all()
