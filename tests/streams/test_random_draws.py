"""Stages: a random split without replacement that the seed decides."""

from dataclasses import replace

import pytest
import torch

from warmstart.data.images import ImageData
from warmstart.errors import InputError
from warmstart.streams.random_draws import RandomDraws
from warmstart.streams.settings import StreamSettings


def counting_data(labels: list[int], test_labels: list[int]) -> ImageData:
    train, test = torch.tensor(labels), torch.tensor(test_labels)
    return ImageData(
        "counting",
        torch.zeros(len(train), 1, 2, 2, dtype=torch.uint8),
        train,
        torch.zeros(len(test), 1, 2, 2, dtype=torch.uint8),
        test,
        ("cat", "dog", "elk"),
    )


def split_stages(data: ImageData, stages: int, stage_size: int, seed: int) -> list[torch.Tensor]:
    """The new examples of each stage."""
    stream = RandomDraws(data, StreamSettings.of({"stages": stages, "stage_size": stage_size}), seed)
    return [stream.arrival(number).new.index for number in range(1, stream.stages + 1)]


DATA = counting_data([0, 1] * 20, [0, 1])


def test_stages_are_disjoint_and_of_the_size_asked_for() -> None:
    stages = split_stages(DATA, 4, 10, seed=0)
    assert [len(stage) for stage in stages] == [10] * 4
    assert sorted(torch.cat(stages).tolist()) == list(range(40))


def test_what_is_trained_on_is_all_that_has_arrived_in_that_order() -> None:
    stream = RandomDraws(DATA, StreamSettings(stages=4, stage_size=10), seed=0)
    arrived = []
    for number in range(1, 5):
        arrival = stream.arrival(number)
        arrived += arrival.new.index.tolist()
        assert arrival.train.index.tolist() == arrived
        assert (arrival.train.part, arrival.new.part, arrival.test.part) == ("train", "train", "test")
        assert arrival.test.index is None


def test_the_seed_alone_decides() -> None:
    first = torch.cat(split_stages(DATA, 4, 10, seed=3))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(torch.cat(split_stages(DATA, 4, 10, seed=3)), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(torch.cat(split_stages(DATA, 4, 10, seed=4)), first)
    assert not torch.equal(first, torch.arange(40))


def test_more_stages_go_on_where_fewer_ended() -> None:
    few, many = split_stages(DATA, 2, 10, seed=0), split_stages(DATA, 4, 10, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(few, many, strict=False))


@pytest.mark.parametrize(
    ("stages", "size", "message"),
    [
        (5, 10, "has 40 training examples, but 5 stages of 10 need 50; --stages 4 or --stage-size 8 would fit"),
        (2, 41, "--stage-size 20 would fit"),
        (41, 1, "--stages 40 would fit"),
        (0, 10, "stages is 0; it must be at least 1"),
        (2, -1, "stage_size is -1; it must be at least 1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(stages: int, size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_stages(DATA, stages, size, seed=0)


def test_a_test_class_in_no_stage_is_named() -> None:
    rare = counting_data([0] * 10 + [1] * 10 + [2], [0, 1, 2])
    rare_place = next(
        seed for seed in range(20) if 20 not in torch.cat(split_stages(replace(DATA), 1, 10, seed)).tolist()
    )
    unlucky = next(
        seed
        for seed in range(rare_place, 50)
        if 20 not in torch.randperm(21, generator=torch.Generator().manual_seed(seed))[:10]
    )
    with pytest.raises(InputError, match=f"the test class 'elk' is in no stage with seed {unlucky}"):
        split_stages(rare, 1, 10, unlucky)
    assert len(split_stages(rare, 1, 21, unlucky)) == 1
    assert len(split_stages(replace(rare, test_labels=torch.tensor([0, 1, 1])), 1, 10, unlucky)) == 1


def test_one_class_only_is_refused() -> None:
    with pytest.raises(InputError, match="one class only, 'dog'"):
        split_stages(counting_data([1] * 10, [1]), 1, 10, seed=0)
