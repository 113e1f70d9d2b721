"""What the report says of the data that an average saw, against every example's weight added up one by one."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import warmstart as ws
from networks import batches_for, mlp
from warmstart.gradient_ema import GradientEMA
from warmstart.methods.average_report import coverage


def average_over(sizes, alpha=0.3, left_out=0):
    ema = GradientEMA(mlp(), alpha)
    ema.sizes, ema.updates, ema.left_out = list(sizes), len(sizes), left_out
    return ema


def weight_of_each(sizes, alpha):
    """The weight of every example in the average, oldest first; they sum to 1."""
    weights = [
        alpha * (1 - alpha) ** back / size
        for back, size in zip(reversed(range(len(sizes))), sizes, strict=True)
        for _ in range(size)
    ]
    return torch.tensor(weights, dtype=torch.float64) / sum(weights)


@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("sizes", [(100,) * 6, (1, 100, 100), (100, 100, 1), (7, 3, 50, 2), (5,)], ids=str)
@pytest.mark.parametrize("new", [0, 1, 4, 5])
def test_old_and_effective_examples_are_those_of_each_examples_weight(sizes, alpha, new):
    sizes = sizes[-1:] if alpha == 1 else sizes  # the others are not read
    each = weight_of_each(sizes, alpha)
    new = min(new, sum(sizes))
    notes, _ = coverage(average_over(sizes, alpha), new)
    assert f"(about {1 / each.square().sum():,.0f} effectively)" in notes[0]
    assert f"old data has {each[: len(each) - new].sum():.1%} of the average's weight" in notes


def test_a_short_newest_batch_is_warned_about_with_the_remedy():
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(1001, 6), torch.randint(0, 4, (1001,)))
    loader = DataLoader(data, 100)
    report = ws.dash_(mlp(), loader, cross_entropy, new_examples=101, apply=False)
    text = " ".join(str(report).split())
    assert "warning: the newest batch has 1 example, others 100, and weighs 31%: pass ws.oldest_first(loader)" in text
    assert "old data has 48.0% of the average's weight" in text
    report = ws.dash_(mlp(), ws.oldest_first(loader), cross_entropy, new_examples=101, apply=False)
    assert not any("newest batch" in warning for warning in report.warnings)


def test_batches_of_about_the_same_size_are_no_cause_for_a_warning():
    assert coverage(average_over((100, 100, 51)), None)[1] == []


def test_more_new_examples_than_there_are_is_refused_where_all_were_read():
    with pytest.raises(ws.InputError, match="new_examples is 21, but the batches hold 20"):
        coverage(average_over((10, 10)), 21)
    assert "old data has 0.0% of the average's weight" in coverage(average_over((10, 10), left_out=5), 21)[0]


def test_batches_of_objects_whose_examples_nobody_can_count():
    assert coverage(average_over((0, 0)), 5) == (["averaged 2 batches, 0 older batches left out"], [])


def test_dash_names_the_share_and_warns_where_it_is_small():
    batches = batches_for((6,), 40)
    report = ws.dash_(mlp(), batches, cross_entropy, new_examples=8, apply=False)
    assert any(note.startswith("old data has 70.0%") for note in report.notes)
    report = ws.dash_(mlp(), batches, cross_entropy, new_examples=8 * 20, apply=False)
    assert any("old data is under 1 %" in warning for warning in report.warnings)


def test_where_little_of_the_data_counts_it_asks_how_many_examples_are_new():
    for left_out, warned in ((350, False), (352, True)):
        (*_, warnings) = coverage(average_over((10,) * 39, left_out=left_out), None)
        assert any("10.0% of the data" in text and "new_examples=N" in text for text in warnings) == warned, left_out
    assert not coverage(average_over((10,) * 39, left_out=10_000), 20)[1], "the share of old data is known"


def test_dash_over_oldest_first_asks_as_well():
    data = TensorDataset(torch.randn(800, 6), torch.randint(0, 4, (800,)))
    batches = ws.oldest_first(DataLoader(data, 4, shuffle=True), batch_size=2)
    report = ws.dash_(mlp(), batches, cross_entropy, apply=False)
    assert any("9.8% of the data" in warning for warning in report.warnings)
    report = ws.dash_(mlp(), ws.oldest_first(DataLoader(data, 4, shuffle=True)), cross_entropy, apply=False)
    assert not report.warnings
