"""Distances to the decision boundary are those of a network whose boundary is known, and a sample is judged as one."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import attacks
from compleak.audits.attack_stage import attack
from compleak.queries.boundary import (
    AnyFloats,
    boundary_distances,
    carlini_wagner,
    draw_balanced,
    has_gradients,
    hop_skip_jump,
    of_another_class,
)
from compleak.queries.probes import PROBES
from compleak.runs.settings import AttackSettings, RunSettings
from core.errors import UserError
from tests.planted import planted_signals, write_signals

CPU = torch.device("cpu")


class Linear(nn.Module):
    """Two classes on either side of a plane; counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.normal = nn.Parameter(torch.nn.functional.normalize(torch.randn(12), dim=0))
        self.asked = 0

    def forward(self, inputs):
        self.asked += len(inputs)
        above = inputs.flatten(1) @ self.normal
        return torch.stack([above, -above], dim=1)


class Steps(Linear):
    """The same with outputs that are rounded: they have no gradients."""

    def forward(self, inputs):
        return (super().forward(inputs) * 8).round()


def planes_and_points():
    network = Linear()
    inputs = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, size=(10, 3, 2, 2)).astype(np.float32))
    with torch.no_grad():
        above = (inputs.flatten(1) @ network.normal).numpy()
    labels = (above < 0).astype(np.int64)
    labels[:2] = 1 - labels[:2]  # two points that the network names wrongly
    return network, inputs, labels, np.where(np.arange(10) < 2, 0, np.abs(above))


def test_both_distances_are_those_to_the_plane_within_the_budget():
    pytest.importorskip("art")
    network, inputs, labels, true = planes_and_points()
    state = np.random.get_state()[1].copy()
    by_labels, by_gradients = boundary_distances(network, inputs, labels, 2, CPU).T
    assert np.array_equal(np.random.get_state()[1], state)
    assert (by_labels[:2] == 0).all() and (by_gradients[:2] == 0).all()
    assert (by_labels >= true - 1e-3).all() and (by_labels <= 1.5 * true).all()
    assert np.corrcoef(by_labels[2:], true[2:])[0, 1] > 0.99
    np.testing.assert_allclose(by_gradients, true, rtol=0.05)
    assert network.asked < 8 * 2500


def test_hop_skip_jump_gives_the_same_distances_again():
    pytest.importorskip("art")
    network, inputs, _, _ = planes_and_points()
    one, other = (hop_skip_jump(AnyFloats(network), inputs, 2, CPU) for _ in range(2))
    assert np.array_equal(one, other)


def test_carlini_and_wagner_reach_the_plane():
    network, inputs, labels, true = planes_and_points()
    distances = carlini_wagner(network, inputs[2:], torch.from_numpy(labels[2:]))
    np.testing.assert_allclose(distances, true[2:], rtol=0.05)


def test_hop_skip_jump_sets_out_from_a_point_of_another_class():
    assert of_another_class(np.array([0, 0, 1, 2, 2])).tolist() == [2, 2, 3, 0, 0]
    assert of_another_class(np.array([1, 1])).tolist() == [0, 1]


def test_a_model_without_gradients_has_the_distance_by_labels_alone():
    pytest.importorskip("art")
    _, inputs, labels, _ = planes_and_points()
    assert has_gradients(Linear(), inputs[:1]) and not has_gradients(Steps(), inputs[:1])
    distances = boundary_distances(Steps(), inputs[:4], labels[:4], 2, CPU)
    assert np.isfinite(distances[:, 0]).all() and np.isnan(distances[:, 1]).all()


def test_without_the_toolbox_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "art.attacks.evasion", None)
    monkeypatch.setitem(__import__("sys").modules, "art", None)
    network, inputs, labels, _ = planes_and_points()
    with pytest.raises(UserError, match=r"boundary needs .*: pip install .*\[boundary\]"):
        boundary_distances(network, inputs, labels, 2, CPU)
    with pytest.raises(UserError, match="boundary needs"):  # before a model is asked
        PROBES["boundary"].check_installed()


def test_the_sample_is_balanced_and_always_the_same():
    member = np.arange(100) < 30
    drawn = draw_balanced(member, 20)
    assert len(drawn) == 20 and member[drawn].sum() == 10 and (np.diff(drawn) > 0).all()
    assert np.array_equal(drawn, draw_balanced(member, 20))
    assert len(draw_balanced(member, 1000)) == 60


@pytest.mark.parametrize(
    ("attacker", "members", "others"),
    [("shadows", 1, 1), ("shadows", 2, 1), ("shadows", 0, 4), ("known_half", 1, 1), ("known_half", 1, 40)],
)
def test_a_sample_that_is_too_small_to_be_judged_leaves_the_attack_out_with_a_line(
    tmp_path, capsys, monkeypatch, attacker, members, others
):
    """Of one member, one fit's half has none. An attack that was not asked for, label_only_noise, gets no line."""
    rows = [row for row in attacks.NR if row.name in ("yeom2018", "gap", "boundary", "label_only_noise")]
    monkeypatch.setitem(attacks.USUAL, "NR", tuple(rows))
    world = planted_signals(2, 600, seed=1)
    (signals,) = world.variants
    distance = np.exp(np.random.default_rng(2).normal(size=(2, 600, 2))).astype(np.float32)
    distance[~signals.audit] = np.nan
    audited = np.flatnonzero(signals.audit[0])
    distance[0, audited[world.truth][members:]] = np.nan
    distance[0, audited[~world.truth][others:]] = np.nan
    write_signals(tmp_path / "a.npz", signals._replace(probes={"boundary": distance}), world.truth)
    settings = AttackSettings(
        run=RunSettings(root=tmp_path),
        scenario="NR",
        files=(tmp_path / "a.npz",),
        attacker=attacker,
        device="cpu",
        threads=1,
    )
    table = attack(settings)
    assert {"yeom2018", "gap", "null"} <= set(table["attack"]) and "boundary" not in set(table["attack"])
    left_out = json.loads((tmp_path / "a" / "NR.json").read_text())["left_out"]
    assert set(left_out) == {"boundary/hop_skip_jump", "boundary/carlini_wagner", "label_only_noise"}
    printed = capsys.readouterr().out
    assert "left out boundary/hop_skip_jump, boundary/carlini_wagner: " in printed and "noise" not in printed
    if attacker == "shadows":
        assert "it scored too few members or non-members: raise --boundary_points" in printed


@pytest.mark.parametrize("attacker", ["shadows", "known_half"])
def test_a_sample_is_judged_as_a_sample_with_its_own_interval(tmp_path, attacker):
    world = planted_signals(3, 600, seed=1)
    (signals,) = world.variants
    rng = np.random.default_rng(2)
    member = signals.member.copy()
    member[0, signals.audit[0]] = world.truth
    distance = np.exp(rng.normal(size=(3, 600, 2)) + 1.5 * member[..., None]).astype(np.float32)
    known = np.zeros((3, 600), dtype=bool)
    for row in range(3):
        audited = np.flatnonzero(signals.audit[row])
        known[row, audited[draw_balanced(member[row, audited] == 1, 100)]] = True
    distance[~known] = np.nan
    probes = {"boundary": distance}
    write_signals(tmp_path / "signals.npz", signals._replace(probes=probes), world.truth)
    table = attack(
        AttackSettings(
            run=RunSettings(root=tmp_path),
            scenario="NR",
            files=(tmp_path / "signals.npz",),
            attacks=("yeom2018", "boundary"),
            attacker=attacker,
            device="cpu",
            threads=1,
        )
    ).set_index("attack")
    row = table[table["classifier"] == "hop_skip_jump"].loc["boundary"]
    assert row["n_member"] == row["n_nonmember"] == 50 and table.loc["yeom2018", "n_member"] == 120
    assert row["auc"] > 0.7 and row["auc_lo"] < row["auc"] < row["auc_hi"]
    assert not row["headline"] and table.loc["yeom2018", "headline"]
    assert "thousands of answers a point" in row["needs"]
    scores = np.load(tmp_path / "signals" / "NR_scores.npz")["boundary/hop_skip_jump"]
    assert np.isnan(scores).sum() == 140
