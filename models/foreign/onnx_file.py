"""ONNX files, asked by onnxruntime on the processor."""

from pathlib import Path

import numpy as np

from core.errors import UserError, one_line

from .answers import Inputs, answer_function, choose_name
from .onnx_check import messages, read_checked
from .onnx_description import describe_onnx
from .spec import ForeignModel, ModelSpec

DTYPES = {  # onnxruntime's names of what can be an input
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(uint16)": "uint16",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
}
SCORES = ("tensor(float)", "tensor(double)", "tensor(float16)")
METADATA_PREFIX = "compleak_"  # keys such as compleak_mean in the file's metadata say how inputs are prepared


def open_onnx(spec: ModelSpec, threads: int) -> ForeignModel:
    """Open an .onnx file after the checks of `onnx_check`. UserError if it cannot be opened or asked."""
    model, external = read_checked(spec.file)
    session = _session(spec.file, threads)
    chosen_input = _choose_input(spec, session)
    chosen_output = _choose_output(spec, session)
    takes = _inputs(spec.file, chosen_input)

    def ask(batch: np.ndarray) -> np.ndarray:
        [answers] = session.run([chosen_output.name], {chosen_input.name: batch})
        return table_of_maps(answers) if chosen_output.type.startswith("seq(map(") else answers

    return ForeignModel(
        description=describe_onnx(model),
        files=(spec.file, *external),
        answer=answer_function(str(spec.file), takes, ask),
        input_shape=takes.shape,
        input_dtype=takes.dtype,
        fixed_batch=takes.fixed_batch,
        class_names=_class_names(model),
        preprocessing=_metadata(model),
        tokenize=None,
        runs_code=False,
    )


def _session(file: Path, threads: int):
    """The file in onnxruntime. UserError if onnxruntime cannot load it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what goes wrong is raised as well, and becomes the one line below
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no class
        raise UserError(f"onnxruntime cannot open {file} ({one_line(error)}): export it again") from error


def _choose_input(spec: ModelSpec, session):
    """The one input to be filled. UserError if the model needs others beside it."""
    required = {value.name: value for value in session.get_inputs()}
    with_defaults = {value.name: value for value in session.get_overridable_initializers()}
    if len(required) > 1:
        raise UserError(
            f"{spec.file} needs several inputs ({', '.join(required)}): "
            "export it so that it needs one and has the others inside, or as default values"
        )
    known = required | with_defaults
    name = choose_name(spec.file, "input", known, known if spec.input else required, spec.input)
    missing = set(required) - {name}
    if missing:
        raise UserError(f"{spec.file} cannot be asked by {name!r} alone: it also needs {', '.join(missing)}")
    return known[name]


def _choose_output(spec: ModelSpec, session):
    outputs = {value.name: value for value in session.get_outputs()}
    scores = [name for name, value in outputs.items() if value.type in SCORES or value.type.startswith("seq(map(")]
    return outputs[choose_name(spec.file, "output", outputs, scores, spec.output)]


def _inputs(file: Path, value) -> Inputs:
    """What an input takes, as onnxruntime reports it. UserError for types that no data here have."""
    if value.type not in DTYPES:
        raise UserError(f"the input {value.name!r} of {file} is a {value.type}: only tensors of numbers can be asked")
    if not value.shape:
        return Inputs(None, DTYPES[value.type])
    batch, *rest = [size if isinstance(size, int) and size > 0 else None for size in value.shape]
    return Inputs(tuple(rest), DTYPES[value.type], batch or 1, batch)


def table_of_maps(maps: list[dict]) -> np.ndarray:
    """What scikit-learn's ZipMap gives, a map from class to score for each row, as an array (B, C).

    Columns are in the order of the sorted classes, whole numbers by size.
    """
    return np.array([[row[key] for key in sorted(row)] for row in maps])


def _class_names(model) -> tuple[str, ...] | None:
    """The names of the classes where the file holds them as texts, or as numbers other than 0 to C - 1."""
    for node in messages(model, "NodeProto"):
        for attribute in node.attribute:
            if attribute.name in ("classlabels_strings", "classlabels_int64s", "classlabels_ints"):
                labels = [text.decode("utf-8", "replace") for text in attribute.strings] or list(attribute.ints)
                ordered = sorted(labels) if node.op_type == "ZipMap" else labels
                if ordered and ordered != list(range(len(ordered))):
                    return tuple(map(str, ordered))
    return None


def _metadata(model) -> dict | None:
    """What the file says of preprocessing under keys such as `compleak_mean`, as it stands there; None: nothing."""
    return {entry.key: entry.value for entry in model.metadata_props if entry.key.startswith(METADATA_PREFIX)} or None
