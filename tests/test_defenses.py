"""Defences: their objectives against literal versions, their privacy, and the runs that carry them."""

import itertools
import json
import math
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import NETWORK, stopped_in
from scipy.integrate import trapezoid

import models
import reproduce
import train
from clustering import clustering, kmeans
from compleak.findings import defences
from compleak.pipeline.comparison import check_defences, plans_of
from compleak.pipeline.presets import PRESETS, Preset
from compleak.queries import answers, collect, signals_file
from compleak.queries.defended import defended_file
from compleak.runs import checkpoints
from compleak.runs.create import create_run
from compleak.runs.names import flags_of, name_of
from compleak.runs.places import role_dir
from compleak.runs.run import defence_in_words, open_run, reserve_of
from compleak.runs.run import split as run_split
from compleak.runs.settings import AnswersSettings
from compleak.runs.variants import ORIGINAL, PAPER_GRID, compressed_variant, parse_variant
from compleak.training import loop
from compleak.training.assignment import assign
from compleak.training.finished import load_model
from compleak.training.loop import Recipe
from core.errors import UserError
from data import splits
from defenses import DEFENCES, Defence, Procedure, adv, build, dp, ppb
from models.tools import observe_input_ranges, prepare_for_single_samples
from pruning import prune
from quantization import int8

CPU = torch.device("cpu")
SMALL = ["--max_points", "40", "--epochs", "1", "--label_noise", "0.2", "--no_augment", "--batch_size", "16"]


def batch(size=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 3, 32, 32, generator=generator), torch.arange(size) % 3


def network(name="resnet18_gn"):
    torch.manual_seed(1)
    return models.build(name, 3, 0.125).train()


# Objectives


@pytest.mark.parametrize("size", [2, 5, 6])
def test_ppb_is_cross_entropy_and_the_divergence_of_sorted_posteriors_of_pairs(size):
    logits = torch.randn(size, 4, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    labels = torch.arange(size) % 4
    half = size // 2
    posteriors = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
    divergence = 0.0
    for i in range(half):
        p = sorted(posteriors[i], reverse=True)
        q = sorted(posteriors[half + i], reverse=True)
        divergence += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / half
    expected = -np.log(posteriors[np.arange(size), labels]).mean() + 4 * divergence
    objective = ppb.PosteriorBalancing(4.0, num_cls=4, seed=0).objective(logits, labels)
    assert objective.item() == pytest.approx(expected, rel=1e-5)


def test_ppb_of_a_single_sample_is_its_cross_entropy():
    logits = torch.randn(1, 4)
    labels = torch.tensor([2])
    assert ppb.PosteriorBalancing(4.0, num_cls=4, seed=0).objective(logits, labels) == F.cross_entropy(logits, labels)


def test_ppb_does_not_depend_on_which_class_is_likely():
    logits = torch.tensor([[3.0, 0.0, 1.0], [0.0, 1.0, 3.0]])
    assert ppb.divergence(logits).item() == pytest.approx(0, abs=1e-7)


def test_adversarial_regularization_follows_the_formulas_of_its_paper():
    rng = np.random.default_rng(0)
    members = rng.normal(size=5)
    reserve = rng.normal(size=4)
    logits = rng.normal(size=(5, 3))
    labels = np.array([0, 1, 2, 0, 1])

    def h(z):
        return 1 / (1 + np.exp(-z))

    gain = np.log(h(members)).mean() / 2 + np.log(1 - h(reserve)).mean() / 2
    assert adv.gain(torch.tensor(members), torch.tensor(reserve)).item() == pytest.approx(gain)
    posterior = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss = -np.log(posterior[np.arange(5), labels]).mean() + 2.5 * np.log(h(members)).mean()
    objective = adv.objective(torch.tensor(logits), torch.tensor(labels), torch.tensor(members), 2.5)
    assert objective.item() == pytest.approx(loss)


def literal_relaxloss(logits, labels, level, epoch):
    """Algorithm 1, point by point: the objective, and its gradient for the logits."""
    posteriors = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    number, classes = logits.shape
    losses = [-math.log(posteriors[i, labels[i]]) for i in range(number)]
    loss = sum(losses) / number
    descent = (posteriors - np.eye(classes)[labels]) / number
    if loss > level:
        return (loss - level if epoch % 2 == 0 else loss), descent
    if epoch % 2 == 0:
        return level - loss, -descent
    total, gradient = 0.0, np.zeros_like(logits)
    for i in range(number):
        of_class = posteriors[i, labels[i]]
        soft = [of_class if c == labels[i] else (1 - of_class) / (classes - 1) for c in range(classes)]
        total -= sum(soft[c] * math.log(posteriors[i, c]) for c in range(classes)) / number
        gradient[i] = (posteriors[i] - soft) / number
    return total, gradient


@pytest.mark.parametrize("level", [0.5, 3.0])
def test_relaxloss_descends_above_its_level_and_ascends_and_flattens_below_it(level):
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    labels = torch.tensor([0, 1, 2, 3, 0])
    procedure = build("relaxloss", level, num_cls=4, seed=0)
    for epoch in range(4):
        procedure.begin_epoch(None)
        (gradient,) = torch.autograd.grad(objective := procedure.objective(logits, labels), logits)
        expected, expected_gradient = literal_relaxloss(logits.detach().double().numpy(), labels.numpy(), level, epoch)
        assert objective.item() == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(gradient.numpy(), expected_gradient, atol=1e-6)


def test_label_smoothing_shares_a_part_of_the_label_among_all_classes():
    logits = torch.tensor([[2.0, 0.0, -1.0, 0.5]])
    logs = logits.double().log_softmax(dim=1)[0].tolist()
    soft = [0.1 / 4 + (0.9 if c == 2 else 0) for c in range(4)]
    objective = build("label_smoothing", 0.1, num_cls=4, seed=0).objective(logits, torch.tensor([2]))
    assert objective.item() == pytest.approx(-sum(p * log for p, log in zip(soft, logs, strict=True)), rel=1e-5)


def test_weight_decay_takes_the_place_of_the_recipes():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = build("weight_decay", 0.02, num_cls=3, seed=0).start(
        None, torch.optim.SGD([weight], 0.5, weight_decay=5e-4), 10, 5, None
    )
    weight.grad = torch.zeros(1)
    optimizer.step()
    assert weight.item() == pytest.approx(1 - 0.5 * 0.02)


def test_weight_decay_that_is_not_above_the_optimizers_usual_one_is_refused_before_any_work(tmp_path):
    named = [*NETWORK, "--root", str(tmp_path), "--defend", "weight_decay"]
    says = "weight_decay 0.005 is not above 0.01, the usual weight decay of adamw: give a larger --defend_arg"
    with pytest.raises(UserError, match=says):
        train.main([*named, "--optimizer", "adamw"])
    with pytest.raises(UserError, match="0.0005 is not above 0.0005, the usual weight decay of sgd"):
        train.main([*named, "--defend_arg", "0.0005"])
    plans = plans_of(reproduce.parse(["--preset", "text", "--model_name", "gpt2", "--defences", "weight_decay"]))
    with pytest.raises(UserError, match=says):
        check_defences(plans)
    assert not list(tmp_path.rglob("*.*"))


def test_a_run_with_dp_is_not_compiled_by_whatever_name_it_is_opened(tmp_path):
    named = [*NETWORK[:2], "--width", "0.25", "--model_name", "resnet18_gn", "--root", str(tmp_path)]
    train.main([*named, *SMALL, "--defend", "dp"])
    opened = ["--run_name", "digits_resnet18_gn_w0.25_dp_1", "--compile", "--prune_epochs", "1"]
    with pytest.raises(UserError, match="--compile does not go with the defence dp"):
        prune.main([*named, *opened])


def test_the_inference_network_learns_to_tell_members_of_a_fixed_model():
    procedure = adv.AdversarialRegularization(1.0, num_cls=3, seed=0)
    model = torch.nn.Flatten()  # its answers are its inputs: about members it is surer than about the reserve
    sure = 5 * torch.eye(3).repeat(8, 1)
    unsure = 0.1 * torch.eye(3).repeat(8, 1)
    labels = torch.arange(3).repeat(8)
    for _ in range(60):
        procedure.train_inference(model, (sure, labels), (unsure, labels))
    with torch.no_grad():
        members, reserve = (procedure.inference(x.softmax(dim=1), labels) for x in (sure, unsure))
    assert members.min() > 0 > reserve.max()


def test_the_slimming_penalty_is_added_to_the_loss_and_shrinks_every_gamma():
    model = models.build("resnet18", 3, 0.125).train()
    inputs, labels = batch()
    before = [module.weight.clone() for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    plain = Procedure().step(model, torch.optim.SGD(model.parameters(), 0.0), inputs, labels, None)
    penalised = Procedure(penalty=10.0).step(model, optimizer, inputs, labels, None)
    total = sum(gamma.abs().sum() for gamma in before)
    assert penalised.item() == pytest.approx((plain + 10 * total).item(), rel=1e-2)
    after = [module.weight for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert all((new < old).all() for new, old in zip(after, before, strict=True))


# The reserve


@pytest.mark.parametrize("limit", [None, 60])
def test_a_reserve_shares_no_point_with_its_models_audit_set_or_with_the_other_side(limit):
    split = splits.make_split(900, 3, 5, limit)
    audit = splits.make_audit(split, 5)
    audited = np.concatenate([np.concatenate(pair) for pair in audit.pairs])
    for row, pair in enumerate(split.pairs):
        members, reserve = splits.make_reserve(split, audit, row, 900, 5)
        assert len(reserve) == len(pair.train) // splits.RESERVE_PART and not np.intersect1d(members, reserve).size
        assert not np.intersect1d(reserve, np.concatenate(audit.pairs[row])).size
        assert np.isin(audit.pairs[row].train, members).all(), "an audited member is not trained on"
        if limit:
            assert np.array_equal(members, pair.train) and not np.intersect1d(reserve, audited).size
        else:
            assert np.isin(reserve, pair.train).all()
        other = split.pool if row == 0 else np.concatenate(split.victim)
        assert not np.intersect1d(reserve, other).size


def test_a_reserve_that_cannot_be_found_is_refused():
    victim, shadow = (splits.Pair(*np.split(np.arange(16) + first, 2)) for first in (0, 16))
    split = splits.Split([victim, shadow])  # every point belongs to a model, every member is audited
    with pytest.raises(
        UserError, match="a defence needs a reserve of 2 points, but only 0 .* give a smaller --max_points"
    ):
        splits.make_reserve(split, splits.make_audit(split, 5), 0, 32, 5)


@pytest.mark.parametrize("n", [197_324, 67_330, 60_000])
def test_with_selenas_split_the_victims_reserve_comes_from_what_is_not_audited(n):
    split = splits.make_split(n, 1, 5, layout=splits.SELENA)
    audit = splits.make_audit(split, 5)
    members, reserve = splits.make_reserve(split, audit, 0, n, 5)
    assert len(reserve) == len(split.victim.train) // splits.RESERVE_PART
    assert not np.intersect1d(reserve, [*np.concatenate(audit.victim), *members, *split.pool]).size
    assert np.isin(reserve, split.victim.train if n == 60_000 else split.victim.test).all()


def test_a_model_is_not_tested_on_non_members_of_its_reserve(tmp_path):
    flags = [*NETWORK, "--root", str(tmp_path), "--split", "selena", "--defend", "adv"]
    run = create_run(train.parse(flags))  # the shadow models, which are not defended, need no reserve
    victim = assign(run, ORIGINAL, run.roles[0])
    members, others = run_split(run)[0].victim
    assert len(victim.reserve) == len(members) // splits.RESERVE_PART and np.isin(victim.reserve, others).all()
    assert set(victim.held_out) == set(others) - set(victim.reserve) and np.array_equal(victim.members, members)
    with pytest.raises(UserError, match="a defence needs a reserve of .* give a smaller --max_points"):
        create_run(train.parse([*flags, "--adaptive"]))


@pytest.mark.parametrize("more", [[], ["--undefended_original"], ["--max_points", "40"]])
@pytest.mark.parametrize("name", ["adv", "dp"])
def test_no_model_of_a_defended_role_trains_on_its_reserve(tmp_path, name, more):
    flags = [*NETWORK, "--root", str(tmp_path), "--model_name", "resnet18_gn", "--defend", name, "--adaptive", *more]
    run = create_run(train.parse(flags))
    for row, role in enumerate(run.roles):
        members, reserve = reserve_of(run, row)
        for variant in (ORIGINAL, *PAPER_GRID):
            assignment = assign(run, variant, role)
            assert np.array_equal(assignment.members, members) and not np.isin(reserve, assignment.members).any()
            defended = variant != ORIGINAL or "--undefended_original" not in more
            assert np.array_equal(assignment.reserve, reserve) if defended else assignment.reserve is None


def test_an_original_trained_without_its_reserve_is_not_taken_for_one_trained_on_all_members(tmp_path, monkeypatch):
    recorded = []
    monkeypatch.setattr(checkpoints, "is_done", lambda folder, made_from: recorded.append(made_from) or True)
    flags = [*NETWORK, "--root", str(tmp_path), "--roles", "victim_model"]
    for more in ([], ["--defend", "ppb", "--undefended_original"], ["--defend", "adv", "--undefended_original"]):
        train.main([*flags, *more])
    assert recorded[0] == recorded[1] and {key for key in recorded[0] if recorded[0][key] != recorded[2][key]} == {
        "members"
    }


def test_a_run_without_room_for_a_reserve_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="too few for a defence's reserve"):
        train.main([*NETWORK, "--root", str(tmp_path), "--defend", "adv", "--max_points", "3"])
    assert not list(tmp_path.rglob("*.*"))


# Differential privacy


def prepared(technique):
    model = network()
    if technique:
        name, degree = technique
        variant = compressed_variant(name, degree)
        model = variant.module.prepare(model, variant.parsed_degree).train()
    with torch.no_grad():
        model(batch(seed=9)[0])
    prepare_for_single_samples(model)
    return model


@pytest.mark.parametrize("technique", [None, ("pruning", "0.7"), ("quantization", "int8"), ("clustering", "4")])
def test_gradients_of_single_samples_are_those_of_batches_of_one(technique):
    model = prepared(technique)
    inputs, labels = batch(7)
    gradients, losses = dp.sample_gradients(model, inputs, labels)
    errors = []
    for i in range(7):
        model.zero_grad()
        loss = F.cross_entropy(model(inputs[i : i + 1]), labels[i : i + 1])
        loss.backward()
        expected = {name: model.get_parameter(name).grad for name in gradients}
        gaps = [
            ((gradient[i] - expected[name]).norm() / expected[name].norm()).item()
            for name, gradient in gradients.items()
        ]
        errors.append(max(*gaps, abs(losses[i].item() / loss.item() - 1)))
    # int8: what lies on the border between two steps may fall on either side of it, in some of the samples
    assert (np.median if technique == ("quantization", "int8") else np.max)(errors) < 1e-4
    assert set(gradients) == {name for name, p in model.named_parameters() if p.requires_grad}


def started(noise, seed=0, lr=1.0, examples=40, size=8):
    """A network, its DP-SGD procedure and optimizer, the noise of `seed`."""
    model = network()
    procedure = dp.DPSGD(noise, num_cls=3, seed=0)
    optimizer = procedure.start(model, torch.optim.SGD(model.parameters(), lr), examples, size, batch()[0])
    procedure.begin_epoch(torch.Generator().manual_seed(seed))
    return model, procedure, optimizer


def moved(model, procedure, optimizer, inputs, labels):
    """All that one step changes, as one vector."""
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    procedure.step(model, optimizer, inputs, labels, None)
    return torch.cat([p.detach().flatten() for p in model.parameters()]) - before


def test_two_runs_differ_by_the_requested_noise():
    steps = [moved(*started(noise=0.7, seed=seed), *batch()) for seed in (1, 2)]
    n = len(steps[0])
    expected = math.sqrt(2) * 0.7 * dp.CLIP / 8  # of a mean over the expected batch of 8
    assert (steps[0] - steps[1]).std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * n))
    assert torch.equal(steps[0], moved(*started(noise=0.7, seed=1), *batch()))


def test_no_sample_moves_the_model_by_more_than_the_clipping_norm():
    inputs, labels = batch(1)
    step = moved(*started(noise=1e-9), 100 * inputs, labels)
    assert step.norm().item() == pytest.approx(dp.CLIP / 8, rel=1e-3)


def test_a_batch_is_clipped_by_sample_and_not_as_a_whole_however_it_is_cut_into_chunks(monkeypatch):
    inputs, labels = batch(5)
    alone = sum(moved(*started(noise=1e-9), inputs[i : i + 1], labels[i : i + 1]) for i in range(5))
    for size in (2, 16):
        monkeypatch.setitem(dp.CHUNK, "cpu", size)
        torch.testing.assert_close(moved(*started(noise=1e-9), inputs, labels), alone, rtol=1e-3, atol=1e-5)


def test_a_step_whose_batch_is_empty_still_adds_noise():
    step = moved(*started(noise=1.0), *(part[:0] for part in batch()))
    assert step.std().item() == pytest.approx(dp.CLIP / 8, rel=0.02)


def test_every_step_takes_each_point_with_the_same_chance():
    _, procedure, _ = started(noise=1.0, examples=1000, size=100)
    generator = torch.Generator().manual_seed(0)
    taken = torch.stack(
        [
            torch.bincount(torch.cat(procedure.batches(torch.arange(1000), 100, generator)), minlength=1000)
            for _ in range(40)
        ]
    )
    assert taken.float().mean().item() == pytest.approx(1.0, abs=0.03)  # 10 steps at a rate of 0.1
    assert taken.float().var().item() == pytest.approx(0.9, abs=0.05)  # binomial: some twice, some not at all


def test_epsilon_equals_that_of_opacus_and_fine_tuning_adds_to_it():
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    for _ in range(30):
        accountant.step(noise_multiplier=1.1, sample_rate=0.05)
    procedure = dp.DPSGD(1.1, num_cls=3, seed=0)
    first = procedure.account(200, 10, 1, [])["privacy"]
    more = procedure.account(200, 10, 1, [*first["history"], [1.1, 0.05, 10]])["privacy"]
    assert dp.epsilon([[1.1, 0.05, 30]]) == pytest.approx(accountant.get_epsilon(1e-5))
    assert first["history"] == [[1.1, 0.05, 20]] and more["epsilon"] > first["epsilon"] > 0
    assert more["epsilon"] == pytest.approx(dp.epsilon([[1.1, 0.05, 50]]))
    assert procedure.account(200, 10, 1, None)["privacy"]["epsilon"] is None  # made from a model without noise


def integrated(noise, rate, order):
    """The Renyi divergence of one step, by integrating its definition on a grid."""
    z = np.linspace(-20 * noise, order + 20 * noise, 400_001)
    ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * z - 1) / (2 * noise**2))
    density = -(z**2) / (2 * noise**2) - math.log(noise * math.sqrt(2 * math.pi))
    logs = order * ratio + density
    return (logs.max() + math.log(trapezoid(np.exp(logs - logs.max()), z))) / (order - 1)


@pytest.mark.parametrize(("noise", "most"), [(0.1, 2033), (0.03, 21_000), (30, 0.08), (100, 0.02)])
def test_epsilon_is_that_of_the_best_order_where_it_lies_outside_the_librarys_range(noise, most):
    rate = 32 / 1200
    steps = 570
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        epsilon = dp.epsilon([(noise, rate, steps)])
    orders = dp.LOWER_ORDERS if noise < 1 else dp.HIGHER_ORDERS
    bounds = [
        steps * integrated(noise, rate, order)
        - (math.log(dp.DELTA) + math.log(order)) / (order - 1)
        + math.log((order - 1) / order)
        for order in orders
    ]
    assert epsilon == pytest.approx(min(bounds), rel=1e-4) and epsilon < most
    assert 0 < int(np.argmin(bounds)) < len(bounds) - 1


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_epsilon_within_the_librarys_range_is_the_librarys(noise):
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(noise, 32 / 1200, 570)]
    assert dp.epsilon(accountant.history) == accountant.get_epsilon(dp.DELTA)


def test_the_input_ranges_of_a_private_int8_model_do_not_depend_on_its_members():
    model = int8.prepare(network(), "int8").train()
    procedure = dp.DPSGD(1.0, num_cls=3, seed=0)
    optimizer = procedure.start(model, torch.optim.SGD(model.parameters(), 0.0), 40, 8, batch(seed=3)[0])
    ranges = {key: value.clone() for key, value in model.state_dict().items() if key.endswith(("low", "high"))}
    procedure.step(model, optimizer, 50 * batch(seed=4)[0], batch()[1], None)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in ranges.items()) and ranges


def test_only_layers_that_observe_ranges_see_inputs_before_training():
    inputs = batch(seed=3)[0]
    observing = int8.prepare(network(), "int8").eval()
    other = kmeans.prepare(network(), 4).eval()
    for model in (observing, other):
        observe_input_ranges(model, inputs)
    first = next(iter(int8.fake_quantized_layers(observing).values()))
    assert (first.low, first.high) == (inputs.min(), inputs.max())
    assert observing.training and not other.training
    prepare_for_single_samples(observing)
    observe_input_ranges(observing, 100 * inputs)
    assert first.high == inputs.max()


def test_a_defence_without_a_step_of_its_own_trains_plainly(monkeypatch):
    monkeypatch.setitem(DEFENCES, "stepless", Defence("nothing", 3.0))
    assert type(build("stepless", 3.0, num_cls=3, seed=0)) is type(build("", 1.0, num_cls=3, seed=0)) is Procedure
    assert build("stepless", 3.0, num_cls=3, seed=0).penalty == 0


def test_preparing_codebooks_for_single_samples_changes_no_output():
    one, other = (kmeans.prepare(network(), 4) for _ in range(2))
    prepare_for_single_samples(other)
    assert torch.equal(one(batch()[0]), other(batch()[0]))


# The loop


@pytest.mark.parametrize("name", DEFENCES)
def test_a_stopped_defended_training_goes_on_to_the_very_same_weights(tmp_path, name):
    def fit(folder):
        model = network("resnet18_gn")
        images = torch.randint(0, 256, (24, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        options = {"flip": True, "device": CPU, "resume": folder / "resume.pt", "identity": {}, "desc": "test"}
        options |= {"procedure": build(name, 1.0, num_cls=3, seed=5), "reserve": (images[16:], torch.arange(8) % 3)}
        loss = loop.fit(model, images[:16], torch.arange(16) % 3, Recipe(3, 0.05, 8, 5), **options)
        return loss, model.state_dict()

    loss, weights = fit(tmp_path / "undisturbed")
    with stopped_in(1):
        fit(tmp_path / "stopped")
    again, resumed = fit(tmp_path / "stopped")
    assert again == loss and all(torch.equal(weights[key], resumed[key]) for key in weights)


def test_snapshots_of_early_stopping_are_the_one_training_stopped_there_and_each_goes_on_from_the_last(tmp_path):
    epochs = []
    train_epoch = loop.train_epoch

    def note_epoch(*args):
        epochs.append(args[6])
        return train_epoch(*args)

    def fit(folder, share):
        model = network("resnet18_gn")
        images = torch.randint(0, 256, (16, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        identity = {"lr": 0.05} | ({"defend": "early_stopping", "defend_arg": share} if share else {})
        options = {"flip": True, "device": CPU, "resume": folder / "resume.pt", "identity": identity, "desc": "test"}
        options["procedure"] = build("early_stopping" if share else "", share or 0, num_cls=3, seed=5)
        loop.fit(model, images, torch.arange(16) % 3, Recipe(4, 0.05, 8, 5), **options)
        return model.state_dict()

    with stopped_in(2):
        fit(tmp_path / "apart/run/victim", None)
    stopped = checkpoints.read_tensors(tmp_path / "apart/run/victim/resume.pt")["model"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_epoch", note_epoch)
        snapshots = {share: fit(tmp_path / f"together/{share}/victim", share) for share in (0.25, 0.5, None)}
        assert epochs == [0, 1, 2, 3]
        whole = fit(tmp_path / "alone/run/victim", None)
    assert all(torch.equal(stopped[key], snapshots[0.5][key]) for key in stopped)
    assert all(torch.equal(whole[key], snapshots[None][key]) for key in whole)
    assert not all(torch.equal(snapshots[0.25][key], stopped[key]) for key in stopped)


# Runs


@pytest.mark.parametrize(
    ("flags", "folder"),
    [
        ("", "digits_resnet18"),
        ("--defend ppb", "digits_resnet18_ppb_4"),
        ("--defend adv --defend_arg 0.5 --adaptive", "digits_resnet18_adv_0.5_adaptive"),
        ("--defend dp --undefended_original --run_name mine", "mine_dp_1_undefended_original"),
        ("--defend dp --defend_lr 0.5 --defend_batch_size 64", "digits_resnet18_dp_1_lr0.5_batch64"),
        ("--defend dp --defend_lr 3 --defend_finetuning_lr 0.5", "digits_resnet18_dp_1_lr3_finetuning_lr0.5"),
        ("--defend selena --undefended_finetuning", "digits_resnet18_selena_25_undefended_finetuning"),
        ("--width 0.12345678 --defend ppb --defend_arg 3.1415926", "digits_resnet18_w0.123457_ppb_3.14159"),
    ],
)
def test_a_runs_folder_name_and_its_command_name_its_defence(flags, folder):
    run = train.parse(["--dataset_name", "digits", *flags.split()]).run
    assert name_of(run) == folder
    again = train.parse(flags_of(run.identity, run.defence, folder, run.root)).run
    assert name_of(again) == folder
    assert again.defence == run.defence and again.identity["width"] == run.identity["width"]


def test_defence_flags_without_a_defence_are_refused():
    with pytest.raises(UserError, match="give --defend ppb"):
        train.parse(["--adaptive"])


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory):
    """The undefended run, PPB against both attackers, and PPB in one of two trainings alone; one compression each."""
    root = tmp_path_factory.mktemp("defended")
    ppb_flags = ["--defend", "ppb"]
    partly = ([*ppb_flags, "--undefended_original"], [*ppb_flags, "--undefended_finetuning"])
    for more in ([], ppb_flags, [*ppb_flags, "--adaptive"], *partly):
        flags = [*NETWORK, "--root", str(root), *more]
        train.main([*flags, *SMALL])
        prune.main([*flags, "--prune_epochs", "1", "--prune_sparsity", "0.9"])
    return root


def meta(root, run, role, variant):
    return checkpoints.load(role_dir(root, f"digits_resnet18_w0.125{run}", parse_variant(variant), role)).meta


def made_from(root, run, role, variant="original"):
    return checkpoints.load(role_dir(root, f"digits_resnet18_w0.125{run}", parse_variant(variant), role)).meta[
        "made_from"
    ]


def digest(root, run, role, variant="original"):
    return meta(root, run, role, variant)["sha256"]


@pytest.mark.parametrize("variant", ["original", "pruning_0.9"])
def test_only_an_adaptive_attackers_shadow_models_are_defended(shared_root, variant):
    defended_models = {
        (run, role)
        for run in ("", "_ppb_4", "_ppb_4_adaptive")
        for role in ("victim_model", "shadow_model_0")
        if "defend" in made_from(shared_root, run, role, variant)
    }
    assert defended_models == {
        ("_ppb_4", "victim_model"),
        ("_ppb_4_adaptive", "victim_model"),
        ("_ppb_4_adaptive", "shadow_model_0"),
    }


@pytest.mark.parametrize("variant", ["original", "pruning_0.9"])
def test_runs_share_identical_models(shared_root, variant):
    shadow = "shadow_model_0"
    victim = "victim_model"
    assert digest(shared_root, "_ppb_4", shadow, variant) == digest(shared_root, "", shadow, variant)
    assert digest(shared_root, "_ppb_4_adaptive", victim, variant) == digest(shared_root, "_ppb_4", victim, variant)
    assert digest(shared_root, "_ppb_4", victim, variant) != digest(shared_root, "", victim, variant)


def test_a_model_that_runs_share_is_asked_once(shared_root, monkeypatch):
    asked = []
    load = answers.load_model

    def load_counted(run, variant, role):
        asked.append((run.name.removeprefix("digits_resnet18_w0.125"), role))
        return load(run, variant, role)

    monkeypatch.setattr(answers, "load_model", load_counted)
    pruned = parse_variant("pruning_0.9")
    machine = {"device": torch.device("cpu"), "batch_size": 32}
    files = []
    for more in ([], ["--defend", "ppb"], ["--defend", "ppb", "--adaptive"]):
        run = open_run(train.parse([*NETWORK, "--root", str(shared_root), *more]).run)
        files.append(collect.collect(run, pruned, {"noise": 1}, **machine))
        behind_labels = files[0].parent.with_name("behind_labels") / files[0].name  # nobody's answers as they are
        defended_file(files[0], AnswersSettings("label"), behind_labels, machine["device"])
    undefended, defended, adaptive = map(signals_file.load, files)
    victim, shadow = "victim_model", "shadow_model_0"
    assert asked == [("", victim), ("", shadow), ("_ppb_4", victim), ("_ppb_4_adaptive", shadow)]
    assert np.array_equal(defended.logits[1], undefended.logits[1])
    assert np.array_equal(adaptive.logits[0], defended.logits[0])
    assert np.array_equal(adaptive.probes["noise"][0], defended.probes["noise"][0], equal_nan=True)
    assert not np.array_equal(defended.logits[0], undefended.logits[0])
    asked.clear()
    collect.collect(run, pruned, {"noise": 2}, **machine)  # another number of noisy copies
    assert asked == [("_ppb_4_adaptive", victim), ("_ppb_4_adaptive", shadow)]


def test_with_an_undefended_original_only_fine_tuning_is_defended(shared_root):
    run = "_ppb_4_undefended_original"
    assert "defend" not in made_from(shared_root, run, "victim_model")
    assert made_from(shared_root, run, "victim_model", "pruning_0.9")["defend"] == "ppb"


def test_with_undefended_fine_tuning_only_the_original_is_defended_and_is_the_defended_runs(shared_root):
    run = "_ppb_4_undefended_finetuning"
    assert digest(shared_root, run, "victim_model") == digest(shared_root, "_ppb_4", "victim_model")
    compressed = made_from(shared_root, run, "victim_model", "pruning_0.9")
    assert "defend" not in compressed and compressed["original"] == digest(shared_root, run, "victim_model")


def test_a_defence_has_a_learning_rate_and_a_batch_size_of_its_own(shared_root):
    flags = [*NETWORK, "--root", str(shared_root), "--defend", "weight_decay", "--defend_batch_size", "8"]
    train.main([*flags, "--defend_lr", "0.05", *SMALL])
    prune.main([*flags, "--defend_lr", "0.05", "--prune_epochs", "1", "--prune_sparsity", "0.9"])
    run = "_weight_decay_0.005_lr0.05_batch8"
    recipes = {
        (role, variant): (made_from(shared_root, run, role, variant)["lr"], made["batch_size"])
        for role in ("victim_model", "shadow_model_0")
        for variant in ("original", "pruning_0.9")
        for made in [made_from(shared_root, run, role, variant)]
    }
    assert recipes["victim_model", "original"] == (0.05, 8)
    assert recipes["victim_model", "pruning_0.9"] == (pytest.approx(0.001 * 0.05 / 0.1), 8)
    assert recipes["shadow_model_0", "original"] == (0.1, 16)
    assert recipes["shadow_model_0", "pruning_0.9"] == (0.001, 128)
    opened = open_run(train.parse([*flags, "--defend_lr", "0.05"]).run)
    assert load_model(opened, parse_variant("pruning_0.9"), "shadow_model_0")  # other settings than the victim's
    opened.file.write_text(opened.file.read_text().replace('"defend_lr": 0.05', '"defend_lr": 0.1'))
    with pytest.raises(UserError, match=r"was made with defend_lr 0.1, not 0.05"):
        open_run(train.parse([*flags, "--defend_lr", "0.05"]).run)


def test_defended_fine_tuning_has_a_learning_rate_of_its_own_and_the_original_is_the_same(shared_root, capsys):
    flags = [*NETWORK, "--root", str(shared_root), "--defend", "ppb", "--defend_finetuning_lr", "0.5"]
    run = "_ppb_4_finetuning_lr0.5"
    train.main([*flags, *SMALL])
    assert capsys.readouterr().out.count("the same as") == 2
    prune.main([*flags, "--prune_epochs", "1", "--prune_sparsity", "0.9"])
    clustering.main([*flags, "--epochs", "1", "--bit", "2", "--roles", "victim_model"])
    assert made_from(shared_root, run, "victim_model", "pruning_0.9")["lr"] == pytest.approx(0.5)
    assert made_from(shared_root, run, "victim_model", "clustering_4")["lr"] == pytest.approx(0.005)
    assert made_from(shared_root, run, "shadow_model_0", "pruning_0.9")["lr"] == 0.001  # it is undefended
    assert made_from(shared_root, run, "victim_model")["lr"] == 0.1
    opened = open_run(train.parse(flags).run)
    assert defence_in_words(opened) == "victim defended throughout by ppb 4 (fine-tuning lr 0.5), non-adaptive attacker"
    opened.config["undefended_finetuning"] = True
    assert (
        defence_in_words(opened) == "victim defended in the original's training alone by ppb 4, non-adaptive attacker"
    )


def test_an_argument_without_a_meaning_is_refused():
    with pytest.raises(UserError, match="early_stopping 2: the argument .* is at most 1"):
        train.parse(["--defend", "early_stopping", "--defend_arg", "2"])


def test_a_run_is_refused_if_the_flags_name_another_defence(shared_root):
    named = [*NETWORK, "--root", str(shared_root), "--run_name", "plain"]
    train.main([*named[:-1], "plain_ppb_4", *SMALL])
    with pytest.raises(UserError, match="was made with defend"):
        open_run(train.parse([*named, "--defend", "ppb"]).run)


def test_a_checkpoint_in_an_old_format_is_neither_reused_nor_in_the_way(shared_root):
    foreign = role_dir(shared_root, "aaa", ORIGINAL, "victim_model") / "meta.json"
    foreign.parent.mkdir(parents=True)
    foreign.write_text(json.dumps({"format": 0}))
    train.main([*NETWORK, "--root", str(shared_root), *SMALL, "--defend", "ppb", "--defend_arg", "2"])
    assert made_from(shared_root, "_ppb_2", "victim_model")["defend_arg"] == 2


def test_dp_is_refused_for_batch_norm_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="use --model_name resnet18_gn or mlp"):
        train.main([*NETWORK, "--root", str(tmp_path), *SMALL, "--defend", "dp"])
    assert not list(tmp_path.rglob("*.*"))


def test_dp_reports_its_epsilon_and_that_a_training_without_noise_leaves_no_guarantee(tmp_path, capsys):
    flags = [*NETWORK, "--model_name", "resnet18_gn", "--root", str(tmp_path), "--defend", "dp"]
    for more in ([], ["--undefended_original"], ["--undefended_finetuning"]):
        train.main([*flags, *SMALL, "--roles", "victim_model", *more])
        clustering.main([*flags, *more, "--epochs", "1", "--bit", "2", "--roles", "victim_model"])
    output = capsys.readouterr().out
    assert output.count("at delta 1e-05") == 2 and output.count("no privacy guarantee") == 2
    files = tmp_path.glob("results*/*dp_1*/victim_model/meta.json")
    unnoised = tmp_path / "results_clustering/digits_resnet18_gn_w0.125_dp_1_undefended_finetuning_4"
    assert json.loads((unnoised / "victim_model/meta.json").read_text())["privacy"]["epsilon"] is None
    defended = [file for file in files if "undefended" not in str(file)]
    privacy = [json.loads(file.read_text())["privacy"] for file in defended]
    assert sorted(len(facts["history"]) for facts in privacy) == [1, 2]


# The whole training


def test_a_defence_may_replace_the_whole_training(tmp_path, monkeypatch):
    trained = []

    def train_on_the_first_half(trainer, model, members, reserve, *, argument, seed):
        half = len(members[1]) // 2
        trained.append((argument, half, reserve))
        return {**trainer.train(model, (members[0][:half], members[1][:half])), "trained_on": half}

    toy = DEFENCES["ppb"]._replace(step=Procedure, whole_training=train_on_the_first_half)
    monkeypatch.setitem(DEFENCES, "toy", toy)
    flags = [*NETWORK, "--root", str(tmp_path), "--defend", "toy", "--defend_arg", "3"]
    train.main([*flags, *SMALL])
    run = open_run(train.parse(flags).run)
    assert trained == [(3.0, 20, None)]  # the victim's alone: the attacker knows of no defence
    assert checkpoints.load_meta(run.role_dir(ORIGINAL, "victim_model"))["trained_on"] == 20


def test_trainings_of_one_model_do_not_go_on_from_each_other(tmp_path, monkeypatch):
    epochs = []
    train_epoch = loop.train_epoch

    def note_epoch(*args):
        epochs.append(args[6])
        return train_epoch(*args)

    def train_twice(trainer, model, members, reserve, *, argument, seed):
        trainer.train(model, members, 1)
        return trainer.train(model, members)

    monkeypatch.setattr(loop, "SAVE_EVERY", 1)
    monkeypatch.setattr(loop, "train_epoch", note_epoch)
    monkeypatch.setitem(DEFENCES, "toy", DEFENCES["ppb"]._replace(step=Procedure, whole_training=train_twice))
    flags = [*NETWORK, "--root", str(tmp_path), "--defend", "toy", "--roles", "victim_model"]
    train.main([*flags, *SMALL, "--epochs", "3"])
    assert epochs == [0, 1, 2, 0, 1, 2] and not list(tmp_path.rglob("resume*"))


# The comparison


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """PPB and none, one seed, one compression in both ways, as `reproduce.py --defences` runs them."""
    root = tmp_path_factory.mktemp("compared")
    preset = Preset(
        train={"max_points": 40, "epochs": 1, "label_noise": 0.2, "augment": False, "batch_size": 16},
        pruning={"epochs": 1},
        clustering={"epochs": 1},
        attack={"asked": {"sensitivity": 1}},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", preset)
        command = [*NETWORK, "--root", str(root), "--preset", "tiny", "--defences", "ppb:4"]
        reproduce.main([*command, "--undefended_finetuning", "--variants", "pruning_0.9"])
    return root


@pytest.mark.slow
def test_every_defence_is_attacked_by_both_attackers_with_one_two_and_all_models(compared):
    rows = pd.read_csv(compared / "results/digits_resnet18_w0.125_tiny_defences/summary.csv", keep_default_na=False)
    settings = set(zip(rows["defence"], rows["attacker"], rows["fine_tuning"], strict=True))
    attackers = ("non-adaptive", "adaptive")
    assert settings == {("", "", ""), *itertools.product(["ppb"], attackers, ["defended", "plain"])}
    targets = set(zip(rows["scenario"], rows["variant"], strict=True))
    assert targets == {("NR", "original"), ("NR", "pruning_0.9"), ("SR", "pruning_0.9"), ("MR", "all")}
    assert set(rows["form"]) == set(defences.COMPARED_FORMS)
    assert (compared / "results/digits_resnet18_w0.125_tiny_defences/tradeoff.png").exists()
    strongest = rows[rows["form"] == "strongest"].fillna("")
    keys = ["defence", "attacker", "fine_tuning"]
    best = strongest.pivot(index=keys, columns=["scenario", "variant"], values="auc_mean")
    assert best["MR", "all"].tolist() == best.max(axis=1).tolist()  # who holds all models can attack each alone too
    text = (compared / "results/digits_resnet18_w0.125_tiny_defences/summary.md").read_text()
    assert "--defences ppb:4 --undefended_finetuning" in text and "PPB 4 | resnet18 | adaptive | plain" in text
    assert "rests on a few of only 40 non-members" in text and "## After compression" in text
    short = text[text.index("## In short") : text.index("## Leakage")]
    assert len(re.findall(r"^\| (?:none|PPB 4) \|", short, re.MULTILINE)) == 2
    victims = [digest(compared, f"_tiny_ppb_4{way}", "victim_model") for way in ("", "_undefended_finetuning")]
    assert victims[0] == victims[1]


def test_a_network_that_a_defence_cannot_train_is_refused_before_any_stage_runs(tmp_path):
    with pytest.raises(UserError, match="--defend dp cannot train this network"):
        reproduce.main([*NETWORK, "--root", str(tmp_path), "--model_name", "vgg16_bn", "--defences", "ppb", "dp"])
    assert not list(tmp_path.rglob("*.*"))
