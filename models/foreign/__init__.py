"""Model files of anybody, opened so that they can be asked: `open_model(ModelSpec(path), threads=1).answer(inputs)`."""

from pathlib import Path

from core.errors import UserError

from .exported_program import open_exported_program
from .hugging_face import open_hugging_face, read_json_object
from .onnx_file import open_onnx
from .plugin import load_weights, open_plugin, plugin_file
from .spec import ForeignModel, ModelSpec
from .tflite_file import open_tflite

__all__ = ["ForeignModel", "ModelSpec", "load_weights", "open_model", "plugin_file"]

HUGGING_FACE = "folder of Hugging Face"
PREPROCESSING = "preprocessor_config.json"
ACCEPTED_FORMATS = ".onnx, .pt2, .tflite, .py, a Hugging Face folder, or a folder with one .py file"
WEIGHTS_ONLY = (
    "holds weights without their network, or a network as pickled code: give a .py file with get_model() and let "
    "`weights:` in a task file name the weights (or put them beside it), or export the model to ONNX"
)
PICKLED = "can run code when it is opened, so it is not: convert the model to ONNX (for scikit-learn: skl2onnx)"
TENSORFLOW = "is a TensorFlow model: convert it to ONNX (tf2onnx) or .tflite"
REFUSED = {
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin", ".safetensors"), WEIGHTS_ONLY),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), PICKLED),
    **dict.fromkeys((".h5", ".hdf5", ".keras", ".pb"), TENSORFLOW),
    **dict.fromkeys((".pdparams", ".pdmodel"), "is a Paddle model: convert it to ONNX (paddle2onnx)"),
    ".mlmodel": "is a Core ML model: export the model that it came from to ONNX",
    ".gguf": "is a language model for llama.cpp: give the Hugging Face folder that it came from",
}


def open_model(spec: ModelSpec, *, threads: int) -> ForeignModel:
    """Open a model file or folder; its answers come from the processor.

    `threads` is for onnxruntime and LiteRT; PyTorch's threads belong to the whole process (`core.threads.use_threads`).
    A preprocessor_config.json beside the model is read into `preprocessing`, unless an ONNX file itself says how its
    inputs are prepared.

    UserError, in one line, for everything that cannot be opened, or not without running what is in the file.
    """
    if not spec.file.exists():
        raise UserError(f"there is no model {spec.file}: check the path")
    model = _open(spec, threads)
    beside = (spec.file if spec.file.is_dir() else spec.file.parent) / PREPROCESSING
    if model.preprocessing is not None or not beside.is_file():
        return model
    weights = model.weights or model.files
    return model._replace(preprocessing=read_json_object(beside), files=(*model.files, beside), weights=weights)


def _open(spec: ModelSpec, threads: int) -> ForeignModel:
    """Open the model by what kind of file it is."""
    kind = _kind(spec.file)
    if spec.weights is not None and kind != ".py":
        raise UserError(f"{spec.file} holds its own weights: `weights:` is for .py files with get_model() alone")
    if spec.input is not None and kind in (".py", HUGGING_FACE):
        raise UserError(f"{spec.file} takes one tensor: leave out `input:`, which is for files with named inputs")
    openers = {
        ".onnx": lambda: open_onnx(spec, threads),
        ".pt2": lambda: open_exported_program(spec),
        ".tflite": lambda: open_tflite(spec, threads),
        ".py": lambda: open_plugin(spec),
        HUGGING_FACE: lambda: open_hugging_face(spec),
    }
    if kind not in openers:
        raise UserError(
            f"{spec.file} {REFUSED.get(kind, 'is no model file that can be opened')}; models are {ACCEPTED_FORMATS}"
        )
    return openers[kind]()


def _kind(file: Path) -> str:
    """A file's ending; of a folder HUGGING_FACE if it has a config.json, or ".py" if it has a Python file."""
    if not file.is_dir():
        return file.suffix.lower()
    if (file / "config.json").is_file():
        return HUGGING_FACE
    if not any(file.glob("*.py")):
        raise UserError(f"the folder {file} holds neither a config.json nor a .py file; models are {ACCEPTED_FORMATS}")
    return ".py"
