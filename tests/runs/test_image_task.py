"""The task of a comparison on images, as another process gets it."""

import pickle

import pytest
import torch
from torch import nn

from warmstart.data.images import ImageData
from warmstart.decoding.cache import map_images
from warmstart.models.registry import networks
from warmstart.reproduction.papers_methods import PapersTask
from warmstart.runs.image_task import ImageTask
from warmstart.runs.key import RunKey
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


def made(name, size):
    """A task with four grey images, and a network of it."""
    pixels = torch.zeros(6, 1, size, size, dtype=torch.uint8)
    images = ImageData("black", pixels[:4], torch.arange(4) % 2, pixels[4:], torch.arange(2), ("a", "b"))
    task = ImageTask(images, name, Recipe(), StreamSettings(stages=1, stage_size=4))
    return task, task.make_model()


def groups(task, model):
    """The names of the parameters that Muon has, and of those that AdamW has."""
    optimizer = task.make_optimizer(model, RunKey("warm", 0, "muon"))
    names = {parameter: name for name, parameter in model.named_parameters()}
    return tuple(
        {names[p] for group in optimizer.param_groups if group["use_muon"] is kind for p in group["params"]}
        for kind in (True, False)
    )


HEADS = {"mlp": "7", "resnet18": "fc", "small-cnn": "classifier", "vgg16": "classifier.6", "vit": "head"}


@pytest.mark.parametrize("name", networks())
def test_muon_leaves_the_output_layer_to_adamw(name):
    task, model = made(name, 32 if name == "vgg16" else 8)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}

    muons, adamws = groups(task, model)

    assert f"{HEADS[name]}.weight" in adamws
    assert {p for p, tensor in model.named_parameters() if tensor.dim() in (2, 4)} - muons == {f"{HEADS[name]}.weight"}
    assert muons | adamws == {p for p, _ in model.named_parameters()}
    assert muons.isdisjoint(adamws)
    assert model.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


class Looked(nn.Module):
    """Positions and an embedding before the head, which is registered first."""

    def __init__(self, num_classes, in_channels, image_size):
        super().__init__()
        self.head = nn.Linear(4, num_classes)
        self.places = nn.Parameter(torch.zeros(1, 4))
        self.table = nn.Embedding(256, 4)
        self.body = nn.Linear(4, 4)
        self.norm = nn.LayerNorm((1, 4))

    def forward(self, images):
        x = self.table(images.flatten(1).long().clamp(0, 255)).mean(1, keepdim=True)
        return self.head(self.norm(self.body(x) + self.places)).flatten(1)


class Bare(nn.Module):
    """What feeds the output is a parameter of the network's own."""

    def __init__(self, num_classes, in_channels, image_size):
        super().__init__()
        self.body = nn.Linear(in_channels * image_size**2, 4)
        self.out = nn.Parameter(torch.zeros(4, num_classes))

    def forward(self, images):
        return self.body(images.flatten(1)) @ self.out


def test_of_ones_own_network_muon_takes_hidden_matrices_alone():
    assert groups(*made(f"{__name__}:Looked", 8))[0] == {"body.weight"}
    assert groups(*made(f"{__name__}:Bare", 8)) == ({"body.weight"}, {"body.bias", "out"})
