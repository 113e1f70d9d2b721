"""Classes of settings: checked fields, read from flags and from YAML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from warmstart.errors import InputError, nearest, require
from warmstart.setting import Role, Setting
from warmstart.wording import split_names

RECORDED = "recorded"
"""The key of config.yaml that holds all that is not a setting, such as versions and the data's fingerprint."""

MOST_YAML_BYTES = 2**20


class Settings(BaseModel):
    """A class of settings: a field with a `Setting` is a flag and a YAML key; one without is for Python only."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: ClassVar[str] = "Options"
    """The heading of its flags in the help."""

    @classmethod
    def title_of(cls, name: str) -> str:
        """The heading of a setting's flag: the title of the class that adds the field."""
        kinds = [kind for kind in reversed(cls.__mro__) if issubclass(kind, Settings)]
        return next(kind.title for kind in kinds if name in vars(kind).get("__annotations__", {}))

    @classmethod
    def described(cls) -> dict[str, Setting]:
        """Each setting by its field's name, in the order of the fields."""
        pairs = ((name, item) for name, field in cls.model_fields.items() for item in field.metadata)
        return {name: item for name, item in pairs if isinstance(item, Setting)}

    @classmethod
    def setting(cls, name: str, **changes: Any) -> Setting:
        """A setting with some changes, for a subclass's field of another type or default."""
        return replaced(cls.described()[name], **changes)

    @classmethod
    def names_of(cls, *roles: Role) -> list[str]:
        """The names of the settings with one of these roles."""
        return [name for name, setting in cls.described().items() if setting.role in roles]

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name or ""
        kind, setting = cls.model_fields[name].annotation, cls.described().get(name)
        if isinstance(value, bool) and kind is not bool:  # such as YAML's yes and on, which pydantic would take for 1
            raise InputError(f"{name} is {value}; give a number or a name, not true or false")
        if isinstance(value, str) and _is_tuple(kind):
            return tuple(split_names(value))
        if isinstance(value, (int, float)) and _is_tuple(kind):
            return (value,)
        if setting is not None and setting.auto:
            text, most = str(value), setting.at_most or math.inf
            holds = text == "auto" or (text.isdecimal() and len(text) < 20 and 1 <= int(text) <= most)
            require(holds, f"{name} is '{text:.40}'; it must be 'auto' or a whole number, {setting.range}")
            return text if text == "auto" else int(text)
        if setting is not None and setting.percent and isinstance(value, str):
            return _share(name, value)
        return value

    @field_validator("*")
    @classmethod
    def _check(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name or ""
        if (setting := cls.described().get(name)) is not None:
            setting.check(name, value)
        return value

    @classmethod
    def of_protocol(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """What follows from a protocol that is named among the settings; what is given besides wins over it."""
        return {}

    def require_effect(self, flags: Mapping[str, Any]) -> None:
        """Raise InputError if a flag has no effect beside these settings."""

    @classmethod
    def of(cls, settings: Mapping[str, Any], where: str = "", *, recorded: bool = False) -> Self:
        """Check settings given by key; ``where``, such as a file's name, begins each message.

        With ``recorded`` they were checked when they were recorded, and nothing that they name is imported.

        Returns:
            The settings.

        Raises:
            InputError: In one line, about the first that is wrong.
        """
        known = cls.described()
        for key in settings:
            if key not in known:
                raise InputError(f"{where}key '{key}' is unknown{nearest(key, known)}")
        try:
            return cls.model_validate(dict(settings), context={RECORDED: recorded})
        except ValidationError as error:
            first = error.errors()[0]
            cause = first.get("ctx", {}).get("error")
            if isinstance(cause, InputError):
                raise InputError(f"{where}{cause}") from None
            key = str(first["loc"][0])
            raise InputError(f"{where}{key} is {settings.get(key)!r}; {first['msg'].lower()}") from None


SomeSettings = TypeVar("SomeSettings", bound=Settings)


def _share(name: str, text: str) -> float:
    """A number, or percent of one; a whole number would be the one for some and the other for others."""
    plain = text.strip()
    try:
        share = float(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)
    except ValueError:
        raise InputError(f"{name} is '{text:.40}'; give a share such as 0.01 or 1%") from None
    whole = plain.isdecimal() and share >= 1
    require(
        not whole, f"{name} is '{text:.40}'; write {plain:.40}%, or a share such as 0.01 (crontab needs the latter)"
    )
    return share


def _is_tuple(kind: Any) -> bool:
    return any(get_origin(option) is tuple for option in (kind, *get_args(kind)))


def from_file_and_flags(kind: type[SomeSettings], file: Path | None, flags: Mapping[str, Any]) -> SomeSettings:
    """Settings from a YAML file, if any, and flags, which win; InputError if the file or a value is not valid."""
    content = {} if file is None else {key: value for key, value in read_yaml(file).items() if key != RECORDED}
    given = {**content, **flags}
    named = kind.of_protocol(given)
    filled = {**content, **named, **flags} if "protocol" in flags else {**named, **given}
    settings = kind.of(filled, where="" if file is None else f"{file}: ")
    settings.require_effect(flags)
    return settings


def read_yaml(file: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; InputError if it is missing, too large, or no such file."""
    import yaml

    from warmstart import plain_yaml

    try:
        if file.exists() and not file.is_file():
            raise InputError(f"{file}: not a file; check the path of the configuration")
        if (size := file.stat().st_size) > MOST_YAML_BYTES:
            raise InputError(f"{file}: {size:,} bytes are no configuration; check its path")
        content = plain_yaml.load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check the path of the configuration") from None
    except RecursionError:
        raise InputError(f"{file}: not valid YAML (nested too deeply)") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{file}: not valid YAML ({' '.join(str(error).split()):.300})") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise InputError(f"{file}: must hold keys and values, such as 'stages: 6'")
    return {str(key): value for key, value in content.items()}
