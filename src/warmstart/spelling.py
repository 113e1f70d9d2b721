"""How a name with settings is read: ``dash[alpha=0.1]``, ``resnet18[width=16]``."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from warmstart.errors import InputError, nearest
from warmstart.wording import split_names


def read_settings(text: str, kind: str, wanted: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """Read the settings in the brackets of a name.

    Args:
        text: The name with its settings, or without any.
        kind: What is named, such as ``method``.
        wanted: The settings that it has: name -> type; what ends in an underscore is read without it too.
        name: What the thing is called in errors; as it is written in ``text`` if not given.

    Returns:
        The settings that are given, converted to their types.

    Raises:
        InputError: If brackets are not closed or opened twice; if a setting is unknown, given twice or not of its type.
    """
    written, bracket, rest = text.strip().partition("[")
    name = name or written
    if bracket and not rest.endswith("]"):
        raise InputError(f"{kind} '{text}' has no closing bracket; write {written}[setting=value]")
    if "[" in rest:
        raise InputError(f"{kind} '{text}' opens a second bracket; write all settings in one, as {written}[a=1,b=2]")
    known = {key.rstrip("_"): key for key in wanted}
    found: dict[str, Any] = {}
    for item in split_names(rest[:-1]):
        key, equals, value = (part.strip() for part in item.partition("="))
        field = known.get(key.rstrip("_"))
        if not equals or field is None:
            raise InputError(f"{name} has no setting '{key}'" + (nearest(key, known) if known else "; it has none"))
        converted = _value(f"{name}[{key}]", value, wanted[field])
        if field in found:
            raise InputError(f"{kind} '{text}' sets {key} twice")
        found[field] = converted
    return found


def _value(where: str, text: str, wanted: Any) -> Any:
    """The text converted to the type of a setting."""
    options = typing.get_args(wanted) or (wanted,)
    if type(None) in options and text.lower() == "none":
        return None
    if bool in options and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        if number in options:
            try:
                return number(text)
            except ValueError:
                continue
    if str in options or text in options:
        return text
    raise InputError(f"{where} is '{text}'; it must be {' or '.join(getattr(o, '__name__', str(o)) for o in options)}")
