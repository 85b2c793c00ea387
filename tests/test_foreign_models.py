"""Model files of other people are opened, asked, or refused in one line, and nothing in them is run."""

import ast
import contextlib
import functools
import io
import json
import sys
import zipfile
from pathlib import Path

import foreign
import numpy as np
import pytest
import torch
from networks import one_thread  # noqa: F401  (every test here on one thread)
from torch import nn

from core.errors import UserError
from core.plugins import import_plugin
from models.foreign import ModelSpec, exported_program, load_weights, open_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def opened(file: Path, **choices):
    return open_model(ModelSpec(file, **choices), threads=1)


def refusal(file: Path, **choices) -> str:
    """The one line with which a model is refused."""
    with pytest.raises(UserError) as error:
        opened(file, **choices)
    assert "\n" not in str(error.value)
    return str(error.value)


# ONNX: what is asked and answered


def test_an_onnx_network_answers_as_numpy_does_for_any_number_of_rows(tmp_path):
    model = opened(foreign.write_onnx(tmp_path / "mlp.onnx"))
    inputs = foreign.rows(7)
    expected = foreign.mlp_logits(foreign.mlp_arrays(), inputs)
    np.testing.assert_allclose(model.answer(inputs), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model.answer(inputs[:1]), model.answer(inputs)[:1])
    assert model.input_shape == (foreign.FEATURES,)
    assert (model.input_dtype, model.fixed_batch, model.runs_code) == ("float32", None, False)
    assert model.description == "ONNX, opset 17, 2 weighted layers on float32"
    assert model.files == (tmp_path / "mlp.onnx",)


def test_an_onnx_network_with_a_fixed_batch_is_asked_in_batches_of_that_size(tmp_path):
    model = opened(foreign.write_onnx(tmp_path / "mlp.onnx", batch=4))
    inputs = foreign.rows(7)
    assert model.fixed_batch == 4
    expected = foreign.mlp_logits(foreign.mlp_arrays(), inputs)
    np.testing.assert_allclose(model.answer(inputs), expected, rtol=1e-5, atol=1e-5)


def test_an_onnx_network_on_float16_gets_float16_and_gives_float32(tmp_path):
    model = opened(foreign.write_onnx(tmp_path / "mlp.onnx", dtype=np.float16))
    inputs = foreign.rows(3)
    answers = model.answer(inputs)
    assert (model.input_dtype, answers.dtype) == ("float16", np.float32)
    np.testing.assert_allclose(answers, foreign.mlp_logits(foreign.mlp_arrays(), inputs), atol=0.05)


def quantize(source: Path, target: Path, kind: str) -> Path:
    """Quantize by onnxruntime's own tools: "dynamic", "QDQ" or "QOperator".

    With 8-bit weights onnxruntime's sums overflow on processors without VNNI, hence `reduce_range`: 7 bits.
    """
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Calibration(quantization.CalibrationDataReader):
        batches = iter([{"x": foreign.rows(50)}])

        def get_next(self):
            return next(self.batches, None)

    if kind == "dynamic":
        quantization.quantize_dynamic(source, target, reduce_range=True)
    else:
        form = quantization.QuantFormat[kind]
        quantization.quantize_static(source, target, Calibration(), quant_format=form)
    return target


@pytest.mark.parametrize(
    ("kind", "layers"), [("dynamic", "int8 (dynamic)"), ("QDQ", "int8 (static)"), ("QOperator", "int8 (static)")]
)
def test_quantized_onnx_networks_answer_nearly_as_the_original_and_say_how_they_are_quantized(tmp_path, kind, layers):
    original = foreign.write_onnx(tmp_path / "mlp.onnx")
    model = opened(quantize(original, tmp_path / "int8.onnx", kind))
    inputs = foreign.rows(20)
    expected = foreign.mlp_logits(foreign.mlp_arrays(), inputs)
    difference = np.abs(model.answer(inputs) - expected).max()
    assert 0 < difference < 0.05 * np.abs(expected).max()
    assert model.description == f"ONNX, opset 17, 2 of 2 weighted layers on {layers}"


LABELS_AND_SCORES = (
    *foreign.MLP_NODES[:2],
    ("Gemm", ["active", "w2", "b2"], ["scores"]),
    ("ArgMax", ["scores"], ["label"]),
)


def test_beside_labels_the_only_output_with_scores_is_taken(tmp_path):
    outputs = {"label": (7, None), "scores": (1, ["B", foreign.CLASSES])}
    file = foreign.write_onnx(tmp_path / "mlp.onnx", nodes=LABELS_AND_SCORES, outputs=outputs)
    inputs = foreign.rows()
    expected = foreign.mlp_logits(foreign.mlp_arrays(), inputs)
    np.testing.assert_allclose(opened(file).answer(inputs), expected, rtol=1e-5, atol=1e-5)
    assert "'label'" in refusal(file, output="label")


def test_where_two_outputs_have_scores_the_user_is_asked_and_can_choose_by_name(tmp_path):
    outputs = {"active": (1, ["B", foreign.UNITS]), "logits": (1, ["B", foreign.CLASSES])}
    file = foreign.write_onnx(tmp_path / "mlp.onnx", outputs=outputs)
    message = refusal(file)
    assert "active, logits" in message
    assert "--output NAME" in message
    assert opened(file, output="active").answer(foreign.rows()).shape == (5, foreign.UNITS)
    assert "no output 'probabilities'" in refusal(file, output="probabilities")


def test_an_input_with_a_default_value_is_no_input(tmp_path):
    def declare_weight(model):
        from onnx import helper

        model.graph.input.append(helper.make_tensor_value_info("b1", 1, [foreign.UNITS]))

    model = opened(foreign.write_onnx(tmp_path / "mlp.onnx", edit=declare_weight))
    assert model.input_shape == (foreign.FEATURES,)


def test_a_network_that_needs_two_inputs_is_refused_with_their_names(tmp_path):
    weights = foreign.mlp_arrays()
    del weights["b1"]

    def declare_input(model):
        from onnx import helper

        model.graph.input.append(helper.make_tensor_value_info("b1", 1, [foreign.UNITS]))

    assert "x, b1" in refusal(foreign.write_onnx(tmp_path / "mlp.onnx", weights, edit=declare_input))


def write_zipmap(file: Path, **labels) -> Path:
    """A network whose scores go through a ZipMap, as skl2onnx writes classifiers."""
    from onnx import helper

    zipmap = helper.make_node("ZipMap", ["logits"], ["probabilities"], domain="ai.onnx.ml", **labels)
    key = 7 if "classlabels_int64s" in labels else 8
    maps = helper.make_sequence_type_proto(helper.make_map_type_proto(key, helper.make_tensor_type_proto(1, [])))
    value = helper.make_value_info("probabilities", maps)
    nodes = (*foreign.MLP_NODES, ("ArgMax", ["logits"], ["label"]), zipmap)
    outputs = {"label": (7, None), "probabilities": value}
    return foreign.write_onnx(file, nodes=nodes, outputs=outputs, opsets=[helper.make_opsetid("ai.onnx.ml", 1)])


@pytest.mark.parametrize(
    ("labels", "order", "names"),
    [
        ({"classlabels_int64s": [10, 9, 100]}, [1, 0, 2], ("9", "10", "100")),
        ({"classlabels_int64s": [0, 1, 2]}, [0, 1, 2], None),
        ({"classlabels_strings": ["owl", "cat", "dog"]}, [1, 2, 0], ("cat", "dog", "owl")),
    ],
)
def test_maps_from_class_to_score_become_columns_in_the_order_of_the_classes(tmp_path, labels, order, names):
    model = opened(write_zipmap(tmp_path / "classifier.onnx", **labels))
    inputs = foreign.rows()
    expected = foreign.mlp_logits(foreign.mlp_arrays(), inputs)[:, order]
    np.testing.assert_allclose(model.answer(inputs), expected, rtol=1e-5, atol=1e-5)
    assert model.class_names == names


@pytest.mark.parametrize(
    ("inputs", "shown"),
    [
        (np.zeros((4, 5), np.float32), "(4, 5) float32"),
        (np.zeros((4, 2, 3), np.float32), "(4, 2, 3) float32"),
        (np.zeros((0, foreign.FEATURES), np.float32), "(0, 6) float32"),
        (np.zeros((4, foreign.FEATURES), bool), "(4, 6) bool"),
    ],
)
def test_inputs_that_do_not_fit_are_named_beside_what_the_model_takes(tmp_path, inputs, shown):
    model = opened(foreign.write_onnx(tmp_path / "mlp.onnx"))
    with pytest.raises(UserError, match="takes inputs") as error:
        model.answer(inputs)
    assert "(B, 6) float32" in str(error.value)
    assert shown in str(error.value)


def test_float_inputs_are_not_cut_to_whole_numbers(tmp_path):
    from onnx import helper

    nodes = (helper.make_node("Cast", ["x"], ["real"], to=1), ("Gemm", ["real", "w1", "b1"], ["logits"]))

    def take_bytes(model):
        model.graph.input[0].type.tensor_type.elem_type = 2

    outputs = {"logits": (1, ["B", foreign.UNITS])}
    file = foreign.write_onnx(tmp_path / "mlp.onnx", nodes=nodes, outputs=outputs, edit=take_bytes)
    model = opened(file)
    assert model.input_dtype == "uint8"
    assert model.answer(np.full((2, foreign.FEATURES), 255, np.int64)).shape == (2, foreign.UNITS)
    with pytest.raises(UserError, match="takes inputs .* uint8, but got .* float32"):
        model.answer(foreign.rows(2))
    with pytest.raises(UserError, match="convert the data to uint8"):
        model.answer(np.full((2, foreign.FEATURES), 256, np.int64))


def test_preprocessing_comes_from_the_onnx_metadata_or_else_from_the_file_beside_it(tmp_path):
    beside = tmp_path / "preprocessor_config.json"
    beside.write_text('{"image_mean": [0.5]}', encoding="utf-8")
    plain = opened(foreign.write_onnx(tmp_path / "plain.onnx"))
    assert plain.preprocessing == {"image_mean": [0.5]}
    assert plain.files == (tmp_path / "plain.onnx", beside) and plain.weights == (tmp_path / "plain.onnx",)
    metadata = {"compleak_mean": "[0.1]", "author": "somebody"}
    assert opened(foreign.write_onnx(tmp_path / "mlp.onnx", metadata=metadata)).preprocessing == {
        "compleak_mean": "[0.1]"
    }


# ONNX: hostile and damaged files


def write_weight(file: Path) -> Path:
    file.write_bytes(foreign.mlp_arrays()["w1"].tobytes())
    return file


def test_weights_in_a_file_of_the_models_folder_are_read_and_listed(tmp_path):
    weight = write_weight(tmp_path / "w1.bin")
    file = foreign.write_onnx(tmp_path / "mlp.onnx", edit=lambda model: foreign.store_outside(model, "w1.bin"))
    model = opened(file)
    inputs = foreign.rows()
    expected = foreign.mlp_logits(foreign.mlp_arrays(), inputs)
    np.testing.assert_allclose(model.answer(inputs), expected, rtol=1e-5, atol=1e-5)
    assert model.files == (file, weight)


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "a/../../w1.bin", "..\\w1.bin", "C:\\w1.bin"])
def test_weights_outside_the_models_folder_are_refused(tmp_path, location):
    write_weight(tmp_path / "w1.bin")
    folder = tmp_path / "model"
    folder.mkdir()
    file = foreign.write_onnx(folder / "mlp.onnx", edit=lambda model: foreign.store_outside(model, location))
    assert "outside its folder" in refusal(file)


@pytest.mark.parametrize("link", ["file", "folder"])
def test_weights_behind_a_link_out_of_the_folder_are_refused(tmp_path, link):
    folder = tmp_path / "model"
    folder.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    weight = write_weight(elsewhere / "w1.bin")
    (folder / "link").symlink_to(weight if link == "file" else elsewhere)
    location = "link" if link == "file" else "link/w1.bin"
    file = foreign.write_onnx(folder / "mlp.onnx", edit=lambda model: foreign.store_outside(model, location))
    assert "outside its folder" in refusal(file)


def test_weights_outside_are_refused_in_subgraphs_and_functions_as_well(tmp_path):
    from onnx import TensorProto, helper

    tensor = TensorProto(name="hidden", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    branch = helper.make_graph([constant], "branch", [], [helper.make_tensor_value_info("c", 1, [1])])
    condition = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    function = helper.make_function("mine", "Odd", ["x"], ["c"], [constant], [helper.make_opsetid("", 17)])
    for name, changes in (
        ("subgraph", {"nodes": (*foreign.MLP_NODES, condition)}),
        ("function", {"functions": [function]}),
    ):
        message = refusal(foreign.write_onnx(tmp_path / f"{name}.onnx", **changes))
        assert "'hidden' from outside its folder (/etc/passwd)" in message


def test_weights_that_are_missing_or_too_short_are_refused(tmp_path):
    file = foreign.write_onnx(tmp_path / "mlp.onnx", edit=lambda model: foreign.store_outside(model, "w1.bin"))
    assert "missing" in refusal(file)
    weight = write_weight(tmp_path / "w1.bin")
    weight.write_bytes(weight.read_bytes()[:-1])
    assert "too short" in refusal(file)
    write_weight(weight)
    for entries in ({"offset": 4}, {"length": 10_000}, {"offset": -4}, {"offset": "many"}):
        store = functools.partial(foreign.store_outside, location="w1.bin", **entries)
        assert "weights 'w1'" in refusal(foreign.write_onnx(tmp_path / "late.onnx", edit=store))


def test_an_address_in_onnxruntimes_own_memory_is_no_place_for_weights(tmp_path):
    place = tmp_path / "*" / "_ORT_MEM_ADDR_"
    place.mkdir(parents=True)
    write_weight(place / "*")
    location = "*/_ORT_MEM_ADDR_/*"
    file = foreign.write_onnx(tmp_path / "mlp.onnx", edit=lambda model: foreign.store_outside(model, location))
    assert "does not say properly" in refusal(file)


def test_an_operator_that_onnxruntime_lacks_is_named(tmp_path):
    from onnx import helper

    node = helper.make_node("Roll", ["x"], ["logits"], domain="my.lab")
    file = foreign.write_onnx(tmp_path / "mlp.onnx", nodes=[node], opsets=[helper.make_opsetid("my.lab", 1)])
    assert "my.lab::Roll" in refusal(file)


def test_an_operator_that_the_file_itself_defines_is_asked(tmp_path):
    from onnx import helper

    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("my.lab", "Bend", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    bend = helper.make_node("Bend", ["hidden"], ["active"], domain="my.lab")
    nodes = (foreign.MLP_NODES[0], bend, foreign.MLP_NODES[2])
    opsets = [helper.make_opsetid("my.lab", 1)]
    file = foreign.write_onnx(tmp_path / "mlp.onnx", nodes=nodes, functions=[function], opsets=opsets)
    inputs = foreign.rows()
    expected = foreign.mlp_logits(foreign.mlp_arrays(), inputs)
    np.testing.assert_allclose(opened(file).answer(inputs), expected, rtol=1e-5, atol=1e-5)


def test_a_cut_or_empty_onnx_file_is_refused(tmp_path):
    content = foreign.write_onnx(tmp_path / "mlp.onnx").read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 3):
        file = tmp_path / "cut.onnx"
        file.write_bytes(content[:size])
        assert "cut.onnx" in refusal(file)


def test_a_network_that_contradicts_itself_is_refused_by_onnxruntime_in_one_line(tmp_path):
    weights = foreign.mlp_arrays() | {"w1": np.zeros((5, foreign.UNITS), np.float32)}
    assert "onnxruntime cannot open" in refusal(foreign.write_onnx(tmp_path / "mlp.onnx", weights))


# torch.export


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A program with a free batch axis."""
    return foreign.write_exported(tmp_path_factory.mktemp("exported") / "mlp.pt2")


def test_an_exported_program_answers_as_the_module_does(exported):
    model = opened(exported)
    inputs = foreign.rows(7)
    expected = foreign.mlp_logits(foreign.mlp_arrays(), inputs)
    np.testing.assert_allclose(model.answer(inputs), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.answer(inputs[:1]), expected[:1], rtol=1e-5, atol=1e-5)
    assert (model.input_shape, model.fixed_batch, model.runs_code) == ((foreign.FEATURES,), None, False)
    with pytest.raises(UserError, match=r"takes inputs \(B, 6\) float32, but got \(2, 5\) float32"):
        model.answer(inputs[:2, :5])


class Busy(nn.Module):
    """Uses much of what exported programs hold: a buffer, a constant, sizes, a block without gradients, a text."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU("tanh"), nn.Flatten())
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, images, *, scale=None):
        with torch.no_grad():
            hidden = self.layers(images)
        ones = torch.ones(images.shape[0] * 2)[: images.shape[0], None]
        shift = torch.einsum("bc,c->bc", self.head(hidden), torch.tensor([1.0, 2.0, 3.0]))
        return {"logits": shift + ones, "hidden": hidden}


def test_an_exported_program_with_sizes_constants_and_several_outputs_is_loaded(tmp_path):
    module = Busy().eval()
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    file = foreign.write_exported(tmp_path / "busy.pt2", module, (images,))
    with pytest.raises(UserError, match="logits, hidden.*--output NAME"):
        opened(file).answer(images.numpy())
    answers = opened(file, output="logits").answer(images[:3].numpy())
    expected = module(images[:3])["logits"].detach().numpy()
    np.testing.assert_allclose(answers, expected, rtol=1e-5, atol=1e-5)


def test_an_exported_program_with_a_fixed_batch_is_asked_in_batches_of_that_size(tmp_path):
    model = opened(foreign.write_exported(tmp_path / "mlp.pt2", dynamic=False))
    inputs = foreign.rows(7)
    expected = foreign.mlp_logits(foreign.mlp_arrays(), inputs)
    assert model.fixed_batch == 4
    np.testing.assert_allclose(model.answer(inputs), expected, rtol=1e-5, atol=1e-5)


def test_an_exported_program_with_two_inputs_is_refused(tmp_path):
    class Sum(nn.Module):
        def forward(self, left, right):
            return left + right

    inputs = (torch.ones(4, 2), torch.ones(4, 2))
    file = foreign.write_exported(tmp_path / "sum.pt2", Sum(), inputs, dynamic=False)
    assert "left, right" in refusal(file)


def trap_sample_inputs(trap: Path) -> dict:
    return {"data__sample_inputs__model.pt": foreign.pickled_trap(trap)}


def trap_weights(trap: Path) -> dict:
    def mark(config):
        next(iter(config["config"].values()))["use_pickle"] = True

    return {"data__weights__model_weights_config.json": mark, "data__weights__weight_0": foreign.pickled_trap(trap)}


def trap_constants(trap: Path, name: str) -> dict:
    def add(config):
        config["config"]["c"] = {"path_name": name, "is_param": False, "use_pickle": False, "tensor_meta": None}

    return {"data__constants__model_constants_config.json": add, f"data__constants__{name}": foreign.pickled_trap(trap)}


def trap_old_weights(trap: Path) -> dict:
    return {"data__weights__model.pt": foreign.pickled_trap(trap)}


PICKLES = {
    "sample inputs": trap_sample_inputs,
    "weights": trap_weights,
    "custom object": lambda trap: trap_constants(trap, "custom_obj_0"),
    "opaque object": lambda trap: trap_constants(trap, "opaque_obj_0"),
    "old weights": trap_old_weights,
}


@pytest.mark.parametrize("place", PICKLES)
def test_no_pickle_in_an_exported_program_is_ever_opened(exported, tmp_path, place):
    trap = tmp_path / "trapped"
    file = foreign.change_archive(exported, tmp_path / "hostile.pt2", **PICKLES[place](trap))
    if place in ("sample inputs", "old weights"):  # left out: answers do not depend on them
        assert opened(file).answer(foreign.rows()).shape == (5, foreign.CLASSES)
    else:
        assert "pickled Python object" in refusal(file)
    assert not trap.exists()


@pytest.mark.parametrize("place", PICKLES)
def test_torch_itself_cannot_unpickle_while_it_loads_an_exported_program(exported, tmp_path, monkeypatch, place):
    monkeypatch.setattr(exported_program, "reduced_archive", lambda file: io.BytesIO(file.read_bytes()))
    trap = tmp_path / "trapped"
    refusal(foreign.change_archive(exported, tmp_path / "hostile.pt2", **PICKLES[place](trap)))
    assert not trap.exists()


def test_the_traps_of_these_tests_would_spring_in_torch_itself(exported, tmp_path):
    trap = tmp_path / "trapped"
    file = foreign.change_archive(exported, tmp_path / "hostile.pt2", **trap_sample_inputs(trap))
    with contextlib.suppress(Exception):  # the trap itself is no tuple of sample inputs
        torch.export.load(file)
    assert trap.exists()


def change_node(**fields):
    def change(program):
        program["graph_module"]["graph"]["nodes"][0].update(fields)

    return change


def call_system(program):
    graph = program["graph_module"]["graph"]
    argument = {"name": "command", "arg": {"as_string": "touch trapped"}, "kind": 1}
    graph["nodes"][0].update(target="torch.serialization.os.system", inputs=[argument])


def change_size(text: str):
    def change(program):
        meta = program["graph_module"]["graph"]["tensor_values"]["input"]
        meta["sizes"][0] = {"as_expr": {"expr_str": text, "hint": None}}

    return change


def change_tree(program):
    [entry] = [entry for entry in program["graph_module"]["module_call_graph"] if entry["signature"]]
    tree = '[1, {"type": "collections.defaultdict", "context": "[]", "children_spec": []}]'
    entry["signature"]["in_spec"] = tree


def read_a_file(program):
    argument = {"name": "filename", "arg": {"as_string": "/etc/passwd"}, "kind": 1}
    change_node(target="torch.ops.aten.from_file.default", inputs=[argument])(program)


CODE = "__import__('pathlib').Path('trapped').touch()"
PROGRAMS = {
    "function": call_system,
    "file operator": read_a_file,
    "size": change_size(CODE),
    "size attribute": change_size("Symbol.__class__"),
    "node name": change_node(name=f"a=[{CODE}]; b"),
    "operator": change_node(target=f"torch.ops.aten.{CODE}"),
    "operator class": change_node(target="torch.ops.aten.__class__.mro"),
    "argument names": lambda program: program["graph_module"]["module_call_graph"][0]["signature"].update(
        forward_arg_names=[f"x={CODE}"]
    ),
    "key": lambda program: program["range_constraints"].update({CODE: {"min_val": 0, "max_val": 9}}),
}


@pytest.mark.parametrize("place", PROGRAMS)
def test_no_text_in_an_exported_program_is_run(exported, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    file = foreign.change_archive(exported, tmp_path / "hostile.pt2", **{"models__model.json": PROGRAMS[place]})
    assert "could run code: nothing was loaded" in refusal(file)
    assert not Path("trapped").exists()


def test_an_exported_program_that_packs_its_outputs_in_a_class_is_refused_with_the_way_out(exported, tmp_path):
    file = foreign.change_archive(exported, tmp_path / "packed.pt2", **{"models__model.json": change_tree})
    assert "returns one" in refusal(file)


def test_guards_are_left_out_because_they_are_run_as_code(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guard = {"models__model.json": lambda program: program.update(guards_code=[CODE])}
    file = foreign.change_archive(exported, tmp_path / "hostile.pt2", **guard)
    assert opened(file).answer(foreign.rows()).shape == (5, foreign.CLASSES)
    assert not Path("trapped").exists()


def test_compiled_code_and_damaged_archives_are_refused(exported, tmp_path):
    compiled = foreign.change_archive(
        exported, tmp_path / "compiled.pt2", **{"data__aotinductor__model__model.so": b"\x7fELF"}
    )
    assert "compiled code" in refusal(compiled)
    for content in (b"{", b"[]", b"{}", b'{"graph_module": 1}', b'{"a":' * 100_000):
        damaged = foreign.change_archive(exported, tmp_path / "damaged.pt2", **{"models__model.json": content})
        assert "damaged.pt2" in refusal(damaged)
    tables = {"data__weights__model_weights_config.json": b'{"config": [1]}'}
    assert "damaged" in refusal(foreign.change_archive(exported, tmp_path / "damaged.pt2", **tables))
    cut = tmp_path / "cut.pt2"
    cut.write_bytes(exported.read_bytes()[:1000])
    assert "damaged or no .pt2 file" in refusal(cut)
    script = tmp_path / "script.pt2"
    torch.save({"a": torch.ones(1)}, script)
    assert "no exported program" in refusal(script)


def test_programs_in_the_pickled_form_of_older_versions_are_refused_with_the_way_out(exported, tmp_path):
    trap = tmp_path / "trapped"
    first = tmp_path / "first.pt2"
    with zipfile.ZipFile(first, "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", foreign.pickled_trap(trap))
    second = tmp_path / "second.pt2"
    with zipfile.ZipFile(exported) as old, zipfile.ZipFile(second, "w") as new:
        for name in old.namelist():
            if not name.endswith("weights_config.json"):
                new.writestr(name, old.read(name))
        new.writestr(f"{name.split('/')[0]}/data/weights/model.pt", foreign.pickled_trap(trap))
    for file in (first, second):
        assert "with a newer torch" in refusal(file)
    assert not trap.exists()


def test_the_reason_why_torch_cannot_load_a_program_stands_in_the_one_line_and_nothing_else_is_shown(
    exported, tmp_path, capfd
):
    later = {"models__model.json": lambda program: program["schema_version"].update(major=99)}
    message = refusal(foreign.change_archive(exported, tmp_path / "later.pt2", **later))
    assert "schema version" in message
    assert capfd.readouterr() == ("", "")


def test_unpickling_works_again_after_an_exported_program_was_opened(exported):
    opened(exported)
    buffer = io.BytesIO()
    torch.save(torch.ones(2), buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=True), torch.ones(2))


# Python files with weights

LATE_IMPORT = """
from torch import nn


class Net(nn.Module):
    def forward(self, inputs):
        from late import FACTOR

        return FACTOR * inputs


def get_model():
    return Net()
"""


def save_weights(file: Path, model: nn.Module | None = None) -> Path:
    weights = (model or foreign.torch_mlp()).state_dict()
    if file.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(weights, file)
    else:
        torch.save(weights, file)
    return file


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".safetensors"])
@pytest.mark.parametrize("form", ["file", "folder"])
def test_a_python_file_with_weights_beside_it_answers(tmp_path, suffix, form):
    file = foreign.write_plugin(tmp_path)
    weights = save_weights(tmp_path / f"weights{suffix}")
    model = opened(file if form == "file" else tmp_path)
    inputs = foreign.rows()
    expected = foreign.mlp_logits(foreign.mlp_arrays(), inputs)
    np.testing.assert_allclose(model.answer(inputs), expected, rtol=1e-5, atol=1e-5)
    assert model.files == (file, weights)
    assert (model.runs_code, model.input_dtype, model.input_shape) == (True, "float32", None)
    with pytest.raises(UserError, match=r"gives no answer to inputs \(2, 5\) float32"):
        model.answer(inputs[:2, :5])


def test_dropout_is_off_in_a_python_model(tmp_path):
    body = "from torch import nn\n\ndef get_model():\n    return nn.Dropout(0.5)\n"
    model = opened(foreign.write_plugin(tmp_path, body))
    np.testing.assert_array_equal(model.answer(foreign.rows()), foreign.rows())


def test_a_model_that_changes_its_input_in_place_leaves_the_data_alone(tmp_path):
    body = "from torch import nn\n\ndef get_model():\n    return nn.ReLU(inplace=True)\n"
    inputs = foreign.rows()
    answers = opened(foreign.write_plugin(tmp_path, body)).answer(inputs)
    np.testing.assert_array_equal(inputs, foreign.rows())
    np.testing.assert_array_equal(answers, np.maximum(inputs, 0))


def test_weights_named_in_the_task_are_taken_and_several_beside_the_file_are_a_question(tmp_path):
    file = foreign.write_plugin(tmp_path)
    save_weights(tmp_path / "one.pt")
    other = save_weights(tmp_path / "other.pt", foreign.torch_mlp(foreign.mlp_arrays(seed=5)))
    assert "one.pt, other.pt" in refusal(file)
    inputs = foreign.rows()
    expected = foreign.mlp_logits(foreign.mlp_arrays(seed=5), inputs)
    np.testing.assert_allclose(opened(file, weights=other).answer(inputs), expected, rtol=1e-5, atol=1e-5)


def test_weights_within_a_checkpoint_and_of_data_parallel_training_fit(tmp_path):
    weights = {f"module.{name}": tensor for name, tensor in foreign.torch_mlp().state_dict().items()}
    torch.save({"epoch": 3, "state_dict": weights}, tmp_path / "checkpoint.pt")
    module = import_plugin(foreign.write_plugin(tmp_path), "get_model")()
    load_weights(module, tmp_path / "checkpoint.pt")
    assert torch.equal(module[0].weight, foreign.torch_mlp()[0].weight)


@pytest.mark.parametrize("wrap", ["nn.DataParallel(net)", "Wrapped(net)"])
def test_a_network_whose_own_names_begin_with_module_takes_its_own_weights(tmp_path, wrap):
    body = f"""
from torch import nn


class Wrapped(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, inputs):
        return self.module(inputs)


def get_model():
    net = nn.Sequential(nn.Linear({foreign.FEATURES}, {foreign.CLASSES}))
    return {wrap}
"""
    module = import_plugin(foreign.write_plugin(tmp_path, body), "get_model")()
    own = {name: torch.ones_like(tensor) for name, tensor in module.state_dict().items()}
    for number, weights in enumerate((own, {f"module.{name}": 2 * tensor for name, tensor in own.items()})):
        torch.save(weights, tmp_path / f"{number}.pt")
        load_weights(module, tmp_path / f"{number}.pt")
        assert all((tensor == number + 1).all() for tensor in module.state_dict().values())


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin"])
def test_a_pickle_among_the_weights_is_never_opened(tmp_path, suffix):
    trap = tmp_path / "trapped"
    file = foreign.write_plugin(tmp_path)
    weights = tmp_path / f"weights{suffix}"
    for content in (foreign.Trap(trap), {"0.weight": foreign.Trap(trap)}, foreign.torch_mlp()):
        torch.save(content, weights)
        assert "nothing was loaded" in refusal(file)
        assert not trap.exists()
    weights.write_bytes(foreign.pickled_trap(trap))
    assert "nothing was loaded" in refusal(file)
    assert not trap.exists()


def test_weights_that_do_not_fit_or_are_paddles_are_refused(tmp_path):
    file = foreign.write_plugin(tmp_path)
    weights = save_weights(tmp_path / "weights.pt", nn.Linear(2, 2))
    assert "do not fit the model" in refusal(file)
    torch.save([1, 2], weights)
    assert "no state dict" in refusal(file)
    weights.unlink()
    (tmp_path / "model.pdparams").write_bytes(b"")
    assert "safetensors" in refusal(file)
    assert "no weights file" in refusal(file, weights=tmp_path / "network.py")
    assert "there is no weights file" in refusal(file, weights=tmp_path / "missing.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"12345678901")
    assert "damaged" in refusal(file, weights=tmp_path / "broken.safetensors")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("x = 1\n", "has no function get_model()"),
        ("def get_model():\n    return 3\n", "must return a torch.nn.Module, not int"),
        ("def get_model():\n    raise ValueError('no\\nfile')\n", "get_model() failed (line 2, ValueError: no file)"),
        ("import nowhere_to_be_seen\n", "ModuleNotFoundError"),
        ("def get_model(:\n", "SyntaxError"),
        ("raise SystemExit(3)\n", "SystemExit"),
    ],
)
def test_what_is_wrong_with_a_python_file_is_said_in_one_line(tmp_path, body, reason):
    assert reason in refusal(foreign.write_plugin(tmp_path, body))


def test_a_network_may_import_its_neighbours_when_it_is_asked(tmp_path):
    foreign.write_plugin(tmp_path, "FACTOR = 3\n", "late.py")
    file = foreign.write_plugin(tmp_path, LATE_IMPORT)
    model = opened(file)
    np.testing.assert_array_equal(model.answer(foreign.rows()), 3 * foreign.rows())
    assert "late" not in sys.modules


def test_the_code_that_a_plugin_imports_is_among_its_files(tmp_path):
    net = "from torch import nn\n\nNet = nn.Identity\n"
    part = foreign.write_plugin(tmp_path / "plugin" / "parts", net, "net.py")
    init = foreign.write_plugin(tmp_path / "plugin" / "parts", "\n", "__init__.py")
    body = "from parts.net import Net\n\n\ndef get_model():\n    return Net()\n"
    file = foreign.write_plugin(tmp_path / "plugin", body)
    assert set(opened(file).files) == {file, part, init}


def test_a_model_that_begins_with_an_embedding_takes_token_ids(tmp_path):
    body = "from torch import nn\n\ndef get_model():\n    return nn.Sequential(nn.Embedding(9, 2), nn.Flatten())\n"
    model = opened(foreign.write_plugin(tmp_path, body))
    assert model.input_dtype == "int64"
    assert model.answer(np.zeros((3, 4), np.int64)).shape == (3, 8)


# Hugging Face


@pytest.fixture(scope="module")
def vision(tmp_path_factory):
    """A folder with an image classifier, and the model in it."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("vision")
    return folder, foreign.write_vision_folder(folder)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A folder with a classifier of texts, and the model in it."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("text")
    return folder, foreign.write_text_folder(folder)


def copy_folder(source: Path, target: Path) -> Path:
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def change_json(file: Path, **changes) -> None:
    content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps(content | changes), encoding="utf-8")


def test_an_image_folder_answers_as_its_model_does(vision):
    folder, original = vision
    model = opened(folder)
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = original(pixel_values=images).logits.numpy()
    np.testing.assert_allclose(model.answer(images.numpy()), expected, rtol=1e-5, atol=1e-6)
    assert model.class_names == ("cat", "dog", "owl")
    assert (model.input_shape, model.input_dtype, model.tokenize) == ((3, 16, 16), "float32", None)
    assert model.files == (folder / "config.json", folder / "model.safetensors")
    assert not model.runs_code


def test_a_convolutional_network_of_an_image_folder_takes_any_size_whatever_its_configuration_states(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ConvNextConfig(hidden_sizes=[4] * 4, depths=[1] * 4)
    transformers.ConvNextForImageClassification(config).save_pretrained(tmp_path)
    model = opened(tmp_path)
    assert config.image_size == 224
    assert model.input_shape == (3, None, None)
    assert model.answer(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 2)


SMALL_SWIN = {"embed_dim": 4, "depths": [1], "num_heads": [1], "window_size": 2}
SMALL_BEIT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
SMALL_BEIT["use_relative_position_bias"] = True


@pytest.mark.parametrize(("name", "sizes"), [("Swin", SMALL_SWIN), ("Beit", SMALL_BEIT)])
def test_a_network_with_a_bias_for_each_place_takes_images_of_one_size(tmp_path, name, sizes):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(image_size=16, patch_size=4, **sizes)
    getattr(transformers, f"{name}ForImageClassification")(config).save_pretrained(tmp_path)
    assert opened(tmp_path).input_shape == (3, 16, 16)


def test_texts_for_roberta_are_cut_to_the_positions_behind_its_padding_id(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "good"]
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.RobertaConfig(vocab_size=6, max_position_embeddings=12, pad_token_id=1, **sizes)
    transformers.RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    transformers.BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    model = opened(tmp_path)
    ids = model.tokenize(["good " * 30])
    assert ids.shape == (1, 10)
    assert np.isfinite(model.answer(ids)).all()


def test_a_text_folder_tokenizes_and_answers_whatever_fills_the_rows_up(text):
    folder, original = text
    model = opened(folder)
    ids = model.tokenize(["a good film", "bad"])
    assert ids.tolist() == [[2, 5, 6, 8, 3], [2, 7, 3, 0, 0]]
    answers = model.answer(ids)
    with torch.no_grad():
        alone = original(input_ids=torch.tensor([[2, 7, 3]])).logits.numpy()
    np.testing.assert_allclose(answers[1:], alone, rtol=1e-4, atol=1e-6)
    assert (model.input_shape, model.input_dtype, model.class_names) == ((None,), "int64", None)
    assert model.tokenize(["good " * 30]).shape == (1, 12)
    assert {file.name for file in model.files} >= {"config.json", "model.safetensors", "tokenizer.json"}


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_a_folder_with_code_of_its_own_is_refused(vision, tmp_path, name):
    folder = copy_folder(vision[0], tmp_path / "folder")
    foreign.write_plugin(folder, f"from pathlib import Path\nPath({str(tmp_path / 'trapped')!r}).touch()\n", "mine.py")
    change_json(folder / name, auto_map={"AutoModelForImageClassification": "mine.Net"})
    assert "auto_map" in refusal(folder)
    assert not (tmp_path / "trapped").exists()


def test_a_folder_that_asks_for_code_from_the_network_is_refused(vision, tmp_path):
    folder = copy_folder(vision[0], tmp_path / "folder")
    change_json(folder / "config.json", _attn_implementation="somebody/attention")
    assert "code from the network" in refusal(folder)


def test_a_folder_with_pickled_weights_alone_is_refused_and_nothing_is_opened(vision, tmp_path):
    folder = copy_folder(vision[0], tmp_path / "folder")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(foreign.pickled_trap(tmp_path / "trapped"))
    message = refusal(folder)
    assert "pytorch_model.bin" in message
    assert "save_pretrained" in message
    assert not (tmp_path / "trapped").exists()


def test_a_folder_whose_classifier_has_no_weights_is_refused(vision, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = copy_folder(vision[0], tmp_path / "folder")
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "classifier.weight" in refusal(folder)


def test_weights_that_an_index_finds_elsewhere_are_refused(vision, tmp_path):
    folder = copy_folder(vision[0], tmp_path / "folder")
    (folder / "model.safetensors").rename(tmp_path / "other.safetensors")
    change_json(folder / "model.safetensors.index.json", weight_map={"classifier.weight": "../other.safetensors"})
    assert "do not lie in the folder" in refusal(folder)


def test_other_architectures_and_damaged_configurations_are_refused(vision, tmp_path):
    folder = copy_folder(vision[0], tmp_path / "folder")
    change_json(folder / "config.json", architectures=["GPT2LMHeadModel"])
    assert "GPT2LMHeadModel" in refusal(folder)
    (folder / "config.json").write_text("{", encoding="utf-8")
    assert "damaged" in refusal(folder)


def test_a_missing_library_is_named_with_the_command_that_installs_it(vision, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert 'pip install ".[huggingface]"' in refusal(vision[0])
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    (tmp_path / "model.tflite").write_bytes(b"")
    assert 'pip install ".[tflite]"' in refusal(tmp_path / "model.tflite")


# TensorFlow Lite


@pytest.fixture
def layer():
    """Weights (6, 3) and bias (3,) of one layer."""
    pytest.importorskip("ai_edge_litert")
    weights = foreign.mlp_arrays()
    return weights["w1"][:, :3], weights["b2"]


@pytest.mark.parametrize("signature", [None, [-1, foreign.FEATURES]])
def test_a_tflite_layer_answers_as_numpy_does(tmp_path, layer, signature):
    weights, bias = layer
    model = opened(foreign.write_tflite(tmp_path / "layer.tflite", weights, bias, signature=signature))
    inputs = foreign.rows(7)
    np.testing.assert_allclose(model.answer(inputs), inputs @ weights + bias, rtol=1e-5, atol=1e-5)
    assert (model.input_shape, model.input_dtype, model.fixed_batch) == ((foreign.FEATURES,), "float32", None)
    assert "float32" in model.description


def test_a_free_axis_of_a_tflite_file_is_no_fixed_size(tmp_path, layer):
    file = foreign.write_tflite(tmp_path / "layer.tflite", *layer, signature=[1, -1])
    assert opened(file).input_shape == (None,)


def test_a_tflite_layer_for_three_rows_is_asked_in_batches_of_three(tmp_path, layer):
    weights, bias = layer
    model = opened(foreign.write_tflite(tmp_path / "layer.tflite", weights, bias, batch=3))
    inputs = foreign.rows(7)
    assert model.fixed_batch == 3
    np.testing.assert_allclose(model.answer(inputs), inputs @ weights + bias, rtol=1e-5, atol=1e-5)


def test_a_quantized_tflite_layer_takes_and_gives_real_values(tmp_path, layer):
    weights, bias = layer
    scale = 0.05
    model = opened(foreign.write_tflite(tmp_path / "layer.tflite", weights, bias, scale=scale))
    inputs = np.clip(foreign.rows(7), -2, 2) / 2
    answers = model.answer(inputs)
    np.testing.assert_allclose(answers, inputs @ weights + bias, atol=0.4)
    np.testing.assert_allclose(answers / scale, np.rint(answers / scale), atol=1e-4)
    assert model.input_dtype == "float32"
    assert "int8" in model.description


def test_a_damaged_tflite_file_is_refused(tmp_path, layer):
    file = foreign.write_tflite(tmp_path / "layer.tflite", *layer)
    file.write_bytes(file.read_bytes()[:40])
    assert "LiteRT cannot open" in refusal(file)


# What is no model


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("model.pt", "get_model()"),
        ("model.pth", "get_model()"),
        ("model.ckpt", "get_model()"),
        ("model.safetensors", "get_model()"),
        ("model.pkl", "skl2onnx"),
        ("model.joblib", "skl2onnx"),
        ("model.h5", "tf2onnx"),
        ("model.keras", "tf2onnx"),
        ("model.pb", "tf2onnx"),
        ("model.pdparams", "paddle2onnx"),
        ("model.txt", "models are .onnx"),
        ("missing.onnx", "check the path"),
    ],
)
def test_files_that_are_no_models_are_refused_with_the_way_out_and_not_opened(tmp_path, name, way_out):
    file = tmp_path / name
    if not name.startswith("missing"):
        file.write_bytes(foreign.pickled_trap(tmp_path / "trapped"))
    assert way_out in refusal(file)
    assert not (tmp_path / "trapped").exists()


def test_folders_without_a_model_or_with_several_files_are_refused(tmp_path):
    assert "neither a config.json nor a .py file" in refusal(tmp_path)
    foreign.write_plugin(tmp_path, name="a.py")
    foreign.write_plugin(tmp_path, name="b.py")
    assert "a.py, b.py" in refusal(tmp_path)


def test_choices_that_a_model_does_not_leave_are_mistakes(tmp_path, vision):
    file = foreign.write_onnx(tmp_path / "mlp.onnx")
    assert "holds its own weights" in refusal(file, weights=tmp_path / "weights.pt")
    assert "holds its own weights" in refusal(vision[0], weights=tmp_path / "weights.pt")
    assert "has no input 'y'" in refusal(file, input="y")
    assert opened(file, input="x").input_shape == (foreign.FEATURES,)
    for other in (vision[0], foreign.write_plugin(tmp_path)):
        assert "leave out `input:`" in refusal(other, input="x")


def test_libraries_for_model_files_are_imported_only_when_such_a_file_is_opened():
    for file in (Path(__file__).resolve().parents[1] / "models" / "foreign").glob("*.py"):
        statements = ast.parse(file.read_text(encoding="utf-8")).body
        modules = {statement.module for statement in statements if isinstance(statement, ast.ImportFrom)}
        modules |= {
            name.name for statement in statements if isinstance(statement, ast.Import) for name in statement.names
        }
        libraries = {str(module).split(".")[0] for module in modules}
        assert not libraries & {"onnx", "onnxruntime", "transformers", "safetensors", "ai_edge_litert"}, file.name
