"""What config.yaml holds, as a part of a report: the command that repeats the grid, and a table of its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_jsonable_python

from warmstart.grids.repeat_command import CALLED
from warmstart.grids.settings import HOW_IT_RUNS, RECORDED, GridConfig
from warmstart.reporting import html
from warmstart.reporting.html import Html


def configuration(recorded: Mapping[str, Any], kind: type[GridConfig], command: str) -> list[Html]:
    """Show the command that repeats a grid, and what config.yaml holds, settings that differ from the defaults first.

    Args:
        recorded: Its content.
        kind: Which settings it holds.
        command: What repeats it; nothing where no command can.

    Returns:
        A paragraph and a table; nothing without content.
    """
    left_out = {*HOW_IT_RUNS, "notes", RECORDED}
    settings = _flat({key: value for key, value in recorded.items() if key not in left_out})
    usual = {
        key: to_jsonable_python(field.default) for key, field in kind.model_fields.items() if not field.is_required()
    }
    changed = [key for key in settings if usual.get(key, ...) != settings[key]]
    names = dict.fromkeys([key for key in ("dataset", "data", *changed, *settings) if key in settings])
    rows = [(key, _plain(value)) for key, value in [*((key, settings[key]) for key in names), *_versions(recorded)]]
    rows = [(key, value) for key, value in rows if value]
    if not rows:
        return []
    called = recorded.get(RECORDED, {}).get(CALLED, "ws.compare")
    how = f"`{command}` repeats it." if command else f"It was started from Python, with `{called}`."
    caption = "What the numbers rest on: first the settings that differ from the defaults."
    return [html.paragraph(how), html.table(("key", "value"), rows, caption=caption, text=True)]


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those inside of others beside them; without those that are not set."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value)
        elif value is not None and value != []:
            found[key] = value
    return found


def _versions(recorded: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key.replace("_", " "), value) for key, value in recorded.get(RECORDED, {}).items() if key != CALLED]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    return str(value)
