import copy
import itertools
from collections import OrderedDict, UserDict, namedtuple
from types import MappingProxyType, SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import warmstart as ws
from networks import assert_same, batches_for, mlp, snapshot, trained
from warmstart.batches import (
    MOST,
    batches_that_matter,
    cut_from_newest,
    equal_parts,
    examples_in,
    is_empty,
    micro_batches,
    tail,
    to_device,
)
from warmstart.integrations import WarmStart


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


@pytest.mark.parametrize(
    ("alpha", "tolerance", "count"),
    [(0.3, 1e-6, 39), (0.1, 1e-6, 132), (1.0, 1e-6, 1), (1.0, 0.0, 1), (0.3, 0.0, None), (0.999, 0.5, 1)],
)
def test_how_many_batches_matter(alpha, tolerance, count):
    assert batches_that_matter(alpha, tolerance) == count


@pytest.mark.parametrize("alpha", [1e-3, 0.05, 0.3, 0.9])
@pytest.mark.parametrize("tolerance", [1e-9, 1e-6, 1e-2])
def test_it_is_the_smallest_number_whose_remainder_is_within_the_tolerance(alpha, tolerance):
    count = batches_that_matter(alpha, tolerance)
    assert (1 - alpha) ** count <= tolerance * (1 + 1e-9)
    assert count == 1 or (1 - alpha) ** (count - 1) > tolerance * (1 - 1e-9)


@pytest.mark.parametrize(("alpha", "tolerance"), [(0, 0), (1.1, 0), (float("nan"), 0), (0.3, 1), (0.3, -0.1)])
def test_rates_out_of_range_are_refused(alpha, tolerance):
    with pytest.raises(ws.InputError, match="must lie in"):
        batches_that_matter(alpha, tolerance)


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


@pytest.mark.parametrize(("examples", "size"), [(10, 4), (8, 4), (3, 4), (1, 1), (0, 4)])
def test_batches_are_cut_from_the_newest_and_hold_everything_once(examples, size):
    ranges = cut_from_newest(examples, size)
    assert [i for chosen in ranges for i in chosen] == list(range(examples))
    assert all(len(chosen) == size for chosen in ranges[1:])
    assert len(ranges) == -(-examples // size)


def test_ranges_are_a_sequence():
    ranges = cut_from_newest(10, 4)
    assert ranges[-1] == range(6, 10)
    assert ranges[0] == ranges[-3] == range(0, 2)
    assert ranges[1:] == [range(2, 6), range(6, 10)]
    for beyond in (3, -4):
        with pytest.raises(IndexError):
            ranges[beyond]


Pair = namedtuple("Pair", "x y")


class Encoding(UserDict):
    """As a tokenizer's output: entries can be read as attributes."""

    def __getattr__(self, name):
        return self.data[name] if "data" in vars(self) else super().__getattribute__(name)


def nested():
    x = torch.arange(10).view(5, 2)
    return {"pair": Pair(x, [x + 10]), "names": ["a", "b"], "more": (x[:, 0], {"deep": x + 20}), "flag": None}


def test_micro_batches_split_nests_and_keep_their_types():
    pieces = list(micro_batches(nested(), 2))
    assert [share for _, share in pieces] == pytest.approx([0.4, 0.4, 0.2])
    for number, (piece, _) in enumerate(pieces):
        rows = slice(2 * number, 2 * number + 2)
        assert type(piece["pair"]) is Pair
        assert torch.equal(piece["pair"].x, nested()["pair"].x[rows])
        assert torch.equal(piece["pair"].y[0], nested()["pair"].y[0][rows])
        assert torch.equal(piece["more"][0], nested()["more"][0][rows])
        assert torch.equal(piece["more"][1]["deep"], nested()["more"][1]["deep"][rows])
        assert (piece["names"], piece["flag"]) == (["a", "b"], None)


@pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict, Encoding])
def test_mappings_keep_their_type_and_the_originals_stay(kind):
    x = torch.arange(5)
    batch = kind(x=x)
    (first, _), *_ = micro_batches(batch, 2)
    assert type(first) is kind
    assert first["x"].tolist() == [0, 1]
    assert batch["x"] is x
    assert type(to_device(batch, torch.device("cpu"))) is kind
    if kind is Encoding:
        assert first.x.tolist() == [0, 1]


def test_mappings_that_cannot_change_become_dictionaries():
    assert to_device(MappingProxyType({"x": torch.ones(1)}), torch.device("cpu")) == {"x": torch.ones(1)}


def test_one_piece_where_nothing_is_to_be_split():
    batch = nested()
    assert [(piece is batch, share) for piece, share in micro_batches(batch, None)] == [(True, 1.0)]
    uneven = (torch.zeros(4, 2), torch.zeros(3))  # which could not be split
    for kept in (batch, uneven):
        assert [(piece is kept, share) for piece, share in micro_batches(kept, 100)] == [(True, 1.0)]


@pytest.mark.parametrize(
    "batch",
    [(torch.zeros(4, 2), torch.zeros(3)), (torch.zeros(4), torch.tensor(1.0)), SimpleNamespace(x=1), []],
    ids=["lengths", "scalar", "object", "nothing"],
)
def test_batches_that_cannot_be_split_are_refused(batch):
    with pytest.raises(ws.InputError, match="micro_batch_size needs"):
        list(micro_batches(batch, 2))


def test_examples_are_counted_by_the_first_tensor_with_a_dimension():
    assert examples_in(torch.zeros(3, 2)) == 3
    assert examples_in((torch.tensor(1.0), {"x": [torch.zeros(4)]})) == 4
    assert examples_in(SimpleNamespace(x=torch.zeros(3))) == 0


def detections(count):
    """Images of one size and their boxes, as a detector's loader gives them: lists of one item an example."""
    images = [torch.full((3, 4, 4), float(number)) for number in range(count)]
    return images, [{"boxes": torch.zeros(number, 4), "labels": torch.zeros(number)} for number in range(count)]


@pytest.mark.parametrize("kind", [tuple, list, lambda fields: dict(zip("xy", fields, strict=True))])
def test_lists_of_one_item_an_example_are_counted_and_split_by_their_length(kind):
    batch = kind(detections(5))
    assert examples_in(batch) == 5
    pieces = [piece for piece, _ in micro_batches(batch, 2)]
    assert [share for _, share in micro_batches(batch, 2)] == pytest.approx([0.4, 0.4, 0.2])
    for piece, first in zip(pieces, (0, 2, 4), strict=True):
        assert type(piece) is type(batch)
        images, targets = piece.values() if isinstance(piece, dict) else piece
        assert images[0][0, 0, 0] == first
        assert len(targets) == len(images)
    assert [count for _, count in equal_parts(batch, 3)] == [2, 3]


def test_several_inputs_of_one_batch_are_no_list_of_examples():
    batch = ((torch.zeros(6, 2), torch.zeros(6, 3)), [torch.zeros(6), torch.zeros(6)])
    assert examples_in(batch) == 6
    assert examples_in(((torch.zeros(6, 2), torch.zeros(2)), torch.zeros(6))) == 6


def test_a_batch_is_empty_if_its_tensors_have_no_elements():
    assert is_empty((torch.zeros(0, 3), torch.zeros(0)))
    assert not is_empty({"boxes": torch.zeros(0, 4), "image": torch.zeros(3, 2, 2)})
    assert not is_empty(SimpleNamespace())


def test_to_device_moves_tensors_packed_sequences_and_objects_that_can_move():
    class Graph:
        moved = None

        def to(self, device):
            twin = copy.copy(self)
            twin.moved = device
            return twin

    meta = torch.device("meta")
    moved = to_device({"x": [torch.ones(2)], "graph": Graph(), "name": "a", "n": 3}, meta)
    assert moved["x"][0].device == meta
    assert moved["graph"].moved == meta
    assert (moved["name"], moved["n"]) == ("a", 3)
    packed = to_device(pack_sequence([torch.ones(3), torch.ones(2)]), meta)
    assert packed.data.device == meta
    assert packed.batch_sizes.tolist() == [2, 2, 1], "lengths stay on the CPU"


def test_to_device_makes_tensors_of_inference_mode_usable():
    with torch.inference_mode():
        x = torch.ones(3)
    assert not to_device(x, torch.device("cpu")).is_inference()


def test_oldest_first_refuses_a_part_of_a_data_set():
    loader = DataLoader(TensorDataset(torch.arange(10)), 2, sampler=SubsetRandomSampler(range(4)))
    with pytest.raises(ws.InputError, match="Subset"):
        ws.oldest_first(loader)


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [
        (10, None, [10]),
        (10, 10, [10]),
        (10, 4, [3, 3, 4]),
        (9, 8, [4, 5]),
        (5, 2, [2, 3]),  # one example alone has no variance, so that a part may be larger than asked for
        (3, 1, [3]),
        (2, 1, [2]),
        (1, 1, [1]),
    ],
)
def test_parts_for_statistics_are_about_equal_and_of_two_examples_at_least(count, size, sizes):
    batch = (torch.arange(count), {"y": torch.arange(count)})
    parts = equal_parts(batch, size)
    assert [examples for _, examples in parts] == sizes
    assert [len(inputs) for (inputs, _), _ in parts] == sizes
    assert torch.equal(torch.cat([labels["y"] for (_, labels), _ in parts]), batch[0])


def test_what_nobody_can_count_is_one_part():
    batch = SimpleNamespace(x=1)
    assert equal_parts(batch, 4) == [(batch, 1)]
