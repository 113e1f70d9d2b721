"""A stage of a shifting stream trains and tests on its own task; half and tenth have their own sizes and epochs."""

import pytest
import torch

from warmstart.comparison.settings import CompareSettings
from warmstart.data.load import load
from warmstart.runs.image_task import ImageTask
from warmstart.runs.key import RunKey
from warmstart.runs.run import Run


def task(**settings):
    given = CompareSettings.of({"stages": 3, "stage_size": 40, "device": "cpu", "threads": 1, **settings})
    return ImageTask(load("digits"), "small-cnn", given, given)


@pytest.mark.parametrize("kind", ["pixels", "labels"])
def test_train_and_test_are_shifted_alike(kind):
    plain, shifted = task().stage_data(1, 2), task(shift=kind).stage_data(1, 2)
    assert (shifted.seen, shifted.new) == (40, 40)
    assert shifted.test_set not in ("", plain.test_set)
    assert shifted.test_set != task(shift=kind).stage_data(1, 3).test_set
    new = plain.examples.at(slice(40, 80))
    for ours, theirs in ((shifted.examples, new), (shifted.test, plain.test)):
        images, labels = ours.stored(slice(None))
        before, names = theirs.stored(slice(None))
        assert torch.equal(images, before) == (kind == "labels")
        assert torch.equal(labels, names) == (kind == "pixels")
        assert torch.equal(images.flatten(1).sort().values, before.flatten(1).sort().values)
        pairs = set(zip(names.tolist(), labels.tolist(), strict=True))
        assert len(pairs) == len({name for name, _ in pairs})  # each class has one new name
    assert torch.equal(shifted.batches(7)[-1][0], shifted.examples.stored(slice(33, 40))[0])


def test_random_labels_say_nothing_of_the_image_and_are_what_is_tested():
    plain, random = task().stage_data(1, 1), task(shift="random-labels").stage_data(1, 1)
    images, labels = random.examples.stored(slice(None))
    assert torch.equal(images, plain.examples.stored(slice(None))[0])
    assert 0 <= (labels == plain.examples.labels).double().mean() < 0.4  # a tenth by chance
    assert torch.equal(random.test.labels, labels)
    assert random.test_set not in ("", task(shift="random-labels").stage_data(1, 2).test_set)
    state = Run(task(shift="random-labels", stages=1, epochs=60), RunKey("warm", 0, "sgd"), None).go_on(lambda _: None)
    assert state.rows[0].test_accuracy > 0.9  # memorised


def test_stages_have_the_epochs_and_sizes_of_their_protocol():
    settings = {"protocol": "tenth", "stages": 2, "stage_size": "10%,90%", "first_epochs": 4, "epochs": 2}
    tenth = task(**settings)
    assert tenth.arriving == (143, 1293)
    state = Run(tenth, RunKey("warm", 0, "adamw"), None).go_on(lambda event: None)
    assert [row.epochs for row in state.rows] == [4, 2]
    assert [tenth.stage_data(0, number).updates for number in (1, 2)] == [4 * 1, 2 * 6]
