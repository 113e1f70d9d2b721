"""The user's commands: run in a shell, with what has happened in its environment, for an hour at most."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

from warmstart.retraining.settings import NightSettings
from warmstart.retraining.state import StateFolder

LONGEST = 3600.0
"""Seconds that a hook may take."""
PROMOTED, FAILED, ROLLED_BACK = "promoted", "failed", "rolled back"
"""What a hook is told: a candidate is in service; nothing came of the call; an earlier model is in service again."""


def run_hook(state: StateFolder, settings: NightSettings, result: str, stage: int | None, reason: str) -> str:
    """Run the command that the user has for a result, if there is one.

    Args:
        state: The state.
        settings: Of this call, with the commands.
        result: ``promoted``, ``failed`` or ``rolled back``.
        stage: The stage, if it is known.
        reason: Why.

    Returns:
        What went wrong, in one sentence; empty if nothing did.
    """
    command = settings.on_failed if result == FAILED else settings.on_promoted
    if command is None:
        return ""
    served = state.served()
    told = {
        "WARMSTART_STATE": str(state.path.absolute()),
        "WARMSTART_STAGE": "" if stage is None else str(stage),
        "WARMSTART_RESULT": result,
        "WARMSTART_REASON": reason,
        "WARMSTART_MODEL": "" if served is None else str(served.absolute()),
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
