"""Several sets of lines under one legend, for a page of print or a README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from warmstart.reporting.figures import INK, STYLE, Series, draw_series

_PANEL = (3.5, 3.0)
"""Inches, width and height."""


@dataclass(frozen=True)
class Panel:
    """One set of axes; every panel of a figure has the same series, in the same order."""

    title: str
    series: Sequence[Series]


def panels(row: Sequence[Panel], *, x_label: str) -> Figure:
    """Draw panels side by side, four in two rows, with one legend: one line a series, with a band of one std."""
    columns = 2 if len(row) == 4 else len(row)
    rows = -(-len(row) // columns)
    width, height = _PANEL
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        for number, panel in enumerate(row):
            axes = figure.add_subplot(rows, columns, number + 1)
            for index, line in enumerate(panel.series):
                draw_series(axes, line, index, crowded=False)
            axes.set_title(panel.title, fontsize=11)
            axes.set_xlabel(x_label)
            axes.set_xlim(left=0.5)  # stages count from 1
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
            axes.grid(color=INK, alpha=0.12, linewidth=0.8)
            axes.set_axisbelow(True)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)))
        return figure
