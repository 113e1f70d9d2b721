"""What a method did to a network: by layer what was changed, what was left alone and why."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from warmstart.layers.left_alone import LeftAlone
from warmstart.layers.neurons import Neurons
from warmstart.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 20
"""Bins of the histograms of scales, of equal width over [0, 1]."""

SHRINKS_SIGNAL = "no normalisation layers, so each layer shrinks the signal too"
"""A warning of all methods that shrink."""

WIDTH = 80
"""Columns of the printed report."""


@dataclass(frozen=True)
class LayerReport(ABC):
    """What a method did to one parameter."""

    name: str
    kind: str
    """The layer's type, such as ``Conv2d``."""

    @abstractmethod
    def cells(self) -> dict[str, str]:
        """The method's own columns of the table: title -> text of the cell."""


@dataclass(frozen=True)
class ScaleReport(LayerReport):
    """The scales that one parameter's neurons got."""

    neurons: int
    mean: float
    """Mean scale over the neurons."""
    std: float
    """Standard deviation of the scales."""
    at_lambda: float
    """Share of the neurons whose scale is the lower bound."""
    sign_tests: int = 0
    """Neurons of one weight, whose cosine can only be -1, 0 or 1."""
    weights: int = 0
    """Weights in all of them."""
    undetermined: int = 0
    """Neurons whose gradient is within the error that leaving out old batches may cause."""
    histogram: tuple[int, ...] = ()
    """Neurons by scale, in `BINS` equal bins over [0, 1]."""

    def cells(self) -> dict[str, str]:
        """Mean and spread of the scales, and the share at their lower bound."""
        return {
            "neurons": f"{self.neurons:,}",
            "scale": f"{self.mean:.3f}",
            "std": f"{self.std:.3f}",
            "at min": f"{self.at_lambda:.1%}",
        }


@dataclass(frozen=True)
class NumbersReport(LayerReport):
    """The numbers of a method that does not scale."""

    numbers: dict[str, float] = field(hash=False)
    """By the title of their column."""

    def cells(self) -> dict[str, str]:
        """One column a number."""
        return {
            title: f"{number:,}" if isinstance(number, int) else f"{number:.3g}"
            for title, number in self.numbers.items()
        }


@dataclass(frozen=True)
class Report:
    """What a method did; ``print`` it for a table."""

    method: str
    settings: dict[str, Any] = field(default_factory=dict, hash=False)
    layers: tuple[LayerReport, ...] = ()
    """What was changed: `ScaleReport` where the method scales, else `NumbersReport`."""
    left_alone: tuple[LeftAlone, ...] = ()
    notes: tuple[str, ...] = ()
    """One sentence each: what the average saw, what became of the optimizer."""
    warnings: tuple[str, ...] = ()
    """One sentence each: what speaks against trusting the outcome, and what helps."""
    applied: bool = True
    weights: int = 0
    """Of the whole network; 0 where the method does not scale."""

    @property
    def scales(self) -> tuple[ScaleReport, ...]:
        """The parameters whose neurons were scaled."""
        return tuple(layer for layer in self.layers if isinstance(layer, ScaleReport))

    @property
    def share_scaled(self) -> str:
        """Such as ``scaled 90 of 120 weights (75.0 %)``; empty where the method does not scale."""
        if not self.weights or not self.scales:
            return ""
        scaled, did = sum(layer.weights for layer in self.scales), "scaled" if self.applied else "would scale"
        return f"{did} {scaled:,} of {self.weights:,} weights ({scaled / self.weights:.1%})"

    def with_notes(self, *notes: str) -> Report:
        """The same report with more notes.

        Args:
            notes: One sentence each.

        Returns:
            A new report.
        """
        return replace(self, notes=(*self.notes, *notes))

    def with_warnings(self, *warnings: str) -> Report:
        """The same report with more warnings.

        Args:
            warnings: One sentence each.

        Returns:
            A new report.
        """
        return replace(self, warnings=(*self.warnings, *warnings))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain numbers, strings and lists, for loggers, JSON and checkpoints.

        Returns:
            A dictionary with the fields of the report; layers and parameters left alone as dictionaries.
        """
        return asdict(self, dict_factory=_plain)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Report:
        """A report from its plain form, the inverse of `to_dict`.

        Args:
            fields: What `to_dict` gave, also by way of JSON.

        Returns:
            An equal report.
        """
        layers = tuple(
            NumbersReport(**layer)
            if "numbers" in layer
            else ScaleReport(**{**layer, "histogram": tuple(layer["histogram"])})
            for layer in fields["layers"]
        )
        left = tuple(LeftAlone(**entry) for entry in fields["left_alone"])
        sentences = {name: tuple(fields[name]) for name in ("notes", "warnings")}
        return cls(**{**fields, "layers": layers, "left_alone": left, **sentences})

    def __repr__(self) -> str:
        """One line, which a notebook shows."""
        did = self.share_scaled or ("applied" if self.applied else "not applied")
        warned = f", {counted(len(self.warnings), 'warning')}" if self.warnings else ""
        return f"<Report of {self.method}: {did}{warned}>"

    def __str__(self) -> str:
        """A table of at most 80 columns."""
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        lines = _wrap(f"{self.method}({settings})" + ("" if self.applied else ", not applied"))
        lines += _table(self.layers)
        if self.share_scaled:
            lines.append(self.share_scaled)
        if unsure := sum(layer.undetermined for layer in self.scales):
            lines.append(f"{counted(unsure, 'neuron')} undetermined by the tail that was read: tolerance=0 decides")
        by_reason: dict[str, list[str]] = {}
        for left in self.left_alone:
            by_reason.setdefault(left.reason, []).append(left.name)
        for reason, names in by_reason.items():
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            lines += _wrap(f"left alone, {reason}: {shown}")
        for sentence in (*self.notes, *(f"warning: {warning}" for warning in self.warnings)):
            lines += _wrap(sentence)
        return "\n".join(lines)

    def figure(self, path: str | None = None) -> Figure:
        """Draw the distribution of scales, a row for each layer.

        Args:
            path: Where to save it as well; the ending gives the format.

        Returns:
            The matplotlib figure: darker means that more of the layer's neurons have that scale.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If the report has no scales to draw.
        """
        layers = [layer for layer in self.scales if layer.histogram]
        if not layers:
            raise ValueError(f"the report of {self.method} has no distribution of scales to draw")
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError("figures need matplotlib: pip install 'warmstart[lab]'") from None
        figure = Figure(figsize=(6.4, 1.2 + 0.24 * len(layers)), layout="constrained")
        axes = figure.subplots()
        shares = [[count / max(1, layer.neurons) for count in layer.histogram] for layer in layers]
        image = axes.imshow(shares, aspect="auto", cmap="Blues", vmin=0, vmax=1, extent=(0, 1, len(layers) - 0.5, -0.5))
        axes.set_yticks(range(len(layers)), [layer.name for layer in layers], fontsize=8)
        axes.set_xlabel("scale")
        figure.colorbar(image, ax=axes, label="share of the layer's neurons")
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure


def count_scales(scale: Tensor, lower: float, undetermined: Tensor) -> Tensor:
    """Sum up the scales of one parameter's neurons; the sums of several processes add up.

    ``lower`` is the scales' lower bound lambda, ``undetermined`` the number of neurons that the tail leaves undecided.

    Returns:
        float64: how many, their sum and sum of squares, how many at the bound, undetermined ones, the histogram.
    """
    if scale.is_mps:  # which has no float64
        scale, undetermined = scale.cpu(), undetermined.cpu()
    flat = scale.detach().double().flatten()
    at_bound = (scale.flatten() <= lower).sum()
    bins = (flat * BINS).long().clamp(0, BINS - 1)
    histogram = torch.zeros(BINS, dtype=torch.float64, device=flat.device).index_add_(0, bins, torch.ones_like(flat))
    sums = [flat.new_tensor(flat.numel()), flat.sum(), flat.square().sum(), at_bound.double(), undetermined.double()]
    return torch.cat([torch.stack(sums), histogram])


def describe_scales(entry: Neurons, counts: Tensor) -> ScaleReport:
    """The scales of one parameter in numbers, from `count_scales`."""
    neurons, total, squares, at_bound, undetermined, *histogram = counts.tolist()
    mean = total / neurons
    return ScaleReport(
        name=entry.name,
        kind=entry.kind,
        neurons=int(neurons),
        mean=mean,
        std=max(0.0, squares / neurons - mean * mean) ** 0.5,
        at_lambda=at_bound / neurons,
        sign_tests=int(neurons) if entry.size == 1 else 0,
        weights=entry.parameter.numel(),
        undetermined=int(undetermined),
        histogram=tuple(int(count) for count in histogram),
    )


def uniform(entries: Iterable[Neurons], scale: float) -> tuple[ScaleReport, ...]:
    """A row for each parameter, all of whose neurons got the same scale."""
    return tuple(
        ScaleReport(entry.name, entry.kind, entry.count, scale, 0.0, 0.0, weights=entry.parameter.numel())
        for entry in entries
    )


def _table(layers: Sequence[LayerReport]) -> list[str]:
    """A row for each parameter, below the titles; a name that is too long is cut at its beginning."""
    if not layers:
        return []
    found = [layer.cells() for layer in layers]
    titles = list(dict.fromkeys(title for cells in found for title in cells))
    rows = [["layer", *titles]]
    rows += [
        [_shorten(layer.kind, 11), *(cells.get(title, "") for title in titles)]
        for layer, cells in zip(layers, found, strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = max(9, WIDTH - sum(width + 2 for width in widths))
    names = ["parameter", *(_shorten(layer.name, room) for layer in layers)]
    longest = max(map(len, names))
    return [
        f"{name:<{longest}}  {kind:<{widths[0]}}"
        + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)).rstrip()
        for name, (kind, *cells) in zip(names, rows, strict=True)
    ]


def _plain(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: _plain_value(value) for name, value in fields}


def _plain_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain_value(entry) for name, entry in value.items()}
    return list(value) if isinstance(value, tuple) else plain_number(value)


def plain_number(value: Any) -> Any:
    """A number of any type, NumPy's say, as Python's own, which every file takes; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[-(width - 1) :]


def _wrap(text: str) -> list[str]:
    from textwrap import wrap

    return wrap(text, WIDTH, subsequent_indent="  ")
