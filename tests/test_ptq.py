"""Quantization after training: what is true of the models, and what the stage says of them."""

import copy
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import NETWORK, TINY
from networks import WIDTH, batch, float_model, one_thread, through_a_file  # noqa: F401
from torch import nn

import models
import reproduce
import train
from compleak.pipeline.comparison import joined_stages, plans_of
from compleak.queries import signals_file
from compleak.queries.collect import collect
from compleak.runs.run import finished_variants, open_run
from compleak.runs.settings import QuantizeSettings
from compleak.runs.variants import compressed_variant, parse_variant
from compleak.training.assignment import assign, points_fingerprint
from compleak.training.compress import calibration_points, compress_models, content_bytes, inherited_privacy
from compleak.training.finished import model_meta
from core.errors import UserError
from quantization import degrees, dynamic, int4, int8, ptq, qat, static

POST_TRAINING = degrees.POST_TRAINING
MACHINE = {"device": torch.device("cpu"), "batch_size": 64}
every_degree = pytest.mark.parametrize("degree", POST_TRAINING)


def quantized(model, degree, batches=None):
    """The prepared model, its packed tensors, and the model that these restore."""
    technique = degrees.DEGREES[degree].module
    prepared = technique.prepare(model, degree)
    if degree == "int8_static":
        technique.calibrate(prepared, model, batches or [batch(0)[0]])
    return prepared.eval(), technique.pack(prepared)


@every_degree
@pytest.mark.parametrize("name", models.FOR_IMAGES)
def test_the_file_restores_the_quantized_model_exactly_and_leaves_the_float_model_alone(name, degree):
    technique = degrees.DEGREES[degree].module
    model = float_model(name)
    before = copy.deepcopy(model.state_dict())
    prepared, tensors = quantized(model, degree)
    restored = technique.unpack(models.build(name, 10, WIDTH), through_a_file(tensors))
    images = batch(99, size=8)[0]
    assert degree in technique.verify(prepared, restored, degree, images)
    with torch.no_grad():
        assert torch.equal(restored(images), prepared(images))
        assert not torch.equal(restored(images), model(images))
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


@every_degree
def test_a_table_network_is_quantized_as_well(degree):
    model = models.build("mlp", 5, 1.0, 30).eval()
    rows = torch.randn(12, 30)
    prepared, tensors = quantized(model, degree, [rows])
    technique = degrees.DEGREES[degree].module
    restored = technique.unpack(models.build("mlp", 5, 1.0, 30), tensors)
    technique.verify(prepared, restored, degree, rows)


@every_degree
def test_a_quantized_network_of_full_width_is_as_small_as_promised(degree):
    model = models.build("resnet18", 10).eval()
    _, tensors = quantized(model, degree, [batch(0, size=2)[0]])
    share = content_bytes(tensors) / content_bytes(model.state_dict())
    assert share <= degrees.DEGREES[degree].largest_share
    assert share <= (0.142 if degree == "int4" else 0.27)


@every_degree
def test_foreign_tensors_and_degrees_are_refused(degree):
    technique = degrees.DEGREES[degree].module
    skeleton = models.build("resnet18", 10, WIDTH)
    _, tensors = quantized(float_model(), degree)
    for key in list(tensors)[:3]:
        without = {name: tensor for name, tensor in tensors.items() if name != key}
        for bad in (without, {**tensors, key: tensors[key].double()}, {**tensors, key: tensors[key][None]}):
            with pytest.raises(ValueError, match=key):
                technique.unpack(skeleton, bad)
    with pytest.raises(ValueError, match="int5"):
        technique.prepare(skeleton, "int5")


# ---- int8_static


def test_input_ranges_are_those_of_the_float_network_over_all_batches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    first, second = torch.randn(5, 3), 2 * torch.randn(5, 3)
    prepared = static.prepare(model, "int8_static")
    static.calibrate(prepared, model, [first, second])
    rows = torch.cat([first, second])
    hidden = model[0](rows).relu()
    for layer, inputs in ((prepared[0], rows), (prepared[2], hidden)):
        assert layer.low == inputs.min() and layer.high == inputs.max()
    assert not model[0]._forward_pre_hooks


def test_a_static_layer_worked_by_hand():
    model = nn.Sequential(nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.27, -0.634]]))
        model[0].bias.fill_(0.5)
    prepared, tensors = quantized(model, "int8_static", [torch.tensor([[0.0, 2.55]])])
    assert tensors["0.weight"].tolist() == [[127, -63]]
    assert tensors["0.scale"].item() == pytest.approx(0.01)
    assert tensors["0.input_scale"].item() == pytest.approx(0.01) and tensors["0.input_zero_point"] == 0
    # 1.004 is rounded to 1.00, 3 is cut to 2.55, and -1 to 0
    answers = prepared(torch.tensor([[1.004, 3.0], [-1.0, 1.0]]))
    assert answers[:, 0].tolist() == pytest.approx([1.27 - 0.63 * 2.55 + 0.5, -0.63 + 0.5], abs=1e-5)


def test_a_model_that_was_not_calibrated_is_not_packed():
    with pytest.raises(ValueError, match="no calibration"):
        static.pack(static.prepare(float_model(), "int8_static"))


# ---- int8_dynamic


def onnx_rounded(row):
    """What ONNX's own reference computes: DynamicQuantizeLinear, then DequantizeLinear."""
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["y", "scale", "zero"], ["z"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])]
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n"])]
    graph = helper.make_graph(nodes, "rounding", inputs, outputs)
    return ReferenceEvaluator(graph, opsets={"": 21}).run(None, {"x": row})[0]


def test_each_sample_is_rounded_as_onnx_rounds_a_batch_of_one():
    pytest.importorskip("onnx")
    rows = torch.randn(6, 40, generator=torch.Generator().manual_seed(3)) * torch.logspace(-3, 3, 6)[:, None]
    rows = torch.cat([rows, rows[:2].abs(), -rows[:2].abs()])
    for row, rounded in zip(rows.numpy(), dynamic.quantize_samples(rows).numpy(), strict=True):
        assert np.allclose(rounded, onnx_rounded(row), rtol=1e-6, atol=0)
    assert torch.equal(dynamic.quantize_samples(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_ranges_over_the_whole_batch_are_caught(monkeypatch):
    prepared, tensors = quantized(float_model(), "int8_dynamic")
    restored = dynamic.unpack(models.build("resnet18", 10, WIDTH), tensors)
    of_samples = dynamic.quantize_samples
    monkeypatch.setattr(dynamic, "quantize_samples", lambda x: of_samples(x[None])[0])
    with pytest.raises(AssertionError, match="depend on the other samples"):
        dynamic.verify(prepared, restored, "int8_dynamic", batch(1)[0])


# ---- int4


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_two_codes_fill_a_byte_the_first_in_the_lower_half(count):
    codes = (torch.arange(count) % 16 - 8).to(torch.int8)
    packed = int4.two_in_a_byte(codes)
    assert packed.dtype == torch.uint8 and len(packed) == (count + 1) // 2
    assert torch.equal(int4.two_from_a_byte(packed, count), codes)
    assert int4.two_in_a_byte(torch.tensor([1, -1], dtype=torch.int8)).tolist() == [0xF1]


@pytest.mark.parametrize(("inputs", "size"), [(128, 64), (64, 64), (96, 96), (7, 7)])
def test_four_bit_weights_are_within_half_a_step_of_their_groups_grid(inputs, size):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(inputs, 5))
    _, tensors = quantized(model, "int4")
    weight = model[0].weight.detach().view(-1, size)
    scale = weight.abs().amax(dim=1) / 7
    assert torch.allclose(tensors["0.scale"], scale)
    skeleton = nn.Sequential(nn.Linear(inputs, 5))
    rounded = int4.unpack(skeleton, tensors)[0].dequantized().view(-1, size)
    assert ((rounded - weight).abs() <= scale[:, None] / 2 + 1e-6).all()
    assert torch.allclose(rounded.abs().amax(dim=1), weight.abs().amax(dim=1))


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([128, 64], "with a scale for each 64 of them; restored"),
        ([96, 7], "with a scale for each output channel; restored"),
        ([64, 7, 64], "with a scale for each 64 of them in 2 layers and for each output channel in 1; restored"),
    ],
)
def test_an_int4_model_says_which_weights_share_a_scale(inputs, says):
    network = nn.Sequential(*(nn.Linear(*sizes) for sizes in pairwise([*inputs, 5])))
    prepared, tensors = quantized(network, "int4")
    restored = int4.unpack(network, tensors)
    assert says in int4.verify(prepared, restored, "int4", torch.ones(2, inputs[0]))


def test_activations_of_int4_are_not_rounded():
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    nn.init.ones_(model[0].weight)
    prepared, _ = quantized(model, "int4")
    rows = torch.tensor([[0.123456, 0, 0, 1000.0]])
    assert prepared(rows).item() == pytest.approx(rows.sum().item(), rel=1e-6)


# ---- the stage


CALIBRATION = {"int8_static": ["--calibration_points", "40"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run with all models that are quantized without training."""
    where = [*NETWORK, "--root", str(tmp_path_factory.mktemp("ptq"))]
    train.main([*where, *TINY])
    for degree in POST_TRAINING:
        ptq.main([*where, "--degree", degree, *CALIBRATION.get(degree, [])])
    return open_run(train.parse(where).run)


def settings_of(run, degree, **changes):
    more = CALIBRATION.get(degree, [])
    return replace(ptq.parse([*NETWORK, "--root", str(run.root), "--degree", degree, *more]), **changes)


@every_degree
def test_the_stage_makes_a_variant_whose_record_claims_no_training(run, degree):
    variant = parse_variant(f"quantization_{degree}")
    assert variant in finished_variants(run)
    for role in run.roles:
        meta = model_meta(run, variant, role)
        assert not {"epochs", "lr", "augment", "momentum", "batch_size"} & meta["made_from"].keys()
        assert "loss" not in meta and 0 <= meta["test_accuracy"] <= 1 and degree in meta["property"]
    logits = signals_file.load(collect(run, variant, {"sensitivity": 0}, **MACHINE)).logits
    assert logits.shape[0] == 2 and np.isfinite(logits).all()


def test_static_models_are_calibrated_on_their_own_members(run):
    chosen = {}
    for role in run.roles:
        assignment = assign(run, compressed_variant("quantization", "int8_static"), role)
        points = calibration_points(assignment, {}, 40)
        chosen[role] = set(points)
        assert len(chosen[role]) == 40 and chosen[role] <= set(assignment.members)
        made_from = model_meta(run, assignment.variant, role)["made_from"]
        assert made_from["calibration"] == points_fingerprint(points, points[:0])
    assert not chosen["victim_model"] & chosen["shadow_model_0"]


def test_a_private_original_is_calibrated_on_its_reserve_and_keeps_its_epsilon(run):
    static_variant = compressed_variant("quantization", "int8_static")
    assignment = replace(assign(run, static_variant, "victim_model"), reserve=np.arange(1000, 1010))
    private = {"privacy": {"epsilon": 3.0, "delta": 1e-5, "history": [[1.0, 0.1, 10]]}}
    assert set(calibration_points(assignment, private, 1024)) == set(range(1000, 1010))
    assert set(calibration_points(assignment, {}, 1024)) == set(assignment.members)
    assert inherited_privacy(assignment, private) == private
    assert inherited_privacy(assignment, {}) == {}
    fine_tuned = assign(run, compressed_variant("quantization", "int8"), "victim_model")
    assert inherited_privacy(replace(fine_tuned, defence="dp"), private) == {}  # its own training states it
    assert inherited_privacy(replace(fine_tuned, defence=""), private)["privacy"]["epsilon"] is None


def test_a_repeated_stage_does_nothing_and_other_calibration_points_are_refused(run, capsys):
    compress_models(settings_of(run, "int8_static"))
    assert capsys.readouterr().out.count("done before") == 2
    with pytest.raises(UserError, match="made with calibration"):
        compress_models(settings_of(run, "int8_static", calibration_points=30))


def test_the_record_of_a_model_without_calibration_names_its_original_and_degree_alone(run):
    variant = parse_variant("quantization_int4")
    made_from = json.loads((run.role_dir(variant, "victim_model") / "meta.json").read_text())["made_from"]
    assert made_from.keys() == {"original", "technique", "degree"}


def test_a_whole_audit_plans_the_stage_without_a_fine_tuning():
    names = [f"quantization_{degree}" for degree in POST_TRAINING]
    settings = reproduce.parse(["--dataset_name", "digits", "--preset", "smoke", "--variants", *names])
    stages = [stage for stage in joined_stages(plans_of(settings)) if stage.key.kind == "compress"]
    assert {str(stage.key.variant) for stage in stages} == set(names)
    for stage in stages:
        assert stage.action is compress_models and type(stage.settings) is QuantizeSettings
        assert stage.settings.batch_size == 32 and stage.settings.roles == (stage.key.role,)


def test_messages_name_the_script_that_makes_a_degree():
    assert parse_variant("quantization_int8").command == "quantization/qat.py --degree int8"
    assert parse_variant("quantization_int4").command == "quantization/ptq.py --degree int4"
    with pytest.raises(UserError, match="expected int8, int8_static, int8_dynamic, int4"):
        parse_variant("quantization_int3")


def test_each_script_sends_the_others_degrees_away(capsys):
    for parse, degree, message in ((qat.parse, "int4", "use quantization/ptq.py"), (ptq.parse, "int8", "int8_static")):
        with pytest.raises(SystemExit):
            parse(["--degree", degree])
        assert message in capsys.readouterr().err


def test_quantization_aware_training_refuses_the_other_degrees():
    with pytest.raises(ValueError, match="int4"):
        int8.prepare(float_model(), "int4")
