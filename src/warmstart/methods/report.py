"""What a method did to a network: by layer what was changed, what was left alone and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from warmstart.neurons import LeftAlone, Neurons

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 20
"""Bins of the histograms of scales, of equal width over [0, 1]."""


@dataclass(frozen=True)
class LayerReport:
    """The scales that one parameter's neurons got."""

    name: str
    kind: str
    """The layer's type, such as ``Conv2d``."""
    neurons: int
    mean: float
    """Mean scale over the neurons."""
    std: float
    """Standard deviation of the scales."""
    at_lambda: float
    """Share of the neurons whose scale is the lower bound."""
    sign_tests: int = 0
    """Neurons of one weight, whose cosine can only be -1, 0 or 1."""
    undetermined: int = 0
    """Neurons whose gradient is within the error that leaving out old batches may cause."""
    histogram: tuple[int, ...] = ()
    """Neurons by scale, in `BINS` equal bins over [0, 1]."""


@dataclass(frozen=True)
class Report:
    """What a method did; ``print`` it for a table."""

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    layers: tuple[LayerReport, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    notes: tuple[str, ...] = ()
    """One sentence each: what the average saw, what became of the optimizer, warnings."""
    applied: bool = True

    def with_notes(self, *notes: str) -> Report:
        """The same report with more notes.

        Args:
            notes: One sentence each.

        Returns:
            A new report.
        """
        return replace(self, notes=(*self.notes, *notes))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain numbers, strings and lists, for loggers and JSON.

        Returns:
            A dictionary with the fields of the report; layers and parameters left alone as dictionaries.
        """
        return {
            "method": self.method,
            "settings": dict(self.settings),
            "applied": self.applied,
            "layers": [{**vars(layer), "histogram": list(layer.histogram)} for layer in self.layers],
            "left_alone": [vars(entry) for entry in self.left_alone],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """A table of at most 80 columns."""
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        lines = _wrap(f"{self.method}({settings})" + ("" if self.applied else ", not applied"))
        if self.layers:
            lines.append(f"{'parameter':<33}{'layer':<12}{'neurons':>11}{'scale':>7}{'std':>7}{'at min':>8}")
        for layer in self.layers:
            lines.append(
                f"{_shorten(layer.name, 32):<33}{_shorten(layer.kind, 11):<12}{layer.neurons:>11,}"
                f"{layer.mean:>7.3f}{layer.std:>7.3f}{layer.at_lambda:>8.1%}"
            )
        signs, unsure = (sum(getattr(entry, key) for entry in self.layers) for key in ("sign_tests", "undetermined"))
        if signs:
            lines.append(f"{signs:,} neurons of one weight: their cosine is only a sign")
        if unsure:
            lines.append(f"{unsure:,} neurons undetermined by the tail that was read: tolerance=0 decides them")
        by_reason: dict[str, list[str]] = {}
        for left in self.left_alone:
            by_reason.setdefault(left.reason, []).append(left.name)
        for reason, names in by_reason.items():
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            lines += _wrap(f"left alone, {reason}: {shown}")
        for note in self.notes:
            lines += _wrap(note)
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
        layers = [layer for layer in self.layers if layer.histogram]
        if not layers:
            raise ValueError(f"the report of {self.method} has no distribution of scales to draw")
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError("figures need matplotlib: pip install 'warmstart[lab]'") from None
        figure = Figure(figsize=(6.4, 1.2 + 0.24 * len(layers)), layout="constrained")
        axes = figure.subplots()
        shares = [[count / max(1, layer.neurons) for count in layer.histogram] for layer in layers]
        image = axes.imshow(
            shares, aspect="auto", cmap="cividis_r", vmin=0, vmax=1, extent=(0, 1, len(layers) - 0.5, -0.5)
        )
        axes.set_yticks(range(len(layers)), [layer.name for layer in layers], fontsize=8)
        axes.set_xlabel("scale")
        figure.colorbar(image, ax=axes, label="share of the layer's neurons")
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure


def count_scales(scale: Tensor, lower: float, undetermined: Tensor) -> Tensor:
    """Sum up the scales of one parameter's neurons; the sums of several processes add up.

    Args:
        scale: The scales, any shape.
        lower: The lower bound of the scales, lambda.
        undetermined: How many neurons the tail does not determine.

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


def describe_scales(entry: Neurons, counts: Tensor) -> LayerReport:
    """Summarise the scales of one parameter.

    Args:
        entry: The parameter.
        counts: From `count_scales`.

    Returns:
        Counts, mean, spread and histogram.
    """
    neurons, total, squares, at_bound, undetermined, *histogram = counts.tolist()
    mean = total / neurons
    return LayerReport(
        name=entry.name,
        kind=entry.kind,
        neurons=int(neurons),
        mean=mean,
        std=max(0.0, squares / neurons - mean * mean) ** 0.5,
        at_lambda=at_bound / neurons,
        sign_tests=int(neurons) if entry.size == 1 else 0,
        undetermined=int(undetermined),
        histogram=tuple(int(count) for count in histogram),
    )


def uniform(entries: Iterable[Neurons], scale: float) -> tuple[LayerReport, ...]:
    """Report that every neuron got the same scale.

    Args:
        entries: The parameters.
        scale: Their factor.

    Returns:
        One row a parameter.
    """
    return tuple(LayerReport(entry.name, entry.kind, entry.count, scale, 0.0, 0.0) for entry in entries)


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[-(width - 1) :]


def _wrap(text: str) -> list[str]:
    from textwrap import wrap

    return wrap(text, 80, subsequent_indent="  ")
