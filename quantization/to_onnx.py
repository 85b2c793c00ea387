"""The ONNX form of quantized layers, for `models.to_onnx`.

int8 and int8_static are in QDQ form: QuantizeLinear and DequantizeLinear around each input, DequantizeLinear behind the
int8 weights, and between them the operator in float. A runtime may compute these together in integers. int8_dynamic
takes the range of each input from DynamicQuantizeLinear, which looks at a whole batch: such a model is right for
batches of one. int4 holds ONNX's INT4 codes and a scale for each block of them.
"""

import torch
from torch import nn
from torch.nn import functional as F

from models.to_onnx import INT4, Graph, Writer, add_weighted
from quantization.dynamic import DynamicInt8
from quantization.int4 import Int4
from quantization.int8 import Int8


def write_int8(graph: Graph, name: str, layer: Int8, x: str) -> str:
    scale = graph.add_constant(f"{name}.input_scale", layer.input_scale)
    zero_point = graph.add_constant(f"{name}.input_zero_point", layer.input_zero_point.to(torch.uint8))
    codes = graph.add("QuantizeLinear", x, scale, zero_point)
    return _add_int8_layer(graph, name, layer, graph.add("DequantizeLinear", codes, scale, zero_point))


def write_dynamic(graph: Graph, name: str, layer: DynamicInt8, x: str) -> str:
    codes, scale, zero_point = graph.add_with_outputs(3, "DynamicQuantizeLinear", x)
    return _add_int8_layer(graph, name, layer, graph.add("DequantizeLinear", codes, scale, zero_point))


def _add_int8_layer(graph: Graph, name: str, layer: Int8 | DynamicInt8, x: str) -> str:
    """The layer with its int8 weights, of an input that is rounded already."""
    codes = graph.add_constant(f"{name}.weight", layer.weight)
    scale = graph.add_constant(f"{name}.scale", layer.scale)
    zero_point = graph.add_constant(f"{name}.zero_point", torch.zeros_like(layer.scale, dtype=torch.int8))
    weight = graph.add("DequantizeLinear", codes, scale, zero_point, axis=0)
    return _add_layer(graph, name, layer, x, weight)


def write_int4(graph: Graph, name: str, layer: Int4, x: str) -> str:
    channels = len(layer.bias)
    rows = (channels, layer.shape.numel() // channels)
    codes = graph.add_constant(f"{name}.codes", layer.codes, rows, INT4)
    scale = graph.add_constant(f"{name}.scale", layer.scale.view(channels, -1))
    weight = graph.add("DequantizeLinear", codes, scale, axis=1, block_size=layer.group)
    if len(layer.shape) > 2:
        shape = graph.add_constant(f"{name}.shape", torch.tensor(layer.shape))
        weight = graph.add("Reshape", weight, shape)
    return _add_layer(graph, name, layer, x, weight)


def _add_layer(graph: Graph, name: str, layer: nn.Module, x: str, weight: str) -> str:
    options = None if layer.operation is F.linear else layer.operation.keywords
    return add_weighted(graph, x, weight, graph.add_constant(f"{name}.bias", layer.bias), options)


def rounds_inputs(model: nn.Module) -> bool:
    """Whether a model rounds what reaches its layers: then a last bit can decide between two steps of a grid."""
    return any(isinstance(module, Int8 | DynamicInt8) for module in model.modules())


def batch_of(model: nn.Module) -> int | None:
    """The one size of a batch for which the ONNX form of a model is right; None where all sizes are."""
    return 1 if any(isinstance(module, DynamicInt8) for module in model.modules()) else None


WRITERS: dict[type, Writer] = {Int8: write_int8, DynamicInt8: write_dynamic, Int4: write_int4}
