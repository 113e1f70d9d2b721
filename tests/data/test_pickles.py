"""Pickles: every way in which arrays of integers are written is read, and nothing is ever run."""

import os
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_originals import pickled

from warmstart.data.pickles import read_pickle
from warmstart.errors import InputError

PIXELS = np.arange(24, dtype=np.uint8).reshape(4, 6)


@pytest.mark.parametrize("array", [PIXELS, np.asfortranarray(PIXELS), PIXELS[:, ::2], PIXELS.astype(">i4"), PIXELS[:0]])
@pytest.mark.parametrize("protocol", [*range(6), "python 2"])
def test_arrays_of_every_protocol_and_order(array: np.ndarray, protocol: int | str) -> None:
    held = {"data": array, b"labels": [1, np.int64(2), np.uint8(3)], "names": ["a", b"b"]}
    content = pickled(held) if protocol == "python 2" else pickle.dumps(held, protocol=protocol)
    found = read_pickle("batch", content)
    assert found.keys() == {"data", "labels", "names"}
    assert found["data"].dtype == array.dtype
    assert np.array_equal(found["data"], array)
    assert found["labels"] == [1, 2, 3]
    assert found["names"] == ["a", "b"]


def test_the_made_files_are_those_of_python_2() -> None:
    opcodes = [(code.name, arg) for code, arg, _ in pickletools.genops(pickled({"data": PIXELS}))]
    assert ("GLOBAL", "numpy.core.multiarray _reconstruct") in opcodes
    assert not {name for name, _ in opcodes} & {"BINUNICODE", "NEWTRUE", "BINBYTES"}


class Calls:
    """Pickles as the call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {marker}",), "posix.system"),
        (exec, ("open('{marker}', 'w')",), "exec"),
        (getattr, (PIXELS, "tofile"), "getattr"),
        (np.fromfile, ("{marker}",), "numpy.fromfile"),
        (OrderedDict, (), "collections.OrderedDict"),
    ],
)
def test_nothing_else_is_made_or_called(
    tmp_path: Path, protocol: int, function: Callable[..., Any], arguments: tuple[Any, ...], name: str
) -> None:
    marker = tmp_path / "marker"
    filled = [text.format(marker=marker) if isinstance(text, str) else text for text in arguments]
    content = pickle.dumps({"data": Calls(function, *filled)}, protocol=protocol)
    with pytest.raises(InputError, match=rf"^batch: asks for '[^\n]*{name}', which no .* needs; nothing of it was run"):
        read_pickle("batch", content)
    assert not marker.exists()


def test_what_an_admitted_name_leads_to_is_out_of_reach() -> None:
    dotted = pickle.PROTO + b"\x04" + b"\x8c\x05numpy\x8c\x0fdtype.__class__\x93."
    with pytest.raises(InputError, match=r"asks for 'numpy\.dtype\.__class__'"):
        read_pickle("batch", dotted)


@pytest.mark.parametrize(
    "array", [np.array([{}], dtype=object), np.array(["a"]), np.array([1.5]), np.zeros(2, dtype="u1,u1")]
)
def test_arrays_of_anything_but_integers_are_refused(array: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"batch: cannot be read \(an array of type .*not of integers\)"):
        read_pickle("batch", pickle.dumps({"data": array}, protocol=4))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5, "python 2"])
def test_a_truncated_pickle_gives_one_line(protocol: int | str) -> None:
    held = {"data": PIXELS, "labels": [1, 2, 3, 4]}
    content = pickled(held) if protocol == "python 2" else pickle.dumps(held, protocol=protocol)
    for kept in range(len(content)):
        with pytest.raises(
            InputError, match=r"^batch: cannot be read \([^\n]*\); it is truncated or damaged; download"
        ):
            read_pickle("batch", content[:kept])


def test_a_shape_that_the_bytes_do_not_fill_is_refused() -> None:
    content = pickle.dumps({"data": PIXELS}, protocol=2).replace(b"K\x04K\x06", b"K\x04K\x07")
    with pytest.raises(InputError, match="batch: cannot be read"):
        read_pickle("batch", content)


def test_only_dictionaries_are_read() -> None:
    with pytest.raises(InputError, match="batch: holds a list, not a dictionary of a few"):
        read_pickle("batch", pickle.dumps([1, 2]))
