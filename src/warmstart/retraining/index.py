"""The index of a state: what has arrived, how each stage ended, what is in service. One SQLite file.

Every change of the state is one transaction here. Files are written before the row that names them, and removed after
the row that says so: a kill in between leaves a file that nobody names, which the next call writes anew or removes.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from warmstart.errors import InputError, OtherVersionError, WorkFailedError
from warmstart.retraining.schema import LATER, SCHEMA, VERSION

State = Literal["training", "promoted", "rejected"]
FOLLOWED = 1
"""What `followed` says where nothing is left to export or register."""


@dataclass(frozen=True)
class StageRow:
    """A row of ``stages``; the schema says what each column is."""

    number: int
    parent: int | None
    state: State
    reason: str
    settings: str
    data_sha256: str
    test_file: str
    arrived: int
    new: int
    seen: int
    held_out: int
    began: float
    ended: float | None
    classes: int
    attempt: str
    kept: bool
    followed: int


@dataclass(frozen=True)
class KnownFile:
    """A row of ``files``."""

    size: int
    changed: int
    """Nanoseconds since 1970."""
    label: str
    digests: bytes
    bad: str


@dataclass(frozen=True)
class DueHook:
    """A row of ``hooks``."""

    place: int
    command: str
    stage: int
    result: str
    reason: str


class Index:
    """An open index; `with Index(file) as index: ...`.

    One process writes at a time, under the state's lock; only that a hook was run is written down without it.
    """

    def __init__(self, file: Path, *, make: bool = False) -> None:
        """Open it, or make it with ``make``; InputError if it is missing, damaged or another version's."""
        self.file = file
        try:
            self._database = sqlite3.connect(
                f"{file.absolute().as_uri()}?mode={'rwc' if make else 'rw'}", uri=True, isolation_level=None, timeout=60
            )
        except sqlite3.Error as error:
            raise InputError(f"{file}: cannot be opened ({error}); give --state the folder of a state") from None
        try:
            self._check(make)
        except BaseException:
            self._database.close()
            raise

    def _check(self, make: bool) -> None:
        try:
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            tables = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        except sqlite3.Error as error:
            raise InputError(f"{self.file}: damaged ({error}); {RECOVERY}") from None
        if make and not tables:
            with self.transaction():
                self._execute_all(SCHEMA)
                self._database.execute(f"PRAGMA user_version = {VERSION}")
        elif version != VERSION:
            raise OtherVersionError(
                f"{self.file}: format {version}, and this warmstart reads {VERSION}; update warmstart"
            )
        if make:
            with self.transaction():
                self._execute_all(LATER)

    def _execute_all(self, statements: str) -> None:
        for statement in statements.split(";\n"):
            self._database.execute(statement)

    def __enter__(self) -> Index:
        """Return the index."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes inside are made together, or none.

        Yields:
            Nothing.

        Raises:
            WorkFailedError: If the disk does not take them.
        """
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        except BaseException as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise WorkFailedError(f"{self.file}: cannot be written ({error}); nothing of it has changed") from error
            raise

    def integrity(self) -> str:
        """What SQLite finds wrong with the file; empty if nothing is."""
        try:
            found = self._database.execute("PRAGMA integrity_check").fetchone()[0]
        except sqlite3.Error as error:
            return str(error)
        return "" if found == "ok" else str(found)

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise InputError(f"{self.file}: damaged ({error}); {RECOVERY}") from None

    # What is known

    def fact(self, name: str) -> Any:
        """A fact, None if it is not known yet."""
        found = self._rows("SELECT value FROM facts WHERE name = ?", name)
        return json.loads(found[0][0]) if found else None

    @property
    def current(self) -> int | None:
        """The stage whose model is in service."""
        number: int | None = self.fact("current")
        return number

    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of the model's outputs."""
        return tuple(name for (name,) in self._rows("SELECT name FROM classes ORDER BY number"))

    def stages(self) -> list[StageRow]:
        """All stages, oldest first."""
        names = ", ".join(field.name for field in fields(StageRow))
        return [StageRow(*row) for row in self._rows(f"SELECT {names} FROM stages ORDER BY number")]

    def stage(self, number: int) -> StageRow | None:
        """A stage."""
        return next((row for row in self.stages() if row.number == number), None)

    def next_stage(self) -> int:
        """The number of the stage that comes next."""
        return 1 + max((row.number for row in self.stages()), default=0)

    def chain(self, number: int | None) -> list[int]:
        """The stages that a stage was trained on from, oldest first, itself last; none for None."""
        parents = {row.number: row.parent for row in self.stages()}
        found: list[int] = []
        while number is not None:
            found.append(number)
            number = parents[number]
        return found[::-1]

    def metrics(self, stage: int) -> dict[str, float | None]:
        """What was measured of a stage."""
        return dict(self._rows("SELECT name, value FROM metrics WHERE stage = ?", stage))

    def bar(self, stage: int) -> int:
        """The best stage when this one went into service: itself, if that is not known."""
        return int(self.metrics(stage).get("bar") or stage)

    def runs(self, stage: int) -> dict[str, dict[str, Any]]:
        """A stage's trainings: attempt -> its row, as in results.csv."""
        found = self._rows("SELECT attempt, result FROM runs WHERE stage = ?", stage)
        return {attempt: json.loads(result) for attempt, result in found}

    def files(self) -> dict[str, KnownFile]:
        """The files of the data folder, when they were last read."""
        found = self._rows("SELECT path, size, changed, class, digests, bad FROM files")
        return {path: KnownFile(*rest) for path, *rest in found}

    def withdrawn(self, stage: int) -> dict[bytes, int]:
        """The digests of examples that were withdrawn by this stage -> when, at the latest."""
        return dict(self._rows("SELECT digest, max(stage) FROM withdrawn WHERE stage <= ? GROUP BY digest", stage))

    def refused(self) -> set[bytes]:
        """The digests of examples that do not arrive again."""
        return {digest for (digest,) in self._rows("SELECT digest FROM refused")}

    def quarantine(self) -> list[tuple[int, str, str]]:
        """Stage, path and reason of what was left out."""
        return [(*row,) for row in self._rows("SELECT stage, path, reason FROM quarantine ORDER BY rowid")]

    def left_out(self) -> list[tuple[int, str, str]]:
        """The same of what lies in the data folder still, as it was when it was read last."""
        files = self.files()

        def is_there(path: str, reason: str) -> bool:
            file = files.get(path)
            return file.bad == reason if file is not None else path.partition(": ")[0] in files  # a row of a shard

        return [(stage, path, reason) for stage, path, reason in self.quarantine() if is_there(path, reason)]

    def events(self) -> list[tuple[int | None, str, str, float]]:
        """Stage, kind, text and time of all that was said, oldest first."""
        return [(*row,) for row in self._rows("SELECT stage, kind, text, at FROM events ORDER BY rowid")]

    def due_hook(self) -> DueHook | None:
        """The oldest hook that is due."""
        found = self._rows("SELECT rowid, command, stage, result, reason FROM hooks ORDER BY rowid LIMIT 1")
        return DueHook(*found[0]) if found else None

    # What changes; call these within a transaction

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Write facts down."""
        rows = [(name, json.dumps(value)) for name, value in facts.items()]
        self._database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def add_classes(self, names: Iterable[str]) -> None:
        """Append classes."""
        known = len(self.classes())
        self._database.executemany("INSERT INTO classes VALUES (?, ?)", enumerate(names, start=known))

    def add_stage(self, row: StageRow) -> None:
        """Add a stage."""
        values = [getattr(row, field.name) for field in fields(StageRow)]
        self._database.execute(f"INSERT INTO stages VALUES ({', '.join('?' * len(values))})", values)

    def change_stage(self, number: int, **columns: Any) -> None:
        """Change columns of a stage."""
        assigned = ", ".join(f"{name} = ?" for name in columns)
        self._database.execute(f"UPDATE stages SET {assigned} WHERE number = ?", (*columns.values(), number))

    def set_files(self, seen: Mapping[str, KnownFile], gone: Iterable[str] = ()) -> None:
        """Write down what was read, and forget what is no longer there."""
        rows = [(path, file.size, file.changed, file.label, file.digests, file.bad) for path, file in seen.items()]
        self._database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._database.executemany("DELETE FROM files WHERE path = ?", [(path,) for path in gone])

    def withdraw(self, stage: int, digests: Iterable[bytes]) -> None:
        """From this stage on, leave out examples of earlier ones."""
        self._database.executemany("INSERT OR IGNORE INTO withdrawn VALUES (?, ?)", [(one, stage) for one in digests])

    def refuse(self, digests: Iterable[bytes]) -> None:
        """Let examples not arrive again."""
        self._database.executemany("INSERT OR IGNORE INTO refused VALUES (?)", [(one,) for one in digests])

    def readmit(self, digests: Iterable[bytes]) -> None:
        """Let them arrive again."""
        self._database.executemany("DELETE FROM refused WHERE digest = ?", [(one,) for one in digests])

    def reject_untrained(self, why: str) -> None:
        """Reject the stage that waits to be trained, if there is one: its data counts as new again."""
        for row in self.stages():
            if row.state == "training":
                self.change_stage(row.number, state="rejected", reason=why, ended=time.time())

    def add_quarantine(self, stage: int, bad: Iterable[tuple[str, str]]) -> None:
        """Write down what was left out, unless it was for the same reason before."""
        self._database.executemany(
            "INSERT INTO quarantine SELECT ?1, ?2, ?3 "
            "WHERE NOT EXISTS (SELECT 1 FROM quarantine WHERE path = ?2 AND reason = ?3)",
            [(stage, *one) for one in bad],
        )

    def set_run(self, stage: int, attempt: str, result: Mapping[str, Any], report: Mapping[str, Any]) -> None:
        """Write down a training's result and the method's report."""
        values = (stage, attempt, json.dumps(dict(result)), json.dumps(dict(report)))
        self._database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", values)

    def set_metrics(self, stage: int, values: Mapping[str, float]) -> None:
        """Write measurements down; NaN becomes NULL."""
        rows = [(stage, name, value) for name, value in values.items()]
        self._database.executemany("INSERT OR REPLACE INTO metrics VALUES (?, ?, ?)", rows)

    def add_hook(self, command: str, stage: int, result: str, reason: str) -> None:
        """Let a hook be due."""
        self._database.execute("INSERT INTO hooks VALUES (?, ?, ?, ?)", (command, stage, result, reason))

    def remove_hook(self, hook: DueHook) -> None:
        """Write down that a hook was run."""
        self._database.execute("DELETE FROM hooks WHERE rowid = ?", (hook.place,))

    def add_events(self, events: Sequence[tuple[int | None, str, str]]) -> None:
        """Write down what was said."""
        now = time.time()
        self._database.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", [(*event, now) for event in events])


RECOVERY = "docs/retrain-state.md says how to go on from the copy beside it"
"""The remedy for a damaged index."""
