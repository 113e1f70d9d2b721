"""The command's stdout and stderr: whatever becomes of their readers, the work goes on.

A reader that ends early, such as `head`, has seen enough: what follows is dropped, and that is no error. Output that
cannot be written for another reason, such as a full disk, makes the command fail at its end and not in the middle.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

_lost: list[OSError] = []


def use_lasting_streams() -> None:
    """Replace sys.stdout and sys.stderr; what is closed leads to nowhere, and not to a file that is opened later."""
    if sys.stdin is None:
        _open_nowhere()
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)


def lost_output() -> OSError | None:
    """Write what is still held back; returns why some of the output could not be written, if so."""
    sys.stdout.flush()
    return _lost[0] if _lost else None


class _Lasting(io.FileIO):
    """A file that takes whatever is written to it."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            pass
        except OSError as error:
            _lost.append(error)
        return memoryview(data).nbytes


def _lasting(stream: TextIO | None) -> TextIO:
    """The stream on a lasting file; a character that its encoding lacks is written as an escape."""
    if stream is None:
        return io.TextIOWrapper(io.BufferedWriter(_Lasting(_open_nowhere(), "w")), encoding="utf-8")
    assert isinstance(stream, io.TextIOWrapper)
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering or stream.write_through,
    )


def _open_nowhere() -> int:
    """Open the null device with the lowest descriptor that is free, that of the first stream which is closed."""
    number = os.open(os.devnull, os.O_RDWR)
    os.set_inheritable(number, True)
    return number
