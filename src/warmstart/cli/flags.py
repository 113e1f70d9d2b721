"""Flags from settings: one for each field, with the field's help, default and metavar."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import NoneType
from typing import Annotated, Any, get_args

import typer
from pydantic.fields import FieldInfo

from warmstart.setting import Setting
from warmstart.settings import Settings


def with_flags(kind: type[Settings], *, exclude: tuple[str, ...] = ()) -> Callable[[Callable[..., None]], Any]:
    """Give a command a flag for each setting but those in ``exclude``.

    Returns:
        A decorator of ``command(..., **given)``, which gets only the flags that were given.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        described = {name: setting for name, setting in kind.described().items() if name not in exclude}
        flags = [_flag(kind, name, setting) for name, setting in described.items()]
        kept = [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        parameters = [*kept, *flags]

        def called(**arguments: Any) -> None:
            given = {name: value for name, value in arguments.items() if name in described and value is not None}
            others = {name: value for name, value in arguments.items() if name not in described}
            command(**others, **given)

        called.__doc__ = command.__doc__
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return decorate


def _flag(settings: type[Settings], name: str, setting: Setting) -> inspect.Parameter:
    field = settings.model_fields[name]
    options, flag = _options(field), name.replace("_", "-")
    as_text = ... in options or setting.percent  # a list, or a share that may end in a percent sign
    kind = str if as_text else next((option for option in (str, bool, int, float) if option in options), str)
    option = typer.Option(
        f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}",
        help=_help_text(setting, field),
        show_default=False,
        metavar=setting.metavar if kind is not bool else None,
        rich_help_panel=settings.title_of(name),
    )
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]  # a type made at runtime
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _options(field: FieldInfo) -> tuple[Any, ...]:
    return tuple(option for option in (get_args(field.annotation) or (field.annotation,)) if option is not NoneType)


def _help_text(setting: Setting, field: FieldInfo) -> str:
    choices = f": {_listed(setting.choices)}" if setting.choices else ""
    default = "required" if field.is_required() else f"default: {setting.default or _shown(field.default)}"
    return rf"{setting.help}{choices} \[{default}]"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else names[0]


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)
