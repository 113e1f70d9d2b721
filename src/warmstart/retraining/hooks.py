"""The user's commands: run in a shell, with what has happened in their environment, for an hour at most.

Those of a stage are due from the transaction that ends it, and run when the state is no longer locked, so that they may
call `warmstart retrain --rollback`. A kill before their end lets the next call run them again.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

from filelock import FileLock

from warmstart.errors import InputError, WorkFailedError
from warmstart.retraining.chronicle import Chronicle
from warmstart.retraining.index import DueHook, Index
from warmstart.retraining.settings import NightSettings
from warmstart.retraining.state import StateFolder

LONGEST = 3600.0
"""Seconds that a hook may take."""
PROMOTED, FAILED, ROLLED_BACK = "promoted", "failed", "rolled back"
"""What a hook is told: a candidate is in service; nothing came of the call; an earlier model is in service again."""
_LOCK, _RUN_BY = ".warmstart.hooks.lock", "WARMSTART_RUN_BY_HOOK_OF"


def make_due(index: Index, settings: NightSettings, result: str, stage: int, reason: str) -> None:
    """Let the command that the user has for a result be run after this call; within a transaction."""
    if (command := _command(settings, result)) is not None:
        index.add_hook(command, stage, result, reason)


def run_due_hooks(state: StateFolder, chronicle: Chronicle) -> list[str]:
    """Run what is due, oldest first, once another call's hooks have ended; nothing where a hook itself is the caller.

    Args:
        state: The state, not locked by this process.
        chronicle: Is told what went wrong.

    Returns:
        The results that were told.
    """
    told: list[str] = []
    if _run_by_hook(state) or not _due(state):
        return told
    try:
        with FileLock(state.path / _LOCK, fallback_to_soft=False):
            while due := _due(state):
                if wrong := _run(state, due.command, due.result, due.stage, due.reason):
                    chronicle.say("hook failed", wrong, due.stage)
                told.append(due.result)
                with state.opened() as index, index.transaction():
                    index.remove_hook(due)
                    index.add_events(chronicle.drain())
    except (OSError, InputError, WorkFailedError) as error:
        chronicle.say("hook failed", f"hooks are run again by the next call: {error}")
    return told


def tell_of_failure(state: StateFolder, settings: NightSettings, chronicle: Chronicle, reason: str) -> None:
    """Run --on-failed for a call that no stage came of, nor perhaps a state."""
    command = _command(settings, FAILED)
    if command is None or _run_by_hook(state):
        return
    if wrong := _run(state, command, FAILED, None, reason):
        chronicle.say("hook failed", wrong)


def _command(settings: NightSettings, result: str) -> str | None:
    return settings.on_failed if result == FAILED else settings.on_promoted


def _run_by_hook(state: StateFolder) -> bool:
    """Whether a hook of this state has called us: the call that runs it runs what becomes due meanwhile."""
    return os.environ.get(_RUN_BY) == str(state.path.absolute())


def _due(state: StateFolder) -> DueHook | None:
    with suppress(InputError), state.opened() as index:  # without an index that can be read, there is nothing to tell
        return index.due_hook()
    return None


def _run(state: StateFolder, command: str, result: str, stage: int | None, reason: str) -> str:
    """Run a command; what went wrong, in one sentence, empty if nothing did."""
    where, served = str(state.path.absolute()), state.served()
    told = {
        "WARMSTART_STATE": where,
        "WARMSTART_STAGE": "" if stage is None else str(stage),
        "WARMSTART_RESULT": result,
        "WARMSTART_REASON": reason,
        "WARMSTART_MODEL": "" if served is None else str(served.absolute()),
        _RUN_BY: where,
    }
    try:
        process = subprocess.Popen(command, shell=True, env={**os.environ, **told}, start_new_session=True)
    except (OSError, ValueError) as error:
        return f"the hook '{command}' cannot be started: {error}"
    try:
        code = process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        return f"the hook '{command}' took more than {LONGEST / 60:g} minutes and was ended"
    finally:
        if process.poll() is None:  # it took too long, or we are interrupted
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return f"the hook '{command}' ended with {code}" if code else ""
