"""Index files: who was trained on what, in the authors' layout, so that their own files can be dropped in.

    [victim_train, victim_test, [(shadow_train, shadow_test), ...]]

is a pickle of lists of ints that index the data set with its training and test images joined.
"""

import io
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.errors import UserError
from core.files import write_atomically

Indices = tuple[np.ndarray, np.ndarray]  # members and non-members of one model, int64


def write_index(path: Path, pairs: Sequence[Indices]) -> None:
    """Write the pairs of the victim and its shadows; nothing happens where the file already holds exactly that."""
    victim, *shadows = [tuple(index.tolist() for index in pair) for pair in pairs]
    content = pickle.dumps([*victim, shadows], protocol=4)
    if not (path.exists() and path.read_bytes() == content):
        write_atomically(path, lambda part: part.write_bytes(content))


def read_index(path: Path) -> list[Indices]:
    """The pairs of the victim and its shadows. Raises UserError for anything that is not lists, tuples and ints."""
    try:
        train, test, shadows = PlainUnpickler(io.BytesIO(path.read_bytes())).load()
        return [_pair(train, test), *(_pair(*shadow) for shadow in shadows)]
    except Exception as error:  # a damaged pickle can fail in any way
        raise UserError(f"{path} is not a split index ({error}): delete it to split anew") from error


def _pair(train: list[int], test: list[int]) -> Indices:
    for index in (train, test):
        if not isinstance(index, list | tuple) or not all(type(i) is int for i in index):
            raise TypeError("members and non-members must be lists of ints")
    return np.asarray(train, dtype=np.int64), np.asarray(test, dtype=np.int64)


class PlainUnpickler(pickle.Unpickler):
    """Builds lists, tuples and ints and refuses to import anything, so that no index file can run code."""

    def find_class(self, module: str, name: str):
        raise pickle.UnpicklingError(f"it holds a {module}.{name}; only lists, tuples and ints are read")
