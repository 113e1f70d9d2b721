"""From events to points, in a thread for each tracker: a slow or broken one neither delays nor ends the work."""

from __future__ import annotations

import hashlib
import math
import queue
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from warmstart.grids import record
from warmstart.grids.settings import GridSettings
from warmstart.grids.tracking.journal import Journal, Recorded
from warmstart.grids.tracking.service import Point, Record, RunStatus, Service, TrackedRun
from warmstart.importing import describe
from warmstart.runs.key import RunKey
from warmstart.runs.run import Event
from warmstart.runs.stage_result import NUMBERS, StageResult
from warmstart.training.loop import Progress
from warmstart.wording import one_line

GATHER = 1.0
"""Seconds of events that are recorded together: one request a run, not one an epoch."""
CLOSING = 60.0
"""Seconds that a tracker has to record the rest when the work ends."""


class Tracker:
    """Records a grid while it runs; call it with each event."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = feeds

    def __call__(self, event: Event) -> None:
        """Queue an event, without waiting."""
        for feed in self._feeds:
            feed.put(event)

    def close(self) -> None:
        """Wait until everything is recorded, or a tracker exceeds its time; that gives a warning."""
        for feed in self._feeds:
            feed.stop()
        for feed in self._feeds:
            feed.join()


class Feed:
    """One tracker's thread."""

    def __init__(
        self,
        name: str,
        service: Service,
        journal: Journal,
        grid: record.Record[GridSettings],
        stages: int,
        done: Mapping[RunKey, Sequence[StageResult]],
    ) -> None:
        self._name, self._service, self._journal = name, service, journal
        self._grid, self._stages = grid, stages
        self._rows = {key: {row.stage: row for row in rows} for key, rows in done.items()}
        self._records: dict[RunKey, Record] = {}
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"track-{name}", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Queue an event, unless the tracker has failed."""
        if self._thread.is_alive():
            self._queue.put(event)

    def stop(self) -> None:
        """Announce that no more events will come."""
        self._stopping.set()
        self._queue.put(None)

    def join(self) -> None:
        """Wait at most `CLOSING` seconds until the rest is recorded."""
        self._thread.join(CLOSING)
        if self._thread.is_alive():
            self._warn(f"has not taken everything within {CLOSING:g} s; the next start records what is missing")

    def _warn(self, what: str) -> None:
        print(one_line(f"warning: {self._name} {what}"), file=sys.stderr)

    def _work(self) -> None:
        try:
            for key, rows in self._rows.items():
                self._record(key, [_finished(key, row) for row in rows.values()])
            while (events := self._gather()) is not None:
                for key in dict.fromkeys(event.key for event in events):
                    self._record(key, [event for event in events if event.key == key])
            complete = not self._records
            for key in list(self._records):
                self._end(key, "interrupted")
            self._service.close(complete=complete)
            self._journal.write()
        except Exception as error:  # any: trackers and networks have errors of their own
            self._warn(f"has stopped recording ({describe(error)}); the work goes on, the next start records the rest")

    def _gather(self) -> list[Event] | None:
        """Wait for an event, then collect more for `GATHER` seconds; None after the last."""
        first = self._queue.get()
        self._stopping.wait(GATHER)
        events = [first]
        while not self._queue.empty():
            events.append(self._queue.get())
        real = [event for event in events if event is not None]
        if None in events:
            self._queue.put(None)  # for the next call
        return real if real or None not in events else None

    def _record(self, key: RunKey, events: Iterable[Event]) -> None:
        """Record what is new in some events of a run."""
        recorded = self._journal.runs.get(str(key), Recorded())
        stage, steps = recorded.stage, recorded.steps
        rows = self._rows.setdefault(key, {})
        points = []
        status: RunStatus | None = None
        for event in events:
            before = sum(row.steps for number, row in rows.items() if number < event.stage)
            if (at := before + event.progress.steps) > steps:
                points.append(Point("optimizer_steps", at, {"train/accuracy": event.progress.accuracy}))
                steps = at
            if (row := event.finished_stage) is not None and row.stage > stage:
                rows[row.stage] = row
                points.append(Point("stage", row.stage, _values(row)))
                stage = row.stage
                status = self._status(row)
        if not points:
            return
        if key not in self._records:
            self._records[key] = self._service.open(self._tracked(key, new=recorded == Recorded()))
        self._records[key].log(points)
        if status is not None:
            self._end(key, status)
        self._journal.runs[str(key)] = Recorded(stage, steps)
        if stage > recorded.stage:
            self._journal.write()

    def _status(self, row: StageResult) -> RunStatus | None:
        if row.status == "diverged":
            return "diverged"
        return "done" if row.stage == self._stages or row.ends_run else None

    def _end(self, key: RunKey, status: RunStatus) -> None:
        self._records.pop(key).end(status)

    def _tracked(self, key: RunKey, *, new: bool) -> TrackedRun:
        settings = self._grid.settings
        of_a_run = {name: getattr(settings, name) for name in type(settings).names_of("numbers")}
        values = {**of_a_run, "out": settings.out, **dict(self._grid.provenance), **asdict(key)}
        values["data_fingerprint"] = self._grid.data_fingerprint
        plain = {name: value for name, value in values.items() if isinstance(value, (str, int, float))}
        # Not the name itself, which may be too long or hold characters that an id must not.
        return TrackedRun(str(key), hashlib.sha256(f"{self._journal.id}/{key}".encode()).hexdigest()[:16], plain, new)


def _finished(key: RunKey, row: StageResult) -> Event:
    return Event(key, row.stage, Progress(row.epochs, row.steps, row.train_accuracy), row)


def _values(row: StageResult) -> dict[str, float]:
    """A row's numbers without those not measured, such as recalibrated statistics without batch norm."""
    values = {f"stage/{name}": float(getattr(row, name)) for name in NUMBERS}
    return {name: value for name, value in values.items() if not math.isnan(value)}
