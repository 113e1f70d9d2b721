"""One call from outside: its log, the lock, and who is told however it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from warmstart.errors import InputError
from warmstart.interruption import begin_work, interrupted
from warmstart.retraining.chronicle import Chronicle
from warmstart.retraining.hooks import FAILED, run_due_hooks, tell_of_failure
from warmstart.retraining.index import Index
from warmstart.retraining.metrics import Number, of_state, prometheus
from warmstart.retraining.settings import NightSettings
from warmstart.retraining.state import StateFolder
from warmstart.storage.atomic import write_text
from warmstart.storage.lock import Claim


@contextmanager
def call(state: StateFolder, settings: NightSettings) -> Iterator[Chronicle]:
    """Around all that a call does with a state: after it, which has released its lock, hooks and metrics are told.

    Yields:
        What says what happens.
    """
    chronicle, code, why = Chronicle(), 0, ""
    try:
        chronicle.log_to(settings.log_json)
        yield chronicle
        run_due_hooks(state, chronicle)
    except BaseException as error:
        code, why = _exit_code(error), str(error)
        if isinstance(error, Exception) and FAILED not in run_due_hooks(state, chronicle):
            tell_of_failure(state, settings, chronicle, str(error))
        raise
    finally:
        chronicle.log("ended", why, code=code)
        if settings.metrics is not None:
            _write_metrics(Path(settings.metrics), state, chronicle, code)


def locked(
    state: StateFolder, settings: NightSettings, chronicle: Chronicle
) -> AbstractContextManager[tuple[Index, Claim]]:
    """The state, locked; with --wait that is waited for."""
    return state.locked((lambda held: chronicle.say("waiting", f"{held}; waiting for it")) if settings.wait else None)


@contextmanager
def changing(settings: NightSettings) -> Iterator[tuple[StateFolder, Index, Chronicle]]:
    """Around a change that somebody makes by hand to a state that exists: a rollback, say.

    Yields:
        The state, its index, and what says what happens.
    """
    state = StateFolder(Path(settings.state))
    with state.opened():
        pass  # a folder that holds no state is refused before it is locked
    begin_work()
    with call(state, settings) as chronicle, locked(state, settings, chronicle) as (index, _):
        yield state, index, chronicle


def _exit_code(error: BaseException) -> int:
    """The one that the command line ends with."""
    if isinstance(error, InputError):
        return 2
    return 130 if isinstance(error, KeyboardInterrupt) or interrupted() else 1


def _write_metrics(file: Path, state: StateFolder, chronicle: Chronicle, code: int) -> None:
    """Write the metrics, whole or not at all; of a state that cannot be read, those of the call alone."""
    try:
        with state.opened() as index:
            numbers = of_state(index)
    except InputError:
        numbers = []
    numbers += _of_call(chronicle, code)
    try:
        write_text(file, prometheus(numbers, str(state.path.absolute())))
    except OSError as error:
        chronicle.say("follower failed", f"--metrics {file}: {error.strerror}")


def _of_call(chronicle: Chronicle, code: int) -> list[Number]:
    failed = chronicle.said["follower failed"] + chronicle.said["hook failed"]
    return [
        ("last_call_seconds", "When the last call ended, in seconds since 1970", time.time()),
        ("last_call_code", "The exit code of the last call", code),
        ("followers_failed", "Exports, registrations and hooks that failed in the last call", failed),
    ]
