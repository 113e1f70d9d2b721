"""What the report says of the data that an average saw, against every example's weight added up one by one."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

import warmstart as ws
from networks import batches_for, mlp
from warmstart.gradient_ema import GradientEMA
from warmstart.integrations import WarmStart
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
    unknown = "old data's share is not known: its examples cannot be counted"
    assert coverage(average_over((0, 0)), None) == (["averaged 2 batches, 0 older batches left out"], [])
    assert coverage(average_over((0, 0)), 5) == (["averaged 2 batches, 0 older batches left out", unknown], [])


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


class Folder(Dataset):
    """As torchvision's: examples by class, and a list of their targets."""

    def __init__(self, targets):
        self.targets = targets

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return torch.ones(6) * self.targets[index], self.targets[index]


def sorted_by_class(classes, each):
    return [number for number in range(classes) for _ in range(each)]


def mixed(targets):
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(3))
    return [targets[i] for i in order]


def on_classes(batches, **settings):
    report = ws.dash_(mlp(), batches, cross_entropy, apply=False, **settings)
    return [warning for warning in report.warnings if "classes" in warning]


BY_CLASS = {
    "one folder": lambda: Folder(sorted_by_class(4, 200)),
    "two folders": lambda: ConcatDataset([Folder(sorted_by_class(4, 100))] * 2),
    "two classes": lambda: Folder(sorted_by_class(2, 100)),
    "part of a folder": lambda: Subset(Folder(sorted_by_class(4, 200)), range(0, 800, 2)),
    "tensors": lambda: TensorDataset(torch.randn(800, 6), torch.tensor(sorted_by_class(4, 200))),
    "a class far larger than what is read": lambda: Folder(sorted_by_class(2, 1000)),
}


@pytest.mark.parametrize("kind", BY_CLASS)
def test_data_sorted_by_class_is_warned_of_with_the_remedy(kind):
    data = BY_CLASS[kind]()
    (warning,) = on_classes(DataLoader(data, 20))
    assert "classes, as in data sorted by class: pass DataLoader(Subset(dataset, order))" in warning
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1)).tolist()
    assert not on_classes(DataLoader(Subset(data, order), 20))
    by_callback = WarmStart(ws.Dash(batch_size=20), DataLoader(data, 20, shuffle=True), cross_entropy).apply_(mlp())
    assert warning in by_callback.warnings


def test_ready_batches_show_it_by_themselves():
    pairs = [(torch.ones(40, 6), torch.full((40,), number // 5)) for number in range(20)]
    (warning,) = on_classes(pairs)
    assert "the newest 80 examples, which weigh 51%, have 1 of 4 classes" in warning
    mappings = [{"x": inputs, "labels": labels} for inputs, labels in pairs]
    report = ws.dash_(
        mlp(), mappings, forward_loss=lambda model, b: cross_entropy(model(b["x"]), b["labels"]), apply=False
    )
    assert warning in report.warnings


@pytest.mark.parametrize(
    "targets",
    [
        mixed([0] * 380 + [1] * 20),  # a rare class
        mixed([number % 100 for number in range(400)]),  # many classes
        list(range(400)),  # counts or times, all different
    ],
    ids=["rare", "many", "all different"],
)
def test_what_chance_leaves_out_is_no_reason_to_warn(targets):
    ema = average_over((20,) * 20)
    ema.labels = list(torch.tensor(targets).split(20))
    assert not coverage(ema, None)[1]


@pytest.mark.parametrize(
    "target",
    [torch.linspace(0, 1, 20), torch.zeros(20, 3, dtype=torch.long), torch.zeros((), dtype=torch.long), "name", None],
    ids=["numbers", "tokens", "one", "text", "nothing"],
)
def test_targets_that_are_no_classes_are_not_looked_at(target):
    batches = [(torch.randn(20, 6), target)] * 3
    report = ws.dash_(mlp(), batches, forward_loss=lambda model, batch: model(batch[0]).square().mean(), apply=False)
    assert not report.warnings


@pytest.mark.parametrize("targets", [["a", "b"], [[1], [2, 3]], {"a": 1}, 7, torch.zeros(3)], ids=repr)
def test_a_data_set_whose_targets_are_something_else_is_no_obstacle(targets):
    class Odd(Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, index):
            return torch.ones(6), index % 4

    data = Odd()
    data.targets = targets
    assert not on_classes(DataLoader(data, 20))
