"""Models as ONNX files: they answer as the checkpoints do, and what lies beside them describes the run's audit."""

import json

import numpy as np
import pytest
import torch
from conftest import NETWORK
from networks import WIDTH, batch, float_model, one_thread  # noqa: F401
from torch import nn

import export
import models
import train
from clustering import clustering
from compleak.queries import export as exporting
from compleak.queries import signals_file
from compleak.queries.collect import collect
from compleak.queries.targets import targets_of
from compleak.runs.run import dataset, finished_variants, open_run
from compleak.runs.variants import ORIGINAL, parse_variant
from core.errors import UserError
from data.inputs import FEATURES, IMAGES
from models.foreign.onnx_description import describe_onnx
from models.to_onnx import graph_of, onnx_model
from pruning import prune
from quantization import degrees, ptq, qat, to_onnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

FEW = 6  # points: a dynamic model is asked one by one
FEWEST = ["--max_points", "12", "--epochs", "1", "--no_augment"]
MACHINE = {"device": torch.device("cpu"), "batch_size": 64}
VARIANTS = (
    "original",
    "pruning_slim_0.5",
    "clustering_4",
    *(f"quantization_{d}" for d in degrees.DEGREES),
)


def compressed(name, degree):
    """A network as training leaves it, or a quantization of it as it is read from a checkpoint, and inputs for it."""
    is_table = name == "mlp"
    model = models.build("mlp", 10, WIDTH, 30).eval() if is_table else float_model(name)
    inputs = torch.randn(FEW, 30) if is_table else batch(5, size=FEW)[0]
    if degree == "float":
        return model, inputs
    technique = degrees.DEGREES[degree].module
    prepared = technique.prepare(model, degree)
    if degree == "int8_static":
        technique.calibrate(prepared, model, [inputs])
    skeleton = models.build("mlp", 10, WIDTH, 30) if is_table else models.build(name, 10, WIDTH)
    return technique.unpack(skeleton, technique.pack(prepared.eval())), inputs


def proto_of(model, inputs):
    return onnx_model(model, tuple(inputs.shape[1:]), batch=to_onnx.batch_of(model), writers=to_onnx.WRITERS)


def answers_as_written(proto, inputs):
    """What onnxruntime computes when it takes every operator as it stands, instead of joining them in integers."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    size = session.get_inputs()[0].shape[0]
    batches = inputs.split(size) if isinstance(size, int) else [inputs]
    return np.concatenate([session.run(None, {"input": part.numpy()})[0] for part in batches])


# ---- the networks


@pytest.mark.parametrize("degree", ["float", *degrees.POST_TRAINING])  # the layers of int8 are those of int8_static
@pytest.mark.parametrize("name", (*models.FOR_IMAGES, *models.FOR_FEATURES))  # texts have no ONNX form
def test_every_network_in_every_quantization_answers_as_in_torch(name, degree, tmp_path):
    model, inputs = compressed(name, degree)
    proto = proto_of(model, inputs)
    file = tmp_path / "model.onnx"
    file.write_bytes(proto.SerializeToString())
    with torch.no_grad():
        expected = model(inputs).numpy()
    fused = exporting.difference(expected, exporting.answers_of_file(file, inputs.numpy()))
    as_written = exporting.difference(expected, answers_as_written(proto, inputs))
    if degree in (
        "int8_static",
        "int8_dynamic",
    ):  # a last bit may decide between two steps of a grid, so that single logits move
        assert as_written.median < 2e-3 and as_written.largest < 0.1 and fused.median < 0.03
    else:
        assert max(as_written.largest, fused.largest) < 1e-5


def test_a_float_network_takes_batches_of_any_size_and_states_its_operators_version(tmp_path):
    model, inputs = compressed("resnet18", "float")
    proto = proto_of(model, inputs)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 21)]
    (described,), (answer,) = proto.graph.input, proto.graph.output
    assert (described.name, answer.name) == ("input", "logits")
    assert described.type.tensor_type.shape.dim[0].dim_param == "batch"
    together = answers_as_written(proto, inputs)
    alone = np.concatenate([answers_as_written(proto, inputs[i : i + 1]) for i in range(3)])
    assert np.allclose(together[:3], alone, atol=1e-5)


def test_a_dynamic_network_takes_one_sample_at_a_time():
    model, inputs = compressed("mlp", "int8_dynamic")
    proto = proto_of(model, inputs)
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert {"DynamicQuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in proto.graph.node}


@pytest.mark.parametrize(("degree", "type", "share"), [("int8_static", "INT8", 0.3), ("int4", "INT4", 0.2)])
def test_quantized_weights_are_stored_in_their_own_type(degree, type, share):
    model, inputs = compressed("resnet18", degree)
    proto = proto_of(model, inputs)
    weights = [
        tensor for tensor in proto.graph.initializer if len(tensor.dims) in (2, 4) and "scale" not in tensor.name
    ]
    assert weights and all(tensor.data_type == getattr(onnx.TensorProto, type) for tensor in weights)
    assert len(proto.SerializeToString()) < share * len(proto_of(*compressed("resnet18", "float")).SerializeToString())


def test_int8_layers_stand_between_the_two_halves_of_a_quantization():
    proto = proto_of(*compressed("mlp", "int8_static"))
    assert [node.op_type for node in proto.graph.node[:5]] == [
        *("QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Gemm", "Relu")
    ]


@pytest.mark.parametrize(
    ("degree", "described"),
    [("int8_static", "int8 (static)"), ("int8_dynamic", "int8 (dynamic)"), ("int4", "int4 (weights only)")],
)
def test_an_audit_says_of_an_exported_network_how_it_was_quantized(degree, described):
    description = describe_onnx(proto_of(*compressed("mlp", degree)))
    assert description == f"ONNX, opset 21, 3 of 3 weighted layers on {described}"


def test_what_has_no_onnx_form_is_named():
    for model in (nn.Sequential(nn.Linear(2, 2), nn.Tanh()), nn.Sequential(nn.AdaptiveAvgPool2d(2))):
        with pytest.raises(ValueError, match="ONNX form"):
            graph_of(model.eval(), {**models.to_onnx.WRITERS})


# ---- a run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of very few points in every kind of compression."""
    where = [*NETWORK, "--root", str(tmp_path_factory.mktemp("export"))]
    train.main([*where, *FEWEST])
    once = [*where, "--no_augment"]
    prune.main([*once, "--prune_epochs", "1", "--prune_sparsity", "0.5", "--pruner_name", "slim"])
    clustering.main([*once, "--epochs", "1", "--bit", "2"])
    qat.main([*once, "--quantized_epochs", "1"])
    for degree in degrees.POST_TRAINING:
        ptq.main([*where, "--degree", degree])
    return open_run(train.parse(where).run)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The folder of the whole run's export."""
    out = tmp_path_factory.mktemp("out")
    export.main([*NETWORK, "--root", str(run.root), "--out", str(out), "--audit"])
    return out


def flags(run, out, *more):
    return [*NETWORK, "--root", str(run.root), "--out", str(out), *more]


def read_list(file):
    return [int(line) for line in file.read_text().splitlines()]


def test_all_finished_models_of_all_roles_are_written(run, exported):
    assert set(map(str, finished_variants(run))) == set(VARIANTS)
    files = {f"{role}/{variant}.onnx" for role in run.roles for variant in VARIANTS}
    assert {str(path.relative_to(exported)) for path in exported.glob("*/*.onnx")} == files
    facts = json.loads((exported / "export.json").read_text())
    assert facts["models"].keys() == files and {"command", "commit", "versions"} <= facts.keys()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_files_give_the_very_answers_of_the_runs_signals(run, exported, variant):
    record = signals_file.load(collect(run, parse_variant(variant), {"sensitivity": 0}, **MACHINE))
    with np.load(exported / "points.npz") as points:
        inputs = IMAGES.to_input(torch.from_numpy(points["x"])).numpy()
        assert np.array_equal(points["y"], record.labels)
    for row, role in enumerate(run.roles):
        answers = exporting.answers_of_file(exported / role / f"{variant}.onnx", np.ascontiguousarray(inputs))
        difference = exporting.difference(record.logits[row], answers)
        assert difference.median < (0.03 if "int8" in variant else 1e-6)
        assert difference.largest < (0.1 if "int8" in variant else 1e-5)


def test_the_lists_of_points_are_those_of_the_signals_file(run, exported):
    record = signals_file.load(collect(run, ORIGINAL, {"sensitivity": 0}, **MACHINE))
    for row, role in enumerate(run.roles):
        assert read_list(exported / role / "members.txt") == np.flatnonzero(record.member[row]).tolist()
        assert read_list(exported / role / "audited.txt") == np.flatnonzero(record.audit[row]).tolist()
    others = record.audit[0] & ~record.member[0]
    assert read_list(exported / "victim_model" / "nonmembers.txt") == np.flatnonzero(others).tolist()


def test_the_points_are_stored_values_in_the_order_of_the_audit(run, exported):
    with np.load(exported / "points.npz") as points:
        assert np.array_equal(points["x"], dataset(run).images[targets_of(run).points])
        assert points["x"].dtype == np.uint8 and points["y"].dtype == np.int64


def test_the_task_names_files_that_are_there(run, exported):
    yaml = pytest.importorskip("yaml")
    task = yaml.safe_load((exported / "task.yaml").read_text())
    assert list(task) == [
        *("name", "seed", "data", "models", "members", "nonmembers", "preprocessing", "attacker", "shadows")
    ]
    assert (task["name"], task["seed"], task["attacker"]) == (run.name, 7, "shadows")
    assert list(task["models"])[0] == "original" and set(task["models"]) == set(VARIANTS)
    (shadow,) = task["shadows"]
    assert shadow["models"].keys() == task["models"].keys()
    files = [task["data"], task["members"], task["nonmembers"], shadow["members"], shadow["audited"]]
    for file in (*files, *task["models"].values(), *shadow["models"].values()):
        assert (exported / file).is_file()


def test_a_file_says_what_turns_stored_images_into_its_input(run, exported):
    proto = onnx.load(exported / "victim_model" / "original.onnx")
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    assert properties["compleak_mean"] == "0.5,0.5,0.5" and properties["compleak_std"] == "0.25,0.25,0.25"
    assert properties["compleak_layout"] == "NCHW" and properties["compleak_run"] == run.name
    images = dataset(run).images[:5]
    by_hand = ((images / 255 - 0.5) / 0.25).transpose(0, 3, 1, 2)
    assert np.allclose(IMAGES.to_input(torch.from_numpy(images)).numpy(), by_hand, atol=1e-6)
    assert exporting.preprocessing_of(FEATURES) == {}


def test_without_audit_only_the_victims_models_are_written(run, tmp_path, capsys):
    export.main(flags(run, tmp_path, "--variants", "original", "quantization_int4"))
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert names == {"victim_model/original.onnx", "victim_model/quantization_int4.onnx", "export.json"}
    assert capsys.readouterr().out.count("logits differ from the checkpoint's by up to") == 2


def test_an_audit_has_the_original_even_where_it_is_not_named(run, tmp_path):
    settings = export.parse(flags(run, tmp_path, "--audit", "--variants", "clustering_4"))
    assert exporting.exported_variants(run, settings) == [ORIGINAL, parse_variant("clustering_4")]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--variants", "pruning_0.6"], "first python pruning/prune.py --prune_sparsity 0.6"),
        (["--variants", "nonsense"], "no compressed variant"),
        (["--roles", "shadow_model_7"], "this run has victim_model shadow_model_0"),
    ],
)
def test_what_cannot_be_exported_is_named_before_anything_is_written(run, tmp_path, more, message):
    with pytest.raises(UserError, match=message):
        export.main(flags(run, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


def test_roles_and_audit_do_not_go_together(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        export.parse(flags(run, tmp_path, "--audit", "--roles", "victim_model"))
    assert "leave out --roles" in capsys.readouterr().err


def test_a_file_that_answers_otherwise_is_not_left_behind(run, tmp_path, monkeypatch):
    answers_of_file = exporting.answers_of_file
    monkeypatch.setattr(exporting, "answers_of_file", lambda *args: answers_of_file(*args) * 1.01)
    with pytest.raises(UserError, match=r"logits differ from .* largest difference is 0.01 .* 0.001 is allowed"):
        export.main(flags(run, tmp_path / "out", "--variants", "original"))
    assert not (tmp_path / "out").exists()


def test_a_model_that_fails_late_leaves_an_earlier_export_as_it_was(run, tmp_path, monkeypatch):
    export.main(flags(run, tmp_path, "--variants", "original"))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    load_model = exporting.load_model

    def load_all_but_clustered_models(run, variant, role):
        if variant != ORIGINAL:
            raise UserError("model.pt is damaged or was replaced")
        return load_model(run, variant, role)

    monkeypatch.setattr(exporting, "load_model", load_all_but_clustered_models)
    monkeypatch.setattr(exporting, "metadata_of", lambda *args: {"another": "version"})
    with pytest.raises(UserError, match="damaged"):
        export.main(flags(run, tmp_path, "--variants", "original", "clustering_4"))
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_the_number_that_was_judged_is_named_with_its_limit(monkeypatch):
    """A model that rounds is judged by the median, every other by the largest difference; NaN is never close."""
    monkeypatch.setattr(exporting.to_onnx, "rounds_inputs", lambda model: model == "rounds")
    exporting.refuse_difference("rounds", exporting.Difference(largest=0.9, median=0.04), "int8")
    with pytest.raises(UserError, match=r"median difference is 0.06 of the largest logit, and 0.05 is allowed"):
        exporting.refuse_difference("rounds", exporting.Difference(largest=0.9, median=0.06), "int8")
    for largest in (0.002, np.nan):
        with pytest.raises(UserError, match=f"largest difference is {largest} of the largest logit, and 0.001 is"):
            exporting.refuse_difference("float", exporting.Difference(largest=largest, median=0.0), "original")


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_a_missing_library_is_named(monkeypatch, name):
    find_spec = exporting.importlib.util.find_spec
    monkeypatch.setattr(
        exporting.importlib.util, "find_spec", lambda asked: None if asked == name else find_spec(asked)
    )
    with pytest.raises(UserError, match=f"needs {name}: pip install"):
        exporting.refuse_missing_libraries(audit=False)
