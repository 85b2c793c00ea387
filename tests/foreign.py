"""Tiny model files as other people ship them, honest and hostile, for tests."""

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

FEATURES, UNITS, CLASSES = 6, 8, 3


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, target: Path):
        self.target = str(target)

    def __reduce__(self):
        return Path.touch, (Path(self.target),)


def mlp_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """The weights of a network with one hidden layer: w1 (6, 8), b1 (8,), w2 (8, 3), b2 (3,)."""
    rng = np.random.default_rng(seed)
    shapes = {"w1": (FEATURES, UNITS), "b1": (UNITS,), "w2": (UNITS, CLASSES), "b2": (CLASSES,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def mlp_logits(weights: dict[str, np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """What such a network answers: (B, 6) -> (B, 3)."""
    return np.maximum(inputs @ weights["w1"] + weights["b1"], 0) @ weights["w2"] + weights["b2"]


def rows(count: int = 5, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, FEATURES)).astype(np.float32)


MLP_NODES = (
    ("Gemm", ["x", "w1", "b1"], ["hidden"]),
    ("Relu", ["hidden"], ["active"]),
    ("Gemm", ["active", "w2", "b2"], ["logits"]),
)


def write_onnx(file: Path, weights=None, *, nodes=MLP_NODES, outputs=None, batch="B", **options) -> Path:
    """Write an ONNX file of these nodes over the input x (batch, 6); `outputs` gives types of outputs by name.

    Options: `dtype` of the input and weights (a numpy type), `functions`, `opsets` beside the standard one, `metadata`,
    and `edit`, a function that changes the finished model before it is saved.
    """
    import onnx
    from onnx import helper, numpy_helper

    dtype = np.dtype(options.get("dtype", np.float32))
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    weights = mlp_arrays() if weights is None else weights
    graph_nodes = [node if hasattr(node, "op_type") else helper.make_node(*node) for node in nodes]
    outputs = outputs or {"logits": (kind, [batch, CLASSES])}
    graph = helper.make_graph(
        graph_nodes,
        "mlp",
        [helper.make_tensor_value_info("x", kind, [batch, FEATURES])],
        [
            value if hasattr(value, "name") else helper.make_tensor_value_info(name, *value)
            for name, value in outputs.items()
        ],
        [numpy_helper.from_array(array.astype(dtype), name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), *options.get("opsets", [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=options.get("functions", []))
    helper.set_model_props(model, options.get("metadata", {}))
    if "edit" in options:
        options["edit"](model)
    onnx.save(model, file)
    return file


def store_outside(model, location: str, **entries) -> None:
    """Let an ONNX model read its weight w1 from the file at `location`, with further entries such as `offset`."""
    [tensor] = [tensor for tensor in model.graph.initializer if tensor.name == "w1"]
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key = key
        entry.value = str(value)


def torch_mlp(weights: dict[str, np.ndarray] | None = None) -> nn.Sequential:
    """The same network in PyTorch."""
    weights = mlp_arrays() if weights is None else weights
    model = nn.Sequential(nn.Linear(FEATURES, UNITS), nn.ReLU(), nn.Linear(UNITS, CLASSES))
    arrays = {"0.weight": "w1", "0.bias": "b1", "2.weight": "w2", "2.bias": "b2"}
    model.load_state_dict({name: torch.from_numpy(weights[key].T.copy()) for name, key in arrays.items()})
    return model.eval()


def write_exported(file: Path, model: nn.Module | None = None, inputs=None, dynamic: bool = True) -> Path:
    """Write a program by torch.export, with a free batch axis or with one of the size of the inputs."""
    inputs = (torch.from_numpy(rows(4)),) if inputs is None else inputs
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    torch.export.save(torch.export.export(model or torch_mlp(), inputs, dynamic_shapes=shapes), file)
    return file


def change_archive(source: Path, target: Path, **changes) -> Path:
    """Copy a .pt2; for each changed member (its path below the root) the new bytes, or a function on its JSON."""
    changes = {name.replace("__", "/"): change for name, change in changes.items()}
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        names = [entry.filename for entry in old.infolist()]
        root = names[0].split("/")[0]
        for name in dict.fromkeys([*names, *(f"{root}/{change}" for change in changes)]):
            new.writestr(name, _changed(old, name, names, changes.get(name.split("/", 1)[1])))
    return target


def _changed(archive: zipfile.ZipFile, name: str, names: list[str], change) -> bytes:
    if isinstance(change, bytes):
        return change
    content = archive.read(name) if name in names else b""
    if change is None:
        return content
    program = json.loads(content)
    change(program)
    return json.dumps(program).encode()


def pickled_trap(target: Path) -> bytes:
    return pickle.dumps(Trap(target), protocol=2)


def write_plugin(folder: Path, body: str = "", name: str = "network.py") -> Path:
    """Write a Python file whose get_model() gives the network of `torch_mlp`, without its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(
        body
        or f"""
from torch import nn


def get_model():
    return nn.Sequential(nn.Linear({FEATURES}, {UNITS}), nn.ReLU(), nn.Linear({UNITS}, {CLASSES}))
""",
        encoding="utf-8",
    )
    return file


def write_vision_folder(folder: Path) -> nn.Module:
    """Save a tiny vision transformer for 16x16 images in three named classes as Hugging Face does; gives the model."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    names = {0: "cat", 1: "dog", 2: "owl"}
    model = ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, id2label=names, **sizes))
    model.save_pretrained(folder)
    return model.eval()


def write_text_folder(folder: Path) -> nn.Module:
    """Save a tiny BERT for texts in two classes, with a tokenizer of nine words; gives the model."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film"]
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=12, **sizes)
    model = BertForSequenceClassification(config)
    model.save_pretrained(folder)
    words_file = folder / "vocab.txt"
    words_file.write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(vocab=str(words_file), model_max_length=12).save_pretrained(folder)
    return model.eval()


def write_tflite(file: Path, weights: np.ndarray, bias: np.ndarray, *, signature=None, scale=None, batch=1) -> Path:
    """Write a .tflite of one fully connected layer, (batch, F) @ weights (F, C) + bias; with `scale` it works on int8.

    With a scale, inputs, weights and outputs are int8 of that scale and zero point 0. `signature`: the free axes.
    """
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import Builder

    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT() for _ in range(3)]
    kinds = schema.TensorType
    usual, sums = (kinds.FLOAT32, kinds.FLOAT32) if scale is None else (kinds.INT8, kinds.INT32)
    stored = [weights.T, bias]
    if scale is not None:
        stored = [np.rint(weights.T / scale).astype(np.int8), np.rint(bias / scale**2).astype(np.int32)]
    for buffer, array in zip(model.buffers[1:], stored, strict=True):
        buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    shapes = [(batch, weights.shape[0]), weights.T.shape, bias.shape, (batch, weights.shape[1])]
    tensors = []
    places = zip(("x", "weights", "bias", "y"), shapes, (0, 1, 2, 0), (usual, usual, sums, usual), strict=True)
    for name, shape, buffer, kind in places:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer, tensor.type = name, list(shape), buffer, kind
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [scale**2 if kind == kinds.INT32 else scale]
            tensor.quantization.zeroPoint = [0]
        tensors.append(tensor)
    tensors[0].shapeSignature = signature
    layer = schema.OperatorT()
    layer.inputs, layer.outputs = [0, 1, 2], [3]
    layer.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    layer.builtinOptions = schema.FullyConnectedOptionsT()
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1 if scale is None else 4
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, [layer], [0], [3]
    model.operatorCodes, model.subgraphs = [code], [graph]
    builder = Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    file.write_bytes(bytes(builder.Output()))
    return file
