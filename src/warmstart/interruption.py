"""How Ctrl-C and SIGTERM end a command: at once until its work begins, then in order.

A KeyboardInterrupt is lost where Python ignores exceptions, as in the callbacks of its imports, and a traceback at the
interpreter's end. So an interrupt ends the process there and then while there is nothing to let go of; only work, which
holds such things as worker processes, is ended by a KeyboardInterrupt.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from types import FrameType
from typing import Any, NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 1.0
"""Seconds in which a second interrupt is taken for the first one, which a launcher may pass on once more."""

_working = False
_interrupted: float | None = None
"""When the work was first interrupted."""
_code: int | None = None
"""The exit code, as soon as it is certain."""


def answer_signals() -> None:
    """Answer Ctrl-C and SIGTERM from now on, unless this process was started to ignore them, as by nohup."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _answer)
    sys.unraisablehook = _raise_again
    atexit.register(_ignore_signals)  # the first to be registered is the last to be called


def begin_work() -> None:
    """From now on an interrupt raises KeyboardInterrupt, so that what is held is let go."""
    global _working
    _working = True


def end_work(code: int) -> None:
    """From now on an interrupt hurries the end, which has this exit code."""
    global _working, _code
    _working, _code = False, code


def interrupted() -> bool:
    """Whether the work has been interrupted, although another error may have come of it."""
    return _interrupted is not None


def _answer(number: int, frame: FrameType | None) -> None:
    global _interrupted
    if _code is not None:
        os._exit(_code)
    if not _working:
        _exit("stopped before anything began")
    if _interrupted is None and _importing(frame):
        _repeat(number)
    elif _interrupted is None:
        _interrupted = time.monotonic()
        raise KeyboardInterrupt
    elif time.monotonic() - _interrupted > _PATIENCE:
        _exit("stopped at once; the same command goes on from the last checkpoint")


def _exit(message: str) -> NoReturn:
    cursor = "\x1b[?25h" if _working and os.isatty(2) else ""  # the display hides it
    os.write(2, f"{cursor}warmstart: {message}\n".encode())  # not print, which may be what was interrupted
    os._exit(130)


def _raise_again(ignored: Any) -> None:
    """An interrupt that came where Python ignores exceptions comes once more; other errors are shown as ever."""
    global _interrupted
    if not issubclass(ignored.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(ignored)
        return
    _interrupted = None
    _repeat(next(number for number in _SIGNALS if signal.getsignal(number) is _answer))


def _importing(frame: FrameType | None) -> bool:
    """Whether an import is under way, in which an exception may end the process: torch's C++ calls Python there."""
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


def _repeat(number: int) -> None:
    """Send this process a signal in a moment."""
    import threading

    again = threading.Timer(0.05, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def _ignore_signals() -> None:
    """Ignore interrupts while the interpreter ends, which would kill it after all is done."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
