"""What models are asked beside their plain answer: which views, which noise, about which points, and what is kept."""

import numpy as np
import pytest
import torch

from compleak.queries import answers, collect, signals_file
from compleak.queries.probes import PROBES
from compleak.queries.views import as_stored
from compleak.runs.run import dataset
from compleak.runs.variants import ORIGINAL, Variant
from compleak.training.evaluate import predict
from compleak.training.finished import load_model
from core.errors import UserError
from data.inputs import FEATURES, IMAGES
from data.noise import flip_bits, noise_for_pictures, noise_for_rows
from data.views import PAD, shift_and_flip, shifts_and_flips
from tests.test_signals_file import write

MACHINE = {"device": torch.device("cpu"), "batch_size": 32}
ASKED = {"sensitivity": 0, "augmented": 2, "correct": 4, "noise": 2}


# Views and noise


def test_the_first_views_are_the_picture_the_mirrored_picture_and_a_grid_and_all_are_162():
    views = shifts_and_flips(flip=True)
    assert len(views) == len({tuple(view) for view in views}) == 162
    assert views[0].tolist() == [PAD, PAD, 0] and views[1].tolist() == [PAD, PAD, 1]
    assert set(views[:18, :2].ravel().tolist()) == {PAD - 2, PAD, PAD + 2}
    assert len(shifts_and_flips(flip=False)) == 81 and not shifts_and_flips(flip=False)[:, 2].any()


def test_a_shifted_picture_is_what_training_makes_of_it():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(1, 256, size=(1, 32, 32, 3), dtype=np.uint8))
    for view in shifts_and_flips(flip=True)[::7]:
        trained_on = IMAGES.augmented_batch(IMAGES.pad(images), torch.tensor([0]), torch.from_numpy(view[None]))
        np.testing.assert_array_equal(shift_and_flip(images[0].numpy(), view), trained_on[0].numpy())


def test_a_large_picture_is_shifted_in_proportion():
    picture = np.zeros((64, 128), np.uint8)
    picture[32, 64] = 1
    moved = shift_and_flip(picture, np.array([PAD + 1, PAD - 2, 0]))
    assert np.argwhere(moved).tolist() == [[32 - 2, 64 + 8]]


def test_bits_are_flipped_as_often_as_the_strength_says_and_never_twice():
    rng = np.random.default_rng(1)
    table = rng.integers(0, 2, size=(50, 40)).astype(np.uint8)
    noise = noise_for_rows(table)
    assert max(noise.levels) == 20
    inputs = FEATURES.to_input(torch.from_numpy(table))
    generator = torch.Generator().manual_seed(0)
    for level in noise.levels:
        flipped = flip_bits(inputs, level, generator)
        assert ((flipped != inputs).sum(dim=1) == level).all() and flipped.unique().tolist() == [0, 1]


def test_noise_on_real_features_is_as_large_as_they_vary():
    table = np.random.default_rng(2).normal(size=(4000, 3)).astype(np.float32) * np.float32([1, 10, 100])
    noise = noise_for_rows(table)
    inputs = torch.from_numpy(table)
    moved = noise.add(inputs, 0.5, torch.Generator().manual_seed(0)) - inputs
    assert moved.std(dim=0).numpy() == pytest.approx([0.5, 5, 50], rel=0.1)
    pictures = noise_for_pictures(table).add(torch.zeros(4, 3, 32, 32), 0.2, torch.Generator().manual_seed(0))
    assert float(pictures.std()) == pytest.approx(0.2, rel=0.05)


# Asking


@pytest.fixture(scope="module")
def asked(tiny_run):
    """The file of a variant that was asked with all probes but the boundary."""
    return collect.collect(tiny_run, Variant("pruning", "0.9"), ASKED, **MACHINE)


def test_probes_are_what_the_model_answers_about_the_views(tiny_run, asked):
    record = signals_file.load(asked)
    data, points = dataset(tiny_run), signals_file.points(asked)
    views = shifts_and_flips(data.flip)
    model = load_model(tiny_run, Variant("pruning", "0.9"), tiny_run.roles[1]).eval()
    x = np.flatnonzero(record.audit[1])[3]
    pictures = np.stack([shift_and_flip(data.images[points[x]], view) for view in views[:4]])
    logits = predict(model, IMAGES.to_input(torch.from_numpy(pictures))).numpy()
    np.testing.assert_allclose(record.probes["augmented"][1, x], as_stored(logits[:2]), atol=0.01)
    np.testing.assert_array_equal(record.probes["correct"][1, x], logits.argmax(axis=1) == record.labels[x])
    first = as_stored(record.logits[record.audit])
    np.testing.assert_allclose(record.probes["augmented"][record.audit][:, 0], first, atol=0.01)
    assert set(np.unique(record.probes["noise"][record.audit])) <= {0, 0.5, 1}


def test_each_probe_is_asked_about_the_points_that_attacks_need_and_no_others(asked):
    record = signals_file.load(asked)
    of_outsiders = np.isfinite(record.probes["augmented"]).all(axis=(2, 3))
    np.testing.assert_array_equal(of_outsiders, record.audit | ~record.member)
    np.testing.assert_array_equal(np.isfinite(record.probes["noise"]).all(axis=2), record.audit)
    assert not record.probes["correct"][~record.audit].any()
    assert record.probes["augmented"].dtype == np.float16


def test_a_further_probe_asks_for_nothing_that_is_there(tiny_run, asked, monkeypatch):
    before = signals_file.load(asked)
    monkeypatch.setattr(answers, "ask", None)  # the plain answers
    for name in ("augmented", "correct"):
        monkeypatch.setitem(PROBES, name, PROBES[name]._replace(query=None))
    more = collect.collect(tiny_run, Variant("pruning", "0.9"), {"noise": 1}, **MACHINE)
    after = signals_file.load(more)
    np.testing.assert_array_equal(after.logits, before.logits)
    np.testing.assert_array_equal(after.probes["augmented"], before.probes["augmented"])
    assert set(np.unique(after.probes["noise"][after.audit])) <= {0, 1}
    kept = collect.collect(tiny_run, Variant("pruning", "0.9"), {}, **MACHINE)
    assert list(signals_file.load(kept).probes) == ["augmented", "correct", "noise"]


def test_files_from_before_there_were_other_probes_hold_good(tiny_run):
    amounts = answers.probe_amounts(tiny_run, ORIGINAL, {"sensitivity": 1})
    source = answers.Question(tiny_run, answers.targets_of(tiny_run), ORIGINAL, tiny_run.roles[0], amounts).source()
    assert source["draws"] == 1
    assert not {probe.amount_key for name, probe in PROBES.items() if name != "sensitivity"} & source.keys()


def test_a_table_has_no_views():
    assert not PROBES["augmented"].suits(FEATURES) and PROBES["augmented"].suits(IMAGES)
    assert PROBES["noise"].suits(FEATURES)


def test_flags_say_how_much_is_asked():
    from query import parse

    settings = parse(["--queries", "18", "--label_queries", "162", "--noise_repeats", "0"])
    assert settings.asked == {"augmented": 18, "correct": 162, "noise": 0}
    with pytest.raises(UserError, match="162 at most"):
        parse(["--queries", "163"])


def test_the_plan_hands_the_flags_to_all_that_ask():
    from compleak.pipeline.plan import stages_of_audit
    from reproduce import parse

    plan = parse(["--preset", "compact", "--queries", "2", "--keep", "signals"]).plan
    asked = {
        stage.key.kind: stage.settings.asked for stage in stages_of_audit(plan) if hasattr(stage.settings, "asked")
    }
    assert set(asked) == {"query", "NR", "SR", "MR"}
    assert all(amounts == {"sensitivity": 2, "augmented": 2} for amounts in asked.values())


# Files of others


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        ("augmented", np.zeros((2, 8, 3)), "expected (2, 8, queries, 3)"),
        ("augmented", np.zeros((2, 8, 4, 3), int), "store augmented.astype(np.float32)"),
        ("augmented", np.full((2, 8, 4, 3), 1 / 3), "store np.log(np.maximum(augmented, 1e-7))"),
        ("augmented", np.full((2, 8, 4, 3), np.nan), "augmented is NaN for points"),
        ("augmented", np.full((2, 8, 4, 3), -np.inf), "store np.clip(augmented, -6e4, 6e4)"),
        ("correct", np.zeros((2, 8, 5)), "bool is needed"),
        ("correct", np.zeros((2, 8), bool), "expected (2, 8, queries)"),
        ("noise", np.zeros((2, 8, 5), int), "store noise.astype(np.float32)"),
        ("noise", np.full((2, 8, 5), 1.5), "no shares from 0 to 1"),
        ("boundary", np.full((2, 8, 1), 1.5), "expected (2, 8, 2)"),
        ("boundary", np.full((2, 8, 2), -1.5), "negative or infinite"),
    ],
)
def test_a_damaged_probe_is_refused_in_one_line(tmp_path, name, array, says):
    with pytest.raises(UserError) as error:
        signals_file.load(write(tmp_path, **{name: array}))
    assert says in str(error.value) and "\n" not in str(error.value)
