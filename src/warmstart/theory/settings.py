"""The parameters of the discrete framework: what examples carry, how many arrive, what it takes to learn."""

from __future__ import annotations

from dataclasses import dataclass, fields

from warmstart.errors import InputError, at_least_one, require, within

_LARGEST = 2_000_000_000
"""Features times examples, in bytes of memory: beyond, a slip of the keys."""


@dataclass(frozen=True)
class DiscreteSettings:
    """Shin et al., NeurIPS 2024 (arXiv 2410.23495); the defaults are the paper's.

    Raises:
        InputError: If a parameter is out of range.
    """

    classes: int = 2
    features: int = 50
    """Of a class."""
    examples: int = 1000
    """New ones a stage, shared out equally among the classes."""
    stages: int = 50
    gamma: int = 50
    """A feature is learned while it occurs in at least so many examples whose gradient is not zero."""
    tau: int = 3
    """An example with so many learned features has zero gradient."""
    max_probability: float = 0.2
    """Each feature occurs with a probability of its own, drawn from U(0, max_probability)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name not in ("classes", "max_probability"):
                at_least_one(field.name, getattr(self, field.name))
        require(self.classes >= 2, f"classes is {self.classes}; it must be at least 2")
        within("max_probability", self.max_probability, 0 <= self.max_probability <= 1, "in [0, 1]")
        if self.examples < self.classes:
            raise InputError(
                f"examples is {self.examples}; each of the {self.classes} classes needs at least one a stage"
            )
        if self.gamma > self.examples:
            raise InputError(
                f"gamma is {self.gamma}, more than the {self.examples} examples of a stage: no feature could ever be "
                "learned from one; lower gamma or raise examples"
            )
        if self.tau > self.features:
            raise InputError(
                f"tau is {self.tau}, more than the {self.features} features that an example can have; "
                "lower tau or raise features"
            )
        size = self.features * self.examples * self.stages
        if size > _LARGEST:
            raise InputError(
                f"{self.stages} stages of {self.examples} examples with {self.features} features need "
                f"{size / 1e9:.1f} GB; ask for less than {_LARGEST / 1e9:g}"
            )
