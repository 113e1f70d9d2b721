"""Pickles of numbers and strings, such as CIFAR's, read without making an object or calling a function that they name.

Stand-ins collect what a pickle says of an array (its bytes, type and shape); NumPy gets it after it was checked. So
files of Python 2 and of any version of NumPy are read alike, and none can run code.

Nor can one spin or fill the memory: of Python's own unpickler (the one in C checks nothing between two instructions),
the instructions that such files need are used, so many of them and no more, and only short texts are ever hashed.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from warmstart.decoding.bounds import MAX_KEYS, MAX_PICKLE_STEPS, MAX_TEXT
from warmstart.decoding.unreadable import reading
from warmstart.errors import InputError


def read_pickle(where: str, content: bytes) -> dict[str, Any]:
    """Read a dictionary of integers, integer arrays, strings, and lists of these; Python 2's strings become `str`."""
    with reading(where, "it is truncated or damaged; download it again"):
        held = _Unpickler(where, content).load()
        if not isinstance(held, dict) or len(held) > MAX_KEYS:
            kind = f"{type(held).__name__} of {len(held)} entries" if isinstance(held, dict) else type(held).__name__
            raise InputError(f"{where}: holds a {kind}, not a dictionary of a few; replace it")
        return {_text(key): _values(value) for key, value in held.items()}


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
    "__builtin__.bytes": lambda: b"",  # this and `_codecs.encode`: how Python 3 writes bytes for Python 2
    "numpy.core.multiarray._reconstruct": lambda *_: _Array(),
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.dtype": lambda code, *_: _Type(code),
    "numpy.ndarray": lambda *_: None,  # only ever an argument of _reconstruct
}


class _Steps(io.BytesIO):
    """The content of a pickle, of which each instruction takes one or more calls of `read`."""

    left = MAX_PICKLE_STEPS

    def read(self, size: int | None = -1) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError(f"more than {MAX_PICKLE_STEPS} instructions")
        content = super().read(size)
        if size is not None and len(content) < size:
            raise EOFError("unexpected end of data")
        return content

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n"):
            raise EOFError("unexpected end of data")
        return line


_INSTRUCTIONS = (
    *("PROTO", "STOP", "MARK", "POP", "POP_MARK", "GLOBAL", "STACK_GLOBAL", "REDUCE"),
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT"),
    *("BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "EMPTY_DICT", "EMPTY_LIST", "LIST", "APPEND"),
    *("APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET"),
    *("BINGET", "LONG_BINGET"),
)
_MAX_ARGUMENTS = 8


_InPython: Any = pickle._Unpickler


class _Unpickler(_InPython):  # type: ignore[misc]  # typeshed knows hardly any of it
    dispatch: ClassVar = {
        code: _InPython.dispatch[code] for code in (getattr(pickle, name)[0] for name in _INSTRUCTIONS)
    }

    def __init__(self, where: str, content: bytes) -> None:
        super().__init__(_Steps(content), encoding="latin1")
        self._where = where
        self._encoded = len(content)

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if asked == "_codecs.encode":
            return self._encode
        try:
            return _STAND_INS[asked.replace("numpy._core.", "numpy.core.")]  # renamed with NumPy 2
        except KeyError:
            raise InputError(
                f"{self._where}: asks for {asked[:80]!r}, which no data set of images needs; nothing of it was run; "
                "download the data set again from its source"
            ) from None

    def _encode(self, text: str, _: Any) -> bytes:
        """How Python 3 writes bytes for Python 2; each once, so that all of them are no longer than the file."""
        self._encoded -= len(text)
        if self._encoded < 0:
            raise pickle.UnpicklingError("the same bytes again and again")
        return text.encode("latin1")

    def load_frame(self) -> None:
        """Pass over a hint of how much to read at a time."""
        self.read(8)

    def load_put(self) -> None:
        place = int(self.readline()[:-1])
        if place > MAX_PICKLE_STEPS:
            raise pickle.UnpicklingError(f"place {place}")
        self.memo[place] = self.stack[-1]

    def load_reduce(self) -> None:
        arguments = self.stack[-1]
        if not isinstance(arguments, tuple) or len(arguments) > _MAX_ARGUMENTS:
            raise pickle.UnpicklingError("a call with odd arguments")
        super().load_reduce()

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Type, _Array)):
            raise pickle.UnpicklingError(f"a state for a {type(self.stack[-1]).__name__}")
        self.stack[-1].__setstate__(state)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1] |= _dictionary([key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self.stack[-1] |= _dictionary(items)

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(_dictionary(items))

    dispatch |= {
        pickle.FRAME[0]: load_frame,
        pickle.PUT[0]: load_put,
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.BYTEARRAY8[0]: _InPython.dispatch[pickle.BINBYTES8[0]],  # which fills no memory beforehand
    }


def _dictionary(items: list[Any]) -> dict[str | bytes, Any]:
    """Keys and values in turn; the hash of a short text takes no time, but that of nested tuples takes for ever."""
    keys, values = items[::2], items[1::2]
    if not all(isinstance(key, (str, bytes)) and len(key) <= MAX_TEXT for key in keys):
        raise pickle.UnpicklingError("a dictionary with keys that are no short texts")
    return dict(zip(keys, values, strict=True))


def _text(key: str | bytes) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else key


def _values(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.numpy()
    if isinstance(value, list):
        return [_text(item) if isinstance(item, bytes) else item for item in value]
    return value
