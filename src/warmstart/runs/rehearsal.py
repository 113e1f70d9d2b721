"""Trying each method on a new network before the first run, so that what is wrong appears at once, not after hours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from warmstart.errors import InputError
from warmstart.importing import describe
from warmstart.methods.lifecycle import prepare_, reported
from warmstart.methods.method import Method
from warmstart.methods.units_and_activations import UnitsOf
from warmstart.runs.key import RunKey
from warmstart.runs.task import StageData, Task
from warmstart.seeds import derive

REHEARSED = 8
"""How many examples the batch holds that each method is tried on."""


def rehearse(task: Task, keys: Iterable[RunKey]) -> None:
    """Prepare a network for each method of these runs and apply the method to it, on a few examples.

    Raises:
        InputError: If a method refuses the network, the batch or the loss, fails, or reports nothing that can be saved.
    """
    first = {(key.method, key.optimizer): key for key in reversed(list(keys))}
    with torch.random.fork_rng(devices=[]):
        for key in reversed(first.values()):
            method = task.method(key.method)
            with _named(key.method):
                _try(task, method, key)


@contextmanager
def _named(method: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise error if method in str(error) else InputError(f"method {method}: {error}") from error
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"method {method} fails on a new network: {describe(error)}") from error


def _try(task: Task, method: Method, key: RunKey) -> None:
    def draw() -> nn.Module:
        model = task.make_model()
        prepare_(method, model)
        return model

    torch.manual_seed(derive(key.seed, "init", 0))
    model = draw()
    if task.stages == 1:
        return
    data = _newest(task.stage_data(key.seed, 2))
    stage = data.stage(
        2,
        fresh=draw,
        initial={name: tensor.detach().clone() for name, tensor in model.state_dict().items()},
        optimizer=task.make_optimizer(model, key),
        units=UnitsOf(model, data.batches, data.forward_loss),
        state={},
    )
    report = reported(method, model, stage).to_dict()
    try:
        json.dumps(report)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"method {key.method} reports what no file can hold ({describe(error)}): its settings and its report may "
            "be numbers, strings, and lists and mappings of these"
        ) from None


def _newest(data: StageData) -> StageData:
    """The stage's newest examples alone."""
    size = min(REHEARSED, data.seen)
    return replace(data, seen=size, new=min(size, data.new), batches=lambda _: [data.batches(size)[-1]])
