"""The methods by name, and how ``dash[alpha=0.1]`` is read.

A new file in this folder that defines a `Method` is found by itself, also by the command line, `compare` and the
shared tests.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from warmstart.errors import InputError, nearest, require
from warmstart.importing import defined_in, import_named
from warmstart.methods.method import Method
from warmstart.spelling import read_settings


@cache
def methods() -> dict[str, type[Method]]:
    """All methods of the library, name on the command line -> class, in alphabetical order."""
    kinds = (value for value in defined_in("warmstart.methods") if isinstance(value, type))
    return dict(sorted((kind.name, kind) for kind in kinds if issubclass(kind, Method) and kind.name))


def parse_method(text: str) -> Method:
    """Make a method from its name, with settings in brackets: ``dash[alpha=0.1,lambda=0.05]``.

    Args:
        text: A name of `methods`, or ``pkg.module:Class`` for a class of your own.

    Returns:
        The method.

    Raises:
        InputError: If the name or a setting is unknown, given twice or missing, or a value is not valid.

    Example:
        >>> method = ws.parse_method("dash[alpha=0.1]")
        >>> method.alpha, str(method)
        (0.1, 'dash[alpha=0.1]')
    """
    return parse_among(methods(), text)


def parse_among(known: Mapping[str, type[Method]], text: str) -> Method:
    """Make a method as `parse_method` does, where the known names are these."""
    require(isinstance(text, str), f"a method's name is a string such as 'dash[alpha=0.1]', not {text!r:.60}")
    name = text.strip().partition("[")[0]
    kind = _class_of(known, name)
    settings = read_settings(text, "method", _types_of(kind), kind.name)
    for field in dataclasses.fields(kind):
        if field.init and field.name not in settings and _has_no_default(field):
            raise InputError(f"method '{text}' needs a value: write {name}[{field.name.rstrip('_')}=VALUE]")
    return kind(**settings)


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _class_of(known: Mapping[str, type[Method]], name: str) -> type[Method]:
    if ":" not in name:
        if name not in known:
            raise InputError(f"method '{name}' is unknown{nearest(name, known)}")
        return known[name]
    kind = import_named(name, "method")
    if not (isinstance(kind, type) and issubclass(kind, Method) and dataclasses.is_dataclass(kind) and kind.name):
        raise InputError(f"method '{name}' must be a dataclass that extends warmstart.Method and has a name")
    return kind


def _types_of(kind: type[Method]) -> dict[str, Any]:
    """Each setting with its type."""
    types = typing.get_type_hints(kind)
    return {field.name: types[field.name] for field in dataclasses.fields(kind)}


def method_label(text: str, parse: Callable[[str], Method] = parse_method) -> str:
    """A method as in results.csv: its name and settings that are not defaults; a user's class keeps its path."""
    label = str(parse(text))
    path = text.partition("[")[0].strip()
    return path + label.partition("[")[1] + label.partition("[")[2] if ":" in path else label
