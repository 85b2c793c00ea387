"""A network of this project as an ONNX model.

torch.fx follows the network's forward, and each layer that it meets becomes one or a few ONNX operators. PyTorch's own
exporter needs onnxscript and does not know our quantized layers, whose `writers` the caller adds. All networks of this
project consist of the few layers below.
"""

import operator
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

OPSET = 21  # the first with four-bit weights, and with a scale for each channel in GroupNormalization
IR_VERSION = 10  # the version of the file format that goes with it
INPUT, OUTPUT = "input", "logits"
INT4 = "INT4"  # the type of a constant whose tensor holds two codes a byte, the first in the lower half
TYPES = {torch.float32: "FLOAT", torch.int8: "INT8", torch.uint8: "UINT8", torch.int64: "INT64"}


class Operator(NamedTuple):
    """One node of a graph."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict


class Constant(NamedTuple):
    """A tensor that belongs to the model, of a type by ONNX's name."""

    tensor: Tensor
    shape: tuple[int, ...]
    type: str


class Graph:
    """Operators in the order in which they are computed, and constants by name."""

    def __init__(self) -> None:
        self.operators: list[Operator] = []
        self.constants: dict[str, Constant] = {}

    def add(self, kind: str, *inputs: str, **attributes) -> str:
        """Add an operator; returns the name of its output."""
        (output,) = self.add_with_outputs(1, kind, *inputs, **attributes)
        return output

    def add_with_outputs(self, count: int, kind: str, *inputs: str, **attributes) -> tuple[str, ...]:
        """Add an operator that has several outputs; returns their names."""
        outputs = tuple(f"{kind}_{len(self.operators)}_{number}" for number in range(count))
        self.operators.append(Operator(kind, inputs, outputs, attributes))
        return outputs

    def add_constant(self, name: str, tensor: Tensor, shape: tuple[int, ...] | None = None, type: str = "") -> str:
        """Add a constant, or leave the one of this name, and return the name.

        Shape and type are those of the tensor, unless its bytes stand for something else.
        """
        tensor = tensor.detach().cpu().contiguous()
        self.constants[name] = Constant(
            tensor, tuple(tensor.shape if shape is None else shape), type or TYPES[tensor.dtype]
        )
        return name


Writer = Callable[[Graph, str, nn.Module, str], str]  # (graph, name, layer, name of the input) -> name of the output


def add_weighted(graph: Graph, x: str, weight: str, bias: str | None, convolution: dict | None) -> str:
    """A convolution with the options that `F.conv2d` takes, or a linear layer for None."""
    inputs = (x, weight) if bias is None else (x, weight, bias)
    if convolution is None:
        return graph.add("Gemm", *inputs, transB=1)
    return graph.add(
        "Conv",
        *inputs,
        strides=list(convolution["stride"]),
        pads=[*convolution["padding"], *convolution["padding"]],
        dilations=list(convolution["dilation"]),
        group=convolution["groups"],
    )


def write_weighted(graph: Graph, name: str, layer: nn.Conv2d | nn.Linear, x: str) -> str:
    weight = graph.add_constant(f"{name}.weight", layer.weight)
    bias = None if layer.bias is None else graph.add_constant(f"{name}.bias", layer.bias)
    options = None
    if isinstance(layer, nn.Conv2d):
        options = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups")}
    return add_weighted(graph, x, weight, bias, options)


def write_batch_norm(graph: Graph, name: str, layer: nn.BatchNorm2d, x: str) -> str:
    tensors = ("weight", "bias", "running_mean", "running_var")
    constants = [graph.add_constant(f"{name}.{key}", getattr(layer, key)) for key in tensors]
    return graph.add("BatchNormalization", x, *constants, epsilon=layer.eps)


def write_group_norm(graph: Graph, name: str, layer: nn.GroupNorm, x: str) -> str:
    constants = [graph.add_constant(f"{name}.{key}", getattr(layer, key)) for key in ("weight", "bias")]
    return graph.add("GroupNormalization", x, *constants, epsilon=layer.eps, num_groups=layer.num_groups)


def write_relu(graph: Graph, name: str, layer: nn.ReLU, x: str) -> str:
    return graph.add("Relu", x)


def write_relu6(graph: Graph, name: str, layer: nn.ReLU6, x: str) -> str:
    limits = [graph.add_constant(f"limit_{value}", torch.tensor(float(value))) for value in (0, 6)]
    return graph.add("Clip", x, *limits)


def write_max_pool(graph: Graph, name: str, layer: nn.MaxPool2d, x: str) -> str:
    kernel, stride, padding = ([size, size] for size in (layer.kernel_size, layer.stride, layer.padding))
    return graph.add("MaxPool", x, kernel_shape=kernel, strides=stride, pads=[*padding, *padding])


def write_average_pool(graph: Graph, name: str, layer: nn.AvgPool2d, x: str) -> str:
    size = [layer.kernel_size] * 2
    return graph.add("AveragePool", x, kernel_shape=size, strides=size)


def write_mean(graph: Graph, name: str, layer: nn.AdaptiveAvgPool2d, x: str) -> str:
    if layer.output_size != 1:
        raise ValueError(f"{name} pools to {layer.output_size}: only pooling to one pixel has an ONNX form here")
    return graph.add("GlobalAveragePool", x)


def write_flatten(graph: Graph, name: str, layer: nn.Flatten, x: str) -> str:
    return graph.add("Flatten", x)


def write_nothing(graph: Graph, name: str, layer: nn.Module, x: str) -> str:
    """Of a layer that passes its input on when it answers."""
    return x


WRITERS: dict[type, Writer] = {
    nn.Conv2d: write_weighted,
    nn.Linear: write_weighted,
    nn.BatchNorm2d: write_batch_norm,
    nn.GroupNorm: write_group_norm,
    nn.ReLU: write_relu,
    nn.ReLU6: write_relu6,
    nn.MaxPool2d: write_max_pool,
    nn.AvgPool2d: write_average_pool,
    nn.AdaptiveAvgPool2d: write_mean,
    nn.Flatten: write_flatten,
    nn.Dropout: write_nothing,
    nn.Identity: write_nothing,
}
FUNCTIONS = {  # what a forward computes without a layer: operators with their attributes
    F.relu: ("Relu", {}),
    operator.add: ("Add", {}),
    torch.cat: ("Concat", {"axis": 1}),
}


class LeafTracer(fx.Tracer):
    """Follows a forward, but not into layers that have a writer."""

    def __init__(self, leaves: tuple[type, ...]) -> None:
        super().__init__()
        self.leaves = leaves

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, self.leaves) or super().is_leaf_module(module, name)


def graph_of(model: nn.Module, writers: Mapping[type, Writer]) -> Graph:
    """The operators and constants of a network in eval mode. ValueError where a part of it has no ONNX form here."""
    graph = Graph()
    names: dict[fx.Node, str] = {}
    for node in LeafTracer(tuple(writers)).trace(model).nodes:
        inputs = [names[argument] for argument in node.all_input_nodes]
        if node.op == "placeholder":
            names[node] = INPUT
        elif node.op == "call_module" and type(layer := model.get_submodule(node.target)) in writers:
            names[node] = writers[type(layer)](graph, node.target, layer, *inputs)
        elif node.op == "call_function" and node.target in FUNCTIONS:
            kind, attributes = FUNCTIONS[node.target]
            names[node] = graph.add(kind, *inputs, **attributes)
        elif node.op == "output":
            graph.operators.append(Operator("Identity", tuple(inputs), (OUTPUT,), {}))
        else:
            raise ValueError(f"{node.name} ({node.target}) has no ONNX form here")
    return graph


def onnx_model(
    model: nn.Module,
    shape: tuple[int, ...],
    *,
    batch: int | None = None,
    writers: Mapping[type, Writer] | None = None,
    metadata: Mapping[str, str] | None = None,
):
    """The `onnx.ModelProto` of a network on the CPU, checked: `input` (batch, *shape) -> `logits` (batch, classes).

    batch: the one size that a batch may have; any size for None. writers: of layers that are not in WRITERS. metadata:
    what the file says of itself beside the network.

    Raises ValueError where a part of the network has no ONNX form here.
    """
    import onnx
    from onnx import TensorProto, helper

    model = model.eval()
    with torch.no_grad():
        classes = model(torch.zeros(1, *shape)).shape[1]
    graph = graph_of(model, {**WRITERS, **(writers or {})})
    rows = batch or "batch"
    proto = helper.make_graph(
        [helper.make_node(o.kind, o.inputs, o.outputs, o.outputs[0], **o.attributes) for o in graph.operators],
        "network",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [rows, *shape])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [rows, classes])],
        [_tensor_proto(name, constant) for name, constant in graph.constants.items()],
    )
    opset = helper.make_opsetid("", OPSET)
    whole = helper.make_model(proto, opset_imports=[opset], ir_version=IR_VERSION, producer_name="compleak")
    helper.set_model_props(whole, dict(metadata or {}))
    onnx.checker.check_model(whole, full_check=True)
    return whole


def _tensor_proto(name: str, constant: Constant):
    from onnx import TensorProto, helper

    content = constant.tensor.numpy().tobytes()
    return helper.make_tensor(name, getattr(TensorProto, constant.type), constant.shape, content, raw=True)
