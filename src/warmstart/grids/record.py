"""config.yaml: a grid's settings and what its numbers depend on, and whether an old grid may be resumed."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from warmstart.errors import InputError
from warmstart.grids.settings import GridSettings
from warmstart.launch import launched_processes, processor_name
from warmstart.settings import RECORDED, read_yaml
from warmstart.storage.atomic import write_text

if TYPE_CHECKING:
    from warmstart.runs.grid_folder import GridFolder
    from warmstart.storage.lock import Claim

CONFIG_FILE = "config.yaml"

_NO_IDENTITY = frozenset({"settings", "provenance", "data_fingerprint", "notes", "stream", "trials"})
"""Fields of a record that are compared in a way of their own, or not at all."""

S_co = TypeVar("S_co", bound=GridSettings, covariant=True)
S = TypeVar("S", bound=GridSettings)


class Provenance(BaseModel):
    """What numbers depend on besides settings and data."""

    model_config = ConfigDict(frozen=True)

    warmstart: str
    torch: str
    python: str
    machine: str
    processes: int
    """How many train each run together."""
    processor: str = ""
    """The CPU's name for itself, of the process that began the grid."""

    @classmethod
    def here(cls) -> Self:
        """That of this process."""
        import torch

        return cls(
            warmstart=version("warmstart"),
            torch=str(torch.__version__),
            python=platform.python_version(),
            machine=f"{platform.system()} {platform.machine()}",
            processes=launched_processes(),
            processor=processor_name(),
        )


class Record(BaseModel, Generic[S_co]):
    """The content of config.yaml: each setting is a key, all else is under ``recorded``; subclasses add fields."""

    model_config = ConfigDict(frozen=True)

    kind: ClassVar[str]
    """Such as ``compare``."""
    keeps_weights: ClassVar[bool] = True
    """Whether networks stay in the folder when their runs are over."""
    settings: S_co
    data_fingerprint: str | dict[int, str]
    """One hash, or one for each seed where the data depends on it."""
    provenance: Provenance

    @classmethod
    def read(cls, out: Path) -> Self:
        """Read config.yaml, importing nothing it names; InputError if it is missing, damaged or of another kind."""
        kind, content = kind_of(out), read_yaml(out / CONFIG_FILE)
        if kind != cls.kind:
            raise InputError(f"{out} holds a grid of `{kind}`, not of `{cls.kind}`; choose another folder")
        fields = dict(content.pop(RECORDED))
        fields.pop("kind")
        where = f"{out / CONFIG_FILE}: "
        settings_type: type[GridSettings] = cls.model_fields["settings"].annotation  # type: ignore[assignment]
        provenance = {name: fields.pop(name) for name in Provenance.model_fields if name in fields}
        try:
            settings = settings_type.of(content, where, recorded=True)
            return cls.model_validate({"settings": settings, "provenance": provenance, **fields})
        except (ValidationError, TypeError) as error:
            raise InputError(f"{where}damaged ({_first_line(error)}); choose another --out") from None

    def to_yaml(self) -> str:
        """The text of config.yaml."""
        from warmstart import plain_yaml

        fields = self.model_dump(mode="json")
        settings, provenance = fields.pop("settings"), fields.pop("provenance")
        keys = {key: settings[key] for key in type(self.settings).described()}
        content = {**keys, RECORDED: {"kind": self.kind, **fields, **provenance}}
        return plain_yaml.dump(content)

    def identities(self) -> dict[int, str]:
        """Seed -> a hash of what its runs' numbers rest on, besides method, optimizer and versions."""
        # Without values that are defaults, so that a setting which a later version adds changes nothing.
        own = self.model_dump(mode="json", exclude={*_NO_IDENTITY}, exclude_defaults=True)
        numbers = set(type(self.settings).names_of("numbers"))
        settings = self.settings.model_dump(mode="json", include=numbers, exclude_defaults=True)
        data = self.data_fingerprint
        found = {}
        for seed in self.settings.seed_numbers:
            facts = [self.kind, settings, own, data.get(seed) if isinstance(data, dict) else data]
            found[seed] = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        return found

    def grid_folder(self, out: Path, claim: Claim | None = None) -> GridFolder:
        """The folder of this grid's runs, to write to with a claim, else to read from."""
        from warmstart.runs.grid_folder import GridFolder

        return GridFolder(out, self.identities(), claim, self.keeps_weights)

    def with_first_start(self, then: Record[Any]) -> Self:
        """This record with the first start's provenance and data fingerprints, and those of added seeds."""
        prints = self.data_fingerprint
        if isinstance(prints, dict) and isinstance(then.data_fingerprint, dict):
            prints = {**prints, **then.data_fingerprint}
        return self.model_copy(update={"provenance": then.provenance, "data_fingerprint": prints})

    def check_same_grid(self, then: Self, out: Path) -> list[str]:
        """Check that the grid recorded in a folder may resume with these settings.

        Returns:
            Warnings, one sentence each: versions that differ.

        Raises:
            InputError: If anything differs that may not; the message names the key.
        """
        before, now = then.settings, self.settings
        for key in type(now).names_of("numbers"):
            _require_equal(out, key, getattr(before, key), getattr(now, key))
        for key in type(now).names_of("extensible"):
            _require_extended(out, key, getattr(before, key), getattr(now, key))
        for key in type(now).names_of("limit"):
            _require_raised(out, key, getattr(before, key), getattr(now, key))
        if not _same_data(then.data_fingerprint, self.data_fingerprint):
            name = getattr(now, "data", "")
            raise InputError(f"{out}: the data at '{name}' has changed since the first start; choose another --out")
        for key in set(type(self).model_fields) - _NO_IDENTITY:
            _require_equal(out, key, getattr(then, key), getattr(self, key))
        versions = ((name, getattr(then.provenance, name), value) for name, value in self.provenance)
        return [
            f"{name} is {value} now and was {earlier}: new runs may differ in their last digits"
            for name, earlier, value in versions
            if earlier not in (value, "")  # empty of a folder that says nothing of it
        ]


def kind_of(out: Path) -> str:
    """The `Record.kind` of the grid in a folder; InputError if it holds none or one of an older version."""
    file = out / CONFIG_FILE
    if not file.is_file():
        raise InputError(f"{out} holds no comparison ({CONFIG_FILE} is missing); give the --out of one")
    recorded = read_yaml(file).get(RECORDED)
    if not isinstance(recorded, Mapping):
        raise InputError(f"{file} was not written by a comparison (it has no '{RECORDED}'); choose another folder")
    if not isinstance(kind := recorded.get("kind"), str):
        raise InputError(f"{file} was written by an older warmstart; choose another --out")
    return kind


def check_output(out: Path, now: Record[S]) -> list[str]:
    """Check that an output folder is new or holds the same grid; nothing is written.

    Returns:
        Warnings, one sentence each: versions that differ from those of the first start.

    Raises:
        InputError: If the folder holds another grid; the message names the key that differs.
    """
    if (out / CONFIG_FILE).exists():
        return now.check_same_grid(type(now).read(out), out)
    if (out / "results.csv").exists():
        raise InputError(f"{out} holds a results.csv without {CONFIG_FILE}; choose another --out")
    return []


def write_record(out: Path, now: Record[S]) -> None:
    """Write config.yaml into a locked and checked folder; what the first start recorded stays."""
    file = out / CONFIG_FILE
    record = now.with_first_start(type(now).read(out)) if file.exists() else now
    write_text(file, record.to_yaml())


def settled(settings: S, out: Path | None) -> S:
    """Settings with the number of threads and the kind of device filled in."""
    threads = settings.threads
    # A resumed grid keeps its threads: adding seeds or methods must not change earlier numbers.
    if threads == "auto" and out is not None and (out / CONFIG_FILE).exists():
        threads = read_yaml(out / CONFIG_FILE).get("threads", "auto")
    if not isinstance(threads, int):
        threads = settings.resolved_threads()
    return settings.model_copy(update={"threads": threads, "device": settings.resolved_device().type})


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
    return str(error).partition("\n")[0]


def _require_equal(out: Path, key: str, then: Any, now: Any) -> None:
    if then != now:
        raise InputError(
            f"{out} holds another configuration: {key} is {then!r} there and {now!r} now; choose another --out, or the "
            "old value"
        )


def _require_extended(out: Path, key: str, then: Any, now: Any) -> None:
    if dropped := [value for value in _members(then) if value not in _members(now)]:
        raise InputError(
            f"{out} also holds {key[:-1]} {dropped[0]}: {key} may be added, not dropped; choose another --out, or name "
            "all of them again"
        )


def _require_raised(out: Path, key: str, then: int | None, now: int | None) -> None:
    if then is not None and (now is None or now < then):
        raise InputError(
            f"{out} has {key} {then}: it may be raised, not lowered or left out; choose another --out, or the old value"
        )


def _same_data(then: Any, now: Any) -> bool:
    """Whether fingerprints agree; with one a seed, those of the seeds in both."""
    if isinstance(then, dict) and isinstance(now, dict):
        return all(now[seed] == then[seed] for seed in then if seed in now)
    return bool(then == now)


def _members(value: Any) -> Sequence[Any]:
    return range(value) if isinstance(value, int) else value
