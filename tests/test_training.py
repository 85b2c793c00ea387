"""Training can be stopped anywhere and ends in the same numbers; checkpoints are whole, or refused in words."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import stopped_in
from torch import nn

import models
import reproduce
from compleak.pipeline.plan import stages_of_audit
from compleak.runs import checkpoints
from compleak.runs.settings import CompressSettings, RunSettings, TrainSettings
from compleak.runs.variants import ORIGINAL, compressed_variant
from compleak.training import compiled, loop, plugin
from compleak.training.assignment import assign
from compleak.training.compress import compressed_source
from compleak.training.loop import Recipe
from compleak.training.make import recipe_of, training_of
from core.errors import UserError
from data.inputs import IMAGES
from defenses import Procedure

CPU = torch.device("cpu")


def narrow_resnet() -> nn.Module:
    return models.build("resnet18", 3, 0.125)


def one_layer() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))


def fit(folder, epochs=7, network=narrow_resnet, **changes):
    torch.manual_seed(3)
    model = network()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 32, 32, 3), dtype=torch.uint8, generator=generator)
    labels = torch.arange(40) % 3
    recipe = Recipe(**{"epochs": epochs, "lr": 0.05, "batch_size": 16, "seed": 5, **changes})
    identity = recipe._asdict()
    options = {"flip": True, "device": CPU, "resume": folder / "resume.pt", "identity": identity, "desc": "test"}
    loss = loop.fit(model, images, labels, recipe, **options)
    return loss, model.state_dict()


@pytest.mark.parametrize("stop", [2, 5, 6])
def test_a_stopped_training_goes_on_to_the_very_same_weights(tmp_path, stop):
    loss, weights = fit(tmp_path / "undisturbed")
    with stopped_in(stop):
        fit(tmp_path / "stopped")
    again, resumed = fit(tmp_path / "stopped")
    assert again == loss and all(torch.equal(weights[key], resumed[key]) for key in weights)


def test_a_resume_state_of_other_settings_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 1)
    fit(tmp_path, epochs=2)
    with pytest.raises(UserError, match="made with lr 0.05, not 0.1"):
        fit(tmp_path, epochs=2, lr=0.1)


def test_a_state_that_was_saved_before_it_held_threads_and_defences_is_still_gone_on_with(tmp_path):
    loss, weights = fit(tmp_path / "undisturbed")
    with stopped_in(2):
        fit(tmp_path / "stopped")
    file = tmp_path / "stopped" / "resume.pt"
    state = checkpoints.read_tensors(file)
    del state["threads"], state["procedure"]
    torch.save(state, file)
    again, resumed = fit(tmp_path / "stopped")
    assert again == loss and all(torch.equal(weights[key], resumed[key]) for key in weights)


def test_a_compiled_training_is_the_same_training_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """The backend `eager` compiles to torch's own operations, which give the same bits."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    loss, weights = fit(tmp_path / "usual", 2, one_layer)
    with stopped_in(1):
        fit(tmp_path / "compiled", 2, one_layer, compiled=True)
    again, resumed = fit(tmp_path / "compiled", 2, one_layer, compiled=True)
    assert again == loss and all(torch.equal(weights[key], resumed[key]) for key in weights)


def test_where_torch_cannot_compile_one_line_says_so(tmp_path, monkeypatch):
    def no_compiler(*_):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(compiled, "BACKEND", no_compiler)
    with pytest.raises(UserError, match="^--compile: torch cannot compile here .*no C.. compiler.*leave --compile out"):
        fit(tmp_path, 1, one_layer, compiled=True)


def test_only_a_compiled_model_says_that_it_is(tiny_run):
    assignment = assign(tiny_run, ORIGINAL, "victim_model")
    usual, other = (
        training_of(recipe_of(TrainSettings(run=RunSettings(), compile=compile), assignment), assignment)
        for compile in (False, True)
    )
    assert "compiled" not in usual and other == {**usual, "compiled": True}


def test_reproduce_compiles_all_that_it_trains_and_no_dp_sgd():
    settings = reproduce.parse(["--compile", "--root", "somewhere"])
    stages = {stage.key.kind: stage.settings for stage in stages_of_audit(settings.plan)}
    assert stages["train"].compile and stages["compress"].compile
    assert "--compile" in settings.command.split()
    with pytest.raises(UserError, match="--compile does not go with the defence dp"):
        reproduce.parse(["--compile", "--defences", "dp:1"])


def test_a_batch_of_one_point_is_refused_before_training_where_the_network_cannot_be_trained_on_it(tmp_path):
    def normalised_rows():
        return nn.Sequential(nn.Flatten(), nn.Linear(3072, 3), nn.BatchNorm1d(3))

    with pytest.raises(UserError, match=r"a single point, .* \(Expected more than 1 value .*: give another batch size"):
        fit(tmp_path, 1, normalised_rows, batch_size=1)
    fit(tmp_path, 1, normalised_rows, batch_size=39)  # the 40 points fall into 20 and 20, not into 39 and 1
    fit(tmp_path, 1, one_layer, batch_size=1)


def test_a_training_that_diverges_says_so(tmp_path):
    with pytest.raises(UserError, match="lower --lr"):
        fit(tmp_path, lr=1e30)


def test_a_training_that_diverges_after_its_state_was_stored_says_which_file_to_delete(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 1)
    monkeypatch.setattr(loop, "train_epoch", lambda *args: 1.0 if args[6] == 0 else math.nan)
    with pytest.raises(UserError, match="the training loss is nan in epoch 2: delete .*resume.pt and lower --lr$"):
        fit(tmp_path)
    monkeypatch.setattr(plugin, "train_epoch", lambda *args: 1.0 if args[6] == 0 else math.nan)
    recipe = {"epochs": 2, "lr": 0.1, "batch_size": 4, "seed": 0, "resume_file": tmp_path / "plugin.pt"}
    with pytest.raises(UserError, match="nan in epoch 2: delete .*plugin.pt and lower the learning rate$"):
        plugin.train_plugin(lambda: nn.Linear(4, 2), np.zeros((8, 4), np.float32), [0, 1] * 4, **recipe, desc="test")


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_model_that_is_no_longer_finite_is_refused_by_the_name_of_its_tensor(tmp_path, value):
    tensors = {"weight": torch.ones(2), "running_var": torch.tensor([1.0, value])}
    with pytest.raises(UserError, match="running_var is no longer finite after training: lower --lr"):
        loop.check_finite(tensors, "original victim_model", tmp_path / "resume.pt")


class Overflowing(nn.Module):
    """A layer with finite weights whose answers are infinite."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.flatten(1) + math.inf


@pytest.mark.parametrize("diverged", ["weights", "answers"])
def test_a_compression_that_diverged_ends_in_advice_and_not_in_an_assertion(tiny_run, monkeypatch, diverged):
    variant = compressed_variant("pruning", "0.6")
    assignment = assign(tiny_run, variant, "victim_model")
    source = compressed_source(assignment, CompressSettings(run=None, variant=variant), CPU)
    prepared = source.start() if diverged == "weights" else Overflowing()
    for parameter in prepared.parameters():
        nn.init.constant_(parameter, math.nan)
    with pytest.raises(UserError, match="no longer finite after training: lower --lr"):
        source.finish(prepared)


def test_the_learning_rate_is_half_a_cosine_to_zero():
    assert loop.cosine(0.1, 0, 10) == 0.1
    assert math.isclose(loop.cosine(0.1, 5, 10), 0.05)
    assert loop.cosine(0.1, 10, 10) == 0


def test_an_epoch_sees_every_member_once():
    seen = []
    kind = IMAGES._replace(augmented_batch=lambda padded, index, draws: seen.append(index) or padded[index])
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(2))
    optimizer = torch.optim.SGD(model(torch.zeros(1, 3, 40, 40)).sum() and model.parameters(), 0.1)
    images = torch.zeros(37, 40, 40, 3, dtype=torch.uint8)
    labels = torch.zeros(37, dtype=torch.int64)
    points = loop.Points(images, labels, True, kind)
    loop.train_epoch(model, points, None, optimizer, Procedure(), Recipe(1, 0.1, 16, 0), 0)
    assert sorted(torch.cat(seen).tolist()) == list(range(37)) and max(map(len, seen)) <= 16


def save_checkpoint(folder, **changes):
    checkpoints.save(folder, {"weight": torch.arange(1000.0)}, {"data": "a", "lr": 0.1, **changes}, {"loss": 0.5})
    return folder


def test_a_checkpoint_is_loaded_as_it_was_saved_and_counts_as_done(tmp_path):
    folder = save_checkpoint(tmp_path)
    checkpoint = checkpoints.load(folder)
    assert torch.equal(checkpoint.tensors["weight"], torch.arange(1000.0)) and checkpoint.meta["loss"] == 0.5
    assert checkpoints.is_done(folder, {"data": "a", "lr": 0.1})
    assert not checkpoints.is_done(tmp_path / "nothing", {})


def test_the_same_tensors_have_the_same_identity_wherever_and_whenever_they_are_saved(tmp_path, monkeypatch):
    first = save_checkpoint(tmp_path / "first")
    monkeypatch.setattr("core.files.platform.node", lambda: "another-machine")
    monkeypatch.setattr("core.files.os.getpid", lambda: 123456789)
    second = save_checkpoint(tmp_path / "second")
    one, other = ((folder / "model.pt").read_bytes() for folder in (first, second))
    assert one == other and b"another-machine" not in one and b".tmp" not in one
    assert checkpoints.load_meta(first)["sha256"] == checkpoints.load_meta(second)["sha256"]


@pytest.mark.parametrize("changes", [{"data": "b"}, {"lr": 0.2}, {"new": 1}])
def test_a_checkpoint_made_from_something_else_is_refused(tmp_path, changes):
    with pytest.raises(UserError, match=f"made with {next(iter(changes))}"):
        checkpoints.is_done(save_checkpoint(tmp_path), {"data": "a", "lr": 0.1, **changes})


def test_damaged_files_are_named(tmp_path):
    weights = save_checkpoint(tmp_path) / "model.pt"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(UserError, match="model.pt is damaged"):
        checkpoints.load(tmp_path)
    (tmp_path / "meta.json").write_text('{"format": 1')
    with pytest.raises(UserError, match="meta.json is damaged"):
        checkpoints.load(tmp_path)
    (tmp_path / "meta.json").write_text(json.dumps({"format": 99, "made_from": {}}))
    with pytest.raises(UserError, match="not of this project's format"):
        checkpoints.load(tmp_path)


class Harmful:
    def __reduce__(self):
        return print, ("executed",)


def test_a_pickle_in_a_checkpoint_is_refused_unread(tmp_path, capsys):
    torch.save({"weight": Harmful()}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="damaged or foreign"):
        checkpoints.read_tensors(tmp_path / "model.pt")
    assert "executed" not in capsys.readouterr().out


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    from core.files import write_atomically

    target = tmp_path / "table.csv"
    target.write_text("old")

    def half(part):
        part.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"table.csv cannot be written \(No space left on device\): make room there"):
        write_atomically(target, half)
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"] and target.read_text() == "old"


def test_half_written_files_are_removed_only_if_their_process_on_this_machine_has_ended(tmp_path, monkeypatch):
    from core import files

    monkeypatch.setattr(files.platform, "node", lambda: "here.lan")
    monkeypatch.setattr(files, "_alive", lambda process: process == 2)
    names = [".table.here_lan-1.tmp.csv", ".table.here_lan-2.tmp.csv", ".table.there_lan-1.tmp.csv"]
    for name in names:
        (tmp_path / name).touch()
    files.write_atomically(tmp_path / "table.csv", lambda part: part.write_text("whole"))
    assert sorted(file.name for file in tmp_path.iterdir()) == [*names[1:], "table.csv"]
