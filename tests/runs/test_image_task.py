"""The task of a comparison on images, as another process gets it."""

import pickle

import pytest
import torch

from warmstart.data.images import ImageData
from warmstart.decoding.cache import map_images
from warmstart.reproduction.papers_methods import PapersTask
from warmstart.runs.image_task import ImageTask
from warmstart.streams.settings import StreamSettings
from warmstart.training.recipe import Recipe


@pytest.fixture(params=["in memory", "in a file"])
def images(request, tmp_path):
    """Noise in colour, ten images to train on and two to test; and what overwrites it with black."""
    held = torch.randint(256, (12, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    file = tmp_path / "images" if request.param == "in a file" else None
    if file is not None:
        file.write_bytes(held.numpy().tobytes())
        held = map_images(file, held.shape)
    return ImageData("noise", held[:10], torch.arange(10) % 2, held[10:], torch.arange(2), ("a", "b"), file=file)


def overwrite(images):
    """Make all images black, so that what is read from now on is not what was there."""
    if images.file is None:
        images.train_images.zero_()
        images.test_images.zero_()
    else:
        images.file.write_bytes(bytes(12 * 3 * 6 * 5))


def values(task):
    return [tensor.tolist() for tensor in task.normalisation]


@pytest.mark.parametrize("kind", [ImageTask, PapersTask])
def test_another_process_normalises_by_the_same_numbers_and_reads_no_images_for_them(images, kind):
    expected = [values.tolist() for values in (images.channel_mean(), images.channel_std())]
    sent = pickle.dumps(kind(images, "small-cnn", Recipe(), StreamSettings()))

    overwrite(images)
    task = pickle.loads(sent)
    overwrite(task.images)

    assert task.images.channel_mean().eq(0).all()
    assert values(task) == expected
    assert values(pickle.loads(pickle.dumps(task))) == expected  # as from the server of workers to each of them
    assert all(tensor.dtype == torch.float32 for tensor in task.normalisation)


def test_a_second_process_costs_no_second_reading(images):
    task = ImageTask(images, "small-cnn", Recipe(), StreamSettings())
    first = values(pickle.loads(pickle.dumps(task)))
    overwrite(images)
    assert values(pickle.loads(pickle.dumps(task))) == first


def test_a_network_that_takes_images_in_0_to_1_gets_them_so_and_a_given_mean_wins_over_the_datas_own(images):
    given = {"mean": (0.25, 0.5, 0.1), "std": (1.5, 2.0, 0.3)}
    unit = ImageTask(images, "mlp", Recipe(), StreamSettings(), **given)
    assert values(unit) == values(pickle.loads(pickle.dumps(unit))) == [[0.0] * 3, [1.0] * 3]

    task = ImageTask(images, "small-cnn", Recipe(), StreamSettings(), **given)
    assert values(task) == [torch.tensor(numbers).tolist() for numbers in given.values()]
    assert values(pickle.loads(pickle.dumps(task))) == values(task)
