"""Checks of a user's own comparison before its first run, so that errors do not appear after hours."""

from __future__ import annotations

import math
import pickle
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import nn

from warmstart.comparison.fingerprint import stream_fingerprint
from warmstart.errors import InputError, require, whole_number
from warmstart.importing import describe
from warmstart.methods.method import Method
from warmstart.methods.registry import method_label, parse_method
from warmstart.network import tensors_of
from warmstart.runs.function_task import FunctionTask
from warmstart.runs.key import RunKey
from warmstart.setting import MOST_NAMES
from warmstart.streams.given_parts import GivenStream
from warmstart.wording import split_names


def require_functions(**functions: Any) -> None:
    """Raise InputError unless each argument is a function; a network, though callable, is refused, but as a loss."""
    for name, function in functions.items():
        network = isinstance(function, nn.Module) and name not in ("loss_fn", "forward_loss")
        if not callable(function) or network:
            raise InputError(f"{name} is {function!r:.60}, a {type(function).__name__}; it must be a function")


def methods_by_label(methods: str | Method | Iterable[str | Method]) -> dict[str, Method]:
    """The methods of a comparison, by their name in results.csv.

    Returns:
        In the order given.

    Raises:
        InputError: If there is none, one appears twice, or something is no method.
    """
    if not isinstance(methods, (str, Method, type, Iterable)):
        raise InputError(f"methods is {methods!r:.60}; give names such as 'cold,warm,dash', or a list of methods")
    listed = [methods] if isinstance(methods, (str, Method, type)) else list(methods)
    named: dict[str, Method] = {}
    for method in [part for one in listed for part in (split_names(one) if isinstance(one, str) else [one])]:
        if isinstance(method, type):
            raise InputError(f"methods holds the class {method.__name__}; make a method of it: {method.__name__}(...)")
        if not isinstance(method, (str, Method)):
            raise InputError(f"methods holds {method!r:.60}; give names such as 'dash', or methods such as ws.Dash()")
        label = method_label(method) if isinstance(method, str) else str(method)
        if label in named:
            raise InputError(f"methods: '{label}' appears twice; name each once")
        named[label] = parse_method(method) if isinstance(method, str) else method
    if not named:
        raise InputError("methods is empty; name at least one, such as cold, warm and dash")
    return named


def chosen_seeds(seeds: Any) -> list[int]:
    """The seeds of a comparison, 0 to N-1 or as given; InputError if one is invalid or given twice, or none is."""
    if isinstance(seeds, Iterable) and not isinstance(seeds, (str, Mapping)):
        chosen = [whole_number("a seed", seed, 0) for seed in islice(seeds, MOST_NAMES + 1)]
    else:
        chosen = list(range(min(whole_number("seeds", seeds, 1), MOST_NAMES + 1)))
    require(len(chosen) <= MOST_NAMES, f"seeds are more than {MOST_NAMES:,}; ask for fewer")
    for seed, times in Counter(chosen).items():
        require(times == 1, f"seeds: {seed} appears twice; name each once")
    if not chosen:
        raise InputError("seeds is empty; ask for at least one")
    return chosen


def seeds_at_most(seeds: Any, chosen: Sequence[int], max_seeds: Any) -> Sequence[int]:
    """The seeds of a comparison with those that may be added; InputError if ``max_seeds`` does not go with them."""
    if max_seeds is None:
        return chosen
    require(not isinstance(seeds, Iterable), "max_seeds adds seeds to 0 to N-1; give seeds as a number, not as a list")
    most = whole_number("max_seeds", max_seeds, 1)
    require(most <= MOST_NAMES, f"max_seeds is more than {MOST_NAMES:,}; ask for fewer")
    require(most >= len(chosen), f"max_seeds is {most}, below seeds, {len(chosen)}; ask for at least as many")
    return range(most)


def inspect_stream(stream: GivenStream, seeds: Sequence[int]) -> tuple[int, str | dict[int, str]]:
    """Read every stage of a stream, for each seed where it depends on the seed.

    Returns:
        The number of stages, and the fingerprint of the stream, or of each seed's.

    Raises:
        InputError: If it is no sequence of stages, a stage is empty or no data set, or seeds differ in their number.
    """
    if not callable(stream.given):
        parts = stream(0).parts
        return _one_length([len(parts)]), stream_fingerprint(parts)
    lengths, found = [], {}
    for seed in seeds:  # one at a time: they need not fit into memory together
        parts = stream(seed).parts
        lengths.append(len(parts))
        found[seed] = stream_fingerprint(parts)
    return _one_length(lengths), found


def _one_length(lengths: Sequence[int]) -> int:
    if len(set(lengths)) > 1 or 0 in lengths:
        found = " or ".join(str(length) for length in sorted(set(lengths)))
        raise InputError(f"the stream has {found} stages; it must have at least one, and as many for all seeds")
    return lengths[0]


def try_functions(task: FunctionTask, seed: int) -> nn.Module:
    """Call every function but the training once, on an untrained network.

    Returns:
        A network as `task` makes them, unchanged.

    Raises:
        InputError: If a function returns something invalid.
    """
    torch.manual_seed(0)
    _require_new_networks(task)
    metric = task.measure(task.make_model(), task.stage_data(seed, 1)).accuracy
    if not math.isfinite(metric):
        warnings.warn(f"evaluate gives {metric} for an untrained network: such runs count as diverged", stacklevel=3)
    model = task.make_model()
    task.make_optimizer(model, RunKey("warm", 0))
    return model


def _require_new_networks(task: FunctionTask) -> None:
    """Raise InputError if two networks share a tensor: what one run learned would be in the next."""
    models = task.make_model(), task.make_model()  # both alive, so that no memory is used again
    first, second = (
        {t.data_ptr(): name for name, t in tensors_of(model).items() if t.data_ptr()}  # 0 if empty
        for model in models
    )
    if shared := first.keys() & second.keys():
        name = first[min(shared)]
        raise InputError(f"make_model gave {name} twice, and runs would share it: make a new network in each call")


def require_sendable(task: FunctionTask) -> None:
    """Raise InputError unless the user's functions can be pickled, and so sent to other processes."""
    try:
        pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"jobs sends your functions to other processes, and they cannot be sent ({describe(error)}); define them "
            "at the top of a module, or leave jobs out"
        ) from None
