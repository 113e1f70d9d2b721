"""The commands, and how their errors become one line and an exit code."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from importlib import import_module

import typer
from typer.main import get_command

from warmstart import __version__
from warmstart.cli.ending import fail
from warmstart.cli.plain_flags import Command, Group
from warmstart.errors import HelpedError, InputError, WorkFailedError
from warmstart.interruption import interrupted
from warmstart.launch import end_with_launcher

COMMANDS = ("compare", "retrain", "predict", "reproduce", "theory", "report", "methods")
"""In the order of the help; each is a module in this folder with a function of its name and ``EXAMPLES``."""


def make_app(names: Sequence[str] = COMMANDS) -> typer.Typer:
    """The command line with some or all of its commands; only their modules are imported."""
    app = typer.Typer(
        name="warmstart",
        cls=Group,
        help="Retrain networks on growing data: DASH, its rivals, and the measurement that tells which to use.",
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_top)
    for name in names:
        module = import_module(f"warmstart.cli.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name, cls=Command, epilog=module.EXAMPLES)(getattr(module, name))
    return app


def _version(wanted: bool) -> None:
    if wanted:
        print(f"warmstart {__version__}")
        raise typer.Exit


def _top(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Retrain networks on growing data: DASH, its rivals, and the measurement that tells which to use."""


def run(arguments: Sequence[str]) -> int:
    """Run a command.

    Returns:
        The exit code: 0 done, 1 the work failed, 2 the input was wrong, 130 interrupted.
    """
    end_with_launcher()
    again = f"the same command {'begins anew' if arguments[:1] in (['theory'], ['predict']) else 'goes on from here'}"
    try:
        asked = [name for name in COMMANDS if name in arguments[:1]]
        command = get_command(make_app(asked or COMMANDS))
        with command.make_context("warmstart", list(arguments) or ["--help"]) as context:
            command.invoke(context)
        return 0
    except (HelpedError, typer.Exit):  # the latter after --help and --version
        return 0
    except InputError as error:
        return fail(str(error), 2)
    except KeyboardInterrupt:
        return fail(f"stopped; {again}", 130)
    except WorkFailedError as error:
        return fail(f"{error}; {again}" if error.resumable else str(error), 1)
    except SystemExit as error:  # nothing of ours exits
        return fail(f"your own code called sys.exit({error.code!r}); let it raise an error instead; {again}", 1)
    except UnicodeEncodeError as error:
        return fail(f"{error.object[error.start : error.end]!r} in a name is not UTF-8; rename it", 2)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # nothing of ours is long
            return fail(f"{error}; choose a shorter name", 2)
        return fail(f"{error}; fix it, and {again}", 1)
    except Exception as error:
        if interrupted():
            return fail(f"stopped; {again}", 130)
        if hasattr(error, "format_message"):  # a usage error of typer's
            return fail(f"{error.format_message()} (see warmstart --help)", 2)
        if os.environ.get("WARMSTART_DEBUG"):
            raise
        name = type(error).__name__
        return fail(f"{name}: {error} (WARMSTART_DEBUG=1 shows where); {again}", 1)
