"""One line about an ONNX file: its opset, and on which numbers its weighted layers work."""

from collections import Counter

from .onnx_check import messages

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "FusedMatMul", "LSTM", "GRU", "RNN")
STATIC = ("QLinearConv", "QLinearMatMul", "QGemm")
DYNAMIC = ("MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM")
PASS_ON = ("Reshape", "Transpose", "Identity", "Cast", "Squeeze", "Unsqueeze")  # what may stand before a layer's weight
BITS = {"INT4": "int4", "UINT4": "int4", "INT16": "int16", "UINT16": "int16", "INT2": "int2", "UINT2": "int2"}
FLOATS = {"FLOAT": "float32", "FLOAT16": "float16", "DOUBLE": "float64", "BFLOAT16": "bfloat16"}


def describe_onnx(model) -> str:
    """Such as "ONNX, opset 17, 3 of 3 weighted layers on int8 (static)".

    A layer is weighted if one of its inputs is stored in the file. It counts as quantized statically if the scales of
    weights and activations are stored (QuantizeLinear and DequantizeLinear around it, or a QLinear operator),
    dynamically if the activations' scales are worked out from each batch, and by weight only if activations stay float.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)
    begin = f"ONNX, opset {opset}" if opset is not None else "ONNX"
    graphs = list(messages(model, "GraphProto"))
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
    stored = {tensor.name: _type_name(tensor.data_type) for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        tensors = [attribute.t for attribute in node.attribute if attribute.name == "value"]
        if node.op_type == "Constant" and tensors:
            stored[node.output[0]] = _type_name(tensors[0].data_type)
    return [kind for node in graph.node if (kind := _layer_kind(node, stored, makers)) is not None]


def _layer_kind(node, stored: dict[str, str], makers: dict) -> str | None:
    """The numbers that a layer works on; None if the node is no weighted layer."""
    if node.op_type in STATIC:
        return f"{_bits(node, stored)} (static)"
    if node.op_type in DYNAMIC:
        return f"{_bits(node, stored)} (dynamic)"
    if node.op_type == "MatMulNBits":
        bits = next((attribute.i for attribute in node.attribute if attribute.name == "bits"), 4)
        return f"int{bits} (weights only)"
    if node.op_type not in WEIGHTED:
        return None
    sources = [_source(name, stored, makers) for name in node.input[:3]]
    weights = [source for source in sources if source in stored]
    quantized = [stored[source] for source in weights if stored[source] not in FLOATS]
    if quantized:
        activation = makers.get(node.input[0])
        is_static = activation is not None and activation.op_type == "DequantizeLinear" and sources[0] not in stored
        return f"{BITS.get(quantized[0], 'int8')} ({'static' if is_static else 'weights only'})"
    return FLOATS[stored[weights[0]]] if weights else None


def _source(name: str, stored: dict[str, str], makers: dict) -> str:
    """The stored tensor that an input comes from by dequantization or change of shape alone, else the input itself."""
    while name not in stored and name in makers:
        node = makers[name]
        if node.op_type != "DequantizeLinear" and node.op_type not in PASS_ON:
            break
        name = node.input[0]
    return name


def _bits(node, stored: dict[str, str]) -> str:
    kinds = [stored[name] for name in node.input if name in stored and stored[name] not in FLOATS]
    return BITS.get(kinds[0], "int8") if kinds else "int8"


def _type_name(data_type: int) -> str:
    from onnx import TensorProto

    return TensorProto.DataType.Name(data_type)
