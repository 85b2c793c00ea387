"""TensorFlow Lite files, asked by LiteRT on the processor."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.errors import UserError, one_line

from .answers import Inputs, answer_function, choose_name
from .spec import ForeignModel, ModelSpec

WHOLE = (np.int8, np.uint8, np.int16)


class Tensor(NamedTuple):
    """An input or output of the file."""

    name: str
    index: int
    shape: tuple[int, ...]  # a free axis has some length that the file happens to state
    is_free: tuple[bool, ...]  # of each axis: whether the file says that it may have any length
    dtype: np.dtype
    scale: float | None  # real value = scale * (stored value - zero_point); None: stored values are real values
    zero_point: int


def open_tflite(spec: ModelSpec, threads: int) -> ForeignModel:
    """Open a .tflite. Quantized inputs and outputs are converted, so that `answer` takes and gives real values.

    Batches of any size are asked where the file allows them, or where two rows at once get the answers that they get
    alone; else the batch size is the file's own. UserError if the file cannot be opened or LiteRT is missing.
    """
    interpreter = _interpreter(spec.file, threads)
    source = _choose(spec.file, "input", _tensors(interpreter.get_input_details()), spec.input)
    target = _choose(spec.file, "output", _tensors(interpreter.get_output_details()), spec.output)

    def ask(batch: np.ndarray) -> np.ndarray:
        return _ask(interpreter, source, target, batch)

    dtype = "float32" if source.scale is not None else source.dtype.name
    any_batch = source.is_free[0] or _takes_two(ask, source, dtype)
    batch = None if any_batch else source.shape[0]
    lengths = [None if free else length for length, free in zip(source.shape, source.is_free, strict=True)]
    takes = Inputs(tuple(lengths[1:]), dtype, batch or 1, batch)
    return ForeignModel(
        description=_describe(interpreter),
        files=(spec.file,),
        answer=answer_function(str(spec.file), takes, ask),
        input_shape=takes.shape,
        input_dtype=takes.dtype,
        fixed_batch=takes.fixed_batch,
        class_names=None,
        preprocessing=None,
        tokenize=None,
        runs_code=False,
    )


def _interpreter(file: Path, threads: int):
    """The file in LiteRT. UserError if LiteRT is missing or cannot load it."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError(f'{file} needs the package ai-edge-litert: pip install ".[tflite]"') from error
    try:
        interpreter = Interpreter(model_path=str(file), num_threads=threads)
        interpreter.allocate_tensors()
    except Exception as error:
        raise UserError(f"LiteRT cannot open {file} ({one_line(error)}): export it again") from error
    return interpreter


def _tensors(details: list[dict]) -> dict[str, Tensor]:
    tensors = {}
    for detail in details:
        scales = detail["quantization_parameters"]["scales"]
        points = detail["quantization_parameters"]["zero_points"]
        dtype = np.dtype(detail["dtype"])
        is_quantized = dtype.type in WHOLE and len(scales) == 1
        shape = tuple(int(size) for size in detail["shape"])
        signature = detail.get("shape_signature", shape)
        states_axes = len(signature) == len(shape)  # a file without free axes may leave the signature empty
        tensors[detail["name"]] = Tensor(
            name=detail["name"],
            index=detail["index"],
            shape=shape,
            is_free=tuple(int(size) == -1 for size in (signature if states_axes else shape)),
            dtype=dtype,
            scale=float(scales[0]) if is_quantized else None,
            zero_point=int(points[0]) if is_quantized else 0,
        )
    return tensors


def _choose(file: Path, kind: str, tensors: dict[str, Tensor], wanted: str | None) -> Tensor:
    """The one input, or the output to be read. UserError if there are several inputs, or the output is not clear."""
    if kind == "input" and len(tensors) > 1:
        raise UserError(f"{file} needs several inputs ({', '.join(tensors)}): export it so that it needs one")
    scores = [name for name, tensor in tensors.items() if tensor.dtype.kind == "f" or tensor.scale is not None]
    chosen = tensors[choose_name(file, kind, tensors, tensors if kind == "input" else scores, wanted)]
    if not chosen.shape or chosen.dtype.kind not in "fiu":
        raise UserError(f"{file}: the {kind} {chosen.name!r} is no tensor with a batch of numbers")
    return chosen


def _ask(interpreter, source: Tensor, target: Tensor, batch: np.ndarray) -> np.ndarray:
    """Real inputs (B, ...) -> real outputs (B, ...)."""
    if tuple(interpreter.get_input_details()[0]["shape"]) != batch.shape:
        interpreter.resize_tensor_input(source.index, batch.shape)
        interpreter.allocate_tensors()
    interpreter.set_tensor(source.index, _stored(source, batch))
    interpreter.invoke()
    outputs = interpreter.get_tensor(target.index)
    if target.scale is None:
        return outputs
    return np.float32(target.scale) * (outputs.astype(np.float32) - np.float32(target.zero_point))


def _stored(source: Tensor, batch: np.ndarray) -> np.ndarray:
    """The values that the file's input holds for these real ones."""
    if source.scale is None:
        return batch
    limits = np.iinfo(source.dtype)
    steps = np.rint(batch / np.float32(source.scale)) + source.zero_point
    return np.clip(steps, limits.min, limits.max).astype(source.dtype)


def _takes_two(ask, source: Tensor, dtype: str) -> bool:
    """Whether two rows asked at once get the answers that each gets alone, although the file has a batch of one."""
    if source.shape[0] != 1:
        return False
    rows = np.random.default_rng(0).uniform(0, 2, (2, *source.shape[1:])).astype(dtype)
    try:
        alone = np.concatenate([ask(row[np.newaxis]) for row in rows])
        together = ask(rows)
    except (RuntimeError, ValueError):
        return False
    return together.shape == alone.shape and np.allclose(together, alone, rtol=1e-4, atol=1e-5)


def _describe(interpreter) -> str:
    """Such as "TensorFlow Lite, 12 tensors, quantized on int8"."""
    details = interpreter.get_tensor_details()
    kinds = {np.dtype(detail["dtype"]).name for detail in details}
    quantized = sorted(kinds & {"int8", "uint8", "int16"})
    numbers = f"quantized on {', '.join(quantized)}" if quantized else "float32"
    return f"TensorFlow Lite, {len(details)} tensors, {numbers}"
