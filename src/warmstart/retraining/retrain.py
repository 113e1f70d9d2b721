"""The entry points: a night, a rollback."""

from __future__ import annotations

from pathlib import Path

from warmstart.errors import HelpedError
from warmstart.interruption import begin_work
from warmstart.retraining.chronicle import Chronicle
from warmstart.retraining.following import Followers
from warmstart.retraining.night import Night, RejectedError
from warmstart.retraining.settings import RetrainSettings
from warmstart.retraining.state import StateFolder
from warmstart.retraining.training import train_along
from warmstart.training.devices import find_device
from warmstart.training.shares import launched_team


def retrain(settings: RetrainSettings) -> None:
    """Train on what has arrived since the last call, and put the result into service if it may be.

    Args:
        settings: Of this call.

    Raises:
        InputError: If a setting is wrong, the state is in use, or too much of what is new cannot be read.
        WorkFailedError: If the candidate is rejected.
        HelpedError: After the work, in all but the first of several processes that were launched together.
    """
    settings = settings.settled()
    team = launched_team(find_device(settings.device))
    begin_work()
    if team.rank > 0:
        train_along(team)
        raise HelpedError("this process trained along with process 0, which has the results")
    state = StateFolder(Path(settings.state))
    try:
        chronicle = Chronicle(settings.log_json)
        on_wait = (lambda held: chronicle.say("waiting", f"{held}; waiting for it")) if settings.wait else None
        with state.locked(on_wait) as (index, claim):
            night = Night(state, index, claim, settings, chronicle, team)
            try:
                night.pass_()
            except Exception as error:
                if not isinstance(error, RejectedError):  # of which the followers know
                    Followers(state, index, settings, chronicle).run_hook(False, None, str(error))
                raise
    finally:
        team.broadcast(None)
