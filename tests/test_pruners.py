"""The four pruners: what each one takes, that it stays taken, and the dense network that is left."""

import copy
import json

import pytest
import torch
from conftest import ATTACK, NETWORK
from networks import batch, float_model, one_thread, restored_from, train  # noqa: F401
from torch import nn

import CompLeakNR
import CompLeakSR
from compleak.runs import checkpoints
from compleak.runs.places import variant_dir
from compleak.runs.variants import Variant, compressed_variant, parse_variant
from compleak.training.finished import load_model
from core.errors import UserError
from models.tools import Cost, cost, norm_after, weighted_layers
from pruning import magnitude, masks, prune, shrink, slim, structured
from pruning.masks import PRUNERS, Pruning

SHRUNK = ("l1structure", "slim")
PAIRED = ["resnet18", "vgg16_bn", "mobilenetv2"]  # batch norm stands right behind every convolution
every_paired_network = pytest.mark.parametrize("name", PAIRED)
every_network_with_batch_norm = pytest.mark.parametrize("name", [*PAIRED, "densenet121"])


def convolutions(model):
    """(convolution, batch norm) of each pair, by the convolution's name."""
    pairs = norm_after(model, (nn.BatchNorm2d, nn.GroupNorm)).items()
    return {name: (model.get_submodule(name), model.get_submodule(norm)) for name, norm in pairs if norm}


def zero_channels(layer, norm):
    """Which channels are zero: asserts that filter, gamma and beta agree."""
    zero = norm.weight == 0
    assert torch.equal(zero, norm.bias == 0)
    assert torch.equal(zero, (layer.weight == 0).flatten(1).all(dim=1))
    return zero


# ---- what each one takes


@pytest.mark.parametrize("pruner", PRUNERS)
@every_network_with_batch_norm
def test_what_a_pruner_removes_stays_zero_and_is_restored_exactly_before_and_after_training(pruner, name):
    model = float_model(name)
    degree = Pruning(pruner, 0.6)
    images = batch(99, size=8)[0]
    before = copy.deepcopy(model.state_dict())
    prepared = masks.prepare(model, degree).eval()
    taken = masks.masks_of(prepared)
    for trained in (prepared, train(prepared, steps=1)):
        restored = restored_from(masks, trained, name)
        line = masks.verify(trained, restored, degree, images)
        assert line.startswith(f"pruning {degree}: exactly floor(0.6 n) of ") and "\n" not in line
        assert not torch.equal(restored(images), model(images))
        for key, mask in taken.items():
            parameter = restored.get_parameter(key)
            assert (parameter[~mask] == 0).all() and (parameter[mask] != 0).all(), key
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_pruning_a_filter_before_group_normalisation_also_zeroes_its_gamma_and_beta_and_it_is_not_shrunk():
    model = float_model("resnet18_gn")
    images = batch(99, size=8)[0]
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.uniform_(module.bias, 0.1, 0.2)
    pruned = restored_from(masks, masks.prepare(model, Pruning("l1structure", 0.5)), "resnet18_gn")
    seen = {}
    for key, (layer, norm) in convolutions(pruned).items():
        zero_channels(layer, norm)
        norm.register_forward_hook(lambda module, _, out, key=key: seen.update({key: (module.weight == 0, out)}))
    pruned(images)
    assert all((out[:, zero] == 0).all() and zero.sum() == len(zero) // 2 for zero, out in seen.values())
    with pytest.raises(UserError, match="group normalisation"):
        shrink.refuse_what_cannot_shrink("l1structure", pruned)


@pytest.mark.parametrize(("pruner", "order"), [("l1structure", 1), ("l2structure", 2)])
@every_paired_network
def test_the_floor_of_each_convolutions_smallest_filters_is_zero_with_its_batch_norm(pruner, order, name):
    model = float_model(name)
    prepared = masks.prepare(model, Pruning(pruner, 0.7))
    pruned = convolutions(restored_from(masks, prepared, name))
    dense = convolutions(model)
    assert len(dense) == sum(isinstance(module, nn.Conv2d) for module in model.modules())
    for key, (layer, norm) in pruned.items():
        zero = zero_channels(layer, norm)
        norms = dense[key][0].weight.detach().flatten(1).norm(p=order, dim=1)
        assert zero.sum() == magnitude.pruned_count(len(zero), 0.7)
        assert norms[zero].max() <= norms[~zero].min()
        assert torch.equal(norm.running_mean, dense[key][1].running_mean)
        assert torch.equal(norm.running_var, dense[key][1].running_var)
    head = list(prepared.modules())[-1]
    was = list(model.modules())[-1]
    assert isinstance(head, nn.Linear) and torch.equal(head.weight, was.weight)


@every_paired_network
def test_slim_has_one_threshold_for_all_gammas(name):
    model = float_model(name)
    prepared = masks.prepare(model, Pruning("slim", 0.5))
    pruned = convolutions(restored_from(masks, prepared, name))
    dense = convolutions(model)
    zero = torch.cat([zero_channels(*pair) for pair in pruned.values()])
    gammas = torch.cat([norm.weight.detach().abs() for _, norm in dense.values()])
    assert zero.sum() == magnitude.pruned_count(len(zero), 0.5)
    assert gammas[zero].max() <= gammas[~zero].min()  # gammas lie in [0.5, 1.5]: no layer loses all of its own


def test_the_filters_of_smallest_norm_equal_those_worked_out_by_hand():
    model = nn.Sequential(nn.Conv2d(1, 4, (1, 2)), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    filters = torch.tensor([[3.0, -3.0], [5.0, 0.0], [1.0, 1.0], [-4.0, 4.0]])  # L1 6 5 2 8, L2 4.24 5 1.41 5.66
    model[0].weight.data = filters.view(4, 1, 1, 2)
    for order, kept in ((1, [True, False, False, True]), (2, [False, True, False, True])):
        chosen = structured.choose_masks(model, 0.5, order)
        assert chosen.keys() == {"0.weight", "0.bias", "1.weight", "1.bias"}
        assert chosen["0.weight"].flatten(1).tolist() == [[k, k] for k in kept]
        assert all(chosen[key].tolist() == kept for key in ("0.bias", "1.weight", "1.bias"))


def test_a_convolution_without_batch_norm_or_bias_loses_its_filters_alone():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8, affine=False)
    )
    assert structured.choose_masks(model, 0.5, 1).keys() == {"0.weight", "2.weight", "2.bias"}
    with pytest.raises(UserError, match="gamma"):
        slim.choose_masks(model, 0.5)


@pytest.mark.parametrize(
    ("gammas", "sparsity", "kept"),
    [
        ([[0.1, -0.9], [0.5, 0.2, 0.3]], 0.4, [[0, 1], [1, 0, 1]]),  # one threshold, signs do not count
        ([[0.1, 0.2], [0.5, 0.8, 0.3]], 0.4, [[0, 1], [1, 1, 0]]),  # 0.2 is its layer's last: 0.3 goes instead
        ([[1.0, 1.0], [1.0, 1.0, 1.0]], 0.4, [[0, 1], [0, 1, 1]]),  # of equals the first go, and a layer keeps its last
        ([[0.0, 0.0], [0.0, 0.0, 0.0]], 0.6, [[0, 1], [0, 0, 1]]),
    ],
)
def test_slims_threshold_equals_one_worked_out_by_hand(gammas, sparsity, kept):
    masks_of_layers = slim.keep_channels([torch.tensor(gamma) for gamma in gammas], sparsity)
    assert [mask.int().tolist() for mask in masks_of_layers] == kept


def test_slim_refuses_to_remove_a_whole_layer_and_says_how_many_channels_can_go():
    with pytest.raises(UserError, match="slim 0.9 would take 4 of 5 channels.*at most 3 can go"):
        slim.keep_channels([torch.ones(2), torch.ones(3)], 0.9)


def test_slim_says_how_many_layers_are_left_with_one_channel():
    model = float_model("vgg16_bn")
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    nn.init.constant_(norm.weight, 1e-6)
    degree = Pruning("slim", 0.5)
    prepared = masks.prepare(model, degree).eval()
    line = masks.verify(prepared, restored_from(masks, prepared, "vgg16_bn"), degree, batch(0)[0])
    assert "1 of these are left with one channel" in line


def perceptron():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def group_norm():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("pruner", "network", "says"),
    [
        ("l1structure", perceptron, "l1structure prunes filters.*no convolution: use --pruner_name l1unstructure"),
        ("l2structure", perceptron, "l2structure prunes filters.*no convolution: use --pruner_name l1unstructure"),
        ("slim", perceptron, "slim.*batch norm's gamma.*use --pruner_name l1unstructure"),
        ("slim", group_norm, "slim.*batch norm's gamma.*use --pruner_name l1structure"),
    ],
)
def test_a_network_that_a_pruner_cannot_prune_is_refused_with_one_that_can(pruner, network, says):
    with pytest.raises(UserError, match=says):
        masks.prepare(network(), Pruning(pruner, 0.5))


def test_a_perceptron_on_flat_inputs_is_pruned_by_weights():
    torch.manual_seed(0)
    model = perceptron()
    inputs = torch.randn(4, 6)
    degree = Pruning("l1unstructure", 0.5)
    prepared = masks.prepare(model, degree).eval()
    restored = masks.unpack(perceptron(), masks.pack(prepared))
    line = masks.verify(prepared, restored, degree, inputs)
    assert "parameters 83 -> 47, multiply-adds 72 -> 36; restored outputs equal on 4 points" in line


@pytest.mark.parametrize("bad", [Pruning("l1", 0.5), Pruning("slim", 1.0), Pruning("slim", "0.5"), ("slim", 0.5), 0.5])
def test_a_bad_pruning_is_refused(bad):
    with pytest.raises(ValueError):
        masks.prepare(float_model(), bad)


def test_masks_that_remove_half_a_filter_are_refused():
    model = float_model()
    chosen = structured.choose_masks(model, 0.5, 1)
    name, mask = next(iter(chosen.items()))
    mask[mask.flatten(1).any(dim=1).nonzero()[0, 0], 0, 0, 0] = False
    with pytest.raises(AssertionError, match=name):
        structured.check_pruned(model, chosen, 0.5)
    with pytest.raises(AssertionError, match="weights pruned"):
        magnitude.check_pruned(model, magnitude.choose_masks(model, 0.4), 0.5)


# ---- names


@pytest.mark.parametrize(
    ("text", "name", "command"),
    [
        ("0.60", "0.6", "pruning/prune.py --prune_sparsity 0.6"),
        ("l1unstructure_0.6", "0.6", "pruning/prune.py --prune_sparsity 0.6"),
        ("l1structure_0.6", "l1structure_0.6", "pruning/prune.py --pruner_name l1structure --prune_sparsity 0.6"),
        ("slim_0.70", "slim_0.7", "pruning/prune.py --pruner_name slim --prune_sparsity 0.7"),
    ],
)
def test_every_pruner_has_folders_of_its_own_and_a_command_that_fills_them(text, name, command, tmp_path):
    variant = compressed_variant("pruning", text)
    assert variant == parse_variant(f"pruning_{text}") == Variant("pruning", name)
    assert variant.command == command
    assert variant_dir(tmp_path, "run", variant) == tmp_path / "results_pruning" / f"run_{name}"


@pytest.mark.parametrize(
    "text",
    [
        "slim",
        "slim_",
        "slim_1",
        "slim_0",
        "slim_nan",
        "other_0.5",
        "slim_l1structure_0.5",
        "0.12345678",
        "slim_0.9999999",
    ],
)
def test_text_that_is_not_a_degree_of_pruning_is_refused(text):
    with pytest.raises(UserError, match="is no degree of pruning"):
        compressed_variant("pruning", text)


# ---- the dense network


def test_cost_counts_a_weight_once_for_each_position_it_is_used_at():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.Flatten(), nn.Linear(4 * 25, 3))
    assert cost(model, torch.zeros(7, 2, 5, 5), zeros=True) == Cost(36 + 4 + 300 + 3, 36 * 25 + 300)
    nn.init.zeros_(model[0].weight[:3])
    nn.init.zeros_(model[0].bias)
    assert cost(model, torch.zeros(7, 2, 5, 5), zeros=False) == Cost(9 + 300 + 3, 9 * 25 + 300)


@pytest.mark.parametrize("pruner", SHRUNK)
@every_network_with_batch_norm
def test_the_shrunk_network_is_smaller_and_equals_the_masked_one(pruner, name):
    prepared = train(masks.prepare(float_model(name), Pruning(pruner, 0.6)), steps=1)
    pruned = restored_from(masks, prepared, name)
    images = batch(99)[0]
    before = copy.deepcopy(pruned.state_dict())
    dense = shrink.shrink(pruned, images)
    unseen = batch(7)[0]
    with torch.no_grad():
        assert torch.allclose(dense(unseen), pruned(unseen), rtol=1e-4, atol=1e-4)
    old, new = (cost(model, images, zeros=True) for model in (pruned, dense))
    assert new.parameters < 0.6 * old.parameters and new.multiply_adds < 0.6 * old.multiply_adds
    assert all(torch.equal(before[key], tensor) for key, tensor in pruned.state_dict().items())


def test_shrinking_vgg_leaves_no_zero_filter():
    pruned = restored_from(masks, masks.prepare(float_model("vgg16_bn"), Pruning("l2structure", 0.6)), "vgg16_bn")
    dense = shrink.shrink(pruned, batch(0)[0])
    images = batch(0)[0]
    assert [len(layer.weight) for layer, _ in convolutions(dense).values()] == [
        len(layer.weight) - magnitude.pruned_count(len(layer.weight), 0.6) for layer, _ in convolutions(pruned).values()
    ]
    assert cost(dense, images, zeros=True) == cost(dense, images, zeros=False)


def zeroed(model, *names_and_channels):
    """The network with these channels' filters, gammas and betas zero."""
    pairs = convolutions(model)
    with torch.no_grad():
        for name, channels in names_and_channels:
            for parameter in (pairs[name][0].weight, *pairs[name][1].parameters()):
                parameter[channels] = 0
    return model


def widths(model):
    return {name: len(layer.weight) for name, layer in weighted_layers(model).items()}


def test_a_channel_of_a_residual_stream_is_removed_only_if_every_layer_that_writes_to_it_is_zero_there():
    """ResNet-18's first stream is written by the stem and both first blocks' second convolutions."""
    stream = ("0.0.0", "1.0.conv2.0", "1.1.conv2.0")
    first = "1.0.conv1.0"
    model = zeroed(float_model(), *((name, [1, 2]) for name in stream[:2]), (stream[2], [2, 3]), (first, [5]))
    was = widths(model)
    dense = shrink.shrink(model, batch(0)[0])
    changed = {name: was[name] - width for name, width in widths(dense).items() if width != was[name]}
    assert changed == {**dict.fromkeys(stream, 1), first: 1}


def test_a_channel_is_removed_if_it_is_zero_after_the_depthwise_convolution_not_if_only_before():
    """Zero before it, batch norm makes a constant of it; zero behind it, what comes before does not matter."""
    expand = "0.3.path.0.0"
    depthwise = "0.3.path.2.0"
    model = zeroed(float_model("mobilenetv2"), (expand, [1, 2]), (depthwise, [2, 3]))
    was = widths(model)
    dense = shrink.shrink(model, batch(0)[0])
    changed = {name: was[name] - width for name, width in widths(dense).items() if width != was[name]}
    assert changed == {expand: 2, depthwise: 2}
    assert dense.get_submodule(depthwise).groups == was[depthwise] - 2


def test_a_relu_that_is_zero_on_the_images_only_removes_no_channel():
    model = float_model("vgg16_bn")
    nn.init.constant_(model[0][0][1].bias, -1e3)  # silent on every image, but not by its parameters
    assert widths(shrink.shrink(model, batch(0)[0])) == widths(model)


def test_a_network_that_is_zero_throughout_keeps_one_channel_a_layer():
    model = float_model("vgg16_bn")
    zeroed(model, *((name, slice(None)) for name in convolutions(model)))
    assert set(list(widths(shrink.shrink(model, batch(0)[0])).values())[:-1]) == {1}


def test_a_channel_before_a_flatten_is_removed_with_all_inputs_that_it_feeds():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 900, 3)).eval()
    dense = shrink.shrink(zeroed(model, ("0", [0, 4])), batch(0)[0])
    assert dense[0].out_channels == 4 and dense[4].in_features == 4 * 900


def test_a_shrunk_network_with_other_outputs_is_refused():
    one = torch.tensor([[1.0, 2.0]])
    shrink.assert_close(one, one + 1e-6)
    for other in (one + 1e-3, one.flip(1)):
        with pytest.raises(AssertionError, match="outputs differ"):
            shrink.assert_close(one, other)


# ---- the stage


def test_prune_and_shrink_then_attack_as_users_do(tiny_root, tiny_run, capsys):
    flags = [*NETWORK, "--root", str(tiny_root), "--run_name", "tiny"]
    command = [*flags, "--prune_epochs", "1", "--pruner_name", "l1structure", "--prune_sparsity", "0.60", "--shrink"]
    prune.main(command)
    out = capsys.readouterr().out
    folder = tiny_root / "results_pruning/tiny_l1structure_0.6"
    for role in tiny_run.roles:
        assert f"pruning_l1structure_0.6 {role}: pruning l1structure_0.6: exactly floor(0.6 n)" in out
        facts = json.loads((folder / role / "shrunk.json").read_text())
        assert facts["made_from"] == {"model": checkpoints.load(folder / role).meta["sha256"]}
        assert f"{facts['parameters']:,}" in facts["property"] and facts["property"] in out
    prune.main(command)
    again = capsys.readouterr().out
    assert again.count("done before") == again.count("shrunk before") == 2

    dense = torch.export.load(folder / "victim_model/shrunk.pt2").module()
    images = batch(5, size=5)[0]
    pruned = load_model(tiny_run, Variant("pruning", "l1structure_0.6"), "victim_model")
    with torch.no_grad():
        assert torch.allclose(dense(images), pruned(images), rtol=1e-4, atol=1e-4)

    named = ["--compress", "--compress_name", "pruning", *ATTACK]
    for pruner in (
        ["--pruner_name", "l1structure", "--compress_degree", "0.6"],
        ["--compress_degree", "l1structure_0.6", "--skip_done"],
    ):
        table = CompLeakNR.main([*flags, *named, *pruner])
        assert set(table["variant"]) == {"pruning_l1structure_0.6"}
    assert (folder / "NR.csv").exists() and not (tiny_root / "results_pruning/tiny_0.6/NR.csv").exists()

    with pytest.raises(UserError, match="first python pruning/prune.py --pruner_name slim --prune_sparsity 0.7 "):
        CompLeakNR.main([*flags, *named, "--pruner_name", "slim", "--compress_degree", "0.7"])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--shrink"], "--shrink takes out whole filters, and l1unstructure removes single weights"),
        (["--pruner_name", "slim", "--prune_sparsity", "0.99"], "one stays in each of 20 layers"),
    ],
)
def test_the_stage_refuses_before_anything_is_written(more, says, tiny_root, tiny_run):
    before = sorted(tiny_root.rglob("*"))
    with pytest.raises(UserError, match=says):
        prune.main([*NETWORK, "--root", str(tiny_root), "--run_name", "tiny", "--prune_epochs", "1", *more])
    assert sorted(tiny_root.rglob("*")) == before


def test_a_pruner_of_another_technique_is_refused(tiny_root):
    command = ["--compress", "--compress_name", "clustering", "--compress_degree", "4", "--pruner_name", "slim"]
    with pytest.raises(UserError, match="--pruner_name goes with --compress_name pruning, not clustering"):
        CompLeakSR.main([*NETWORK, "--root", str(tiny_root), *command])


@pytest.mark.parametrize(("number", "sparsity", "pruned"), [(90, 0.7, 63), (100, 0.29, 29), (9, 0.6, 5), (10, 0.7, 7)])
def test_the_pruned_count_is_the_floor_of_the_decimal_fraction(number, sparsity, pruned):
    assert magnitude.pruned_count(number, sparsity) == pruned
