"""What names a model file, and what an opened model can do."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch


class ModelSpec(NamedTuple):
    """Names a model on disk, and what the user has to choose where the file leaves a choice."""

    file: (
        Path  # .onnx, .pt2, .tflite, .py, a Hugging Face folder, or a folder with one .py and at most one weights file
    )
    input: str | None = None  # name of the input, where there are several
    output: str | None = None  # name of the output, where there are several
    weights: Path | None = None  # of a .py, a state dict or .safetensors; None: the only one beside it


class ForeignModel(NamedTuple):
    """A model that can be asked. It runs on the processor, in evaluation mode."""

    description: str  # for people, such as "ONNX, opset 17, 3 of 3 weighted layers on int8 (static)"
    files: tuple[Path, ...]  # every file whose bytes decide the answers
    answer: Callable[[np.ndarray], np.ndarray]  # inputs (B, ...) -> the network's output (B, ...), float32 or float64
    input_shape: tuple[int | None, ...] | None  # without the batch axis; None for a free axis; None: unknown
    input_dtype: str  # "float32", "float16", "uint8", "int64", ...
    fixed_batch: int | None  # `answer` pads the last batch to this size and drops the padded rows
    class_names: tuple[str, ...] | None  # in the order of the outputs, where the model file names them
    preprocessing: dict | None  # what the model's files say of it, as it stands there
    tokenize: Callable[[list[str]], np.ndarray] | None  # texts -> token ids (B, L) that `answer` takes
    runs_code: bool  # the user's own Python code is run
    forward: Callable[[torch.Tensor], torch.Tensor] | None = None  # `answer` with gradients; None where there are none
    weights: tuple[Path, ...] | None = None  # those of `files` that make it another model; None: all of them
