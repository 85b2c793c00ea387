"""Checks of an ONNX file before onnxruntime sees it: where its weights lie, and which operators it uses."""

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from core.errors import UserError, one_line

KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft")
IN_MEMORY = "_ORT_MEM_ADDR_"  # onnxruntime reads such a location as an address in its own memory


def read_checked(file: Path):
    """The file's content (an onnx ModelProto), without the weights that lie in other files, and the paths of those.

    UserError if the file is no ONNX file, if it would read weights from outside its folder, or if it needs operators
    that onnxruntime does not have.
    """
    model = _read(file)
    check_operators(file, model)
    return model, external_files(file, model)


def _read(file: Path):
    import onnx

    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf's own exceptions differ between its versions
        raise UserError(f"{file} is damaged or no ONNX file ({one_line(error)}): export it again") from error
    if not model.graph.node or not model.graph.output:
        raise UserError(f"{file} is damaged or no ONNX file (it has no network inside): export it again")
    return model


def messages(message, kind: str) -> Iterator:
    """All messages of a type (such as "TensorProto") anywhere inside a protobuf message, subgraphs included."""
    waiting = [message]
    while waiting:
        current = waiting.pop()
        if current.DESCRIPTOR.name == kind:
            yield current
        for field, value in current.ListFields():
            if field.message_type is not None:
                waiting.extend([value] if hasattr(value, "ListFields") else value)


def check_operators(file: Path, model) -> None:
    """UserError for the first operator of a domain that neither onnxruntime nor the file itself defines."""
    defined = {(function.domain, function.name) for function in model.functions}
    for node in messages(model, "NodeProto"):
        if node.domain not in KNOWN_DOMAINS and (node.domain, node.op_type) not in defined:
            raise UserError(
                f"{file} uses the operator {node.domain}::{node.op_type}, which onnxruntime does not have: "
                "export it with standard operators"
            )


def external_files(file: Path, model) -> tuple[Path, ...]:
    """The files beside the model that hold its weights. UserError if one is missing, too short, or lies elsewhere."""
    paths = {}
    for tensor in messages(model, "TensorProto"):
        if tensor.data_location or tensor.external_data:
            path = external_path(file, tensor)
            _check_length(file, tensor, path)
            paths[path] = None
    return tuple(paths)


def external_path(file: Path, tensor) -> Path:
    """The file that holds a tensor's values, certainly inside the model's folder after all links are followed."""
    keys = [entry.key for entry in tensor.external_data]
    location = _external_entry(tensor, "location")
    if location is None or len(set(keys)) < len(keys) or IN_MEMORY in location or "\0" in location:
        raise UserError(f"{file} does not say properly where the weights {tensor.name!r} lie: export it again")
    foreign = PureWindowsPath(location)
    absolute = PurePosixPath(location).is_absolute() or foreign.is_absolute() or foreign.drive or foreign.root
    if absolute or ".." in foreign.parts:
        raise UserError(_outside(file, tensor, location))
    path = file.parent / location
    if not path.resolve().is_relative_to(file.parent.resolve()):
        raise UserError(_outside(file, tensor, location))
    if not path.is_file():
        raise UserError(f"{file} needs the file {path} with its weights, which is missing: put it there")
    return path


def _outside(file: Path, tensor, location: str) -> str:
    return (
        f"{file} reads the weights {tensor.name!r} from outside its folder ({location}): "
        "refused; put the file with the weights beside the model and export it again"
    )


def _external_entry(tensor, key: str) -> str | None:
    return next((entry.value for entry in tensor.external_data if entry.key == key), None)


def _check_length(file: Path, tensor, path: Path) -> None:
    """UserError if the file with the weights ends before the tensor does."""
    try:
        start = int(_external_entry(tensor, "offset") or 0)
        length = int(_external_entry(tensor, "length") or 0)
    except ValueError as error:
        raise UserError(
            f"{file} does not say properly where the weights {tensor.name!r} lie: export it again"
        ) from error
    needed = max(length, _bytes_needed(tensor))
    if start < 0 or length < 0 or start + needed > path.stat().st_size:
        raise UserError(f"{path} is too short for the weights {tensor.name!r} of {file}: copy it again")


def _bytes_needed(tensor) -> int:
    """How many bytes a tensor's values take; 0 where the type is unknown here (onnxruntime then checks it)."""
    from onnx import TensorProto
    from onnx.helper import tensor_dtype_to_np_dtype

    halves = {getattr(TensorProto, name, None) for name in ("INT4", "UINT4", "FLOAT4E2M1")}
    count = math.prod(tensor.dims)
    if tensor.data_type in halves:
        return (count + 1) // 2
    try:
        return count * tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError, TypeError):
        return 0
