"""What attackers are shown: the order of queries, the checks of foreign files, and the withheld membership."""

import numpy as np
import pytest

from compleak import metrics, signals
from compleak.audit import null_control
from core.errors import UserError
from data import splits


def record(**changes):
    rng = np.random.default_rng(0)
    member = np.array([[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]], dtype=bool)
    audit = np.repeat([[1, 0], [0, 1]], 4, axis=1).astype(bool)
    made = {
        "logits": rng.normal(size=(2, 8, 3)).astype(np.float32),
        "labels": np.arange(8) % 3,
        "member": member,
        "audit": audit,
    }
    return {**made, **changes}


def written(tmp_path, **changes):
    np.savez(tmp_path / "signals.npz", **{k: v for k, v in record(**changes).items() if v is not None})
    return tmp_path / "signals.npz"


def test_a_sound_file_is_read_back(tmp_path):
    found = signals.load(written(tmp_path))
    assert found.truth.tolist() == [True, True, False, False] and found.sensitivity is None


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
        signals.load(written(tmp_path, **changes))


def test_a_truncated_file_is_named(tmp_path):
    file = written(tmp_path)
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(UserError, match="signals.npz is not a complete"):
        signals.load(file)


def test_no_flipped_bit_ends_in_anything_but_words(tmp_path):
    """Every 40th bit; among them streams that zlib refuses, and entries that seem encrypted or of another version."""
    file, refused = tmp_path / "signals.npz", 0
    np.savez_compressed(file, source=np.array("{}"), **record())
    sound = file.read_bytes()
    for bit in range(0, 8 * len(sound), 40):
        spoilt = bytearray(sound)
        spoilt[bit // 8] ^= 1 << bit % 8
        file.write_bytes(spoilt)
        assert signals._source(file) in (None, {})
        try:
            signals.load(file)
        except UserError:
            refused += 1
    assert refused > 50


def test_the_victims_membership_is_withheld_and_nothing_else(tmp_path):
    found = signals.load(written(tmp_path))
    view = signals.attacker_view(found)
    assert view.member.tolist() == [[-1, -1, -1, -1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]]
    shuffled = found.member.copy()
    shuffled[0, :4] = ~shuffled[0, :4]
    assert np.array_equal(signals.attacker_view(found._replace(member=shuffled)).member, view.member)


def test_members_and_half_of_the_non_members_are_asked_in_one_call():
    split = splits.make_split(60, 1, seed=7)
    audit = splits.make_audit(split, seed=7)
    first, second = signals.query_order(split, audit)
    half = len(audit.victim.test) // 2
    assert set(first) == set(audit.victim.train) | set(audit.victim.test[:half])
    assert set(second) == set(audit.victim.test[half:]) | set(split.pool)


def test_signals_are_what_the_models_answer_to_the_images(tiny_run):
    import torch

    from compleak import compression, runs
    from compleak.training import ask

    file = signals.collect(tiny_run, "pruning_0.6", torch.device("cpu"), 32, draws=1)
    found, points = signals.load(file), signals.points(file)
    split, audit = runs.split(tiny_run)
    data = runs.dataset(tiny_run)
    assert np.array_equal(found.labels, data.labels[points])
    for row, role in enumerate(tiny_run.roles):
        model = compression.load_model(tiny_run, "pruning_0.6", role)
        again = ask(model, data.images[points], torch.device("cpu"), 7)
        np.testing.assert_allclose(found.logits[row], again, atol=1e-4)
        assert set(points[found.member[row]]) == set(split.pairs[row].train) & set(points)
        assert set(points[found.audit[row]]) == set(np.concatenate(audit.pairs[row]))
    assert np.isfinite(found.sensitivity[found.audit]).all() and np.isnan(found.sensitivity[~found.audit]).all()
    before = file.stat().st_mtime_ns
    assert signals.collect(tiny_run, "pruning_0.6", torch.device("cpu"), 32, draws=1).stat().st_mtime_ns == before


def test_without_a_flag_the_answers_at_hand_say_how_many_draws_there_are(tiny_run, monkeypatch):
    import torch

    def collect(**draws):
        return signals.collect(tiny_run, "pruning_0.7", torch.device("cpu"), 32, **draws)

    file = collect(draws=1)
    monkeypatch.setattr(signals, "answers", None)  # nobody is asked again
    assert collect() == file and signals.draws_of(tiny_run, "pruning_0.7", 3) == 3
    file.unlink()  # what a model said ahead of the others counts as well
    monkeypatch.undo()
    signals.ask_ahead(tiny_run, "pruning_0.7", tiny_run.roles[1], torch.device("cpu"), 32, 1)
    assert signals.draws_of(tiny_run, "pruning_0.7", None) == 1
    collect()


def test_the_null_control_finds_a_transform_that_only_members_get():
    rng = np.random.default_rng(0)
    truth = np.arange(4000) < 2000
    honest = rng.normal(size=4000) + truth  # a leak, but one path for all points
    scores, _, half = null_control(honest, honest > 0, truth)
    assert abs(metrics.auc(scores, half) - 0.5) < 0.04
    betrayed = honest + 2 * (np.arange(4000) < 3000)  # the members' call, with half of the non-members, is augmented
    scores, _, half = null_control(betrayed, betrayed > 0, truth)
    assert metrics.auc(scores, half) > 0.8
