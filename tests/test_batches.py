import copy
from collections import OrderedDict, UserDict, namedtuple
from types import MappingProxyType, SimpleNamespace

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

import warmstart as ws
from warmstart.batches import (
    Pieces,
    batches_that_matter,
    cut_from_newest,
    equal_parts,
    examples_in,
    is_empty,
    micro_batches,
    to_device,
)


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
    with pytest.raises(ws.InputError, match="must be a"):
        batches_that_matter(alpha, tolerance)


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
    [(torch.zeros(4, 2), torch.zeros(3)), SimpleNamespace(x=1), []],
    ids=["lengths", "object", "nothing"],
)
def test_batches_that_cannot_be_split_are_refused(batch):
    with pytest.raises(ws.InputError, match=r"micro_batch_size needs .*: leave it out, or pass a DataLoader"):
        list(micro_batches(batch, 2))


def test_tensors_without_a_dimension_go_with_every_piece():
    pieces = [piece for piece, _ in micro_batches((torch.arange(3), torch.tensor(0.5)), 2)]
    assert [(x.tolist(), scalar.item()) for x, scalar in pieces] == [([0, 1], 0.5), ([2], 0.5)]


def test_what_was_loaded_in_pieces_stays_so_and_is_counted_by_its_indices():
    batch = Pieces((torch.zeros(7, 2), torch.zeros(7, 1)), (2, 1))  # the examples lie along the second dimension
    assert examples_in(batch) == 3
    assert [share for _, share in micro_batches(batch, 100)] == pytest.approx([2 / 3, 1 / 3])
    assert [share for _, share in micro_batches(batch, 100, weight=torch.numel)] == pytest.approx([2 / 3, 1 / 3])
    assert [share for _, share in micro_batches(batch, 100, weight=lambda part: 0)] == [0, 0]
    assert [count for _, count in equal_parts(batch, 100)] == [2, 1]
    assert not is_empty(batch)


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
