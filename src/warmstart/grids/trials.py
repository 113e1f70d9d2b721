"""Equal tuning: the settings that are tried for each method, as many for one as for another.

The first trial is the method as it was given. The others are spread over one space, by Latin hypercubes (McKay, Beckman
and Conover 1979), so that N - 1 trials are N - 1 different rates, evenly over the range. All methods share the same
pairs of rate and weight decay. No trial depends on another's result: they run side by side, a kill costs nothing, and
with a dozen trials an adaptive search has hardly begun to adapt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from warmstart.methods.registry import parse_method
from warmstart.runs.own_recipe import OWN, own_recipe, with_recipe
from warmstart.seeds import derive
from warmstart.setting import Range, Search
from warmstart.wording import split_names

_SGD = {"lr": Range(1e-3, 0.3), "weight_decay": Range(1e-5, 1e-2)}
_ADAM = {"lr": Range(1e-4, 1e-2), "weight_decay": Range(1e-3, 1.0)}
"""Its weight decay is decoupled: a weight shrinks by rate x decay, whatever its gradient."""

RECIPE_SPACE: Mapping[str, Mapping[str, Range]] = {"sgd": _SGD, "sam": _SGD, "adamw": _ADAM, "muon": _ADAM}
"""Optimizer -> where rate and weight decay are searched, for all methods alike."""


def trials_of(label: str, count: int, optimizer: str) -> list[str]:
    """The trials of one method, as labels that say their settings.

    Args:
        label: The method as it was given; a setting in its brackets stays as it is.
        count: How many, the method as it was given included.
        optimizer: Its name.

    Returns:
        ``count`` labels, the first of them ``label``; one where nothing is left to search.
    """
    plain, fixed = own_recipe(label)
    method, written = parse_method(plain), _written(label)
    recipe = {key: place for key, place in RECIPE_SPACE[optimizer].items() if key not in written}
    own = {name: place for name, place in method.search.items() if name.rstrip("_") not in written}
    if not recipe and not own:
        return [label]
    shares = zip(_spread(OWN, count - 1, "recipe"), _spread(list(own), count - 1, method.name), strict=True)
    found = [label]
    for of_recipe, of_method in shares:
        changed = replace(method, **_at(own, of_method))
        name = plain.partition("[")[0]  # a user's class keeps its path
        settings = f"{name}{str(changed)[len(method.name) :]}"
        found.append(with_recipe(settings, {**fixed, **_at(recipe, of_recipe)}))
    return found


def _written(label: str) -> set[str]:
    """The settings in a label's brackets, which somebody has fixed."""
    return {item.partition("=")[0] for item in split_names(label.partition("[")[2].removesuffix("]"))}


def _at(space: Mapping[str, Search], shares: Mapping[str, float]) -> dict[str, Any]:
    return {name: place.at(shares[name]) for name, place in space.items()}


def _spread(names: Sequence[str], count: int, purpose: str) -> list[dict[str, float]]:
    """``count`` points of the unit cube with a coordinate for each name."""
    if not names:
        return [{} for _ in range(count)]
    from scipy.stats.qmc import LatinHypercube

    points = LatinHypercube(len(names), rng=derive(0, "tune", purpose)).random(count)
    return [dict(zip(names, map(float, point), strict=True)) for point in points]
