import sys

import pytest
import torch

from warmstart.errors import InputError
from warmstart.layers.norms import batch_norms
from warmstart.models.factory import check_factory
from warmstart.models.registry import input_range, model_factory, networks

ROWS = {  # name: the smallest side that is tried, whether it has batch norm, the range of its input
    "small-cnn": (8, True, "normalised"),
    "mlp": (8, True, "unit"),
    "resnet18": (8, True, "normalised"),
    "vgg16": (32, True, "normalised"),
    "vit": (8, False, "normalised"),
}


def test_each_network_has_its_row_a_line_and_a_source():
    assert networks().keys() == ROWS.keys()
    for name, network in networks().items():
        assert network.name == name
        assert 0 < len(network.summary) < 120
        assert "\n" not in network.summary
        assert network.source


@pytest.mark.parametrize("name", ROWS)
def test_each_reads_cifar_and_is_as_its_row_says(name):
    smallest, has_batch_norm, wanted = ROWS[name]
    with torch.device("meta"):  # no need to draw 134 million weights
        model = model_factory(name)(100, 3, 32).eval()
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 100)
    assert bool(batch_norms(model)) == has_batch_norm
    assert input_range(name) == wanted
    if smallest < 32:
        check_factory(model_factory(name), 10, 1, smallest, name=name)


def test_ones_own_network_gets_images_with_mean_0():
    assert input_range("mynets:make") == "normalised"


def test_every_call_draws_new_weights_which_the_seed_decides():
    factory = model_factory("small-cnn")
    torch.manual_seed(1)
    first, second = factory(10, 1, 8), factory(10, 1, 8)
    torch.manual_seed(1)
    again = factory(10, 1, 8)

    assert not torch.equal(first.classifier.weight, second.classifier.weight)
    assert torch.equal(first.classifier.weight, again.classifier.weight)


def test_a_mistyped_name_gets_the_nearest_one():
    with pytest.raises(InputError, match=r"unknown model 'resnet8' .*did you mean 'resnet18'\?"):
        model_factory("resnet8")


def test_an_unknown_name_gets_the_list_and_the_form_of_ones_own():
    with pytest.raises(InputError, match=r"pkg\.module:factory.*choose from mlp, resnet18, small-cnn, vgg16, vit"):
        model_factory("transformer")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("make = 3", "is of type int and cannot be called"),
        ("import torch; make = torch.nn.Linear(2, 2)", "is a network, not a factory"),
    ],
)
def test_what_is_no_factory_is_refused(tmp_path, monkeypatch, source, message):
    (tmp_path / "not_a_factory.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "not_a_factory", raising=False)

    with pytest.raises(InputError, match=message):
        model_factory("not_a_factory:make")


def test_a_module_class_is_a_factory(tmp_path, monkeypatch):
    (tmp_path / "flat_net.py").write_text(
        "from torch import nn\n"
        "class Flat(nn.Sequential):\n"
        "    def __init__(self, num_classes, in_channels, image_size):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)

    factory = model_factory("flat_net:Flat")

    check_factory(factory, 3, 1, 8)
    assert not batch_norms(factory(3, 1, 8))


@pytest.mark.parametrize(("name", "size"), [*(("small-cnn", s) for s in ((8, 20), (40, 17), (3, 200))), ("mlp", (4, 6)),
                                            ("resnet18", (20, 9)), ("vgg16", (32, 40)), ("vit", (8, 20))])  # fmt: skip
def test_images_need_not_be_square(name, size):
    check_factory(model_factory(name), 3, 1, size, name=name)


def test_a_side_may_be_too_short_for_vgg16():
    with pytest.raises(InputError, match="vgg16: halves its images five times, so 64x31 pixels leave nothing"):
        model_factory("vgg16")(3, 1, (64, 31))
