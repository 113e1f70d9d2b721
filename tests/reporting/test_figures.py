import re
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from warmstart.reporting import figures
from warmstart.reporting.figures import Distribution, Interval, Series
from warmstart.reporting.panels import Panel, panels

SERIES = [Series(name, range(1, 7), [50 + i, 55, 60, 65, 70, 75], [1.0] * 6) for i, name in enumerate("abc")]


def by_stage():
    return figures.lines(SERIES, x_label="stage", y_label="accuracy")


def svg(figure, name="one"):
    text = figures.to_svg(figure, name=name, description='a "figure" of <things>')
    return text, ElementTree.fromstring(text)


def texts(root):
    return ["".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_text_stays_text_and_the_ink_is_the_pages():
    text, root = svg(by_stage())
    assert {"a", "b", "c", "stage", "accuracy", "1", "6"} <= set(texts(root))
    assert "currentColor" in text
    assert "#010203" not in text
    assert "#000000" not in text
    assert "#ffffff" not in text
    assert root.get("aria-label") == 'a "figure" of <things>'


def test_two_figures_in_one_page_share_no_id_and_refer_to_their_own():
    (one, _), (two, _) = svg(by_stage(), "one"), svg(by_stage(), "two")
    ids = [set(re.findall(r'\sid="([^"]*)"', text)) for text in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for text, known in zip((one, two), ids, strict=True):
        assert set(re.findall(r'(?:url\(#|href="#)([^")]*)', text)) <= known


def test_the_same_figure_is_written_the_same():
    assert svg(by_stage())[0] == svg(by_stage())[0]


def test_series_differ_in_more_than_colour():
    axes = figures.lines([Series(str(i), [1, 2], [i, i]) for i in range(12)], x_label="stage", y_label="accuracy").axes[
        0
    ]
    styles = {(str(line.get_linestyle()), line.get_marker(), line.get_markerfacecolor()) for line in axes.lines}
    assert len(styles) == 12
    grey = {(line.get_marker(), line.get_markerfacecolor() == "none") for line in axes.lines}
    assert len(grey) == 12


@pytest.mark.parametrize(
    ("stages", "ticks"), [(1, [1]), (6, [1, 2, 3, 4, 5, 6]), (50, [1, 5, 10]), (260, [1, 50, 100])]
)
def test_stages_are_counted_from_one(stages, ticks):
    figure = figures.lines([Series("a", range(1, stages + 1), [0.5] * stages)], x_label="stage", y_label="accuracy")
    assert list(figure.axes[0].get_xticks())[:6][: len(ticks)] == ticks


def test_the_cost_axis_is_logarithmic_only_where_the_range_asks_for_it():
    def scale(costs):
        series = [Series("a", costs, [0.5] * len(costs))]
        return figures.cost_lines(series, x_label="steps", y_label="accuracy").axes[0].get_xscale()

    assert scale([100, 200, 1000]) == "linear"
    assert scale([100, 200, 10_000]) == "log"


def test_intervals_show_each_name_and_the_line_of_the_margin():
    rows = [Interval("warm", -4.2, -2.2, -0.3), Interval("dash", 1.2, 3.5, 5.8)]
    figure = figures.intervals(rows, x_label="points", limit=-1.0)
    assert {"warm", "dash", "points"} <= set(texts(svg(figure)[1]))
    assert [line.get_xdata()[0] for line in figure.axes[0].lines[:2]] == [0, -1.0]
    ends = [segment[:, 0].tolist() for segment in figure.axes[0].collections[0].get_segments()]
    assert ends == [pytest.approx([-4.2, -0.3]), pytest.approx([1.2, 5.8])]


def test_every_layer_has_its_strip_name_and_share():
    layers = [Distribution(f"layer{i}.conv", [0] * 6 + [60] + [i] * 13, 0.4, 0.6 + i / 1000) for i in range(60)]
    figure = figures.layer_strips(layers, x_label="scale", at_least_label="share at 0.3")
    _, root = svg(figure)
    found = texts(root)
    assert {layer.name for layer in layers} <= set(found)
    assert sum(text in ("60%", "61%", "62%", "63%", "64%", "65%", "66%") for text in found) == 60
    assert figure.get_figheight() > 60 * 0.15


ODD = [
    "$x$ & $\\frac{",
    "a_b^c",
    "_hidden",
    "<script>alert(1)</script>",
    "q\"uo'te",
    "a\x1b[0m\nb",
    "\udcff\0",
    "猫 🐈",
    "",
    "\\",
]


def test_names_are_text_and_nothing_else():
    """Not mathematics, not elements, not reasons to warn (which are errors in these tests)."""
    series = [Series(name, [1, 2], [i, i], [1.0, 1.0]) for i, name in enumerate(ODD)]
    drawn = [
        figures.lines(series, x_label="$x", y_label="$y"),
        figures.cost_lines(series, x_label="$x", y_label="$y"),
        figures.intervals([Interval(name, 0, 1, 2) for name in ODD], x_label="$x"),
        figures.layer_strips([Distribution(name, [1, 2], 0.5, 0.5) for name in ODD], x_label="x", at_least_label="$"),
        panels([Panel("$t", series)], x_label="$x"),
    ]
    for figure in drawn:
        text, root = svg(figure)
        assert {"$x$ & $\\frac{", "a_b^c", "_hidden", "<script>alert(1)</script>", r"a\x1b[0m b", r"\udcff\x00"} <= {
            name.strip() for name in texts(root)
        }
        assert text.encode()
        assert "<script" not in text
        figures.to_png(figure)


def test_png_is_on_white(tmp_path):
    (tmp_path / "figure.png").write_bytes(figures.to_png(by_stage()))
    with Image.open(tmp_path / "figure.png") as image:
        assert image.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
        assert image.width == 980
