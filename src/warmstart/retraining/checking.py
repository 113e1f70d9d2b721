"""`--check`: every file of a state against its fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from warmstart.errors import InputError
from warmstart.retraining import snapshots
from warmstart.retraining.index import Index, StageRow
from warmstart.retraining.state import FIRST, StateFolder
from warmstart.serving.model_folder import CURRENT, check_model
from warmstart.storage import checkpoint


def check(state: StateFolder, index: Index) -> tuple[int, list[str]]:
    """Verify the index, all snapshots and test sets, and the checkpoints and models that are kept.

    Args:
        state: The folder.
        index: Its index.

    Returns:
        How many files are whole, and what is wrong, one line each.
    """
    whole, wrong = 0, [f"{state.index}: {found}"] if (found := index.integrity()) else []
    for check_one in _checks(state, index):
        try:
            check_one()
            whole += 1
        except InputError as error:
            wrong.append(str(error))
    current = index.current
    if current is not None and (state.path / CURRENT).resolve() != state.model(current).resolve():
        wrong.append(f"{state.path / CURRENT}: does not point to stage {current}; the next retrain sets it right")
    return whole, wrong


def _checks(state: StateFolder, index: Index) -> Iterator[Callable[[], object]]:
    tests = set()
    for row in index.stages():
        if row.arrived:
            yield partial(snapshots.checked, state.snapshot(row.number), row.data_sha256)
        if row.test_file and row.kept:
            tests.add(row.test_file)
        if row.kept and row.state != "training":
            yield from _weights(state, row, index.metrics(row.number))
    for name in sorted(tests):
        yield partial(snapshots.checked, state.data_file(name), snapshots.sha256_of_test(name))


def _weights(state: StateFolder, row: StageRow, metrics: dict[str, float | None]) -> Iterator[Callable[[], object]]:
    own, stage = state.checkpoint(row.number, row.attempt), state.training(row.number, FIRST).path
    for file in {own, *stage.rglob(own.name)} if metrics else set(stage.rglob(own.name)):
        yield partial(checkpoint.load, file)
    if metrics:  # else the training failed, and there is no network to look at
        yield partial(check_model, state.model(row.number))
