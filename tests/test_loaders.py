import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import warmstart as ws
from networks import assert_same, batches_for, mlp, snapshot, trained
from warmstart.class_labels import all_labels
from warmstart.integrations import WarmStart
from warmstart.loaders import MOST, tail


class Numbers(Dataset):
    """Examples 0, 1, 2, ...; notes which were read, in this process."""

    def __init__(self, count):
        self.count, self.read = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        return torch.tensor(index)


class Stream(IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return iter(torch.arange(self.count))


class Stock:
    """A sequence by its methods alone."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return torch.tensor([index])


def listed(source):
    return [batch.tolist() for batch in source.batches]


@pytest.mark.parametrize("last", [1, 3, 5, 6, None])
def test_the_tail_of_a_sequence(last):
    source = tail(Stock(), last)
    expected = [[i] for i in range(5)]
    assert listed(source) == expected[-(last or 5) :]
    assert source.left_out == max(0, 5 - (last or 5))


@pytest.mark.parametrize("last", [1, 3, 5, 6, None])
@pytest.mark.parametrize("kind", [list, tuple, iter, lambda batches: (batch for batch in batches)])
def test_the_tail_is_the_same_for_lists_and_generators(kind, last):
    batches = [torch.tensor([i]) for i in range(5)]
    source = tail(kind(batches), last)
    assert listed(source) == [batch.tolist() for batch in batches[-(last or 5) :]]
    assert source.left_out == max(0, 5 - (last or 5))


def test_reading_everything_of_a_generator_holds_one_batch_at_a_time():
    made = []

    def batches():
        for number in range(4):
            made.append(number)
            yield torch.tensor([number])

    for number, _ in enumerate(tail(batches(), None).batches):
        assert len(made) == number + 1


@pytest.mark.parametrize(
    "batches", [[], (), iter([]), DataLoader(Numbers(0)), DataLoader(Numbers(3), 4, drop_last=True)]
)
def test_no_batch_at_all_is_refused(batches):
    with pytest.raises(ws.InputError, match="empty"):
        tail(batches, 3)


def test_a_single_mapping_is_no_stream():
    with pytest.raises(ws.InputError, match=r"pass \[batch\]"):
        tail({"x": torch.zeros(2)}, 3)


LOADERS = {
    "plain": {"batch_size": 4},
    "drop_last": {"batch_size": 4, "drop_last": True},
    "single": {},
    "unbatched": {"batch_size": None},
    "own batch sampler": {"batch_sampler": [[0, 1], [2], [5, 4], [9], [8, 7, 6]]},
    "batch sampler of a sampler": {"batch_sampler": BatchSampler(SequentialSampler(range(10)), 3, False)},
    "sampler of indices": {"batch_size": 3, "sampler": [9, 0, 8, 1, 7, 2]},
    "sampler, unbatched": {"batch_size": None, "sampler": [9, 0, 8, 1, 7, 2]},
    "one part of a distributed set": {
        "batch_size": 2,
        "sampler": DistributedSampler(range(10), num_replicas=2, rank=1, shuffle=False),
    },
    "own collate": {"batch_size": 4, "collate_fn": lambda examples: torch.stack(examples).flip(0)},
}


@pytest.mark.parametrize("settings", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("last", [1, 2, 3, 100, None])
def test_the_tail_of_a_loader_is_what_it_yields_last(settings, last):
    data = Numbers(10)
    everything = [batch.tolist() for batch in DataLoader(data, **settings)]
    before, data.read = data.read, []
    source = tail(DataLoader(data, **settings), last)
    assert listed(source) == everything[-(last or 100) :]
    assert source.left_out == max(0, len(everything) - (last or 100))
    assert data.read == before[len(before) - len(data.read) :], "only the tail is read"
    assert len(data.read) == sum(len(batch) if isinstance(batch, list) else 1 for batch in listed(source))


@pytest.mark.parametrize("settings", [{"batch_size": 4}, {"batch_size": None}], ids=["plain", "unbatched"])
def test_worker_processes_give_the_same(settings):
    loader = DataLoader(Numbers(10), **settings, num_workers=1, multiprocessing_context="fork")
    everything = [batch.tolist() for batch in DataLoader(Numbers(10), **settings)]
    assert listed(tail(loader, 2)) == everything[-2:]


@pytest.mark.parametrize("last", [3, None])
@pytest.mark.parametrize(
    "endless", [itertools.count, lambda: itertools.cycle([1, 2]), lambda: itertools.repeat(1), lambda: iter(int, 1)]
)
def test_what_never_ends_is_refused_in_one_line(endless, last):
    with pytest.raises(ws.InputError, match=r"batches does not end .* itertools\.islice") as refused:
        for _ in tail(endless(), last).batches:
            pass
    assert "\n" not in str(refused.value)


def test_an_iterator_may_be_long_and_a_sequence_longer():
    assert list(tail(iter(range(MOST)), 2).batches) == [MOST - 2, MOST - 1]
    assert list(tail(range(10 * MOST), 1).batches) == [10 * MOST - 1]


def test_the_tail_of_an_iterable_data_set():
    source = tail(DataLoader(Stream(10), batch_size=4), 2)
    assert listed(source) == [[4, 5, 6, 7], [8, 9]]
    assert source.left_out == 1
    assert listed(tail(DataLoader(Stream(3), batch_size=None), 2)) == [1, 2]


class Wrapper(Sampler):
    """As libraries wrap samplers for several processes."""

    def __init__(self, **inner):
        vars(self).update(inner)
        (self.inner,) = inner.values()

    def __iter__(self):
        return iter(self.inner)

    def __len__(self):
        return len(self.inner)


DATA = TensorDataset(torch.arange(10))
SHUFFLING = {
    "shuffle=True": {"batch_size": 2, "shuffle": True},
    "random sampler": {"batch_size": 2, "sampler": RandomSampler(DATA)},
    "random subset": {"batch_size": 2, "sampler": SubsetRandomSampler(range(5))},
    "weighted": {"batch_size": 2, "sampler": WeightedRandomSampler([1.0] * 10, 10)},
    "distributed": {"batch_size": 2, "sampler": DistributedSampler(DATA, num_replicas=2, rank=0, shuffle=True)},
    "in a batch sampler": {"batch_sampler": BatchSampler(RandomSampler(DATA), 2, False)},
    "batch sampler as sampler": {"batch_size": None, "sampler": BatchSampler(RandomSampler(DATA), 2, False)},
    "wrapped sampler": {"batch_sampler": BatchSampler(Wrapper(sampler=RandomSampler(DATA)), 2, False)},
    "wrapped batch sampler": {"batch_sampler": Wrapper(batch_sampler=BatchSampler(RandomSampler(DATA), 2, False))},
    "unbatched": {"batch_size": None, "shuffle": True},
}


class Drawn(Sampler):
    """A sampler of somebody's own, with the order that a function makes."""

    def __init__(self, order, ends=True):
        self.order, self.ends = order, ends

    def __iter__(self):
        while True:
            yield from self.order()
            if self.ends:
                return

    def __len__(self):
        return 10


def seeded():
    return torch.randperm(10, generator=torch.Generator().manual_seed(0)).tolist()


OUT_OF_ORDER = {
    "random": {"batch_size": 2, "sampler": Drawn(lambda: iter(torch.randperm(10)))},
    "seeded": {"batch_size": 2, "sampler": Drawn(seeded)},
    "newest first": {"batch_size": 2, "sampler": Drawn(lambda: range(9, -1, -1))},
    "whole batches": {"batch_sampler": Drawn(lambda: torch.randperm(10).view(5, 2).tolist())},
    "unbatched": {"batch_size": None, "sampler": Drawn(seeded)},
}


@pytest.mark.parametrize("settings", OUT_OF_ORDER.values(), ids=OUT_OF_ORDER)
def test_an_unknown_sampler_is_refused_by_what_it_draws_with_two_ways_out(settings):
    loader = DataLoader(DATA, **settings)
    with pytest.raises(ws.InputError, match=r"order \(Drawn\): pass ws\.oldest_first\(loader\)") as refused:
        tail(loader, 3)
    key = "sampler" if "sampler" in settings else "batch_sampler"
    assert f"DataLoader(dataset, {key}=list({key}))" in str(refused.value)
    tail(DataLoader(DATA, **{**settings, key: list(settings[key])}), 3)


IN_ORDER = {
    "ascending": {"batch_size": 2, "sampler": Drawn(lambda: range(10))},
    "a process's part, filled up from the beginning": {"batch_size": 2, "sampler": Drawn(lambda: [1, 4, 7, 0])},
    "whole batches": {"batch_sampler": Drawn(lambda: [[0, 1], [2, 3]])},
    "begun anew without end": {"batch_size": 2, "sampler": Drawn(lambda: range(10), ends=False)},
    "names": {"batch_size": 2, "sampler": Drawn(lambda: ["b", "a"])},
    "wrapped": {"batch_size": 2, "sampler": Wrapper(inner=list(range(10)))},
}


@pytest.mark.parametrize("settings", IN_ORDER.values(), ids=IN_ORDER)
def test_an_unknown_sampler_that_draws_in_order_is_accepted(settings):
    tail(DataLoader(DATA, **settings), 3)


class PrefetchLoader:
    """As timm's: a loader within another object, which has its sampler and data set."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)

    def __len__(self):
        return len(self.loader)

    sampler = property(lambda self: self.loader.sampler)
    dataset = property(lambda self: self.loader.dataset)


@pytest.mark.parametrize("settings", [*SHUFFLING.values(), *OUT_OF_ORDER.values()], ids=[*SHUFFLING, *OUT_OF_ORDER])
def test_a_shuffling_loader_within_another_is_refused_with_a_way_out(settings):
    with pytest.raises(ws.InputError, match=r"in the PrefetchLoader .*around ws\.oldest_first\(batches\.loader\)"):
        tail(PrefetchLoader(DataLoader(DATA, **settings)), 3)


def test_the_way_out_of_a_loader_within_another_works():
    batches = PrefetchLoader(DataLoader(Numbers(10), 4, shuffle=True))
    source = tail(PrefetchLoader(ws.oldest_first(batches.loader, 4)), 2)
    assert (listed(source), source.left_out) == ([[2, 3, 4, 5], [6, 7, 8, 9]], 1)
    with pytest.raises(ws.InputError, match=r"not a PrefetchLoader; pass the one in its \.loader"):
        ws.oldest_first(batches)


@pytest.mark.parametrize("settings", SHUFFLING.values(), ids=SHUFFLING)
def test_a_shuffling_loader_is_refused_with_the_remedy(settings):
    with pytest.raises(ws.InputError, match=r"the loader shuffles \(\w+\).*ws\.oldest_first"):
        tail(DataLoader(DATA, **settings), 3)


def test_oldest_first_puts_a_shuffling_loader_in_order():
    loader = DataLoader(Numbers(10), batch_size=4, shuffle=True, collate_fn=lambda examples: -torch.stack(examples))
    expected = [[0, -1], [-2, -3, -4, -5], [-6, -7, -8, -9]]
    ordered = ws.oldest_first(loader, batch_size=4)
    assert [batch.tolist() for batch in ordered] == expected
    assert listed(tail(ordered, 2)) == expected[1:]
    assert [len(batch) for batch in ws.oldest_first(loader, batch_size=3)] == [1, 3, 3, 3]


def test_oldest_first_cuts_batches_of_1000_like_the_callbacks_and_computes_as_many_at_a_time_as_the_loader_gave():
    data = TensorDataset(*batches_for((6,), 1, size=2500)[0])
    batches = ws.oldest_first(DataLoader(data, batch_size=64, shuffle=True))
    assert [len(inputs) for inputs, _ in batches] == [500, 1000, 1000]
    model, twin, seen = trained(mlp(), batches_for((6,), 4)), trained(mlp(), batches_for((6,), 4)), []
    model.register_forward_hook(lambda layer, inputs, output: seen.append(len(output)))
    ws.dash_(model, batches, cross_entropy)
    assert max(seen) == 64
    WarmStart(ws.Dash(), DataLoader(data, batch_size=64, shuffle=True), cross_entropy).apply_(twin)
    assert_same(snapshot(model), snapshot(twin))
    seen.clear()
    ws.dash_(model, batches, cross_entropy, micro_batch_size=1000)
    assert seen == [500, 1000, 1000]


def test_oldest_first_keeps_workers_and_how_they_start():
    loader = DataLoader(Numbers(10), batch_size=4, shuffle=True, num_workers=1, multiprocessing_context="fork")
    ordered = ws.oldest_first(loader, batch_size=4)
    assert ordered.num_workers == 1
    assert ordered.multiprocessing_context.get_start_method() == "fork"
    assert [batch.tolist() for batch in ordered] == [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9]]


@pytest.mark.parametrize(
    ("loader", "size", "message"),
    [
        (DataLoader(Stream(4)), 2, "IterableDataset has no order"),
        (DataLoader(DATA, batch_size=None, shuffle=True), 2, "whole batches"),
        (DataLoader(DATA, batch_size=2, shuffle=True), None, "batch_size is None"),
        (DataLoader(DATA, batch_size=2, shuffle=True), 0, "batch_size is 0"),
        (DataLoader(DATA, batch_size=2, shuffle=True), -1, "batch_size is -1"),
    ],
)
def test_what_oldest_first_cannot_order_is_refused(loader, size, message):
    with pytest.raises(ws.InputError, match=message):
        ws.oldest_first(loader, batch_size=size)


def reads_of(use, **settings):
    """Which of 20 examples are read, in the order in which they are."""

    class Pairs(Numbers):
        def __getitem__(self, index):
            super().__getitem__(index)
            return torch.full((6,), float(index)), index % 4

    data = Pairs(20)
    use(DataLoader(data, **settings))
    return data.read


def by_dash(loader):
    ws.dash_(mlp(), ws.oldest_first(loader, 3), cross_entropy)


def by_warm_start(loader):
    warm_start = WarmStart(ws.Dash(batch_size=3), loader, cross_entropy)
    warm_start.apply_(mlp())
    assert warm_start.state_dict()["arrival"] == "10 examples"


LISTS = {
    "list": lambda order: {"batch_size": 4, "sampler": order},
    "tuple": lambda order: {"batch_size": 4, "sampler": tuple(order)},
    "array": lambda order: {"batch_size": 4, "sampler": torch.tensor(order)},
    "batches": lambda order: {"batch_sampler": [order[i : i + 4] for i in range(0, 10, 4)]},
    "in a batch sampler": lambda order: {"batch_sampler": BatchSampler(order, 4, False)},
}


@pytest.mark.parametrize("use", [by_dash, by_warm_start])
@pytest.mark.parametrize("settings", LISTS.values(), ids=LISTS)
@pytest.mark.parametrize("order", [list(range(10)), list(range(19, 9, -1))], ids=["first half", "second, turned round"])
def test_a_list_of_indices_is_the_order_and_all_that_is_read(use, settings, order):
    assert reads_of(use, **settings(order)) == order


def test_the_labels_of_all_are_those_of_what_is_read():
    data = TensorDataset(torch.zeros(6, 2), torch.arange(6))
    loader = DataLoader(data, 2, sampler=[3, 1])
    assert all_labels(loader).tolist() == all_labels(ws.oldest_first(loader)).tolist() == [3, 1]
    assert all_labels(DataLoader(data, 2, shuffle=True)).tolist() == list(range(6))


class Some(Drawn):
    """Draws from a part of the data set and says how many."""

    def __len__(self):
        return len(list(self.order()))


PART = list(range(5))
IN_PART = {
    "own sampler": {"batch_size": 2, "sampler": Some(lambda: PART)},
    "own shuffling sampler": {"batch_size": 2, "sampler": Some(lambda: torch.randperm(5).tolist())},
    "own batch sampler": {"batch_sampler": Some(lambda: [[0, 1], [2, 3]])},
    "random subset": {"batch_size": 2, "sampler": SubsetRandomSampler(PART)},
    "wrapped": {"batch_sampler": Wrapper(batch_sampler=BatchSampler(SubsetRandomSampler(PART), 2, False))},
    "in the order of a part": {"batch_size": 2, "sampler": SequentialSampler(Subset(DATA, PART))},
    "shuffling a part": {"batch_size": 2, "sampler": RandomSampler(Subset(DATA, PART))},
    "weights of zero": {"batch_size": 2, "sampler": WeightedRandomSampler([1.0] * 9 + [0.0], 10)},
    "a part over processes": {"batch_size": 2, "sampler": DistributedSampler(Subset(DATA, PART), 2, 0, shuffle=False)},
}


@pytest.mark.parametrize("settings", IN_PART.values(), ids=IN_PART)
def test_a_part_of_a_data_set_whose_order_nobody_knows_is_refused(settings):
    loader = DataLoader(DATA, **settings)
    for use in (ws.oldest_first, lambda batches: WarmStart(ws.Dash(), batches, cross_entropy)):
        with pytest.raises(ws.InputError, match=r"from a part of its data set: pass DataLoader\(Subset\("):
            use(loader)


class Share(Some):
    """A process's, as timm's OrderedDistributedSampler."""

    num_replicas = 2


class Once(Some):
    def __iter__(self):
        return self

    def __next__(self):
        raise AssertionError("used up")


IN_WHOLE = {
    **{name: SHUFFLING[name] for name in ("shuffle=True", "weighted", "distributed", "wrapped batch sampler")},
    **{name: OUT_OF_ORDER[name] for name in ("random", "whole batches")},
    "a share": {"batch_size": 2, "sampler": Share(lambda: PART)},
    "others each time": {"batch_size": 2, "sampler": Some(lambda: torch.randperm(10)[:5].tolist())},
    "to be drawn from once": {"batch_size": 2, "sampler": Once(lambda: PART)},
}


@pytest.mark.parametrize("settings", IN_WHOLE.values(), ids=IN_WHOLE)
def test_what_draws_from_all_is_put_in_the_order_of_all(settings):
    torch.manual_seed(0)
    ordered = ws.oldest_first(DataLoader(DATA, **settings), 4)
    assert [batch.tolist() for [batch] in ordered] == [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9]]


class Scaling(DataLoader):
    """A loader that does more than its collate_fn."""

    def __iter__(self):
        for inputs, targets in super().__iter__():
            yield inputs / 100, targets


@pytest.mark.parametrize("count", [10, 100])
def test_what_a_loader_does_to_its_batches_is_done_to_all_however_many(count):
    [(inputs, targets)] = batches_for((6,), 1, size=2 * count)
    loader = Scaling(TensorDataset(inputs, targets), batch_size=2)
    model, twin = mlp(), mlp()
    ws.dash_(model, loader, cross_entropy)
    ws.dash_(twin, list(loader), cross_entropy)
    assert_same(snapshot(model), snapshot(twin))
    with pytest.raises(ws.InputError, match="shuffles"):
        ws.dash_(model, Scaling(DATA, batch_size=2, shuffle=True), cross_entropy)
    for use in (ws.oldest_first, lambda batches: WarmStart(ws.Dash(), batches, cross_entropy)):
        with pytest.raises(ws.InputError, match=r"Scaling changes batches in __iter__.* in collate_fn, or pass ready"):
            use(loader)


def test_accelerates_loaders_only_move_batches():
    accelerate = pytest.importorskip("accelerate")
    loader = accelerate.Accelerator(cpu=True).prepare(DataLoader(DATA, batch_size=2, shuffle=True))
    assert type(loader).__iter__ is not DataLoader.__iter__
    ordered = ws.oldest_first(loader, 4)
    assert [batch.tolist() for [batch] in ordered] == [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9]]


class Graphs:
    """A batch that is an object which can move, as PyTorch Geometric's."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def to(self, device, **_):
        return Graphs(self.x.to(device), self.y.to(device))


@dataclass
class Both:
    x: torch.Tensor
    y: torch.Tensor


def of_examples(make):
    def collate(examples):
        inputs, targets = zip(*examples, strict=True)
        return make(torch.stack(inputs), torch.tensor(targets))

    return collate


COLLATED = {
    "objects": (of_examples(Graphs), lambda batch: (batch.x, batch.y)),
    "dataclasses": (of_examples(Both), lambda batch: (batch.x, batch.y)),
    "a scalar": (
        of_examples(lambda x, y: {"x": x, "y": y, "n": torch.tensor(float(len(y)))}),
        lambda batch: (batch["x"] * batch["n"] / len(batch["y"]), batch["y"]),
    ),
    "features first": (of_examples(lambda x, y: (x.T.contiguous(), y)), lambda batch: (batch[0].T, batch[1])),
    "all turned": (of_examples(lambda x, y: (x.T.contiguous(), y[None])), lambda batch: (batch[0].T, batch[1][0])),
}


class Fetched(Dataset):
    """Gives its examples many at a time."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.data[index]

    def __getitems__(self, indices):
        return [self.data[index] for index in indices]


@pytest.mark.parametrize(("collate", "pair"), COLLATED.values(), ids=COLLATED)
@pytest.mark.parametrize("recalibrate", [False, True])
def test_batches_cut_anew_may_be_anything_that_is_collated(collate, pair, recalibrate):
    """Each micro-batch is collated by itself, so that its loss weighs as many examples as it has."""
    [(inputs, targets)] = batches_for((6,), 1, size=50)
    loader = DataLoader(Fetched(TensorDataset(inputs, targets)), batch_size=7, shuffle=True, collate_fn=collate)
    settings = {"batch_norm": "recalibrate"} if recalibrate else {}
    model, twin, sizes = trained(mlp(), batches_for((6,), 4)), trained(mlp(), batches_for((6,), 4)), []

    def forward_loss(network, batch):
        x, y = pair(batch)
        sizes.append(len(y))
        return cross_entropy(network(x), y)

    report = ws.dash_(model, ws.oldest_first(loader, 20), forward_loss=forward_loss, **settings)
    assert "50 examples" in str(report)
    assert sizes[:8] == [7, 3, 7, 7, 6, 7, 7, 6]
    whole = [(inputs[a:b], targets[a:b]) for a, b in ((0, 10), (10, 30), (30, 50))]
    # Statistics of parts are not exactly those of whole batches.
    ws.dash_(twin, whole, cross_entropy, micro_batch_size=7 if recalibrate else None, **settings)
    for ours, theirs in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("collate", "pair"), COLLATED.values(), ids=COLLATED)
def test_warm_start_takes_such_batches_too(collate, pair):
    [(inputs, targets)] = batches_for((6,), 1, size=50)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=7, collate_fn=collate)
    model, twin = trained(mlp(), batches_for((6,), 4)), trained(mlp(), batches_for((6,), 4))
    loss = lambda network, batch: cross_entropy(network(pair(batch)[0]), pair(batch)[1])  # noqa: E731
    WarmStart(ws.Dash(batch_size=20), loader, forward_loss=loss, new_examples=10).apply_(model)
    ws.dash_(twin, ws.oldest_first(loader, 20), forward_loss=loss)
    assert_same(snapshot(model), snapshot(twin))


def test_micro_batches_of_a_plain_loader_are_cut_by_their_indices_too():
    """A network whose inputs are (time, examples, features) is not cut along time."""

    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.recurrent, self.head = nn.GRU(3, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.head(self.recurrent(x)[0]).flatten(0, 1)

    data = [(torch.randn(9, 3), torch.randint(2, (9,))) for _ in range(12)]

    def time_first(examples):
        inputs, targets = zip(*examples, strict=True)
        return torch.stack(inputs, 1), torch.stack(targets, 1)

    def forward_loss(network, batch):
        shapes.add(tuple(batch[0].shape))
        return cross_entropy(network(batch[0]), batch[1].flatten())

    results = []
    for size, expected in ((None, {(9, 6, 3)}), (4, {(9, 4, 3), (9, 2, 3)})):
        model, shapes = Rows(), set()
        loader = DataLoader(data, batch_size=6, collate_fn=time_first)
        ws.dash_(model, loader, forward_loss=forward_loss, micro_batch_size=size)
        assert shapes == expected
        results.append(model)
    for ours, theirs in zip(*(model.parameters() for model in results), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_workers_load_micro_batches_in_order():
    loader = DataLoader(Numbers(10), batch_size=2, shuffle=True, num_workers=2, multiprocessing_context="fork")
    source = tail(ws.oldest_first(loader, 4), 2, lambda count: [slice(0, 3), slice(3, count)])
    assert [[part.tolist() for part in batch.parts] for batch in source.batches] == [[[2, 3, 4], [5]], [[6, 7, 8], [9]]]
