"""The methods as the paper has them, and the task that runs them as its authors do.

What users get by default may be better: see docs/dash.md on 1x1 kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

from warmstart.layers.neurons import Granularity
from warmstart.methods.dash import Dash
from warmstart.methods.method import Method
from warmstart.methods.registry import methods, parse_among
from warmstart.runs.image_task import ImageTask
from warmstart.runs.own_recipe import own_recipe


@dataclass(frozen=True)
class PapersDash(Dash):
    """DASH by kernels, those of a single weight too."""

    granularity: Granularity = "kernel"


def papers_method(text: str) -> Method:
    """Make a method from its name, as `parse_method` does, in whose settings the defaults are the paper's."""
    return parse_among({**methods(), PapersDash.name: PapersDash}, text)


@dataclass(frozen=True)
class PapersTask(ImageTask):
    """The task of `warmstart reproduce`."""

    def method(self, name: str) -> Method:
        """The paper's method of that name."""
        return papers_method(own_recipe(name)[0])
