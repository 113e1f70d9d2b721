import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import warmstart as ws
from warmstart import Report
from warmstart.layers.left_alone import LeftAlone
from warmstart.layers.neurons import Neurons
from warmstart.methods.report import BINS, NumbersReport, ScaleReport, count_scales, describe_scales

ENTRY = Neurons("layer.weight", "Linear", nn.Parameter(torch.ones(4, 3)), (1,))


def described(scales, lambda_):
    return describe_scales(ENTRY, count_scales(scales, lambda_, torch.tensor(0)))


def test_scales_are_summed_up_as_mean_spread_and_share_at_lambda():
    layer = described(torch.tensor([[0.3], [0.3], [0.5], [1.0]]), 0.3)
    assert (layer.name, layer.kind, layer.neurons) == ("layer.weight", "Linear", 4)
    assert layer.mean == pytest.approx(0.525)
    assert layer.std == pytest.approx(math.sqrt((2 * 0.225**2 + 0.025**2 + 0.475**2) / 4))
    assert layer.at_lambda == 0.5


def test_the_histogram_counts_every_neuron_both_ends_included():
    scales = torch.tensor([0.0, 0.049, 0.051, 0.5, 0.999, 1.0])
    layer = described(scales, 0.0)
    assert len(layer.histogram) == BINS
    assert sum(layer.histogram) == 6
    assert (layer.histogram[0], layer.histogram[1], layer.histogram[-1]) == (2, 1, 2)


def test_a_scale_at_lambda_counts_as_such_whatever_lambda_rounds_to():
    for lambda_ in (0.05, 0.1, 0.3, 0.7, 1 / 3):
        scales = torch.clamp(torch.tensor([-1.0, 0.2, 0.9]), lambda_, 1.0)
        assert described(scales, lambda_).at_lambda == (scales == scales[0]).float().mean(), lambda_


def test_it_fits_80_columns_with_long_names_and_many_neurons():
    deep = "module.backbone.layers.11.attention.self.query.projection.weight"
    report = Report(
        "head-reset",
        {"head": deep * 2, "alpha": 0.3},
        (ScaleReport(deep, "NonDynamicallyQuantizableLinear", 16_777_216, 1.0, 0.5, 1.0, sign_tests=16_777_216),),
        tuple(LeftAlone(f"{deep}.{i}", "frozen (requires_grad is False)") for i in range(5)),
        ("a note that is longer than eighty columns and therefore has to go on in a line of its own below",),
    )
    text = str(report)
    assert max(map(len, text.splitlines())) <= 80, text
    assert "16,777,216" in text
    assert "and 2 more" in text
    assert "projection.weight" in text, "the end of a name says more than its beginning"


def test_columns_stand_below_their_titles():
    report = Report("dash", layers=(ScaleReport("a.weight", "Linear", 5, 0.5, 0.25, 0.125),))
    titles, row = str(report).splitlines()[1:3]
    assert len(titles) == len(row)
    for title, value in (("neurons", "5"), ("scale", "0.500"), ("std", "0.250"), ("at min", "12.5%")):
        assert titles.index(title) + len(title) == row.index(value) + len(value), title


def test_it_says_when_nothing_was_applied():
    assert "not applied" in str(Report("dash", applied=False)).splitlines()[0]
    assert "not applied" not in str(Report("dash"))


def test_numbers_that_are_no_scales_have_columns_of_their_own():
    rows = (
        NumbersReport("a.weight", "Linear", {"matrices": 1200, "norm ratio": 0.51234}),
        NumbersReport("b.weight", "Linear", {"matrices": 1, "deviation": 1.2e-5}),
    )
    assert str(Report("fire", layers=rows)).splitlines()[1:] == [
        "parameter  layer   matrices  norm ratio  deviation",
        "a.weight   Linear     1,200       0.512",
        "b.weight   Linear         1                1.2e-05",
    ]


def test_it_survives_json():
    layers = (described(torch.rand(4, 1), 0.3), NumbersReport("b.weight", "Conv2d", {"iterations": 3, "ratio": 0.1}))
    left = (LeftAlone("norm.weight", "norm layer"),)
    report = Report("dash", {"alpha": 0.3, "head": None}, layers, left, ("a note",), applied=False)
    data = json.loads(json.dumps(report.to_dict()))
    assert data == report.to_dict(), "plain lists, numbers and strings to begin with"
    assert Report.from_dict(data) == report
    assert data["left_alone"] == [{"name": "norm.weight", "reason": "norm layer"}]
    assert data["layers"][0]["histogram"] == list(layers[0].histogram)
    assert data["layers"][1] == {"name": "b.weight", "kind": "Conv2d", "numbers": {"iterations": 3, "ratio": 0.1}}
    assert data["settings"] == {"alpha": 0.3, "head": None}
    assert data["notes"] == ["a note"]


def test_notes_are_added_to_a_new_report():
    report = Report("dash", notes=("one",))
    assert report.with_notes("two").notes == ("one", "two")
    assert report.notes == ("one",)


def test_there_is_no_figure_without_a_distribution():
    with pytest.raises(ValueError, match="no distribution of scales"):
        Report("warm").figure()


def test_the_figure_has_a_labelled_row_for_each_layer(tmp_path):
    layers = tuple(described(torch.rand(4, 1), 0.3) for _ in range(3))
    figure = Report("dash", layers=layers).figure(str(tmp_path / "scales.svg"))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["layer.weight"] * 3
    assert (tmp_path / "scales.svg").stat().st_size > 0


def test_where_no_neuron_is_the_figure_is_white():
    image = Report("dash", layers=(described(torch.full((4, 1), 0.5), 0.3),)).figure().axes[0].images[0]
    nothing, everything = (image.cmap(image.norm(share)) for share in (0, 1))
    assert min(nothing[:3]) > 0.95
    assert max(everything[:2]) < 0.3


def test_it_is_one_line_where_it_is_not_printed():
    report = ws.shrink_perturb_(torch.nn.Linear(3, 2), shrink=0.5, noise_std=0)
    assert repr(report) == "<Report of shrink-perturb: scaled 8 of 8 weights (100.0%), 1 warning>"
    assert repr(ws.warm_(torch.nn.Linear(3, 2))) == "<Report of warm: applied>"


def test_equal_reports_have_one_hash():
    one, other = (ws.shrink_perturb_(torch.nn.Linear(3, 2), shrink=0.5, noise_std=0) for _ in range(2))
    assert one == other
    assert len({one, other}) == 1
    hash(ws.fire_(torch.nn.Linear(3, 2)))


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_numbers_of_numpy_are_saved_as_pythons_own(kind):
    half, model = kind(0.5), torch.nn.Linear(3, 2)
    told = ws.shrink_perturb_(model, shrink=half, noise_std=0).to_dict()
    assert {type(told["settings"]["shrink"]), type(told["layers"][0]["mean"])} == {float}
    method = ws.Dash(alpha=half, batch_size=np.int64(8))
    assert {name: type(value) for name, value in method.settings().items() if name in ("alpha", "batch_size")} == {
        "alpha": float,
        "batch_size": int,
    }
    assert str(method) == "dash[alpha=0.5,batch_size=8]"
