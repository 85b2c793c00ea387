"""Index files: who was trained on what, in the authors' layout, so that their own files can be dropped in.

    [victim_train, victim_test, [(shadow_train, shadow_test), ...]]

is a pickle of lists of ints that index the data set with its training and test images joined. Arrays and lists of
numpy's integers are read as well, and so is the layout of mia_prune, in which each model also has validation points:

    [victim_train, victim_dev, victim_test, [(shadow_train, shadow_dev, shadow_test), ...]]

Validation points are left out: no model was trained on them, but its checkpoint was chosen by them.
"""

import functools
import io
import pickle
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core import console
from core.errors import UserError
from core.files import write_atomically

Indices = tuple[np.ndarray, np.ndarray]  # members and non-members of one model, int64

LAYOUT = "[victim_train, victim_test, [(shadow_train, shadow_test), ...]]"


def write_index(path: Path, pairs: Sequence[Indices]) -> None:
    """Write the pairs of the victim and its shadow models.

    A file that already holds these pairs, in whatever layout, is left as it is: it may say more than is written here.
    """
    if path.exists() and _are_equal(_to_pairs(_unpickle(path)), pairs):
        return
    victim, *shadows = [tuple(index.tolist() for index in pair) for pair in pairs]
    content = pickle.dumps([*victim, shadows], protocol=4)
    write_atomically(path, lambda part: part.write_bytes(content))


def read_index(path: Path) -> list[Indices]:
    """The pairs of the victim and its shadow models.

    Raises UserError for anything that is not lists, tuples, ints or integer arrays in one of the two layouts.
    """
    try:
        content = _unpickle(path)
        pairs = _to_pairs(content)
    except Exception as error:  # a damaged pickle can fail in any way
        raise UserError(
            f"{path} is not a split index ({error}): it may be the only record of who was a member, so save it as a "
            f"pickle of {LAYOUT} with lists of ints, or move it away to split anew"
        ) from error
    if len(content) == 4:
        _say_what_is_left_out(path)
    return pairs


@functools.cache  # said once, however often a stage reads the file
def _say_what_is_left_out(path: Path) -> None:
    console.say(f"{path}: a file of mia_prune; its validation points are left out, no model was trained on them")


def _are_equal(some: Sequence[Indices], others: Sequence[Indices]) -> bool:
    return len(some) == len(others) and all(
        np.array_equal(a, b) for pair, other in zip(some, others, strict=True) for a, b in zip(pair, other, strict=True)
    )


def _unpickle(path: Path):
    return PlainUnpickler(io.BytesIO(path.read_bytes())).load()


def _to_pairs(content) -> list[Indices]:
    if not isinstance(content, list | tuple) or len(content) not in (3, 4):
        raise TypeError("it does not have the three parts of the layout, nor the four of mia_prune")
    *victim, shadows = content
    models = [victim, *shadows]
    for model in models:
        if not isinstance(model, list | tuple) or len(model) != len(victim):
            raise TypeError(f"a shadow model does not have {len(victim)} lists of points, as the victim has")
    return [(_to_array(model[0]), _to_array(model[-1])) for model in models]


def _to_array(index) -> np.ndarray:
    if isinstance(index, PlainArray):
        return index.values
    if not isinstance(index, list | tuple) or not all(type(i) is int for i in index):
        raise TypeError("members and non-members must be lists of ints")
    return np.asarray(index, dtype=np.int64)


# Reading a pickle without running code: all that it may build are the classes and functions below.


class PlainType:
    """Stands for numpy.dtype, of integers only."""

    def __init__(self, code: str, *_) -> None:
        if not re.fullmatch("[iu][1248]", code):
            raise pickle.UnpicklingError(f"it holds values of numpy's type {code}; only integers are read")
        self.code = code
        self.byte_order = "<"

    def __setstate__(self, state: tuple) -> None:
        self.byte_order = ">" if state[1] == ">" else "<"

    def read(self, content: bytes) -> np.ndarray:
        """(n,) int64."""
        return np.frombuffer(content, np.dtype(self.byte_order + self.code)).astype(np.int64)


class PlainArray:
    """Stands for a numpy.ndarray of integers; `values` is (n,) int64."""

    def __init__(self, *_) -> None:
        self.values = np.empty(0, np.int64)

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, _, content = state
        self.fill(content, kind, shape)

    def fill(self, content: bytes, kind: PlainType, shape: tuple) -> None:
        if len(shape) != 1:
            raise pickle.UnpicklingError(f"it holds an array of shape {shape}; only (n,) is read")
        self.values = kind.read(content)


def _array_from_buffer(content: bytes, kind: PlainType, shape: tuple, order: str) -> PlainArray:
    array = PlainArray()
    array.fill(content, kind, shape)
    return array


def _scalar(kind: PlainType, content: bytes) -> int:
    return int(kind.read(content)[0])


def _bytes(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


CONSTRUCTORS = {  # what pickles of numpy's integers ask for, in the names of numpy 2
    "numpy.dtype": PlainType,
    "numpy.ndarray": PlainArray,
    "numpy._core.multiarray._reconstruct": PlainArray,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _array_from_buffer,
    "_codecs.encode": _bytes,
}


class PlainUnpickler(pickle.Unpickler):
    """Builds lists, tuples, ints and integer arrays and refuses to import anything: no index file can run code."""

    def find_class(self, module: str, name: str):
        constructor = CONSTRUCTORS.get(f"{module}.{name}".replace("numpy.core.", "numpy._core."))
        if constructor is None:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}; only lists, tuples and integers are read")
        return constructor
