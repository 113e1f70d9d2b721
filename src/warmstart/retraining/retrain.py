"""The entry points: a night, a rollback."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from warmstart.errors import HelpedError, InputError, WorkFailedError
from warmstart.interruption import begin_work
from warmstart.launch import is_first_process
from warmstart.processes import Team
from warmstart.retraining.attempts import Attempts
from warmstart.retraining.call import call, changing, locked
from warmstart.retraining.following import Followers
from warmstart.retraining.night import Night
from warmstart.retraining.settings import NightSettings, RetrainSettings
from warmstart.retraining.state import StateFolder
from warmstart.retraining.training import Helpers, train_along
from warmstart.serving.model_folder import check_model
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
    settings, state = settings.settled(), StateFolder(Path(settings.state))
    team = _team(settings, state)
    begin_work()
    if team.rank > 0:
        train_along(team)
        raise HelpedError("this process trained along with process 0, which has the results")
    helpers = Helpers(team)
    try:
        with call(state, settings) as chronicle, locked(state, settings, chronicle) as (index, claim):
            followers = Followers(state, index, settings, chronicle)
            attempts = Attempts(state, index, claim, chronicle, helpers)
            _pass(Night(state, index, settings, chronicle, attempts, followers))
    finally:
        helpers.dismiss()


def _team(settings: RetrainSettings, state: StateFolder) -> Team:
    """The processes that were launched together; a device that is not there is told to whom a failed call is told."""
    try:
        return launched_team(find_device(settings.device))
    except InputError:
        if is_first_process():
            with call(state, settings):
                raise
        raise


def _pass(night: Night) -> None:
    """Pass a night; where it fails, the index keeps what was said."""
    try:
        night.pass_()
    except Exception:
        with suppress(WorkFailedError):  # of a full disk, which the error tells
            night.write_down()
        raise


def roll_back(settings: NightSettings, stage: int | None) -> int:
    """Put an earlier model into service: that of ``stage``, or of the stage that the current one went on from.

    What arrived later counts as new again. It is trained on when more arrives, or with other settings.

    Args:
        settings: Of this call; exports, the registry and the hook follow.
        stage: A promoted one.

    Returns:
        The stage.

    Raises:
        InputError: If there is no such stage, it was not promoted, or its weights are gone; nothing is changed.
    """
    with changing(settings) as (state, index, chronicle):
        chain = index.chain(index.current)
        wanted = stage if stage is not None else (chain[-2] if len(chain) > 1 else None)
        if wanted is None:
            raise InputError(
                f"{state.path}: there is no stage before the one in service; name one with --rollback STAGE"
            )
        row = index.stage(wanted)
        if row is None or row.state != "promoted":
            promoted = ", ".join(str(one.number) for one in index.stages() if one.state == "promoted" and one.kept)
            raise InputError(f"{state.path}: stage {wanted} was not promoted; choose from {promoted or 'none'}")
        if not row.kept:
            raise InputError(
                f"{state.path}: the weights of stage {wanted} have been pruned (--keep); choose a later one"
            )
        check_model(state.model(wanted))
        chronicle.say("rolled back", f"the model of stage {wanted} is in service; stage {index.current} was", wanted)
        followers = Followers(state, index, settings, chronicle)
        with index.transaction():
            followers.return_to(wanted)
            index.reject_untrained("a rollback came before it was trained")
            index.add_events(chronicle.drain())
        state.point_to(wanted)
        followers.follow(row)
        followers.keep_copy(row)
    return wanted
