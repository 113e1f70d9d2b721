"""A method with a rate or a weight decay of its own: ``dash[alpha=0.1,lr=0.01]``, ``cold[weight_decay=0.0005]``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from warmstart.errors import InputError
from warmstart.methods.method import Method
from warmstart.methods.registry import method_label, parse_method
from warmstart.spelling import read_settings
from warmstart.training.recipe import Recipe
from warmstart.wording import split_names

OWN = ("lr", "weight_decay")
"""The settings of the recipe that a method may have for itself."""


def own_recipe(text: str) -> tuple[str, dict[str, float]]:
    """Take what a method changes in the recipe out of its name.

    Args:
        text: A method's name with settings in brackets, of its own and of the recipe.

    Returns:
        The name with the method's own settings alone, and the recipe's, in the order of `OWN`.

    Raises:
        InputError: If a value of the recipe's is no number, out of range or given twice.
    """
    name, _, rest = text.strip().partition("[")
    if not rest.endswith("]"):
        return text, {}
    items = split_names(rest[:-1])
    recipes = [item for item in items if item.partition("=")[0].strip() in OWN]
    found = read_settings(f"{name}[{','.join(recipes)}]", "method", dict.fromkeys(OWN, float))
    for key, value in found.items():
        Recipe.setting(key).check(f"{name}[{key}]", value)
    plain = _written(name, [item for item in items if item not in recipes])
    return plain, {key: found[key] for key in OWN if key in found}


def with_recipe(label: str, changes: Mapping[str, float]) -> str:
    """A method's label with what it changes in the recipe as well."""
    name, _, rest = label.partition("[")
    settings = split_names(rest.removesuffix("]"))
    return _written(name, [*settings, *(f"{key}={changes[key]}" for key in OWN if key in changes)])


def label_with_recipe(text: str, parse: Callable[[str], Method] = parse_method) -> str:
    """A method as in results.csv, with its own recipe behind its settings; InputError if it is unknown."""
    plain, changes = own_recipe(text)
    for key in changes:
        if key in parse(plain).settings():
            raise InputError(f"{plain} has a setting {key} of its own, which here is the recipe's; rename it")
    return with_recipe(method_label(plain, parse), changes)


def _written(name: str, settings: list[str]) -> str:
    return f"{name}[{','.join(settings)}]" if settings else name
