"""What a night says: a line on the terminal, one in a log of JSON, one in the index."""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from warmstart.errors import InputError
from warmstart.reporting.terminal import Terminal
from warmstart.runs.run import Event
from warmstart.wording import counted

SHOW_EVERY = 25.0
"""Seconds between two lines on a training that is under way."""


class Chronicle:
    """Says each event once, and keeps it for the next transaction."""

    def __init__(self) -> None:
        """Say nothing yet."""
        self.said: Counter[str] = Counter()
        """How often each kind of event was said."""
        self._terminal = Terminal(stderr=True)
        self._log: Path | None = None
        self._pending: list[tuple[int | None, str, str]] = []
        self._shown = time.monotonic()

    def log_to(self, log: str | None) -> None:
        """Also write each event to this file of JSON lines from now on; InputError if it cannot be written."""
        if log is not None:
            try:
                Path(log).open("a").close()
            except OSError as error:
                raise InputError(f"--log-json {log}: cannot be written ({error.strerror}); give another file") from None
            self._log = Path(log)

    def say(self, kind: str, text: str, stage: int | None = None, **numbers: Any) -> None:
        """Say what has happened; ``kind`` is a word for programs, ``numbers`` are for the log."""
        self._terminal.print(text, soft_wrap=True)
        self.said[kind] += 1
        self._pending.append((stage, kind, text))
        self.log(kind, text, stage, **numbers)

    def log(self, kind: str, text: str, stage: int | None = None, **numbers: Any) -> None:
        """Write an event to the log of JSON alone."""
        if self._log is None:
            return
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": kind, "stage": stage, "text": text}
        try:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**line, **numbers}) + "\n")
        except OSError as error:  # a full disk of logs keeps no model from going into service
            log, self._log = self._log, None
            self.say("follower failed", f"--log-json {log}: {error.strerror}; this call writes no more to it")

    def progress(self, event: Event) -> None:
        """Show now and then how far a training is; not for the record."""
        if event.finished_stage is None and time.monotonic() - self._shown > SHOW_EVERY:
            self._shown = time.monotonic()
            epochs, accuracy = event.progress.epochs, event.progress.accuracy
            self._terminal.print(f"training: {counted(epochs, 'epoch')}, training accuracy {accuracy:.1%}")

    def drain(self) -> list[tuple[int | None, str, str]]:
        """What was said since this was asked last."""
        said, self._pending = self._pending, []
        return said
