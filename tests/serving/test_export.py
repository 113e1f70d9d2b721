"""An exported file says what the model says, in runtimes that have none of its code."""

import json
import sys
from dataclasses import asdict, replace

import numpy as np
import onnxruntime
import pytest
import torch
from cards import card_of
from torch import nn

from warmstart.data.images import ImageData
from warmstart.errors import InputError
from warmstart.models.registry import model_factory
from warmstart.serving.export import CARD, export
from warmstart.serving.served import Served


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (7, 3, 32, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=["small-cnn", "resnet18[width=4]", "vit[width=12,depth=2]"])
def model(request, images):
    torch.manual_seed(0)
    labels = torch.arange(len(images)) % 4
    data = ImageData("made", images, labels, images[:0], labels[:0], tuple("abcd"))
    network = model_factory(request.param)(4, 3, (32, 24))
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):  # else a network in training mode would say the same
            layer.running_mean.uniform_(-1, 1)
    return Served(network, card_of(data, request.param), None, torch.device("cpu"))


def agree(found, served, images):
    expected = served.predict(images)
    logits, probabilities = (torch.as_tensor(part) for part in found)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities, expected.probabilities, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits.softmax(1), probabilities)
    assert torch.equal(logits.argmax(1), expected.labels)


def test_onnx_runtime_says_the_same_of_any_number_of_images(model, images, tmp_path, capfd):
    export(model, "onnx", tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("images", "tensor(uint8)", [3, 32, 24])
    assert [given.name for given in session.get_outputs()] == ["logits", "probabilities"]
    for count in (1, 2, 7):
        agree(session.run(None, {"images": images[:count].numpy()}), model, images[:count])
    held = session.get_modelmeta().custom_metadata_map
    assert json.loads(held[CARD]) == json.loads(json.dumps(asdict(model.card)))
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_torch_says_the_same_of_any_number_of_images(model, images, tmp_path, capfd):
    export(model, "torch", tmp_path / "model.pt2")
    assert capfd.readouterr() == ("", "")
    held = {CARD: ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=held).module()
    for count in (1, 2, 7):
        agree(program(images[:count]), model, images[:count])
    assert json.loads(held[CARD])["classes"] == list("abcd")


def test_an_unknown_kind_is_one_line(served, tmp_path):
    with pytest.raises(InputError, match=r"export 'onx' is unknown; did you mean 'onnx'\?"):
        export(served, "onx", tmp_path / "model")


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_gives_the_install_line(served, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"^export to onnx needs two packages .*; pip install 'warmstart\[onnx\]'$"):
        export(served, "onnx", tmp_path / "model.onnx")


class Undecided(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return images.flatten(1)[:, :10] * (self.scale if images.sum().item() > 0 else -self.scale)


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_network_that_cannot_be_traced_is_one_line_and_leaves_the_earlier_file(served, tmp_path, kind):
    file = tmp_path / "model"
    file.write_bytes(b"earlier")
    odd = Served(Undecided(), replace(served.card, model="mine:undecided"), None, torch.device("cpu"))
    with pytest.raises(InputError, match=r"^model mine:undecided cannot be exported: .*; torch.export must") as said:
        export(odd, kind, file)
    assert "\n" not in str(said.value)
    assert file.read_bytes() == b"earlier"


def test_the_model_itself_stays_as_it_was(served, tmp_path):
    before = served.predict(np.zeros((2, 8, 8), np.uint8)).probabilities
    export(served, "torch", tmp_path / "model.pt2")
    assert torch.equal(served.predict(np.zeros((2, 8, 8), np.uint8)).probabilities, before)
