"""`warmstart retrain`: its examples, and what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from warmstart.cli.flags import with_flags
from warmstart.errors import WorkFailedError, require
from warmstart.retraining.settings import NightSettings, RetrainSettings
from warmstart.wording import counted

EXAMPLES = """Examples:

warmstart retrain --data photos/ --image-size 64 --state state/

warmstart retrain --data photos/ --image-size 64 --state state/ --protocol practice --max-churn 2% --keep 10

warmstart retrain --state state/ --status

warmstart retrain --state state/ --rollback

warmstart retrain --state state/ --withdraw bad-photos/ --withdraw 7 --erase

Call it whenever data may have arrived, as from cron. Stop it at any time; the same command resumes it.
"""


@with_flags(RetrainSettings)
def retrain(
    status: Annotated[bool, typer.Option("--status", help="Print the history, and stop there.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Write STATE/report.html, and stop there.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Verify every file, and stop there.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Put an earlier model back: that of STAGE.")] = False,
    withdraw: Annotated[
        list[str] | None,
        typer.Option(
            "--withdraw",
            metavar="STAGE|PATH",
            help="Train and test no more on what came with a stage, or on the images at a path; may be repeated.",
            show_default=False,
        ),
    ] = None,
    erase: Annotated[
        bool, typer.Option("--erase", help="With --withdraw: remove their pixels from STATE, too.")
    ] = False,
    readmit: Annotated[
        list[str] | None,
        typer.Option(
            "--readmit", metavar="STAGE|PATH", help="Let what was withdrawn arrive again.", show_default=False
        ),
    ] = None,
    stage: Annotated[
        int | None, typer.Argument(metavar="[STAGE]", help="For --rollback; the one before if not given.")
    ] = None,
    **given: Any,
) -> None:
    """Retrain on all data so far whenever some has arrived, check the result against the model in service, promote it.

    Everything it knows lies in --state: the index, the data as it arrived, checkpoints, models, and the link `current`.
    """
    wanted = (status, report, check, rollback, withdraw, readmit)
    asked = [name for name, one in zip(_INSTEAD, wanted, strict=True) if one]
    require(len(asked) < 2, f"{' and '.join(asked)} exclude each other; give one of them")
    require("state" in given, "name the folder of the state with --state DIR")
    require(not erase or bool(withdraw), "--erase says what --withdraw does; name a stage or a path with --withdraw")
    require(stage is None or rollback, f"{stage} is a stage for --rollback; add it, or leave the number out")
    if not asked:
        require("data" in given, "name the images that arrive with --data PATH")
        night = RetrainSettings.of(given)
        night.require_effect(given)
        _pass_night(night)
        return
    settings = NightSettings.of({key: value for key, value in given.items() if key in NightSettings.described()})
    if rollback:
        _roll_back(settings, stage)
    elif withdraw or readmit:
        _change_what_arrived(settings, withdraw or [], readmit or [], erase)
    else:
        _look_at(settings, asked[0])


_INSTEAD = ("--status", "--report", "--check", "--rollback", "--withdraw", "--readmit")
"""What a call may do instead of a night."""


def _pass_night(settings: RetrainSettings) -> None:
    from warmstart.retraining.retrain import retrain as pass_night

    pass_night(settings)


def _roll_back(settings: NightSettings, stage: int | None) -> None:
    from warmstart.retraining.retrain import roll_back

    roll_back(settings, stage)


def _change_what_arrived(settings: NightSettings, withdrawn: list[str], readmitted: list[str], erase: bool) -> None:
    from warmstart.retraining.withdrawing import readmit, withdraw

    if withdrawn:
        withdraw(settings, withdrawn, erase=erase)
    else:
        readmit(settings, readmitted)


def _look_at(settings: NightSettings, wanted: str) -> None:
    from warmstart.reporting.terminal import Terminal
    from warmstart.retraining.state import StateFolder

    state, terminal = StateFolder(Path(settings.state)), Terminal()
    with state.opened() as index:
        if wanted == "--report":
            from warmstart.retraining.report import write_report

            terminal.print_path("report", write_report(state, index))
        elif wanted == "--check":
            from warmstart.retraining.checking import check

            whole, wrong = check(state, index)
            for line in wrong:
                terminal.print(line, soft_wrap=True)
            if wrong:
                raise WorkFailedError(f"{state.path}: {counted(len(wrong), 'fault')} found", resumable=False)
            terminal.print(f"{counted(whole, 'file')} checked: all whole")
        else:
            from warmstart.retraining.history import history, remarks, table

            lines = history(index)
            terminal.print(table(lines))
            for line in remarks(index, lines):
                terminal.print(line)
