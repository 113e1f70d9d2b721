"""How long a grid will still take, from the stages that are done."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping

from warmstart.runs.key import RunKey
from warmstart.runs.stage_result import StageResult


class TimeLeft:
    """Learns what each method's stages cost, and how many seconds of work pass in a second.

    A stage trains on all data so far, so its cost is taken to grow with its number. A method of which no stage is done
    is taken to cost what the others do on average, and half of what cold does where only that is known.
    """

    def __init__(self, keys: Iterable[RunKey], stages: int) -> None:
        """Begin with nothing done."""
        self._stages = stages
        self._done: dict[RunKey, int] = {}
        self.add(keys)
        self._cost: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])  # seconds, stage numbers
        self._spent = 0.0
        self._most = 1  # runs that were under way at a time

    def add(self, keys: Iterable[RunKey]) -> None:
        """Add runs, of which nothing is done."""
        self._done |= dict.fromkeys(keys, 0)

    def count(self, row: StageResult, *, now: bool = True) -> None:
        """Add a stage that is done; ``now`` if it was computed since this start."""
        key = RunKey(row.method, row.seed, row.optimizer)
        self._done[key] = self._stages if row.ends_run else row.stage
        seconds = row.train_seconds + row.method_seconds
        cost = self._cost[row.method, row.optimizer]
        cost[0], cost[1] = cost[0] + seconds, cost[1] + row.stage
        self._spent += seconds if now else 0.0

    def seconds(self, elapsed: float, under_way: Mapping[RunKey, float]) -> float | None:
        """Seconds that are left; None while nothing is known.

        Args:
            elapsed: Seconds since this start.
            under_way: The runs that are being computed, each with the seconds spent on its unfinished stage.

        Returns:
            What remains when the runs under way end and the others follow them in order, as many at a time.
        """
        spent = self._spent + sum(under_way.values())
        if not self._cost:
            return None
        busy = [0.0] * max(1, len(under_way))
        for key in (*under_way, *(key for key in self._done if key not in under_way)):
            heapq.heapreplace(busy, busy[0] + max(0.0, self._of_run(key) - under_way.get(key, 0.0)))
        self._most = max(self._most, len(busy))
        # Until a stage is done, at the pace of those of earlier starts.
        return max(busy) * (self._most * elapsed / spent if self._spent > 0 else 1.0)

    def _of_run(self, key: RunKey) -> float:
        """Seconds of work left in a run, with its stage under way."""
        cost = {kind: seconds / numbers for kind, (seconds, numbers) in self._cost.items()}
        warm = [value for (method, _), value in cost.items() if method != "cold"]
        usual = sum(warm) / len(warm) if warm else sum(cost.values()) / len(cost) / 2
        return cost.get((key.method, key.optimizer), usual) * sum(range(self._done[key] + 1, self._stages + 1))
