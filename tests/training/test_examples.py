from dataclasses import replace

import pytest
import torch

from warmstart.training.examples import Examples, on_device

MEAN, STD = torch.tensor([0.49, 0.48, 0.45]), torch.tensor([0.25, 0.24, 0.26])


@pytest.fixture
def images():
    return torch.randint(0, 256, (11, 3, 5, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def examples(images):
    return on_device(images, torch.arange(11), MEAN, STD, torch.device("cpu"))


def test_a_batch_is_normalised_as_in_float_arithmetic(images, examples):
    inputs, labels = examples.batch(slice(2, 7))

    expected = (images[2:7].double() / 255 - MEAN.double().view(3, 1, 1)) / STD.double().view(3, 1, 1)
    assert inputs.dtype == torch.float32
    assert torch.allclose(inputs.double(), expected, rtol=1e-6, atol=1e-6)
    assert labels.tolist() == [2, 3, 4, 5, 6]


def test_every_value_from_0_to_255_is_told_apart():
    ramp = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1)
    inputs, _ = on_device(ramp, torch.zeros(256), torch.zeros(1), torch.ones(1), torch.device("cpu")).batch(slice(None))

    assert torch.allclose(inputs.flatten(), torch.arange(256) / 255)


def test_normalising_leaves_the_images_as_they_are(images, examples):
    before = images.clone()
    examples.batch(slice(None))[0].add_(1)

    assert torch.equal(images, before)


def test_some_examples_keep_their_labels_and_scale(images, examples):
    chosen = examples.at(torch.tensor([9, 1]))

    assert len(chosen) == 2
    inputs, labels = chosen.batch(slice(None))
    assert labels.tolist() == [9, 1]
    assert torch.equal(inputs[1], examples.batch(slice(1, 2))[0][0])


def test_pixels_are_shown_in_another_order_in_every_batch(images, examples):
    order = torch.randperm(25, generator=torch.Generator().manual_seed(2))
    shown = replace(examples, pixels=order)

    expected = torch.stack([image.flatten(1)[:, order].view(3, 5, 5) for image in images])
    assert torch.equal(shown.stored(slice(None))[0], expected)
    assert torch.equal(shown.at(torch.tensor([3, 1])).stored(slice(None))[0], expected[[3, 1]])
    assert torch.equal(shown.batch(slice(2, 4))[0], examples.normalised(expected[2:4]))


@pytest.mark.parametrize(
    ("sides", "expected"), [((32, 32), 500), ((64, 64), 500), ((128, 64), 250), ((4096, 9), 55), ((2000, 2000), 16)]
)
def test_of_large_images_fewer_are_computed_at_a_time(examples, sides, expected):
    large = replace(examples, images=torch.empty(11, 3, *sides, dtype=torch.uint8, device="meta"))

    assert large.in_a_pass(500) == expected


def test_shuffling_moves_images_and_labels_together_and_loses_none(examples):
    shuffled = examples.shuffled(torch.Generator().manual_seed(5))

    inputs, labels = shuffled.batch(slice(None))
    assert sorted(labels.tolist()) == list(range(11))
    assert labels.tolist() != list(range(11))
    assert torch.equal(inputs, examples.batch(slice(None))[0][labels])
    assert torch.equal(labels, examples.shuffled(torch.Generator().manual_seed(5)).labels)


def test_batches_in_order_are_cut_from_the_newest_so_that_the_short_one_is_the_oldest(images, examples):
    batches = examples.in_order(4)

    assert [labels.tolist() for _, labels in batches] == [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9, 10]]
    assert torch.equal(batches[-1][0], images[7:11])
    assert torch.equal(examples.normalised(batches[-1][0]), examples.batch(slice(7, 11))[0])
    assert torch.equal(batches[-1][0], images[7:11])  # still
    assert [labels.tolist() for _, labels in batches[-2:]] == [[3, 4, 5, 6], [7, 8, 9, 10]]
    assert len(examples.in_order(4)) == 3
    assert len(examples.in_order(100)) == 1


def test_batches_in_order_are_made_only_when_asked_for(examples, monkeypatch):
    made = []
    plain = Examples.stored
    monkeypatch.setattr(Examples, "stored", lambda self, index: (made.append(index), plain(self, index))[1])

    batches = examples.in_order(4)
    assert made == []
    batches[2]
    assert made == [slice(7, 11)]
