"""Networks from Python files of the user's: `get_model()`, with weights beside it.

Such a file is the user's own code and is run as such. Weights are read without running anything.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from core.errors import UserError, one_line
from core.plugins import code_files, import_plugin, modules_beside

from .answers import Inputs, answer_function, choose_tensor, to_array
from .spec import ForeignModel, ModelSpec

WEIGHTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
PREFIX = "module."  # with which nn.DataParallel saves the names of weights
PADDLE = (
    "are Paddle weights, which PyTorch cannot read: load them with paddle.load, write the arrays under the names of "
    "your PyTorch model, and save them with safetensors.numpy.save_file as .safetensors"
)
NESTED = ("state_dict", "model_state_dict", "model")  # where trainers put the weights within a checkpoint


def load_weights(module: nn.Module, file: Path) -> None:
    """Fill a module with the weights in a .safetensors file or in a state dict (.pt, .pth, .ckpt, .bin).

    The module is on the processor. Nothing in the file is run: a state dict is read with `weights_only=True`. UserError
    if it holds more than tensors, or if its names or shapes are not those of the module.
    """
    weights = _without_prefix(_read_weights(file), module.state_dict())
    try:
        module.load_state_dict(weights)
    except Exception as error:
        raise UserError(f"the weights in {file} do not fit the model ({one_line(error)})") from error


def _without_prefix(weights: dict[str, torch.Tensor], wanted: Mapping) -> dict[str, torch.Tensor]:
    """The weights without the prefix of nn.DataParallel, where more of the wanted names are met without it."""
    stripped = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}
    return stripped if len(stripped.keys() & wanted.keys()) > len(weights.keys() & wanted.keys()) else weights


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    """Tensors by name. UserError for every other content."""
    if not file.is_file():
        raise UserError(f"there is no weights file {file}: check the path")
    if file.suffix == ".pdparams":
        raise UserError(f"{file}: these {PADDLE}")
    if file.suffix not in WEIGHTS:
        raise UserError(f"{file} is no weights file: give a .safetensors file or a .pt file with a state dict")
    return _read_safetensors(file) if file.suffix == ".safetensors" else _read_state_dict(file)


def _read_safetensors(file: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except Exception as error:
        raise UserError(f"{file} is damaged or no safetensors file ({one_line(error)}): save it again") from error


def _read_state_dict(file: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{file} holds more than weights (or is damaged), and opening it could run code, so nothing was loaded: "
            "save the weights alone with torch.save(model.state_dict(), FILE)"
        ) from error
    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{file} is no state dict: save the weights with torch.save(model.state_dict(), FILE)")
    return content


def open_plugin(spec: ModelSpec) -> ForeignModel:
    """Open a .py file with `get_model()`, or a folder with one such file and at most one file of weights.

    UserError if the file, the function or the weights are missing or wrong.
    """
    file = plugin_file(spec.file) if spec.file.is_dir() else spec.file
    weights = spec.weights or _weights_beside(file)
    module = _network(file, weights)
    takes = Inputs(None, _input_dtype(module))
    forward = functools.partial(_forward, module, file, spec.output)
    return ForeignModel(
        description=f"PyTorch, {type(module).__name__} from the user's own code ({file.name})",
        files=(*code_files(file), *([weights] if weights else [])),
        answer=answer_function(str(spec.file), takes, functools.partial(_ask, forward)),
        input_shape=None,
        input_dtype=takes.dtype,
        fixed_batch=None,
        class_names=None,
        preprocessing=None,
        tokenize=None,
        runs_code=True,
        forward=forward,
        weights=(weights or file,),
    )


def _network(file: Path, weights: Path | None) -> nn.Module:
    """What get_model() returns, on the processor, with these weights."""
    module = import_plugin(file, "get_model")()
    if not isinstance(module, nn.Module):
        raise UserError(f"get_model() in {file} must return a torch.nn.Module, not {type(module).__name__}")
    if weights is not None:
        load_weights(module, weights)
    return module.cpu().eval()


def _ask(forward: Callable[[torch.Tensor], torch.Tensor], batch: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return to_array(forward(torch.tensor(batch)))  # a copy, because the model may change it in place


def _forward(module: nn.Module, file: Path, output: str | None, inputs: torch.Tensor) -> torch.Tensor:
    """What the network answers about one batch; its code may import what lies beside the file."""
    parameter = next((value for value in module.parameters() if value.is_floating_point()), None)
    if inputs.is_floating_point() and parameter is not None:
        inputs = inputs.to(parameter.dtype)
    with modules_beside(file.parent):
        return choose_tensor(file, module(inputs), output)


def plugin_file(folder: Path) -> Path:
    """The one Python file of a plug-in folder. UserError if there are none or several."""
    files = sorted(folder.glob("*.py"))
    if len(files) != 1:
        listed = ", ".join(file.name for file in files) or "none"
        raise UserError(f"the folder {folder} must hold exactly one .py file ({listed}): give the file itself")
    return files[0]


def _weights_beside(file: Path) -> Path | None:
    """The one weights file in a Python file's folder; None if there is none. UserError if there are several."""
    files = sorted(path for path in file.parent.iterdir() if path.suffix in (*WEIGHTS, ".pdparams"))
    if len(files) > 1:
        listed = ", ".join(path.name for path in files)
        raise UserError(
            f"several weights files lie beside {file} ({listed}): choose one with `weights:` in a task file"
        )
    return files[0] if files else None


def _input_dtype(module: nn.Module) -> str:
    """The type that a module probably takes: token ids if it begins with an embedding, else its weights' float type."""
    first = next((part for part in module.modules() if part._parameters), None)
    if isinstance(first, nn.Embedding | nn.EmbeddingBag):
        return "int64"
    dtypes = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    if dtypes and dtypes <= {torch.float16, torch.float64} and len(dtypes) == 1:
        return str(dtypes.pop()).removeprefix("torch.")
    return "float32"
