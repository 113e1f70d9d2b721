"""A grid's record as a part of a report: the command that repeats it, and a table of its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warmstart.grids.record import Record
from warmstart.reporting import html
from warmstart.reporting.html import Html

_FIRST = ("dataset", "data")


def shown_record(record: Record[Any], how: str) -> list[Html]:
    """A sentence on how to repeat a grid, and a table of its settings, those that differ from the defaults first."""
    kind = type(record.settings)
    defaults = {name: field.default for name, field in kind.model_fields.items() if not field.is_required()}
    settings = {
        name: getattr(record.settings, name) for name in kind.names_of("numbers", "extensible", "limit", "reading")
    }
    changed = [name for name, value in settings.items() if defaults.get(name, ...) != value]
    names = dict.fromkeys([name for name in (*_FIRST, *changed, *settings) if name in settings])
    facts = record.model_dump(exclude={"settings", "provenance", "notes", "stream", "called"})
    rest = {name.replace("_", " "): value for name, value in {**_flat(facts), **dict(record.provenance)}.items()}
    rows = [(name, _plain(value)) for name, value in [*((name, settings[name]) for name in names), *rest.items()]]
    caption = "What the numbers depend on: first the settings that differ from the defaults."
    shown = [(name, value) for name, value in rows if value not in ("", "None")]
    return [html.paragraph(how), html.table(("key", "value"), shown, caption=caption, text=True)]


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Nested fields moved to the top level; fingerprints by seed stay together."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            found |= _flat(value)
        else:
            found[name] = value
    return found


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    return str(value)
