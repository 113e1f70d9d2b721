"""Pickles of numbers and strings, such as CIFAR's, read without making an object or calling a function that they name.

Stand-ins collect what a pickle says of an array (its bytes, type and shape); NumPy gets it after it was checked. So
files of Python 2 and of any version of NumPy are read alike, and none can run code.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.data.unreadable import unreadable
from warmstart.errors import InputError


def read_pickle(where: str, content: bytes) -> dict[str, Any]:
    """Read a dictionary of integers, integer arrays, strings, and lists of these; Python 2's strings become `str`."""
    try:
        held = _Unpickler(where, content).load()
        if not isinstance(held, dict):
            raise InputError(f"{where}: holds a {type(held).__name__}, not a dictionary; replace it")
        return {_text(key): _values(value) for key, value in held.items()}
    except InputError:
        raise
    except Exception as error:  # damaged bytes can make the unpickler, and then NumPy, raise anything
        raise InputError(unreadable(where, error, "it is truncated or damaged; download it again")) from error


@dataclass
class _Type:
    """Stands for a NumPy dtype: `numpy.dtype(code)`, then its byte order as state."""

    code: str
    order: str = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        if not (re.fullmatch("[iu][1248]", self.code) and self.order in "|=<>"):
            raise ValueError(f"an array of type {self.code!r}, not of integers")
        return np.dtype(self.order + self.code)


class _Array:
    """Stands for a NumPy array: made empty, then given shape, type, order and bytes as state."""

    shape: tuple[int, ...]
    type: _Type
    by_columns: bool
    content: str | bytes | bytearray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.type, self.by_columns, self.content = state

    def numpy(self) -> NDArray[Any]:
        content = self.content.encode("latin1") if isinstance(self.content, str) else self.content
        return np.frombuffer(content, self.type.numpy()).reshape(self.shape, order="F" if self.by_columns else "C")


def _from_buffer(content: bytes, kind: _Type, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", content))
    return array


def _scalar(kind: _Type, content: str | bytes) -> int:
    array = _Array()
    array.__setstate__((1, (), kind, False, content))
    return int(array.numpy())


_STAND_INS: dict[str, Callable[..., Any]] = {
    "__builtin__.bytes": lambda: b"",  # this and the next: how Python 3 writes bytes for Python 2
    "_codecs.encode": lambda text, _: text.encode("latin1"),
    "numpy.core.multiarray._reconstruct": lambda *_: _Array(),
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.dtype": lambda code, *_: _Type(code),
    "numpy.ndarray": lambda *_: None,  # only ever an argument of _reconstruct
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, where: str, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        try:
            return _STAND_INS[asked.replace("numpy._core.", "numpy.core.")]  # renamed with NumPy 2
        except KeyError:
            raise InputError(
                f"{self._where}: asks for {asked[:80]!r}, which no data set of images needs; nothing of it was run; "
                "download the data set again from its source"
            ) from None


def _text(key: str | bytes) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _values(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.numpy()
    if isinstance(value, list):
        return [_text(item) if isinstance(item, bytes) else item for item in value]
    return value
