"""One line about an ONNX file: its opset, and on which numbers its weighted layers work."""

from collections import Counter

from .onnx_check import messages

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "FusedMatMul", "LSTM", "GRU", "RNN")
STATIC = ("QLinearConv", "QLinearMatMul", "QGemm")
DYNAMIC = ("MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM")
PASS_ON = ("Reshape", "Transpose", "Identity", "Cast", "Squeeze", "Unsqueeze")  # what may stand before a layer's weight
FLOATS = {"FLOAT": "float32", "FLOAT16": "float16", "DOUBLE": "float64", "BFLOAT16": "bfloat16"}


def describe_onnx(model) -> str:
    """Such as "ONNX, opset 17, 3 of 3 weighted layers on int8 (static)".

    A layer is weighted if one of its inputs is stored in the file and has two axes or more. It counts as quantized
    statically if the scales of weights and activations are stored (QuantizeLinear and DequantizeLinear around it, or a
    QLinear operator), dynamically if the activations' scales are worked out from each batch (DynamicQuantizeLinear, or
    an operator for such scales), and by weight only if activations stay float.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)
    begin = f"ONNX, opset {opset}" if opset is not None else "ONNX"
    graphs = list(messages(model.graph, "GraphProto"))
    kinds = Counter(kind for graph in graphs for kind in _layer_kinds(graph))
    total = sum(kinds.values())
    if not total:
        operators = {node.op_type for graph in graphs for node in graph.node if node.domain == "ai.onnx.ml"}
        return ", ".join([begin, *sorted(operators - {"ZipMap"})])
    quantized = {kind: count for kind, count in kinds.items() if "(" in kind}
    if not quantized:
        return f"{begin}, {total} weighted layers on {' and '.join(sorted(kinds))}"
    parts = [f"{count} of {total} weighted layers on {kind}" for kind, count in sorted(quantized.items())]
    return f"{begin}, {', '.join(parts)}"


def _layer_kinds(graph) -> list[str]:
    """For each weighted layer of a graph the numbers that it works on, such as "float32" or "int8 (dynamic)"."""
    constants = [
        (node.output[0], attribute.t)
        for node in graph.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value"
    ]
    stored = dict(constants) | {tensor.name: tensor for tensor in graph.initializer}
    weights = {name: _type_name(tensor.data_type) for name, tensor in stored.items() if len(tensor.dims) > 1}
    makers = {output: node for node in graph.node for output in node.output}
    return [kind for node in graph.node if (kind := _layer_kind(node, weights, makers)) is not None]


def _layer_kind(node, weights: dict[str, str], makers: dict) -> str | None:
    """The numbers that a layer works on; None if the node is no weighted layer. `weights`: stored types by name."""
    if node.op_type == "MatMulNBits":
        bits = next((attribute.i for attribute in node.attribute if attribute.name == "bits"), 4)
        return f"int{bits} (weights only)"
    if node.op_type not in (*STATIC, *DYNAMIC, *WEIGHTED):
        return None
    sources = {name: _source(name, weights, makers) for name in node.input}
    kinds = [weights[source] for source in sources.values() if source in weights]
    if not kinds:
        return None
    if node.op_type in STATIC or node.op_type in DYNAMIC:
        return f"{_number_name(kinds[0])} ({'static' if node.op_type in STATIC else 'dynamic'})"
    if kinds[0] in FLOATS:
        return FLOATS[kinds[0]]
    activations = [name for name, source in sources.items() if source not in weights]
    return f"{_number_name(kinds[0])} ({_scaling(activations, makers)})"


def _source(name: str, weights: dict[str, str], makers: dict) -> str:
    """The stored weight that an input comes from by dequantization or change of shape alone, else another name."""
    while name not in weights and name in makers:
        node = makers[name]
        if node.op_type != "DequantizeLinear" and node.op_type not in PASS_ON:
            break
        name = node.input[0]
    return name


def _scaling(activations: list[str], makers: dict) -> str:
    """How a layer's inputs were quantized before it: with stored scales, with computed ones, or not at all."""
    dequantized = [node for name in activations if _is_dequantized(node := _maker(name, makers), makers)]
    if not dequantized:
        return "weights only"
    has_computed_scale = any(_maker(node.input[1], makers) is not None for node in dequantized)
    return "dynamic" if has_computed_scale else "static"


def _is_dequantized(node, makers: dict) -> bool:
    """Whether a node gives float values of codes that were computed; a stored bias is dequantized as well."""
    return node is not None and node.op_type == "DequantizeLinear" and _maker(node.input[0], makers) is not None


def _maker(name: str, makers: dict):
    """The node that computes a value, changes of shape left aside; None where it is stored or an input of the graph."""
    node = makers.get(name)
    while node is not None and node.op_type in (*PASS_ON, "Flatten"):
        node = makers.get(node.input[0])
    return None if node is None or node.op_type == "Constant" else node


def _number_name(kind: str) -> str:
    """ONNX's name of a type in this project's words: INT8 and UINT8 are both int8."""
    return kind.lower().removeprefix("u")


def _type_name(data_type: int) -> str:
    from onnx import TensorProto

    return TensorProto.DataType.Name(data_type)
