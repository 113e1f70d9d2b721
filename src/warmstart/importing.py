"""Importing what a user names as `pkg.module:name`, also from the current folder, and what a folder of ours defines."""

import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from warmstart.errors import InputError, nearest


def import_named(reference: str, kind: str) -> object:
    """Import what `pkg.module:name` names; ``kind`` ("model", "method") says in messages what it should be.

    The user's module may lie in the current folder. That folder comes first only while the module is imported,
    and last from then on: a `datasets/` folder beside a training script must not hide a package that is
    imported later.

    Returns:
        The object, of any type.

    Raises:
        InputError: If the reference has another form, the module cannot be imported or has no such name.
    """
    module_name, _, name = reference.partition(":")
    parts = [*module_name.split("."), name]
    if module_name.endswith(".py") or not all(part.isidentifier() for part in parts):
        raise InputError(
            f"{kind} '{reference}' is not of the form pkg.module:name; "
            "write the module as for `import`, without .py or slashes, then a colon and the name"
        )
    try:
        with _current_folder_importable():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(f"{kind} '{reference}': {module_name} needs a module that is missing: {error}") from error
        raise InputError(
            f"{kind} '{reference}': no module named {error.name} in {os.getcwd()} or among the installed packages; "
            "start warmstart in the folder that holds it, or install it"
        ) from error
    except (Exception, SystemExit) as error:  # a user's module may raise anything, and a script may exit
        raise InputError(f"{kind} '{reference}': importing {module_name} raised {describe(error)}") from error
    try:
        return getattr(module, name)
    except AttributeError:
        public = [known for known in vars(module) if not known.startswith("_")]
        hint = nearest(name, public) if public else ""
        raise InputError(f"{kind} '{reference}': {module_name} has no '{name}'{hint}") from None


def defined_in(package: str) -> Iterator[object]:
    """What the modules of one of our packages hold: a new file there is found by itself."""
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        yield from vars(importlib.import_module(f"{package}.{info.name}")).values()


def describe(error: BaseException) -> str:
    """Type and message of an exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)
