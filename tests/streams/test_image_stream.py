"""Streams of images: random draws and real orders; the own part, fifths and the next arrival tested."""

from dataclasses import replace
from itertools import chain

import pytest
import torch

from warmstart.data.images import ImageData
from warmstart.errors import InputError
from warmstart.streams.folds import folds
from warmstart.streams.image_stream import ImageStream, image_stream
from warmstart.streams.settings import StreamSettings


def counting_data(labels: list[int], test_labels: list[int] = (), arrived: list[str] | None = None) -> ImageData:
    train, test = torch.tensor(labels), torch.tensor(list(test_labels), dtype=torch.int64)
    return ImageData(
        "counting",
        torch.zeros(len(train), 1, 2, 2, dtype=torch.uint8),
        train,
        torch.zeros(len(test), 1, 2, 2, dtype=torch.uint8),
        test,
        ("cat", "dog", "elk"),
        arrived,
    )


def flat(stages: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(stages))


def stream(data: ImageData, seed: int = 0, **settings: object) -> ImageStream:
    return image_stream(data, StreamSettings.of(settings), seed)


def arrivals(data: ImageData, seed: int = 0, **settings: object) -> list[list[int]]:
    """The new examples of each stage."""
    found = stream(data, seed, **settings)
    return [found.arrival(number).new.index.tolist() for number in range(1, found.stages + 1)]


def examined(data: ImageData, seed: int = 0, number: int = 1, **settings: object) -> set[int]:
    chosen = stream(data, seed, **settings).arrival(number).test
    assert chosen.part == "train"
    return set(chosen.index.tolist())


DATA = counting_data([0, 1] * 20, [0, 1])
ALONE = counting_data([0, 1] * 20)
MONTHS = counting_data([0, 1] * 20, [0, 1], ["2026-06"] * 8 + ["2026-05"] * 12 + ["2026-07"] * 20)
ALL_DIFFERENT = counting_data([0, 1] * 20, [0, 1], [f"{99 - i}" for i in range(40)])


def test_random_stages_are_disjoint_and_of_the_size_asked_for() -> None:
    stages = arrivals(DATA, stages=4, stage_size=10)
    assert [len(stage) for stage in stages] == [10] * 4
    assert sorted(flat(stages)) == list(range(40))


@pytest.mark.parametrize("settings", [{"stages": 4, "stage_size": 10}, {"order": "given"}, {"order": "month"}])
def test_what_is_trained_on_is_all_that_has_arrived_in_that_order(settings: dict[str, object]) -> None:
    found, arrived = stream(MONTHS, **settings), []
    for number in range(1, found.stages + 1):
        arrival = found.arrival(number)
        arrived += arrival.new.index.tolist()
        assert arrival.train.index.tolist() == arrived
        assert (arrival.train.part, arrival.new.part, arrival.test.part) == ("train", "train", "test")
        assert arrival.test.index is None


def test_the_seed_alone_decides_the_draw() -> None:
    first = arrivals(DATA, 3, stages=4, stage_size=10)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert arrivals(DATA, 3, stages=4, stage_size=10) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert arrivals(DATA, 4, stages=4, stage_size=10) != first
    assert flat(first) != list(range(40))


def test_more_stages_go_on_where_fewer_ended() -> None:
    assert arrivals(DATA, stages=4, stage_size=10)[:2] == arrivals(DATA, stages=2, stage_size=10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((5, 10), "has 40 training examples, but 5 stages of 10 need 50; --stages 4 or --stage-size 8 would fit"),
        ((2, 41), "--stage-size 20 would fit"),
        ((41, 1), "--stages 40 would fit"),
        ((0, 10), "stages is 0; it must be at least 1"),
        ((2, -1), "stage_size is -1; it must be at least 1"),
        ((2, "60%"), "2 stages of 60% need 48; --stages 1 or --stage-size 20 would fit"),
        ((2, "30,20"), "2 stages of 30,20 need 50; change --stage-size"),
        ((1, "1%"), "1 stages of 1% need 0; change --stage-size"),
        ((2, "ten"), "stage_size is 'ten'; give N, a share such as 10%, or one for each stage: 500,100,100"),
        ((2, "0%"), "stage_size is '0%'; a stage needs at least one example, and has at most 100%"),
        ((3, "5,5"), "stages is 3, but stage_size names 2; make them agree, or leave out one"),
        ((None, "30,20", "given"), "counting: 1 arrival, but 2 are needed; lower --stages or --stage-size"),
        ((3, None, "classes"), "counting has 2 classes to train on, which cannot arrive in 3 groups; --stages 2 would"),
        ((2, 5, "classes"), "stage_size has no effect where classes arrive in groups; leave it out"),
        ((2, None, "classes", "next"), "test is next, but the next group of classes is unknown to the network"),
        ((2, 50.5), "stage_size is '50.5'; give N, a share such as 10%, or one for each stage"),
        ((3, [5, 5]), "stages is 3, but stage_size names 2; make them agree, or leave out one"),
        ((4, 10, "random", "next"), "4 stages of 10 and the next of 10 need 50; --stages 3 or --stage-size 8 would"),
        ((4, 20, "given"), "counting: 2 arrivals, but 4 are needed; lower --stages or --stage-size"),
        ((4, None, "month"), "counting: 3 arrivals, but 4 are needed; lower --stages, or give --stage-size N"),
        ((3, None, "month", "next"), "counting: 3 arrivals, but 4 are needed"),
        ((50, None, "given", "rotate"), "counting: 3 arrivals, but 50 are needed"),
        ((1, 50, "month"), "counting: 0 arrivals, but 1 are needed"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(settings: tuple[object, ...], message: str) -> None:
    names = ("stages", "stage_size", "order", "test")
    with pytest.raises(InputError, match=message):
        arrivals(MONTHS, **{name: value for name, value in zip(names, settings, strict=False) if value is not None})


def test_sizes_may_differ_and_be_shares() -> None:
    def sizes(**settings: object) -> list[int]:
        return [len(stage) for stage in arrivals(MONTHS, **settings)]

    assert sizes(stage_size="20,5,5") == sizes(stage_size="50%,5,5") == [20, 5, 5]
    assert sizes(stage_size="25%", stages=3) == [10] * 3
    assert sizes(stage_size="20,4,4", order="month") == sizes(stage_size=[20, 4, 4], order="given") == [20, 4, 4]
    assert sizes(stage_size="25%", order="month") == [10] * 4
    assert arrivals(MONTHS, stage_size="10,10", order="month") == arrivals(MONTHS, stage_size=10, order="month")[:2]
    assert arrivals(DATA, stage_size="10,10") == arrivals(DATA, stage_size=10, stages=2)
    assert arrivals(DATA, stage_size=[10, 10]) == arrivals(DATA, stage_size=10, stages=2)
    assert arrivals(DATA, stage_size=[10], stages=2) == arrivals(DATA, stage_size=10, stages=2)
    assert stream(DATA, stage_size="20,5", test="next").arrivals[2].shape == (5,)


def test_classes_arrive_in_groups_and_what_has_arrived_is_tested() -> None:
    data = counting_data([0, 1, 2] * 6, [0, 0, 1, 2])
    found = stream(data, 1, order="classes", stages=2)
    seen: set[int] = set()
    for number in (1, 2):
        arrival = found.arrival(number)
        new = set(data.train_labels[arrival.new.index].tolist())
        assert new.isdisjoint(seen)
        seen |= new
        assert sorted(arrival.train.index.tolist()) == [i for i in range(18) if data.train_labels[i].item() in seen]
        assert arrival.test.index.tolist() == [i for i in range(4) if data.test_labels[i].item() in seen]
        assert len(arrival.new.index) == 6 * len(new)
    assert seen == {0, 1, 2}
    first = [arrivals(data, seed, order="classes", stages=3)[0] for seed in range(9)]
    late = next(seed for seed, group in enumerate(first) if 0 not in data.train_labels[group])
    with pytest.raises(InputError, match="no test example is of a class that has arrived by stage 1; lower --stages"):
        stream(counting_data([0, 1, 2] * 6, [0]), late, order="classes", stages=3)
    assert len({tuple(arrivals(data, seed, order="classes", stages=3)[0]) for seed in range(5)}) > 1
    assert arrivals(data, 2, order="classes", stages=3) == arrivals(data, 2, order="classes", stages=3)


@pytest.mark.parametrize(("kind", "size"), [("pixels", 4), ("labels", 3)])
def test_each_stage_of_a_shift_is_a_task_trained_on_alone(kind: str, size: int) -> None:
    found = stream(DATA, shift=kind, stages=4, stage_size=10)
    shifts = []
    for number in range(1, 5):
        arrival = found.arrival(number)
        assert arrival.train is arrival.new
        assert arrival.new.index.tolist() == arrivals(DATA, stages=4, stage_size=10)[number - 1]
        assert arrival.test.index is None
        assert arrival.test.shift is arrival.new.shift
        chosen = getattr(arrival.new.shift, kind)
        assert sorted(chosen.tolist()) == list(range(size))
        shifts.append(tuple(chosen.tolist()))
    assert len(set(shifts)) > 1
    again = stream(DATA, shift=kind, stages=2, stage_size=10)
    assert [tuple(getattr(again.arrival(n).new.shift, kind).tolist()) for n in (1, 2)] == shifts[:2]


@pytest.mark.parametrize("kind", ["pixels", "labels", "random-labels"])
def test_tasks_are_drawn_from_all_images_again_where_they_run_out(kind: str) -> None:
    asked = {"shift": kind, "stage_size": 15}
    tasks = arrivals(DATA, 3, stages=100, **asked)

    plain = torch.randperm(40, generator=torch.Generator().manual_seed(3)).tolist()
    assert tasks[:2] == [plain[:15], plain[15:30]]  # what fits is drawn as it always was
    assert all(len(set(task)) == 15 for task in tasks)
    assert len({tuple(sorted(task)) for task in tasks}) == 100
    assert set(flat(tasks)) == set(range(40))
    assert arrivals(DATA, 3, stages=7, **asked) == tasks[:7]
    assert arrivals(DATA, 4, stages=7, **asked)[2:] != tasks[2:7]
    assert [len(task) for task in arrivals(DATA, shift=kind, stage_size="30,5,40")] == [30, 5, 40]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": 2, "stage_size": 41}, "has 40 training examples, but the largest stage needs 41; lower"),
        ({"stages": 4, "stage_size": 10, "test": "next"}, "4 stages of 10 and the next of 10 need 50"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        arrivals(DATA, shift="pixels", **settings)


def test_random_labels_are_drawn_for_each_image_and_tested_on_the_same() -> None:
    found = stream(counting_data([0, 1] * 300, [0, 1]), shift="random-labels", stages=3, stage_size=600)
    drawn = []
    for number in (1, 2, 3):
        arrival = found.arrival(number)
        assert arrival.train is arrival.new
        assert arrival.test is arrival.new
        drawn.append(arrival.new.shift.drawn)
        assert torch.equal(drawn[-1], found.arrival(number).new.shift.drawn)
        counts = torch.bincount(drawn[-1], minlength=3)
        assert counts.sub(200).abs().max() < 4.5 * (600 * 1 / 3 * 2 / 3) ** 0.5  # binomial
        assert (drawn[-1] == arrival.new.index % 2).double().mean() == pytest.approx(1 / 3, abs=0.09)  # by chance
    assert not torch.equal(drawn[0], drawn[1])


def test_a_rare_class_is_drawn_in_the_first_stage() -> None:
    rare = counting_data([0] * 30 + [1] * 30 + [2], [0, 1, 2])
    draws = (torch.randperm(61, generator=torch.Generator().manual_seed(seed)).tolist() for seed in range(50))
    seed, plain = next((seed, draw) for seed, draw in enumerate(draws) if 60 not in draw[:20])
    first, second = arrivals(rare, seed, stages=2, stage_size=10)
    assert 60 in first
    assert len(set(first + second)) == 20
    assert len(set(first + second) - set(plain[:20])) == 1  # nothing else is drawn otherwise
    assert stream(rare, seed, stages=2, stage_size=10).left_out == frozenset()


def test_a_class_without_a_place_is_not_tested() -> None:
    more = counting_data([0] * 10 + [1] * 10, [0, 1, 2, 2])
    found = stream(more, stages=1, stage_size=10)
    assert (found.left_out, found.tested.index.tolist()) == ({2}, [0, 1])
    few = stream(counting_data([0, 1, 2] * 5, [0, 1, 2]), stages=1, stage_size=2)
    assert len(few.left_out) == 1
    assert few.tested.index.tolist() == sorted({0, 1, 2} - few.left_out)
    with pytest.raises(InputError, match="its training part has none of them: check the labels"):
        stream(counting_data([0, 1], [2]), stages=1, stage_size=2)


def test_one_class_only_is_refused() -> None:
    with pytest.raises(InputError, match="one class only, 'dog'"):
        arrivals(counting_data([1] * 10, [1]), stages=1, stage_size=10)


def test_what_recurs_arrives_together_the_oldest_first() -> None:
    months = arrivals(MONTHS, order="month")
    assert [sorted(month) for month in months] == [list(range(8, 20)), list(range(8)), list(range(20, 40))]
    assert arrivals(MONTHS, 1, order="month") != months  # within a month the seed decides
    assert months[2] != sorted(months[2])
    assert arrivals(MONTHS, order="month", stages=2) == months[:2]
    assert arrivals(MONTHS, order="given") == months


def test_a_size_cuts_any_order() -> None:
    cut = arrivals(MONTHS, order="month", stage_size=6)
    assert [len(stage) for stage in cut] == [6] * 6  # and 4 are left
    assert set(cut[0] + cut[1]) == set(range(8, 20))
    assert len(arrivals(MONTHS, order="month", stage_size=6, stages=2)) == 2


def test_times_that_differ_are_cut_into_equal_parts() -> None:
    assert arrivals(ALL_DIFFERENT, order="time", stages=4) == [
        list(range(39 - 10 * i, 29 - 10 * i, -1)) for i in range(4)
    ]
    assert arrivals(ALL_DIFFERENT, 5, order="time", stages=4) == arrivals(ALL_DIFFERENT, order="time", stages=4)
    assert [len(stage) for stage in arrivals(ALL_DIFFERENT, order="time")] == [6] * 6
    assert arrivals(DATA, order="given", stages=2) == [list(range(20)), list(range(20, 40))]


def test_an_order_that_the_data_do_not_have_is_refused() -> None:
    with pytest.raises(InputError, match="counting: there is no column 'day' to order by; leave it out"):
        arrivals(DATA, order="day")


def test_the_next_arrival_is_tested() -> None:
    found = stream(MONTHS, order="month", test="next")
    assert found.stages == 2
    for number in (1, 2):
        following = {1: set(range(8)), 2: set(range(20, 40))}[number]
        assert set(found.arrival(number).test.index.tolist()) == following
    drawn = stream(DATA, stages=3, stage_size=10, test="next")
    assert drawn.arrival(1).test.index.tolist() == drawn.arrival(2).new.index.tolist()
    assert drawn.stages == 3
    assert stream(ALL_DIFFERENT, order="time", test="next").stages == 6
    unseen = counting_data([0, 1] * 10 + [2, 0], [], ["a"] * 10 + ["b"] * 10 + ["c"] * 2)
    last = stream(unseen, order="x", test="next")
    assert (last.left_out, last.arrival(2).test.index.tolist()) == ({2}, [21])


def test_a_fifth_rotates_so_that_all_is_tested() -> None:
    parts = [examined(ALONE, seed, stages=2, stage_size=10) for seed in range(5)]
    assert set.union(*parts) == set(range(40))
    assert [len(part) for part in parts] == [8] * 5
    assert examined(ALONE, 5, stages=2, stage_size=10) == parts[0]
    assert examined(ALONE, 3, stages=2, stage_size=10, test="fixed") == parts[0]
    assert examined(DATA, 3, stages=2, stage_size=10, test="rotate") == parts[3]
    for seed, part in enumerate(parts):
        assert part.isdisjoint(flat(arrivals(ALONE, seed, stages=3, stage_size=10)))
        assert part.isdisjoint(flat(arrivals(replace(MONTHS), seed, order="month", test="rotate")))


def test_folds_hold_each_class_alike_and_never_a_class_alone() -> None:
    labels = torch.tensor([0] * 103 + [1] * 11 + [2] * 3 + [3])
    found = folds(labels)
    assert found.tolist() == folds(labels).tolist()
    for label, sizes in ((0, {20, 21}), (1, {2, 3}), (2, {0, 1})):
        counts = found[labels == label].bincount(minlength=5).tolist()
        assert set(counts) == sizes
    assert found[-1] == -1
    assert max(found[:-1].bincount().tolist()) - min(found[:-1].bincount().tolist()) <= 1


def test_too_little_to_test_is_refused() -> None:
    with pytest.raises(InputError, match="examples of 3 classes are too few to test a fifth of each; add a test part"):
        arrivals(counting_data([0, 1]), stages=1, stage_size=1)
    single = counting_data([0, 1] * 10, [], ["a"] * 10 + ["b"] * 9 + ["c"])
    emptied = next(seed for seed in range(5) if 19 in examined(single, seed, order="x", stages=2))
    with pytest.raises(InputError, match="leaves nothing to train on of arrival 3; give --stage-size N or --test next"):
        arrivals(single, emptied, order="x")


# A stream to tune on


def to_tune_on(data: ImageData, seed: int = 0, **settings: object) -> ImageStream:
    return image_stream(data, StreamSettings.of(settings), seed, validation=True)


MANY = counting_data([0, 1] * 200, [0, 1] * 20)
STREAMS = [
    pytest.param(MANY, {"stages": 4, "stage_size": 50}, id="draws that the rest suffices for"),
    pytest.param(MANY, {"stages": 4, "stage_size": 100}, id="draws of all there is"),
    pytest.param(counting_data([0, 1] * 200), {"stages": 4, "stage_size": 50, "test": "fixed"}, id="a fifth tested"),
    pytest.param(MANY, {"shift": "pixels", "stages": 9, "stage_size": 300}, id="tasks that share images"),
    pytest.param(MANY, {"order": "given", "stages": 4}, id="in the order of rows"),
    pytest.param(MONTHS, {"order": "month"}, id="in months"),
    pytest.param(MANY, {"order": "classes", "stages": 2}, id="in groups of classes"),
]


@pytest.mark.parametrize(("data", "settings"), STREAMS)
def test_a_stream_to_tune_on_has_nothing_of_the_test_set_and_tests_what_it_does_not_train_on(data, settings) -> None:
    real, tuning = stream(data, **settings), to_tune_on(data, **settings)

    assert tuning.stages == real.stages
    last, tested = tuning.arrival(tuning.stages), real.arrival(real.stages).test
    trained, held = set(last.train.index.tolist()), set(last.test.index.tolist())
    assert last.test.part == "train"
    assert held
    assert not held & trained
    if tested.part == "train":
        assert not (held | trained) & set(tested.index.tolist())


def test_random_draws_to_tune_on_keep_their_size_where_the_rest_suffices() -> None:
    sizes = {size: len(to_tune_on(MANY, stages=4, stage_size=size).arrival(1).new.index) for size in (50, 80, 100)}

    assert (sizes[50], sizes[80]) == (50, 80)
    assert 70 <= sizes[100] <= 90
    assert len(to_tune_on(MANY, stages=9, stage_size=100, shift="labels").arrival(9).new.index) == 100


def test_where_the_next_arrival_is_tested_the_last_stage_is_left_out_of_tuning() -> None:
    settings = {"order": "given", "stage_size": 80, "test": "next"}
    real, tuning = stream(MANY, **settings), to_tune_on(MANY, **settings)

    assert (real.stages, tuning.stages) == (4, 3)
    for number in (1, 2, 3):
        assert tuning.arrival(number).test.index.tolist() == real.arrival(number).test.index.tolist()
    unseen = set(real.arrival(4).test.index.tolist())
    assert not unseen & {*tuning.arrival(3).train.index.tolist(), *tuning.arrival(3).test.index.tolist()}


@pytest.mark.parametrize(
    ("data", "settings", "words"),
    [
        (MANY, {"order": "given", "stages": 2, "test": "next"}, "needs 3 or more; raise --stages"),
        (counting_data([0, 1], [0, 1]), {"stages": 2, "stage_size": 1}, "too few examples to hold out a fifth"),
    ],
)
def test_what_cannot_be_tuned_on_is_one_line(data, settings, words) -> None:
    with pytest.raises(InputError, match=words):
        to_tune_on(data, **settings)
