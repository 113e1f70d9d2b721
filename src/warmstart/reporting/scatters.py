"""Small scatter plots side by side, on common axes: one point a trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from warmstart.reporting.figures import ACROSS, INK, STYLE, WIDTH
from warmstart.wording import one_line

_CHOSEN = "#D55E00"


@dataclass(frozen=True)
class Scatter:
    """The points of one plot."""

    title: str
    x: Sequence[float]
    y: Sequence[float]
    chosen: int | None
    """Which point is filled."""
    given: int | None
    """Which is a cross."""


def scatters(plots: Sequence[Scatter], *, x_label: str, y_label: str) -> Figure:
    """Draw the plots three in a row, x on a logarithmic axis."""
    with mpl.rc_context(STYLE):
        rows = math.ceil(len(plots) / ACROSS)
        figure = Figure(figsize=(WIDTH, 1.6 * rows + 0.4), layout="constrained")
        every = figure.subplots(rows, ACROSS, squeeze=False, sharex=True, sharey=True).flatten()
        for axes, plot in zip(every, plots, strict=False):
            for place, (x, y) in enumerate(zip(plot.x, plot.y, strict=True)):
                ink, filled = (_CHOSEN, _CHOSEN) if place == plot.chosen else (INK, "none")
                marker = "X" if place == plot.given else "o"
                axes.plot([x], [y], marker=marker, markersize=5, linestyle="none", color=ink, markerfacecolor=filled)
            axes.set_xscale("log")
            axes.set_title(one_line(plot.title).replace("[", "\n["), fontsize="small", loc="left")
            axes.tick_params(labelsize="x-small", which="both")
            axes.xaxis.set_major_locator(LogLocator(numticks=5))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
            axes.grid(color=INK, alpha=0.12, linewidth=0.8)
        for axes in every[len(plots) :]:
            axes.set_axis_off()
        figure.supxlabel(x_label, fontsize="small")
        figure.supylabel(y_label, fontsize="small")
        return figure
