"""Figures for reports and READMEs: lines with bands, costs, and distributions by layer, as SVG or PNG.

They have no background, and an ink that `to_svg` turns into ``currentColor``: in a page they follow its light or dark
scheme. Series differ by colour (Okabe and Ito's, safe for the colour-blind), marker and dashes, so that they can be
told apart in grey print.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from warmstart.wording import one_line

INK = "#010203"
"""Near black on paper; replaced by the page's text colour in SVG. No other colour may equal it."""

_COLOURS = (INK, "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("solid", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))

STYLE = {
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.fonttype": "none",
    "svg.hashsalt": "warmstart",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "legend.handlelength": 3.2,
}
WIDTH = 4.9
"""Inches; an 11-point letter is then still 10 pixels high where the figure is 340 pixels wide."""
ACROSS = 3
"""Small multiples in a row."""
_PNG_DPI = 200


@dataclass(frozen=True)
class Series:
    """One line: a mean at each position, and the standard deviation around it where there is one."""

    name: str
    x: Sequence[float]
    mean: Sequence[float]
    std: Sequence[float] | None = None


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    name: str
    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Distribution:
    """How values in [0, 1] are spread in one layer."""

    name: str
    counts: Sequence[float]
    """Over equal bins of [0, 1]."""
    mean: float
    at_least: float
    """The share of values at their lowest bound, in [0, 1]."""


def lines(series: Sequence[Series], *, x_label: str, y_label: str) -> Figure:
    """Draw a line for each series over positions from 1, such as stages, with a band of one standard deviation."""
    with mpl.rc_context(STYLE):
        figure, axes = _frame(series, x_label, y_label)
        last = int(max((x for line in series for x in line.x), default=1))
        step = next(step for step in (1, 2, 5, 10, 20, 50, 100, last) if last <= 10 * step)
        axes.set_xticks(sorted({1, *range(step, last + 1, step)}))
        return figure


def small_multiples(panels: Sequence[tuple[str, Sequence[Series]]], *, x_label: str) -> Figure:
    """Draw a small plot for each panel, three side by side, each named above; they share the legend."""
    with mpl.rc_context(STYLE):
        rows = math.ceil(len(panels) / ACROSS)
        names = [line.name for line in panels[0][1]]
        figure = Figure(figsize=(WIDTH, 1.5 * rows + 0.25 + 0.2 * math.ceil(len(names) / 2)), layout="constrained")
        every = figure.subplots(rows, ACROSS, squeeze=False).flatten()
        for axes, (name, series) in zip(every, panels, strict=False):
            for index, line in enumerate(series):
                draw_series(axes, line, index, crowded=len(series) > 6)
            axes.set_title(_shown(name).replace("[", "\n["), fontsize="small", loc="left")
            axes.tick_params(labelsize="x-small")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
            axes.grid(color=INK, alpha=0.12, linewidth=0.8)
        for axes in every[len(panels) :]:
            axes.set_axis_off()
        figure.supxlabel(_shown(x_label), fontsize="small")
        figure.legend(*every[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
        return figure


def cost_lines(series: Sequence[Series], *, x_label: str, y_label: str) -> Figure:
    """Draw a line for each series over its cost, which is positive, on a logarithmic axis if the range is wide."""
    with mpl.rc_context(STYLE):
        figure, axes = _frame(series, x_label, y_label)
        costs = [x for line in series for x in line.x if x > 0]
        if costs and max(costs) > 30 * min(costs):
            axes.set_xscale("log")
            subs = (1, 2, 5) if max(costs) < 200 * min(costs) else (1, 3)
            axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=9))
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        return figure


def intervals(rows: Sequence[Interval], *, x_label: str, limit: float = 0.0) -> Figure:
    """Draw estimates with their intervals, first on top, a line at 0, and a dashed one at ``limit`` unless it is 0."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.85 + 0.32 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        places = range(len(rows))
        axes.axvline(0, color=INK, linewidth=0.8)
        if limit:
            axes.axvline(limit, color=INK, linewidth=0.8, linestyle="dashed")
        middles = [row.middle for row in rows]
        reach = [[row.middle - row.low for row in rows], [row.high - row.middle for row in rows]]
        axes.errorbar(middles, places, xerr=reach, fmt="o", color="#3D8FD1", linewidth=2.2, capsize=4, markersize=6)
        names = [_shown(row.name) for row in rows]
        axes.set_yticks(places, [name.replace("[", "\n[") if len(name) > 20 else name for name in names])
        axes.tick_params(axis="y", length=0, labelsize=10)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(_shown(x_label))
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.8)
        return figure


def layer_strips(layers: Sequence[Distribution], *, x_label: str, at_least_label: str) -> Figure:
    """Draw each layer's distribution as a strip, first on top, darker where more values are, beside its `at_least`."""
    with mpl.rc_context({**STYLE, "font.size": 10}):
        row, margin = 0.2, 0.95
        figure = Figure(figsize=(WIDTH, row * len(layers) + margin), layout="constrained")
        axes = figure.add_subplot()
        _strips(axes, layers)
        axes.set_xlim(0, 1)
        axes.set_ylim(len(layers) - 0.5, -0.5)
        axes.set_yticks(range(len(layers)), [_shown(layer.name) for layer in layers], fontsize=8.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(x_label)
        axes.spines["left"].set_visible(False)
        shares = axes.secondary_yaxis("right")
        shares.set_yticks(range(len(layers)), [f"{layer.at_least:.0%}" for layer in layers], fontsize=8.5)
        shares.tick_params(length=0)
        shares.spines["right"].set_visible(False)
        axes.set_title(at_least_label, loc="right", fontsize=9)
        return figure


def to_svg(figure: Figure, *, name: str, description: str) -> str:
    """Return a figure as an ``<svg>`` element to be put into a page, its text as text and in the page's colour.

    Every id in it starts with ``name``, which must be unique in the page; ``description`` is its alternative text.
    """
    file = io.StringIO()
    with _drawing():
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(file, metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 sans-serif", text)
    text = text.replace(INK, "currentColor")
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None  # matplotlib writes it
    return (
        f'<svg class="figure" {box[0]} role="img" aria-label="{escape(one_line(description))}" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">' + text[text.index(">") + 1 :]
    )


def to_png(figure: Figure) -> bytes:
    """Draw a figure as a PNG on white, for places that show no SVG."""
    content = io.BytesIO()
    with _drawing():
        figure.set_dpi(_PNG_DPI)
        figure.set_facecolor("white")
        FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()


@contextmanager
def _drawing() -> Iterator[None]:
    """Draw in our style; a character that the font lacks is a box, of which nobody need be told."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _shown(name: str) -> str:
    # Matplotlib leaves what begins with an underscore out of legends.
    return f" {one_line(name)}" if name.startswith("_") else one_line(name)


def _frame(series: Sequence[Series], x_label: str, y_label: str) -> tuple[Figure, Axes]:
    # The legend is below the axes: beside them it would leave a phone no room.
    columns = 2 if max((len(line.name) for line in series), default=0) <= 18 and len(series) > 1 else 1
    legend_rows = math.ceil(len(series) / columns)
    figure = Figure(figsize=(WIDTH, 3.1 + 0.2 * legend_rows), layout="constrained")
    axes = figure.add_subplot()
    for index, line in enumerate(series):
        draw_series(axes, line, index, crowded=len(series) > 6)
    axes.set_xlabel(_shown(x_label))
    axes.set_ylabel(_shown(y_label))
    axes.grid(color=INK, alpha=0.12, linewidth=0.8)
    axes.set_axisbelow(True)
    if series:
        figure.legend(loc="outside lower left", ncols=columns)
    return figure, axes


def draw_series(axes: Axes, line: Series, index: int, *, crowded: bool) -> None:
    """Draw a line with its band; colour, dashes and marker follow from its place ``index`` in the legend."""
    colour = _COLOURS[index % len(_COLOURS)]
    mean = np.asarray(line.mean, dtype=float)
    axes.plot(
        line.x,
        mean,
        label=_shown(line.name),
        color=colour,
        linestyle=_DASHES[(index // len(_COLOURS) + index) % len(_DASHES)],
        linewidth=1.7,
        marker=_MARKERS[index % len(_MARKERS)],
        markersize=5,
        markerfacecolor=colour if index < len(_COLOURS) else "none",
        # Markers at every tenth of the line, shifted so that series do not hide one another.
        markevery=(index % max(1, len(mean) // 10), max(1, len(mean) // 10)),
    )
    if line.std is not None:
        std = np.asarray(line.std, dtype=float)
        axes.fill_between(line.x, mean - std, mean + std, color=colour, alpha=0.07 if crowded else 0.16, linewidth=0)


def _strips(axes: Axes, layers: Sequence[Distribution]) -> None:
    # Rectangles rather than an image: sharp at every size, and transparent, for light and dark pages.
    for index, layer in enumerate(layers):
        counts = np.asarray(layer.counts, dtype=float)
        share = counts / max(1.0, counts.sum())
        width = 1 / len(counts)
        axes.add_patch(Rectangle((0, index - 0.4), 1, 0.8, facecolor=INK, alpha=0.05, linewidth=0))
        boxes = [Rectangle((bin_ * width, index - 0.4), width, 0.8) for bin_ in np.flatnonzero(counts)]
        # The square root keeps a bin with one value in a hundred visible beside the peak at the bound.
        axes.add_collection(PatchCollection(boxes, facecolor=INK, alpha=np.sqrt(share[counts > 0]), linewidth=0))
    means = [layer.mean for layer in layers]
    axes.scatter(means, range(len(layers)), marker="D", s=16, color="#E69F00", edgecolor=INK, linewidth=0.6, zorder=3)


def _thousands(value: float, _position: int | None = None) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e4 else f"{value:g}"
