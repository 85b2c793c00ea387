"""audit.py asks shipped models about crops and flips of images, about noisy copies and for distances."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import audit
from compleak.queries import boundary
from compleak.queries.logits import LOGITS, PROBABILITIES
from compleak.queries.views import as_stored
from compleak.tasks import collect, models, probing
from core.errors import UserError
from data.noise import gaussian, noise_for_inputs
from data.views import shift_and_flip, shifts_and_flips
from tests.foreign import write_exported

QUICK = ["--seed", "7", "--threads", "1"]
SIDE = 8


def memorising_network(images: np.ndarray, labels: np.ndarray) -> nn.Sequential:
    """A linear network that nearly interpolates random labels of its members, no two of them with the same answers."""
    inputs = images.transpose(0, 3, 1, 2).reshape(len(images), -1) / 255
    weights = np.linalg.lstsq(inputs - 0.5, 4 * np.eye(4)[labels], rcond=None)[0]
    weights += np.random.default_rng(2).normal(scale=0.1, size=weights.shape)
    linear = nn.Linear(3 * SIDE * SIDE, 4)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weights.T))
        linear.bias.copy_(torch.from_numpy(-0.5 * weights.sum(axis=0)))
    return nn.Sequential(nn.Flatten(), linear).eval()


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The folder of a network, its members and its non-members; and the network."""
    folder = tmp_path_factory.mktemp("shipped")
    rng = np.random.default_rng(0)
    for name in ("members", "nonmembers"):
        images = rng.integers(0, 256, size=(120, SIDE, SIDE, 3), dtype=np.uint8)
        np.savez(folder / f"{name}.npz", x=images, y=rng.integers(4, size=120))
    with np.load(folder / "members.npz") as members:
        network = memorising_network(members["x"], members["y"])
    write_exported(folder / "network.pt2", network, (torch.zeros(3, 3, SIDE, SIDE),))
    return folder, network


def flags(folder, out, attacks=("gap", "label_only_augmentation")):
    attacks = {"NR": [*attacks]}
    content = {"models": [str(folder / "network.pt2")], "attacks": attacks, "queries": 3, "label_queries": 6}
    content |= {name: str(folder / f"{name}.npz") for name in ("members", "nonmembers")}
    file = out / "task.yaml"
    file.write_text(json.dumps(content))
    return [str(file), *QUICK, "--out", str(out / "out"), "--accept_low_accuracy"]


def in_order_of(logits: np.ndarray, network: nn.Sequential, folder) -> np.ndarray:
    """All images (240, ...), in the order of the points that these plain answers (240, C) are about."""
    images = np.concatenate([np.load(folder / f"{name}.npz")["x"] for name in ("members", "nonmembers")])
    with torch.no_grad():
        answers = network(torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)).numpy()
    return images[np.abs(logits[:, None] - answers).sum(axis=2).argmin(axis=1)]


def test_the_answers_are_about_the_shifted_and_mirrored_images(shipped, tmp_path, monkeypatch):
    folder, network = shipped
    audit.main(flags(folder, tmp_path))
    with np.load(tmp_path / "out" / "signals" / "network.npz") as signals:
        augmented, correct, labels, logits = (signals[key] for key in ("augmented", "correct", "labels", "logits"))
    images = in_order_of(logits[0], network, folder)
    assert augmented.shape == (1, 240, 3, 4) and correct.shape == (1, 240, 6)
    for number, view in enumerate(shifts_and_flips(flip=True)[:6]):
        moved = np.stack([shift_and_flip(image, view) for image in images]).transpose(0, 3, 1, 2)
        with torch.no_grad():
            expected = network(torch.from_numpy(moved.astype(np.float32) / 255)).numpy()
        np.testing.assert_array_equal(correct[0, :, number], expected.argmax(axis=1) == labels)
        if number < 3:
            np.testing.assert_allclose(augmented[0, :, number], as_stored(expected), atol=0.01)
    np.testing.assert_allclose(augmented[0, :, 0], as_stored(logits[0]), atol=0.01)
    report = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert report["facts"]["questions_per_point"] == 6
    table = (tmp_path / "out" / "NR.csv").read_text()
    assert "label_only_augmentation,mean" in table and "label_only_augmentation,logistic_regression" in table

    asked = []
    monkeypatch.setattr(models.Asked, "table", lambda self, positions: asked.append(len(positions)) or 1 / 0)
    monkeypatch.setattr(models, "find_company", lambda asked, size: models.Company(size, "as before"))
    audit.main(flags(folder, tmp_path))
    assert not asked


def test_without_flips_no_image_is_mirrored(shipped, tmp_path):
    folder, network = shipped
    audit.main([*flags(folder, tmp_path), "--no_flip", "--queries", "2", "--label_queries", "0"])
    with np.load(tmp_path / "out" / "signals" / "network.npz") as signals:
        augmented = signals["augmented"]
        assert "correct" not in signals.files
        image = in_order_of(signals["logits"][0], network, folder)[5]
    moved = shift_and_flip(image, shifts_and_flips(flip=False)[1]).transpose(2, 0, 1)
    with torch.no_grad():
        expected = network(torch.from_numpy(moved[None].astype(np.float32) / 255)).numpy()
    np.testing.assert_allclose(augmented[0, 5, 1], as_stored(expected)[0], atol=0.01)


@pytest.mark.parametrize(
    ("flag", "message"),
    [("163", "there are 162 crops and flips"), ("-1", "is not 0 or more")],
)
def test_too_many_or_too_few_views_are_refused(shipped, tmp_path, flag, message, capsys):
    with pytest.raises((UserError, SystemExit)) as ended:
        audit.main([*flags(shipped[0], tmp_path), f"--queries={flag}"])
    assert message in str(ended.value) + capsys.readouterr().err


def test_rows_of_features_have_no_views(shipped, tmp_path):
    folder, _ = shipped
    rng = np.random.default_rng(1)
    for name in ("members", "nonmembers"):
        np.savez(tmp_path / f"{name}.npz", x=rng.random((30, 3 * SIDE * SIDE), dtype=np.float32), y=np.arange(30) % 4)
    write_exported(tmp_path / "network.pt2", nn.Linear(3 * SIDE * SIDE, 4), (torch.zeros(3, 3 * SIDE * SIDE),))
    with pytest.raises(UserError, match="without crops and flips"):
        audit.main(flags(tmp_path, tmp_path))


# Noise, and the distance to the decision boundary


def test_noise_is_as_strong_as_the_models_own_inputs_vary():
    pixels = np.random.default_rng(0).normal(5, 40, size=(50, 3, 4, 4)).astype(np.float32)
    still = torch.zeros(2000, 3)
    added = noise_for_inputs(pixels).add(still, 0.5, torch.Generator().manual_seed(0))
    assert added.std().item() == pytest.approx(0.5 * pixels.std(), rel=0.05)
    assert noise_for_inputs(np.eye(4, dtype=np.uint8)).unit == "flipped bits"


def test_each_noisy_copy_is_named_by_the_model():
    inputs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    noise = gaussian(np.float32(2))._replace(levels=(0.1, 3.0))
    named = probing.named_classes(lambda values: values, LOGITS, noise, 2, inputs)
    generator = torch.Generator().manual_seed(0)
    copies = [noise.add(torch.from_numpy(inputs), level, generator) for level in (0.1, 0.1, 3.0, 3.0)]
    np.testing.assert_array_equal(named, np.stack([copy.argmax(dim=1) for copy in copies], axis=1))


def test_noise_and_distances_are_asked_about_the_audit_set_and_attacked(shipped, tmp_path, monkeypatch):
    folder, _ = shipped
    monkeypatch.setattr(boundary, "hop_skip_jump", lambda network, inputs, *_: np.ones(len(inputs)))
    monkeypatch.setattr(boundary, "SEARCHES", 2)
    monkeypatch.setattr(probing, "import_toolbox", lambda: None)
    command = flags(folder, tmp_path, attacks=("gap", "label_only_noise", "boundary"))
    command += ["--queries", "0", "--label_queries", "0", "--noise_repeats", "1", "--boundary_points", "20"]
    audit.main(command)
    with np.load(tmp_path / "out" / "signals" / "network.npz") as signals:
        noise, distance, right = signals["noise"], signals["boundary"], signals["logits"].argmax(axis=2)
        right = right == signals["labels"]
    assert noise.shape == (1, 240, 10) and np.isin(noise, (0, 1)).all()
    assert (noise[0, :, 0] == right[0]).mean() > (noise[0, :, -1] == right[0]).mean()
    measured = ~np.isnan(distance[0, :, 0])
    assert measured.sum() == 20
    assert np.array_equal(distance[0, measured, 0] > 0, right[0, measured])
    assert np.isfinite(distance[0, measured, 1]).any()
    report = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert report["facts"]["questions_per_point"] == 11
    table = (tmp_path / "out" / "NR.csv").read_text()
    assert "label_only_noise" in table and "boundary,hop_skip_jump" in table


def test_a_model_without_gradients_is_asked_through_its_answers_alone(shipped):
    folder, network = shipped
    model = models.open_model(models.ModelSpec(folder / "network.pt2"), threads=1)
    inputs = torch.rand(3, 3, SIDE, SIDE)
    ways = [(model, LOGITS), (model._replace(forward=None), LOGITS), (model, PROBABILITIES)]
    networks = [probing.as_network(*way) for way in ways]
    assert [boundary.has_gradients(asked, inputs[:1]) for asked in networks] == [True, False, False]
    distances = np.array([[1, np.nan], [np.nan, np.nan]], dtype=np.float32)
    answers = models.ModelAnswers(np.eye(2), {"boundary": distances}, None, LOGITS, models.Company(1, ""))
    points = SimpleNamespace(member=np.array([[True, False]]), audit=np.ones((1, 2), bool), labels=np.zeros(2, int))
    assert "network.pt2 gives no gradients" in " ".join(collect.notes_on_answers("network.pt2", [answers], points))
    for asked in networks[:2]:
        np.testing.assert_allclose(asked(inputs).detach(), network(inputs).detach(), rtol=1e-5)
