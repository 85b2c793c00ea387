"""The three compressions: what PROTOCOL says is true of a compressed model, on every network, before and after SGD."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (  # noqa: F401
    WIDTH,
    batch,
    file_bytes,
    float_model,
    one_thread,
    optimizer_for,
    restored_from,
    seen_one_batch,
    through_a_file,
    train,
)
from torch import nn
from torch.nn import functional as F

import models
from clustering import kmeans
from models.tools import weighted_layers
from pruning import magnitude, masks
from pruning.masks import Pruning
from quantization import degrees, int8

TECHNIQUES = [
    pytest.param(masks, Pruning("l1unstructure", 0.7), id="pruning"),
    pytest.param(int8, "int8", id="quantization"),
    pytest.param(kmeans, 4, id="clustering"),
]
every_technique = pytest.mark.parametrize(("technique", "degree"), TECHNIQUES)
every_network = pytest.mark.parametrize("name", models.FOR_IMAGES)


def same_state(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# ---- what all three promise


@every_network
@every_technique
def test_the_property_holds_and_the_file_restores_the_model_exactly_before_and_after_training(technique, degree, name):
    model = float_model(name)
    before = copy.deepcopy(model.state_dict())
    prepared = seen_one_batch(technique.prepare(model, degree))
    images = batch(99, size=8)[0]
    for trained in (prepared, train(prepared)):
        restored = restored_from(technique, trained, name)
        assert str(degree) in technique.verify(trained, restored, degree, images)
        assert not restored.training
        with torch.no_grad():
            assert torch.equal(restored(images), trained(images))
            assert not torch.equal(restored(images), model(images))
    assert same_state(before, model.state_dict()), "prepare or training changed the float model"


@every_network
@every_technique
def test_bf16_autocast_and_channels_last_training_is_restored_exactly(technique, degree, name):
    prepared = technique.prepare(float_model(name), degree).to(memory_format=torch.channels_last)
    train(prepared, steps=2, autocast=True)
    technique.verify(prepared, restored_from(technique, prepared, name), degree, batch(99)[0])


@every_technique
def test_a_stopped_training_resumes_in_a_fresh_prepare_with_the_same_numbers(technique, degree):
    whole = train(technique.prepare(float_model(), degree), steps=4)

    half = technique.prepare(float_model(), degree)
    optimizer = optimizer_for(half)
    train(half, steps=2, optimizer=optimizer)
    saved = through_a_file({"model": half.state_dict(), "optimizer": optimizer.state_dict()})

    resumed = technique.prepare(float_model(), degree)
    optimizer = optimizer_for(resumed)
    resumed.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    train(resumed, steps=2, optimizer=optimizer, first=2)
    assert same_state(whole.state_dict(), resumed.state_dict())


@every_technique
def test_packed_tensors_do_not_change_when_the_model_is_trained_further(technique, degree):
    prepared = train(technique.prepare(float_model(), degree), steps=1)
    packed = technique.pack(prepared)
    before = copy.deepcopy(packed)
    train(prepared, steps=1)
    assert same_state(before, packed)
    assert not same_state(before, technique.pack(prepared))


@every_technique
def test_foreign_tensors_are_refused_by_name(technique, degree):
    skeleton = models.build("resnet18", 10, WIDTH)
    good = technique.pack(train(technique.prepare(float_model(), degree), steps=1))
    for key, tensor in list(good.items())[::7]:  # every kind of tensor comes up
        for bad in (None, tensor.to(torch.float64), tensor[None], [1.0]):
            tensors = {k: (bad if k == key else t) for k, t in good.items() if k != key or bad is not None}
            with pytest.raises(ValueError, match=key.rpartition(".")[0]):
                technique.unpack(skeleton, tensors)
    with pytest.raises(ValueError, match="stranger"):
        technique.unpack(skeleton, good | {"stranger": torch.zeros(1)})
    other_network = technique.pack(seen_one_batch(technique.prepare(float_model("vgg16_bn"), degree)))
    for foreign in (other_network, float_model().state_dict(), {}):
        with pytest.raises(ValueError):
            technique.unpack(skeleton, foreign)


@every_technique
def test_tensors_of_another_technique_are_refused(technique, degree):
    packed = technique.pack(seen_one_batch(technique.prepare(float_model(), degree)))
    for other in {masks, int8, kmeans} - {technique}:
        with pytest.raises(ValueError):
            other.unpack(models.build("resnet18", 10, WIDTH), packed)


@every_technique
def test_verify_notices_a_single_changed_weight_and_a_changed_bias(technique, degree):
    prepared = seen_one_batch(technique.prepare(float_model(), degree))
    images = batch(99)[0]
    for key in ("weight", "bias"):
        restored = restored_from(technique, prepared)
        head = list(restored.modules())[-1]
        tensor = getattr(head, key).data.flatten()
        tensor[0] += 1
        with pytest.raises(AssertionError):
            technique.verify(prepared, restored, degree, images)


@pytest.mark.parametrize(
    ("technique", "degree"),
    [
        *((masks, bad) for bad in (0.0, 1.0, -0.1, float("nan"), 1, True, "0.6", None)),
        *((int8, bad) for bad in ("int4", 8, None)),
        *((kmeans, bad) for bad in (0, 1, 3, 512, 4.5, "4", True, None)),
    ],
)
def test_a_bad_degree_is_named(technique, degree):
    with pytest.raises(ValueError, match=str(degree)):
        technique.prepare(nn.Sequential(nn.Linear(2, 2)), degree)


@pytest.mark.parametrize(
    ("technique", "text", "degree", "command"),
    [
        (masks, "0.60", Pruning("l1unstructure", 0.6), "pruning/prune.py --prune_sparsity 0.6"),
        (masks, "slim_0.7", Pruning("slim", 0.7), "pruning/prune.py --pruner_name slim --prune_sparsity 0.7"),
        (degrees, "int8", "int8", "quantization/qat.py --degree int8"),
        (kmeans, "16", 16, "clustering/clustering.py --bit 4"),
    ],
)
def test_a_degree_is_read_from_text_and_has_a_command_that_compresses_to_it(technique, text, degree, command):
    assert technique.parse_degree(text) == degree
    assert technique.command(degree) == command
    assert technique.parse_degree(str(degree)) == degree


@pytest.mark.parametrize("text", ["", "int4", "3", "1.5", "nan", "slim", "0.1234567"])
@every_technique
def test_text_that_is_not_a_degree_is_refused(technique, degree, text):
    with pytest.raises(ValueError):
        technique.parse_degree(text)


# ---- pruning


@pytest.mark.parametrize("sparsity", [0.6, 0.7, 0.8, 0.9])
@every_network
def test_exactly_the_floor_of_the_smallest_weights_is_zero_and_stays_zero(name, sparsity):
    model = float_model(name)
    dense = {key: layer.weight.detach().clone() for key, layer in weighted_layers(model).items()}
    prepared = masks.prepare(model, Pruning("l1unstructure", sparsity))
    zero = {key: layer.weight == 0 for key, layer in weighted_layers(prepared).items()}
    for key, weight in dense.items():
        assert zero[key].sum() == magnitude.pruned_count(weight.numel(), sparsity)
        assert weight[zero[key]].abs().max() <= weight[~zero[key]].abs().min()
    train(prepared, steps=2)
    for restored in (prepared, restored_from(masks, prepared, name)):
        for key, layer in weighted_layers(restored).items():
            assert torch.equal(layer.weight == 0, zero[key])
            assert not torch.equal(layer.weight[~zero[key]], dense[key][~zero[key]])


@given(
    weights=st.lists(st.sampled_from([-1.0, -0.5, 0.5, 1.0, 2.0]), min_size=1, max_size=40),
    sparsity=st.floats(0.01, 0.99),
)
@settings(deadline=None, max_examples=100)
def test_ties_are_broken_so_that_the_count_is_exact(weights, sparsity):
    weight = torch.tensor(weights)
    mask = magnitude.keep_largest(weight, sparsity)
    assert (~mask).sum() == magnitude.pruned_count(len(weights), sparsity)
    if mask.any() and not mask.all():
        assert weight[~mask].abs().max() <= weight[mask].abs().min()


def test_a_layer_of_equal_weights_is_pruned_to_the_exact_count():
    model = nn.Sequential(nn.Linear(10, 7))
    nn.init.constant_(model[0].weight, 0.3)
    assert (masks.prepare(model, Pruning("l1unstructure", 0.9))[0].weight == 0).sum() == 63


@pytest.mark.parametrize(("zeros", "says"), [(3, "(5 of 10)"), (7, "(5 of 10; 2 of the others are zero as well)")])
def test_weights_that_were_zero_before_pruning_are_counted_apart_from_the_pruned_ones(zeros, says):
    model = nn.Sequential(nn.Linear(10, 1))
    nn.init.ones_(model[0].weight)
    model[0].weight.detach()[:, :zeros] = 0
    prepared = masks.prepare(model, Pruning("l1unstructure", 0.5))
    restored = masks.unpack(nn.Sequential(nn.Linear(10, 1)), masks.pack(prepared))
    line = magnitude.check_pruned(restored, masks.masks_of(prepared), 0.5)
    assert line == f"exactly floor(0.5 n) of n weights are pruned to zero in each of 1 layers {says}"


def test_the_pruned_file_holds_one_bit_a_weight_and_the_kept_values():
    prepared = masks.prepare(float_model(), Pruning("l1unstructure", 0.9))
    packed = masks.pack(prepared)
    for key, layer in weighted_layers(prepared).items():
        numel = layer.weight.numel()
        assert packed[f"{key}.weight.mask"].numel() == math.ceil(numel / 8)
        assert packed[f"{key}.weight.kept"].numel() == numel - magnitude.pruned_count(numel, 0.9)
        assert f"{key}.weight" not in packed


# ---- clustering


@pytest.mark.parametrize("clusters", [2, 4, 16, 256])
@every_network
def test_a_layer_has_no_more_distinct_weights_than_clusters_and_training_changes_only_the_centroids(name, clusters):
    prepared = kmeans.prepare(float_model(name), clusters)
    before = copy.deepcopy(prepared.state_dict())
    train(prepared, steps=2)
    for key, tensor in prepared.state_dict().items():
        moves = key.endswith(("weight.original", "running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(tensor, before[key]) != moves, key
    restored = restored_from(kmeans, prepared, name)
    for layer in weighted_layers(restored).values():
        assert len(layer.weight.unique()) <= clusters


def test_both_ways_of_summing_gradients_equal_a_plain_sum():
    codes = torch.randint(15, (10_007,), dtype=torch.uint8)
    terms = torch.randn(10_007)  # one code has no weight
    expected = torch.bincount(codes, terms.double(), minlength=16)
    torch.testing.assert_close(kmeans.chunked_sums(codes, terms, 16, chunk=1000), expected)
    torch.testing.assert_close(kmeans.spread_sums(codes, terms, 16, copies=64), expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_centroids_gradient_is_the_sum_over_its_weights(memory_format):
    prepared = kmeans.prepare(float_model("mobilenetv2"), 8).to(memory_format=memory_format).train()
    layers = weighted_layers(prepared)
    images, labels = batch(0)
    # the same network with every weight a parameter of its own
    dense = models.build("mobilenetv2", 10, WIDTH).to(memory_format=memory_format).train()
    dense.load_state_dict(restored_from(kmeans, prepared, "mobilenetv2").state_dict())
    for model in (prepared, dense):
        F.cross_entropy(model(images), labels).backward()
    for key, layer in weighted_layers(dense).items():
        weight_gradient = layer.weight.grad.double().flatten().tolist()
        codes = layers[key].parametrizations.weight[0].codes.flatten().tolist()
        literal = [0.0] * 8
        for code, gradient in zip(codes, weight_gradient, strict=True):
            literal[code] += gradient
        got = layers[key].parametrizations.weight.original.grad.double()
        scale = layer.weight.grad.abs().sum().item()
        assert torch.allclose(got, torch.tensor(literal, dtype=torch.float64), rtol=0, atol=1e-5 * scale), key


def literal_lloyd(values, centroids):
    """One point and one centroid at a time."""
    centroids = [float(c) for c in centroids]
    while True:
        # of two equally near centroids the upper one, as in the fast version
        nearest = [min(range(len(centroids)), key=lambda j: (abs(v - centroids[j]), -j)) for v in values]
        moved = list(centroids)
        for j in range(len(centroids)):
            cluster = [float(v) for v, code in zip(values, nearest, strict=True) if code == j]
            if cluster:
                moved[j] = sum(cluster) / len(cluster)
        if np.allclose(moved, centroids, rtol=0, atol=1e-12):
            return sum((v - centroids[j]) ** 2 for v, j in zip(values, nearest, strict=True))
        centroids = moved


def squared_error(values, clusters):
    codebook, codes = kmeans.kmeans(values, clusters)
    assert codebook.dtype == np.float32 and codes.dtype == np.uint8 and codes.shape == values.shape
    assert len(codebook) == clusters and (np.diff(codebook) >= 0).all()
    return ((values.astype(np.float64) - codebook[codes]) ** 2).sum(), codebook, codes


@pytest.mark.parametrize("seed", range(8))
def test_kmeans_ends_where_a_literal_lloyd_ends(seed):
    values = np.random.default_rng(seed).standard_normal(60).astype(np.float32)
    clusters = (4, 8)[seed % 2]
    steps = np.linspace(values.min(), values.max(), clusters)
    shares = np.quantile(values.astype(np.float64), (np.arange(clusters) + 0.5) / clusters)
    literal = min(literal_lloyd(values.astype(np.float64), start) for start in (steps, shares))
    error, codebook, codes = squared_error(values, clusters)
    assert error == pytest.approx(literal, rel=1e-5)
    # the result is a fixed point: every value at its nearest centroid, every centroid the mean of its values
    distance = np.abs(values[:, None] - codebook)
    assert np.allclose(distance[np.arange(60), codes], distance.min(axis=1), atol=1e-6)
    assert all(np.isclose(codebook[j], values[codes == j].mean(), atol=1e-6) for j in set(codes))


def best_error(values, clusters):
    """Brute force over all ways to cut the sorted values into intervals."""
    ordered = np.sort(values.astype(np.float64))
    cuts = itertools.combinations(range(1, len(ordered)), clusters - 1)
    return min(sum(((part - part.mean()) ** 2).sum() for part in np.split(ordered, cut)) for cut in cuts)


def test_kmeans_finds_the_best_clusters_where_there_are_clear_ones():
    generator = np.random.default_rng(0)
    values = (generator.permutation(np.repeat([-3, -1, 0.5, 4], 4)) + 0.05 * generator.standard_normal(16)).astype("f4")
    error, _, _ = squared_error(values, 4)
    assert error == pytest.approx(best_error(values, 4), rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_kmeans_is_never_better_than_brute_force_and_seldom_much_worse(seed):
    values = np.random.default_rng(seed).standard_normal(14).astype(np.float32)
    error, _, _ = squared_error(values, 4)
    assert best_error(values, 4) * (1 - 1e-5) <= error <= 2 * best_error(values, 4)


@pytest.mark.parametrize("values", [[0.5] * 9, [0.0, 1.0], [-1.0, -1.0, 2.0]])
def test_fewer_distinct_values_than_clusters_are_kept_as_they_are(values):
    values = np.array(values, dtype=np.float32)
    error, _, _ = squared_error(values, 8)
    assert error < 1e-12


@pytest.mark.parametrize(("clusters", "bit"), [(4, 2), (8, 3), (16, 4)])
def test_the_clustered_file_holds_log2_k_bits_a_weight_and_the_codebook(clusters, bit):
    prepared = kmeans.prepare(float_model(), clusters)
    packed = kmeans.pack(prepared)
    for key, layer in weighted_layers(prepared).items():
        assert packed[f"{key}.codes"].numel() == math.ceil(layer.weight.numel() * bit / 8)
        assert packed[f"{key}.codebook"].shape == (clusters,)
        assert f"{key}.weight" not in packed


# ---- quantization


def literal_fold(source):
    """Folded weight and bias of a layer in float64, from eq. 14 of Jacob et al. 2018, channel by channel."""
    weight = source.layer.weight.detach().double().clone()
    bias = torch.zeros(len(weight), dtype=torch.float64)
    if source.layer.bias is not None:
        bias += source.layer.bias.detach().double()
    if source.norm is not None:
        norm = source.norm
        for channel in range(len(weight)):
            factor = norm.weight[channel].item() / math.sqrt(norm.running_var[channel].item() + norm.eps)
            weight[channel] *= factor
            bias[channel] = norm.bias[channel].item() + factor * (bias[channel] - norm.running_mean[channel].item())
    return weight, bias


@every_network
def test_folding_batch_norm_without_quantization_changes_no_logit(name, monkeypatch):
    model = float_model(name)
    prepared = int8.prepare(model, "int8").eval()
    monkeypatch.setattr(int8, "quantize_input", lambda x, scale, zero_point: x)
    monkeypatch.setattr(torch, "fake_quantize_per_channel_affine", lambda weight, *grid: weight)
    images = batch(5)[0]
    with torch.no_grad():
        expected = model(images)
        assert torch.allclose(prepared(images), expected, rtol=0, atol=1e-4 * expected.abs().max().item())


@every_network
def test_the_first_training_forward_is_already_on_the_grids(name, monkeypatch):
    model = float_model(name)
    seen = []
    for kind in ("conv2d", "linear"):
        function = getattr(F, kind)

        def spy(x, weight, bias, *, function=function, **options):
            seen.append((x.detach(), weight.detach()))
            return function(x, weight, bias, **options)

        monkeypatch.setattr(F, kind, spy)
    prepared = int8.prepare(model, "int8").train()
    images = batch(0)[0]
    logits = prepared(images)
    monkeypatch.undo()
    sources = list(int8.fake_quantized_layers(prepared).values())
    assert len(seen) == len(sources) == len(weighted_layers(model))
    with torch.no_grad():
        assert not torch.allclose(logits, model.eval()(images), atol=1e-4)
    used = {tuple(source.layer.weight.shape) for source in sources}
    assert used == {tuple(weight.shape) for _, weight in seen}
    for x, weight in seen:
        assert len(x.unique()) <= 256
        assert x.min() <= 0 <= x.max()
        for channel in weight:
            step = channel.abs().max() / 127
            assert step > 0 and torch.allclose(channel / step, (channel / step).round(), atol=1e-3)


@every_network
def test_quantization_aware_training_moves_the_very_parameters_that_are_quantized(name):
    prepared = int8.prepare(float_model(name), "int8")
    before = copy.deepcopy(prepared.state_dict())
    first = int8.pack(seen_one_batch(prepared))
    train(prepared, steps=3)
    trained = dict(prepared.named_parameters())
    for key, tensor in prepared.state_dict().items():
        if key in trained:
            assert trained[key].requires_grad and not torch.equal(tensor, before[key]), f"{key} did not move"
        elif ".norm." in key:  # of a batch norm that is folded
            assert torch.equal(tensor, before[key]), f"{key} is frozen"
    packed = int8.pack(prepared)
    changed = 0
    for key, source in int8.fake_quantized_layers(prepared).items():
        weight, bias = literal_fold(source)
        scale = weight.flatten(1).abs().amax(dim=1) / 127  # symmetric, per output channel
        codes = (weight / scale.view(-1, *[1] * (weight.dim() - 1))).round()
        assert packed[f"{key}.weight"].dtype == torch.int8
        assert torch.allclose(packed[f"{key}.scale"].double(), scale, rtol=1e-5)
        assert torch.allclose(packed[f"{key}.bias"].double(), bias, rtol=1e-4, atol=1e-6)
        difference = (packed[f"{key}.weight"] - codes).abs()
        assert difference.max() <= 1 and difference.mean() < 1e-3  # one step where float32 rounds a half differently
        assert (packed[f"{key}.weight"].flatten(1).abs().amax(dim=1) == 127).all()
        changed += (packed[f"{key}.weight"] != first[f"{key}.weight"]).sum().item()
    assert changed > 0


def test_gradients_pass_straight_through_the_rounding():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 3))
    prepared = int8.prepare(model, "int8").train()
    x = torch.randn(5, 6)
    prepared(x).sum().backward()
    source = prepared[0]
    quantized = int8.quantize_input(x, *source.input_grid())
    assert torch.allclose(source.layer.weight.grad, quantized.sum(dim=0).expand(3, 6), atol=1e-6)


def test_input_ranges_start_at_the_first_batch_move_by_one_percent_and_rest_in_eval_mode():
    prepared = int8.prepare(nn.Sequential(nn.Linear(2, 2)), "int8").train()
    source = prepared[0]
    prepared(torch.tensor([[-1.0, 3.0]]))
    assert (source.low.item(), source.high.item()) == (-1.0, 3.0)
    prepared(torch.tensor([[-2.0, 1.0]]))
    assert source.low.item() == pytest.approx(-1.01) and source.high.item() == pytest.approx(2.98)
    prepared.eval()(torch.tensor([[-50.0, 50.0]]))
    assert source.low.item() == pytest.approx(-1.01) and source.high.item() == pytest.approx(2.98)


def test_an_input_grid_holds_zero_exactly_even_where_no_input_does():
    prepared = int8.prepare(nn.Sequential(nn.Linear(2, 2)), "int8").train()
    for inputs in ([[2.0, 3.0]], [[-3.0, -2.0]], [[0.0, 0.0]]):
        prepared[0].low.fill_(torch.nan), prepared[0].high.fill_(torch.nan)
        prepared(torch.tensor(inputs))
        scale, zero_point = prepared[0].input_grid()
        assert scale > 0 and 0 <= zero_point <= 255
        assert int8.quantize_input(torch.zeros(1), scale, zero_point).item() == 0
        assert torch.allclose(
            int8.quantize_input(torch.tensor(inputs), scale, zero_point), torch.tensor(inputs), atol=0.02
        )


@every_network
def test_dead_channels_and_vanishing_gammas_stay_finite(name):
    model = float_model(name)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight[0] = 0
            if isinstance(module, nn.BatchNorm2d):
                module.weight[1] = 0
                module.weight[2] = 1e-30
                module.weight[3] = -1e-9
                module.running_mean[0] = module.running_var[0] = 0  # what a channel of zeros leaves behind
    prepared = train(int8.prepare(model, "int8"))
    restored = restored_from(int8, prepared, name)
    int8.verify(prepared, restored, "int8", batch(99)[0])
    assert all(t.isfinite().all() for t in restored.state_dict().values())
    assert all((t > 0).all() for key, t in restored.state_dict().items() if key.endswith("scale"))


def test_a_model_that_saw_no_training_batch_is_not_packed_and_answers_nan():
    prepared = int8.prepare(float_model(), "int8")
    assert prepared.eval()(batch(0)[0]).isnan().all()
    with pytest.raises(ValueError, match="no training batch"):
        int8.pack(prepared)


def test_the_int8_file_of_the_full_resnet_is_at_most_27_percent_of_the_float_file():
    model = models.build("resnet18", 10)
    prepared = int8.prepare(model, "int8").train()
    with torch.no_grad():
        prepared(batch(0, size=2)[0])
    assert file_bytes(int8.pack(prepared)) <= 0.27 * file_bytes(model.state_dict())
