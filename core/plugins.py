"""Python files of the user's own, and the calls of functions in them. Whoever gives such a file lets its code run.

Such a file can import what lies in its folder. Two files in two folders may each import a `network` of their own, or a
`models`, as this project has one. So the modules of a folder are in sight only while code of that folder runs, and this
project's modules of the same names are out of sight meanwhile. Installed libraries stay as they are.
"""

import contextlib
import functools
import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from core.errors import UserError, escape, one_line
from core.files import sha256
from core.project import PROJECT

Modules = dict[str, ModuleType]  # by name, as in `sys.modules`

_imported: dict[Path, ModuleType] = {}  # the users' files
_neighbours: dict[Path, Modules] = {}  # folder -> modules that were imported from it


def import_plugin(file: Path, function: str) -> Callable:
    """The function of this name in a Python file, which is imported once, under a private name.

    The file can import what lies in its folder, when it is imported and whenever the function runs. UserError if there
    is no such file or function, if importing fails, and, when it is called, if the function fails.
    """
    target = getattr(_import_once(file), function, None)
    if not callable(target):
        raise UserError(f"{escape(file)} has no function {function}(): define it at the top level of the file")

    def call(*args, **options):
        with _errors_in_one_line(file, f"{function}()"), modules_beside(file.parent):
            return target(*args, **options)

    return call


def code_files(file: Path) -> tuple[Path, ...]:
    """An imported Python file, and the modules of its folder that have been imported so far."""
    folder = file.parent.resolve()
    modules = _neighbours.get(folder, {}).values()
    sources = {Path(module.__file__) for module in modules if getattr(module, "__file__", None)}
    return (file, *sorted(_relative_to(folder, source, file.parent) for source in sources))


def code_hashes(file: Path) -> dict[str, str]:
    """A short hash of each of `code_files`, by its path in the file's folder."""
    return {os.path.relpath(source, file.parent): sha256(source)[:16] for source in code_files(file)}


def _relative_to(folder: Path, source: Path, parent: Path) -> Path:
    """A file in the folder by the path that the user gave the folder, `parent`."""
    return parent / source.relative_to(folder) if source.is_relative_to(folder) else source


def _import_once(file: Path) -> ModuleType:
    place = _place_of(file)
    if not place.is_file():
        raise UserError(f"there is no Python file {escape(file)}: check the path")
    if place not in _imported:
        _imported[place] = _import(file)
    return _imported[place]


def _import(file: Path) -> ModuleType:
    place = _place_of(file)
    name = f"_plugin_{hashlib.sha256(str(place).encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, place)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up by name
    try:
        with _errors_in_one_line(file, "the file"), modules_beside(file.parent):
            spec.loader.exec_module(module)
    except UserError:
        del sys.modules[name]
        raise
    return module


def _place_of(file: Path) -> Path:
    """The absolute path. A link stays one: the folder in which it lies is the file's folder."""
    return file.parent.resolve() / file.name


@contextlib.contextmanager
def _errors_in_one_line(file: Path, what: str) -> Iterator[None]:
    """Turn what goes wrong in the user's code into one line; a UserError stays as it is."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        line = _line_of(error, str(_place_of(file)))
        place = "" if line is None else f"line {line}, "
        reason = f"{place}{type(error).__name__}: {escape(one_line(error))}"
        raise UserError(f"{escape(file)}: {what} failed ({reason})") from error


def _line_of(error: BaseException, file: str) -> int | None:
    """The line of the file on which an error came about, in the last of its functions; None if in none."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None


class _Finder(NamedTuple):
    """Finds the modules of one folder by name, before Python looks elsewhere."""

    folder: Path

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        return _find_in_folder(name, self.folder) if path is None else None


class _Sight(NamedTuple):
    """The folder whose modules can be imported now, and what has to be undone afterwards."""

    finder: _Finder
    hidden: Modules  # this project's
    others: frozenset[str]  # names of the modules that were there before


_open: list[_Sight] = []  # at most one


@contextlib.contextmanager
def modules_beside(folder: Path) -> Iterator[None]:
    """Let code import the modules of this folder inside the block, and leave all other modules as they were.

    The modules are remembered for the next block, so that each is imported once. Inside the block of another folder,
    that other folder is out of sight until this block ends.
    """
    folder = folder.resolve()
    outer = _open[-1].finder.folder if _open else None
    if folder in (outer, PROJECT):  # Python finds this project's modules without help
        yield
        return
    _switch(outer, folder)
    try:
        yield
    finally:
        _switch(folder, outer)


def _switch(old: Path | None, new: Path | None) -> None:
    if old is not None:
        _put_away(_open.pop())
    if new is not None:
        _open.append(_put_in_sight(new))


def _put_in_sight(folder: Path) -> _Sight:
    loaded = [name for name in _project_names() if name in sys.modules and _lies_in(name, PROJECT)]
    hidden = _take_out(name for name in loaded if _find_in_folder(name, folder))
    sight = _Sight(_Finder(folder), hidden, frozenset(sys.modules))
    sys.modules.update(_neighbours.get(folder, {}))
    sys.meta_path.insert(0, sight.finder)
    return sight


def _put_away(sight: _Sight) -> None:
    folder = sight.finder.folder
    sys.meta_path.remove(sight.finder)
    added = [name for name in sys.modules if "." not in name and name not in sight.others]
    _neighbours[folder] = _take_out([name for name in added if _lies_in(name, folder)])
    sys.modules.update(sight.hidden)


def _take_out(names: Iterable[str]) -> Modules:
    """Take these modules, and all below them, out of `sys.modules`."""
    tops = set(names)
    modules = [name for name in sys.modules if name.split(".")[0] in tops]
    return {name: sys.modules.pop(name) for name in modules}


def _find_in_folder(name: str, folder: Path) -> ModuleSpec | None:
    """The module of this name in a folder; a folder in it counts only if Python files lie in it."""
    spec = PathFinder.find_spec(name, [str(folder)])
    is_bare = spec is not None and spec.loader is None and not any((folder / name).glob("*.py"))
    return None if is_bare else spec


@functools.cache
def _project_names() -> tuple[str, ...]:
    """The names under which this project's modules can be imported."""
    return tuple(sorted(path.stem for path in PROJECT.iterdir() if path.suffix == ".py" or path.is_dir()))


def _lies_in(name: str, folder: Path) -> bool:
    """Whether the loaded module is the file or folder of its name in this folder."""
    module = sys.modules[name]
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    paths = [Path(place) for place in places if place]
    paths += [path.resolve() for path in paths]
    return any(path.is_relative_to(folder / name) or path.parent == folder and path.stem == name for path in paths)
