"""`int8_static`: a trained network's weights and layer inputs on eight bits, without fine-tuning.

The layers are those of `int8`: weights per output channel and symmetric, inputs per tensor and affine, batch norm
folded (Jacob et al. 2018; Krishnamoorthi 2018, arXiv:1806.08342, section 3). Only the source of the input ranges
differs: they reach from the least to the largest value that a layer gets while the float network answers some points.
Wu et al. 2020 (arXiv:2004.09602, section 3.3) call this max calibration. It has nothing to tune, and it is the default
of onnxruntime's `quantize_static`, with which such models are usually made.
"""

import copy
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from core import devices
from models.tools import weighted_layers
from quantization import int8
from quantization.embeddings import RoundedEmbedding

DEGREE = "int8_static"

pack = int8.pack
unpack = int8.unpack
verify = int8.verify


def prepare(model: nn.Module, degree: str) -> nn.Module:
    """A copy with batch norm folded and every weight and layer input fake-quantized; `calibrate` sets the ranges.

    Raises ValueError unless degree is "int8_static".
    """
    if degree != DEGREE:
        raise ValueError(f"static quantization has the degree {DEGREE!r}, not {degree!r}")
    return int8.replace_layers(copy.deepcopy(model), int8.FakeQuantized, RoundedEmbedding)


@torch.no_grad()
def calibrate(prepared: nn.Module, original: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the input ranges of `prepared` to what the layers of the float network `original` get.

    batches: network inputs (B, ...), at least one batch.
    """
    ranges = input_ranges(original, batches)
    for name, layer in int8.fake_quantized_layers(prepared).items():
        low, high = ranges[name]
        layer.low.copy_(low)
        layer.high.copy_(high)


def input_ranges(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """For each conv and linear layer, by name, the least and the largest value that reaches it: 0-d tensors."""
    ranges: dict[str, tuple[Tensor, Tensor]] = {}
    layers = weighted_layers(model)
    hooks = [layer.register_forward_pre_hook(partial(_widen, ranges, name)) for name, layer in layers.items()]
    model.eval()
    try:
        with devices.exact():
            for batch in batches:
                model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return ranges


def _widen(ranges: dict[str, tuple[Tensor, Tensor]], name: str, layer: nn.Module, inputs: tuple[Tensor]) -> None:
    """Widen the layer's entry in `ranges`, so that it holds the inputs of this call too."""
    low, high = torch.aminmax(inputs[0])
    earlier_low, earlier_high = ranges.get(name, (low, high))
    ranges[name] = (torch.minimum(low, earlier_low), torch.maximum(high, earlier_high))
