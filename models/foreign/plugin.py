"""Python files of the user: `get_model()` with weights beside it, `get_dataset()` for data.

Such a file is the user's own code and is run as such. Weights are read without running anything.
"""

import contextlib
import hashlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from core.errors import UserError
from core.project import PROJECT

from .answers import Inputs, answer_function, choose_tensor, one_line
from .spec import ForeignModel, ModelSpec

WEIGHTS = (".pt", ".pth", ".safetensors")
PADDLE = (
    "are Paddle weights, which PyTorch cannot read: load them with paddle.load, write the arrays under the names of "
    "your PyTorch model, and save them with safetensors.numpy.save_file as .safetensors"
)
NESTED = ("state_dict", "model_state_dict", "model")  # where trainers put the weights within a checkpoint


def import_plugin(file: Path, function: str) -> Callable:
    """The function of this name in a Python file, which is imported under a private name.

    The file can import what lies in its folder, when it is imported and whenever the function runs. UserError if there
    is no such file or function, if importing fails, and, when it is called, if the function fails.
    """
    module, _ = _import(file)
    call = getattr(module, function, None)
    if not callable(call):
        raise UserError(f"{file} has no function {function}(): define it at the top level of the file")

    def run(*args, **options):
        with _folder_importable(file.parent), _user_code(f"{function}() in {file}"):
            return call(*args, **options)

    return run


def code_files(file: Path) -> tuple[Path, ...]:
    """The Python file and those of its folder that it imports at the top."""
    return _import(file)[1]


_IMPORTED: dict[Path, tuple[object, tuple[Path, ...]]] = {}


def _import(file: Path) -> tuple[object, tuple[Path, ...]]:
    """The module in a Python file, and the files of its folder that it consists of; imported once."""
    path = file.resolve()
    if not path.is_file():
        raise UserError(f"there is no Python file {file}: check the path")
    if path not in _IMPORTED:
        _IMPORTED[path] = _import_anew(file)
    return _IMPORTED[path]


def _import_anew(file: Path) -> tuple[object, tuple[Path, ...]]:
    digest = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]
    name = f"_plugin_{digest}"
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up by name
    try:
        with _folder_importable(file.parent) as parts, _user_code(f"importing {file}"):
            spec.loader.exec_module(module)
    except UserError:
        del sys.modules[name]
        raise
    return module, (file, *sorted(file.parent / part.relative_to(file.parent.resolve()) for part in parts))


@contextlib.contextmanager
def _user_code(what: str) -> Iterator[None]:
    """Turn what goes wrong in the user's code into one line; a UserError of theirs or ours stays as it is."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{what} failed with {type(error).__name__}: {one_line(error)}") from error


class _FolderFinder:
    """Finds the modules of one folder by name."""

    def __init__(self, folder: Path, names: set[str]):
        self.folder = str(folder)
        self.names = names

    def find_spec(self, name: str, path=None, target=None):
        if path is not None or name not in self.names:
            return None
        return importlib.machinery.PathFinder.find_spec(name, [self.folder])


@contextlib.contextmanager
def _folder_importable(folder: Path) -> Iterator[list[Path]]:
    """Let code import the modules of its folder inside this block; gives the list of their files, filled at the end.

    Two plug-ins may both have a `network.py`, and one may have a `data.py` or a `models` folder as this project does.
    So the folder's modules are forgotten afterwards, and this project's modules of the same names are out of sight
    inside the block.
    """
    folder = folder.resolve()
    names = _module_names(folder)
    hidden = {name: module for name, module in sys.modules.items() if _is_project_module(name, names, folder)}
    for name in hidden:
        del sys.modules[name]
    before = set(sys.modules)
    finder = _FolderFinder(folder, names)
    sys.meta_path.insert(0, finder)
    parts: list[Path] = []
    try:
        yield parts
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).resolve().is_relative_to(folder) and name.split(".")[0] in names:
                parts.append(Path(file).resolve())
                del sys.modules[name]
        sys.modules.update(hidden)


def _module_names(folder: Path) -> set[str]:
    """The names under which the folder's modules and packages can be imported."""
    if folder == PROJECT:
        return set()
    modules = {file.stem for file in folder.glob("*.py")}
    return modules | {part.parent.name for part in folder.glob("*/*.py")}


def _is_project_module(name: str, names: set[str], folder: Path) -> bool:
    """Whether a loaded module belongs to this project, outside the folder, and has the name of one of the folder's."""
    if name.split(".")[0] not in names:
        return False
    file = getattr(sys.modules[name], "__file__", None)
    return file is not None and Path(file).is_relative_to(PROJECT) and not Path(file).is_relative_to(folder)


def load_weights(module: nn.Module, file: Path) -> None:
    """Fill a module with the weights in a .pt (a state dict) or .safetensors file, on the processor.

    Nothing in the file is run: a .pt is read with `weights_only=True`. UserError if it holds more than tensors, or if
    its names or shapes are not those of the module.
    """
    weights = _read_weights(file)
    if weights and all(name.startswith("module.") for name in weights):  # as nn.DataParallel saves them
        weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    try:
        module.load_state_dict(weights)
    except Exception as error:
        raise UserError(f"the weights in {file} do not fit the model ({one_line(error)})") from error


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
    module = import_plugin(file, "get_model")()
    if not isinstance(module, nn.Module):
        raise UserError(f"get_model() in {file} must return a torch.nn.Module, not {type(module).__name__}")
    if weights is not None:
        load_weights(module, weights)
    module = module.cpu().eval()
    takes = Inputs(None, _input_dtype(module))
    parameter = next((value for value in module.parameters() if value.is_floating_point()), None)

    def ask(batch: np.ndarray) -> np.ndarray:
        inputs = torch.tensor(batch)  # a copy, because the model may change it in place
        if inputs.is_floating_point() and parameter is not None:
            inputs = inputs.to(parameter.dtype)
        with torch.no_grad():
            return choose_tensor(file, module(inputs), spec.output)

    return ForeignModel(
        description=f"PyTorch, {type(module).__name__} from the user's own code ({file.name})",
        files=(*code_files(file), *([weights] if weights else [])),
        answer=answer_function(str(spec.file), takes, ask),
        input_shape=None,
        input_dtype=takes.dtype,
        fixed_batch=None,
        class_names=None,
        preprocessing=None,
        tokenize=None,
        runs_code=True,
    )


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
