"""What all kinds of foreign models share: inputs are checked and converted, outputs are chosen and checked."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch

from core.errors import UserError, one_line


class Inputs(NamedTuple):
    """What a model takes."""

    shape: tuple[int | None, ...] | None  # without the batch axis; None for a free axis; None: unknown
    dtype: str
    smallest_batch: int = 1
    largest_batch: int | None = None  # None: any

    @property
    def fixed_batch(self) -> int | None:
        """The one size of batches that the model takes, if there is only one."""
        return self.largest_batch if self.smallest_batch == self.largest_batch else None


def answer_function(
    name: str, takes: Inputs, ask: Callable[[np.ndarray], np.ndarray]
) -> Callable[[np.ndarray], np.ndarray]:
    """Make `answer`: inputs (B, ...) of a fitting type -> outputs (B, ...) float32 or float64.

    `ask` gets inputs of the model's own type in batches that the model takes, and gives one output for each row. A
    batch that is too small is filled up with copies of its last row, so that it holds no values that were not asked.

    UserError, from `answer`, if the inputs do not fit or the model fails on them.
    """

    def answer(inputs: np.ndarray) -> np.ndarray:
        fitting = fit_inputs(name, takes, inputs)
        largest = takes.largest_batch or len(fitting)
        batches = [fitting[start : start + largest] for start in range(0, len(fitting), largest)]
        return np.concatenate([_ask_batch(name, takes, ask, batch) for batch in batches])

    return answer


def _ask_batch(name: str, takes: Inputs, ask: Callable[[np.ndarray], np.ndarray], batch: np.ndarray) -> np.ndarray:
    """Ask for one batch, filled up where the model takes no smaller one."""
    missing = max(0, takes.smallest_batch - len(batch))
    filled = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
    try:
        outputs = np.asarray(ask(filled))
    except UserError:
        raise
    except Exception as error:  # every library has exceptions of its own
        raise UserError(
            f"{name} gives no answer to inputs {describe(filled.shape, filled.dtype)} ({one_line(error)})"
        ) from error
    return check_outputs(name, outputs, len(filled))[: len(batch)]


def fit_inputs(name: str, takes: Inputs, inputs: np.ndarray) -> np.ndarray:
    """The inputs in the model's own type. UserError if shape or type do not fit, or if there are no rows."""
    inputs = np.asarray(inputs)
    got = describe(inputs.shape, inputs.dtype)
    wanted = describe(("B", *takes.shape), takes.dtype) if takes.shape is not None else f"(B, ...) {takes.dtype}"
    if inputs.ndim == 0 or len(inputs) == 0 or not _fits(inputs.shape[1:], takes.shape):
        raise UserError(f"{name} takes inputs {wanted}, but got {got}: check size, layout and channels of the data")
    if not _convertible(inputs, np.dtype(takes.dtype)):
        raise UserError(f"{name} takes inputs {wanted}, but got {got}: convert the data to {takes.dtype} first")
    return np.ascontiguousarray(inputs, dtype=takes.dtype)


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...] | None) -> bool:
    if wanted is None:
        return True
    return len(shape) == len(wanted) and all(want in (None, size) for size, want in zip(shape, wanted, strict=True))


def _convertible(inputs: np.ndarray, dtype: np.dtype) -> bool:
    """Whether the conversion keeps the meaning: any number to a float, whole numbers to a type that holds them."""
    if inputs.dtype == dtype:
        return True
    if inputs.dtype.kind not in "fiu" or dtype.kind not in "fiu":
        return False
    if dtype.kind == "f":
        return True
    if inputs.dtype.kind == "f":
        return False
    limits = np.iinfo(dtype)
    return inputs.size == 0 or (limits.min <= inputs.min() and inputs.max() <= limits.max)


def check_outputs(name: str, outputs: np.ndarray, rows: int) -> np.ndarray:
    """The outputs as float32 or float64. UserError if they are not one float output a row."""
    if outputs.dtype.kind != "f":
        raise UserError(f"{name} answers with {outputs.dtype}: choose an output with scores, not labels")
    if outputs.ndim == 0 or len(outputs) != rows:
        raise UserError(f"{name} answers {rows} inputs with an output {outputs.shape}: it must have {rows} rows")
    return outputs if outputs.dtype == np.float64 else outputs.astype(np.float32)


def choose_name(file: object, kind: str, names: Iterable[str], scores: Iterable[str], wanted: str | None) -> str:
    """The output (or input) that the user names, else the only one that can be meant.

    `kind` is "output" or "input", `names` all of them, `scores` those that can be meant. UserError if the user has to
    choose, or chose one that is not there.
    """
    names = list(names)
    scores = list(scores)
    listed = ", ".join(names)
    if wanted is not None and wanted not in names:
        raise UserError(f"{file} has no {kind} {wanted!r}: it has {listed or 'none'}")
    if wanted is not None and wanted not in scores:
        raise UserError(f"{file}: the {kind} {wanted!r} is no tensor of numbers that fits; its {kind}s are {listed}")
    if wanted is not None:
        return wanted
    if len(scores) == 1:
        return scores[0]
    if not scores:
        raise UserError(f"{file} has no {kind} with float values; its {kind}s are {listed or 'none'}")
    raise UserError(
        f"{file} has several {kind}s ({listed}): choose one with `{kind}:` in a task file, or with --{kind} NAME"
    )


def named_tensors(outputs: object) -> dict[str, object]:
    """The tensors that a PyTorch model gave, by name: a mapping's keys, or places in a tuple ("0", "1", ...)."""
    if isinstance(outputs, torch.Tensor):
        return {"output": outputs}
    if isinstance(outputs, Mapping):
        pairs = outputs.items()
    elif hasattr(outputs, "_asdict"):
        pairs = outputs._asdict().items()
    elif isinstance(outputs, tuple | list):
        pairs = enumerate(outputs)
    else:
        raise UserError(f"a model must give a tensor, a tuple or a dict of tensors, not {type(outputs).__name__}")
    return {str(key): value for key, value in pairs if isinstance(value, torch.Tensor)}


def choose_tensor(file: object, outputs: object, wanted: str | None) -> torch.Tensor:
    """The chosen output of a PyTorch model. UserError as `choose_name` has it."""
    tensors = named_tensors(outputs)
    scores = [name for name, tensor in tensors.items() if tensor.is_floating_point()]
    return tensors[choose_name(file, "output", tensors, scores, wanted)]


def to_array(output: torch.Tensor) -> np.ndarray:
    """An output of a PyTorch model as an array of float32 or float64."""
    tensor = output.detach().cpu()
    return tensor.to(torch.float64 if tensor.dtype == torch.float64 else torch.float32).numpy()


def describe(shape: Iterable[object], dtype: object) -> str:
    """Shape and type for a message, a free axis as `?`."""
    return f"({', '.join('?' if size is None else str(size) for size in shape)}) {dtype}"
