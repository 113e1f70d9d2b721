"""Everything that a method would refuse or leave alone in a network, found at once and before anything changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from warmstart.errors import InputError
from warmstart.layers.coverage import remarks
from warmstart.layers.neurons import GRANULARITY, Filter, Granularity, neurons
from warmstart.layers.norms import has_norm
from warmstart.network import require_module_type
from warmstart.processes import local, team_of


@dataclass(frozen=True)
class Finding:
    """One thing that is worth knowing before a method changes a network."""

    severity: Literal["error", "warning", "note"]
    """``error``: methods refuse the network; ``warning``: they work, perhaps not as hoped; ``note``: left alone."""
    name: str
    """The parameter or layer, empty for the network as a whole."""
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        """One line."""
        where = f"{self.name}: " if self.name else ""
        return f"{self.severity}: {where}{self.problem}" + (f"; {self.remedy}" if self.remedy else "")


class Findings(tuple[Finding, ...]):
    """All findings, the gravest first; ``print`` them for a line each."""

    __slots__ = ()

    @property
    def ok(self) -> bool:
        """Whether methods accept the network."""
        return not any(finding.severity == "error" for finding in self)

    def __str__(self) -> str:
        """A line for each finding."""
        return "\n".join(map(str, self)) or "no problems found"


def validate(model: nn.Module, *, granularity: Granularity = GRANULARITY, filter_fn: Filter | None = None) -> Findings:
    """List all that DASH and Shrink & Perturb would refuse, leave alone or do badly with; nothing is touched.

    Args:
        model: Any network.
        granularity: As for `dash_`.
        filter_fn: As for `dash_`.

    Returns:
        The findings, errors first. Empty and ``ok`` if all but norm layers would be scaled.

    Raises:
        InputError: If it is no network.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
        >>> _ = model[0].weight.requires_grad_(False)
        >>> print(ws.validate(model))
        note: 0.weight: left alone, frozen (requires_grad is False)
    """
    require_module_type(model)
    order = ("error", "warning", "note")
    found = sorted(_findings(model, granularity, filter_fn), key=lambda finding: order.index(finding.severity))
    return Findings(found)


def _findings(model: nn.Module, granularity: Granularity, filter_fn: Filter | None) -> Iterator[Finding]:
    try:
        model, _ = team_of(model)
        entries, left = neurons(model, granularity, filter_fn)
    except InputError as error:
        yield Finding("error", "", str(error))
        return
    for name, parameter in model.named_parameters():
        if not bool(local(parameter).isfinite().all()):
            yield Finding("error", name, "holds NaN or infinite weights", "restore a sound checkpoint")
        if getattr(parameter, "_post_accumulate_grad_hooks", None):
            yield Finding("error", name, "a hook acts on its gradient as it comes", "remove it before dash_")
    if not has_norm(model):
        yield Finding(
            "warning",
            "",
            "no normalisation layers: scaling each layer by s shrinks the output like s ** depth",
            "compare with a cold start before relying on it",
        )
    for remark in remarks(model, entries, left, granularity):
        yield Finding("warning" if remark.warns else "note", "", remark.sentence, remark.remedy)
    for alone in left:
        if alone.reason != "norm layer":
            yield Finding("note", alone.name, f"left alone, {alone.reason}")
    yield from _tied(model)


def _tied(model: nn.Module) -> Iterator[Finding]:
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = first.setdefault(id(parameter), name)
        if owner != name:
            yield Finding("note", name, f"shares its weights with {owner}, and is scaled once, with it")
