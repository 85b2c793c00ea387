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


def test_a_probe_is_an_array_of_its_own_name(tmp_path):
    sensitivity = np.ones((2, 8, 3), dtype=np.float32)
    file = tmp_path / "signals.npz"
    signals_file.write(file, {**sound_arrays(), "sensitivity": sensitivity}, {"made": "here"})
    record = signals_file.load(file)
    assert list(record.probes) == ["sensitivity"]
    np.testing.assert_array_equal(record.probes["sensitivity"], sensitivity)
    assert signals_file.read_source(file) == {"made": "here"}


def test_rows_are_read_alone_and_only_where_they_are_wanted(tmp_path):
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
        ({"logits": np.zeros((2, 8))}, "logits has shape"),
        ({"logits": np.full((2, 8, 3), np.nan)}, "not finite"),
        ({"labels": np.arange(8)}, "outside 0..2"),
        ({"labels": np.zeros(7, int)}, "labels has shape"),
        ({"member": np.zeros((2, 8), int)}, "member has type"),
        ({"member": np.zeros((2, 8), bool)}, "0 members of 4 points"),
        ({"audit": np.ones((2, 8), bool)}, "2 members of 8 points"),
        ({"sensitivity": np.zeros((2, 8, 2))}, "sensitivity has shape"),
        ({"sensitivity": np.full((2, 8, 3), np.nan)}, "sensitivity is not finite"),
        ({"labels": np.array([None] * 8)}, "not a readable signals file"),
    ],
)
def test_a_wrong_file_is_refused_in_words(tmp_path, changes, says):
    with pytest.raises(UserError, match=says):
        signals_file.load(write(tmp_path, **changes))


def test_a_truncated_file_is_named(tmp_path):
    file = write(tmp_path)
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(UserError, match="signals.npz is not a complete"):
        signals_file.load(file)


def test_no_flipped_bit_ends_in_anything_but_words(tmp_path):
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


def test_files_about_other_points_are_not_taken_together(tmp_path):
    record = signals_file.load(write(tmp_path))
    signals_file.same_points([record, record], ["a", "b"])
    with pytest.raises(UserError, match="a and b differ in labels"):
        signals_file.same_points([record, record._replace(labels=record.labels[::-1])], ["a", "b"])
    with pytest.raises(UserError, match="a and b differ in the shape of logits"):
        signals_file.same_points([record, record._replace(logits=record.logits[..., :2])], ["a", "b"])


def test_the_victims_membership_is_withheld_and_nothing_else(tmp_path):
    record = signals_file.load(write(tmp_path))
    view = signals_file.attacker_view(record)
    assert view.member.tolist() == [[-1, -1, -1, -1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]]
    swapped = record.member.copy()
    swapped[0, :4] = ~swapped[0, :4]
    assert np.array_equal(signals_file.attacker_view(record._replace(member=swapped)).member, view.member)
