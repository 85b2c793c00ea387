"""Programs that `torch.export.save` wrote (.pt2)."""

import contextlib
import inspect
import logging
import pickle
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from core.errors import UserError, one_line

from .answers import Inputs, answer_function, choose_tensor, to_array
from .exported_archive import WAY_OUT, reduced_archive
from .spec import ForeignModel, ModelSpec


class Loaded(NamedTuple):
    """An exported program that can be called."""

    module: torch.nn.Module
    arguments: Callable[[torch.Tensor], tuple[tuple, dict]]  # the one tensor -> the module's arguments
    takes: Inputs
    dtype: torch.dtype
    description: str


def open_exported_program(spec: ModelSpec) -> ForeignModel:
    """Load a .pt2 by `torch.export.load`, from a copy in which there is nothing to unpickle or to run.

    See `exported_archive` for what is loaded, left out and refused. UserError if the program cannot be loaded so, or
    takes anything but one tensor.
    """
    program = _load(spec)

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        args, kwargs = program.arguments(inputs.to(program.dtype))
        return choose_tensor(spec.file, program.module(*args, **kwargs), spec.output)

    def ask(batch: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return to_array(forward(torch.tensor(batch)))

    return ForeignModel(
        description=program.description,
        files=(spec.file,),
        answer=answer_function(str(spec.file), program.takes, ask),
        input_shape=program.takes.shape,
        input_dtype=program.takes.dtype,
        fixed_batch=program.takes.fixed_batch,
        class_names=None,
        preprocessing=None,
        tokenize=None,
        runs_code=False,
        forward=forward,
    )


def _load(spec: ModelSpec) -> Loaded:
    archive = reduced_archive(spec.file)
    reasons: list[BaseException] = []
    try:
        with no_unpickling(), _reasons_logged(reasons):
            program = torch.export.load(archive)
            takes_guards = "check_guards" in inspect.signature(program.module).parameters
            module = program.module(check_guards=False) if takes_guards else program.module()
        node, arguments = _one_input(spec, program)
        return Loaded(module, arguments, _inputs(program, node), node.meta["val"].dtype, _describe(program))
    except UserError:
        raise
    except Exception as error:  # a damaged program fails anywhere
        reason = one_line(reasons[0] if reasons else error)
        raise UserError(f"torch {torch.__version__} cannot load {spec.file} ({reason}): {WAY_OUT}") from error


@contextlib.contextmanager
def _reasons_logged(reasons: list[BaseException]) -> Iterator[None]:
    """Collect the exceptions that torch.export only logs inside this block, and keep its log off the screen.

    `torch.export.load` raises a general sentence in the place of a RuntimeError, which it writes to its log.
    """

    def collect(record: logging.LogRecord) -> bool:
        if record.exc_info:
            reasons.append(record.exc_info[1])
        return False

    log = logging.getLogger("torch.export")
    log.addFilter(collect)
    try:
        yield
    finally:
        log.removeFilter(collect)


@contextlib.contextmanager
def no_unpickling() -> Iterator[None]:
    """Let every attempt to unpickle inside this block fail, in all threads. A second lock behind `reduced_archive`."""

    def refuse(*args, **kwargs):
        raise UserError(f"the file would have to be unpickled, which could run code: nothing was loaded; {WAY_OUT}")

    places = [(torch, "load"), (torch._C, "_pickle_load_obj"), (pickle, "load"), (pickle, "loads")]
    before = [getattr(place, name) for place, name in places]
    for place, name in places:
        setattr(place, name, refuse)
    try:
        yield
    finally:
        for (place, name), usual in zip(places, before, strict=True):
            setattr(place, name, usual)


def _one_input(spec: ModelSpec, program: torch.export.ExportedProgram):
    """The graph's node of the one tensor that the program takes, and a function from that tensor to its arguments."""
    kinds = [entry for entry in program.graph_signature.input_specs if entry.kind.name == "USER_INPUT"]
    names = [entry.arg.name for entry in kinds]
    tensors = [entry.arg.name for entry in kinds if type(entry.arg).__name__ == "TensorArgument"]
    is_plain = all(type(entry.arg).__name__ in ("TensorArgument", "ConstantArgument") for entry in kinds)
    if len(tensors) != 1 or not is_plain:
        raise UserError(f"{spec.file} takes the inputs {', '.join(names)}: export it so that it takes one tensor")
    if spec.input not in (None, tensors[0]):
        raise UserError(f"{spec.file} has no input {spec.input!r}: it has {tensors[0]}")
    constants = [None if entry.arg.name == tensors[0] else entry.arg.value for entry in kinds]
    place = names.index(tensors[0])
    structure = program.call_spec.in_spec

    def arguments(tensor: torch.Tensor) -> tuple[tuple, dict]:
        leaves = [*constants[:place], tensor, *constants[place + 1 :]]
        return torch.utils._pytree.tree_unflatten(leaves, structure)

    return next(node for node in program.graph.nodes if node.name == tensors[0]), arguments


def _inputs(program: torch.export.ExportedProgram, node: torch.fx.Node) -> Inputs:
    """What the program's input takes: sizes that the export fixed, and the limits of its batch size."""
    tensor = node.meta["val"]
    if tensor.ndim == 0:
        raise UserError("the exported program takes a single number: export it so that it takes a batch")
    batch, *rest = [size if isinstance(size, int) else None for size in tensor.shape]
    dtype = str(tensor.dtype).removeprefix("torch.")
    dtype = "float32" if dtype == "bfloat16" else dtype  # numpy has no bfloat16
    if batch is not None:
        return Inputs(tuple(rest), dtype, batch, batch)
    limits = program.range_constraints.get(tensor.shape[0].node.expr)
    smallest = max(1, int(limits.lower)) if limits is not None else 1
    largest = int(limits.upper) if limits is not None and limits.upper.is_Integer else None
    return Inputs(tuple(rest), dtype, smallest, largest)


def _describe(program: torch.export.ExportedProgram) -> str:
    operators = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    quantized = sum(name.startswith("quantized_decomposed.quantize") for name in operators)
    note = f", quantized at {quantized} places" if quantized else ""
    return f"torch.export program, {len(operators)} operators{note}"
