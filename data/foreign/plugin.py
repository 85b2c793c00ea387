"""A user's own Python file, and the call of a function in it. Whoever gives such a file lets its code run."""

import contextlib
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from core.errors import UserError
from core.project import PROJECT
from data.image_files import escape

_neighbours: dict[Path, dict[str, ModuleType]] = {}  # folder -> modules that its files imported from there


def import_plugin(file: Path, function: str) -> Callable:
    """The function of this name in the file, which is run.

    While the file or the function runs, modules beside the file can be imported, and come before this project's own of
    the same name. UserError in one line where the file cannot be run or has no such function, and where the function
    raises.
    """
    file = file.resolve()
    module = _run_file(file)
    target = getattr(module, function, None)
    if not callable(target):
        raise UserError(f"{escape(file)} has no function {function}(): define it")

    def call(*args, **options):
        with _errors_in_one_line(file, f"{function}()"), modules_beside(file.parent):
            return target(*args, **options)

    return call


def _run_file(file: Path) -> ModuleType:
    name = f"_plugin_{hashlib.sha256(str(file).encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    with _errors_in_one_line(file, "the file"), modules_beside(file.parent):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _errors_in_one_line(file: Path, what: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        if isinstance(error, SyntaxError) and error.filename == str(file):
            lines.append(error.lineno)
        place = f"line {lines[-1]}, " if lines else ""
        text = " ".join(str(error).split())
        raise UserError(f"{escape(file)}: {what} failed ({place}{type(error).__name__}: {escape(text)})") from error


@contextlib.contextmanager
def modules_beside(folder: Path) -> Iterator[None]:
    """Let the modules beside a file be imported, and leave all other modules afterwards as they were.

    Two files in two folders may each import a `utils` of their own, or a `models`, as this project has one.
    """
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    project = _take_out(lambda name, module: name in names and _is_of_project_outside(module, folder))
    sys.modules.update(_neighbours.pop(folder, {}))
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        _neighbours[folder] = _take_out(lambda name, module: name in names and _lies_in(module, folder))
        sys.modules.update(project)


def _take_out(is_wanted: Callable[[str, ModuleType], bool]) -> dict[str, ModuleType]:
    """Take out of `sys.modules` what is wanted by its first name, with all modules below it."""
    tops = {name for name, module in sys.modules.items() if "." not in name and is_wanted(name, module)}
    names = [name for name in sys.modules if name.split(".")[0] in tops]
    return {name: sys.modules.pop(name) for name in names}


def _is_of_project_outside(module: ModuleType, folder: Path) -> bool:
    return _lies_in(module, PROJECT) and not _lies_in(module, folder)


def _lies_in(module: ModuleType, folder: Path) -> bool:
    """Whether a module's file, or the folder of a package without one, lies in this folder; libraries do not count."""
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    paths = [Path(place).resolve() for place in places if place]
    return any(path.is_relative_to(folder) and "site-packages" not in path.parts for path in paths)
