import copy
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from cards import card_of
from PIL import Image

import warmstart as ws
from made_images import class_tree, encode, noise, write_folder
from warmstart.data.images import ImageData
from warmstart.data.load import load as load_data
from warmstart.models.registry import model_factory
from warmstart.serving import served as served_module
from warmstart.serving.model_folder import write_model
from warmstart.serving.served import Served
from warmstart.training.evaluation import evaluate, outputs
from warmstart.training.examples import on_device


def test_predictions_are_what_the_engine_evaluates_bit_for_bit(trained, served):
    test = trained.task.stage_data(0, 1).test
    logits = torch.cat([output for output, _ in outputs(trained.model, test, channels_last=True)])
    predicted = served.predict(test.images)
    assert len(test) == len(predicted) > 300
    assert torch.equal(predicted.probabilities, logits.softmax(1))
    assert torch.equal(predicted.labels == test.labels, trained.state.scores == 1)
    assert torch.equal(served.model(served.preprocess(test.images[:500])), logits[:500])


def test_a_network_of_colour_images_large_enough_for_another_layout_says_the_same_too(tmp_path):
    images = torch.randint(0, 256, (40, 3, 32, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(40) % 4
    data = ImageData("made", images, labels, images[:0], labels[:0], tuple("abcd"))
    model = model_factory("resnet18[width=4]")(4, 3, (32, 24))
    write_model(tmp_path / "m", model, card_of(data, "resnet18[width=4]"))
    correct = evaluate(model, as_trained(data), channels_last=True).correct
    assert torch.equal(ws.load(tmp_path / "m", "cpu").predict(images).labels == labels, correct)


@pytest.fixture(scope="module")
def digits(trained):
    return trained.task.stage_data(0, 1).test.images[:10]


def same(a, b):
    return torch.equal(a.labels, b.labels) and torch.equal(a.probabilities, b.probabilities)


def test_every_form_of_the_same_images_gives_the_same(served, digits, tmp_path):
    expected = served.predict(digits)
    assert len(set(expected.labels.tolist())) > 3
    arrays = [image[0].numpy() for image in digits]
    files = [tmp_path / f"{i}.png" for i in range(len(arrays))]
    for file, array in zip(files, arrays, strict=True):
        Image.fromarray(array).save(file)
    colour = digits.repeat(1, 3, 1, 1)
    forms = {
        "(N, C, H, W)": digits,
        "(N, H, W)": digits[:, 0],
        "(N, H, W, C) of NumPy": digits.permute(0, 2, 3, 1).numpy(),
        "grey in three channels": colour,
        "grey in three channels last": colour.permute(0, 2, 3, 1).numpy(),
        "a list of arrays": arrays,
        "PIL images": [Image.fromarray(array) for array in arrays],
        "paths": files,
        "paths as text": [str(file) for file in files],
        "all kinds at once": [files[0], str(files[1]), Image.fromarray(arrays[2]), arrays[3], *digits[4:]],
        "an array that cannot be written to": np.broadcast_to(digits.numpy(), digits.shape),
    }
    for form, images in forms.items():
        assert same(served.predict(images), expected), form


def test_one_image_is_a_prediction_of_one(served, digits, tmp_path):
    digit = digits[0, 0]
    Image.fromarray(digit.numpy()).save(tmp_path / "digit.png")
    expected = served.predict(digits[:1])
    for one in (digit, digit[None], digit[..., None].numpy(), Image.fromarray(digit.numpy()), tmp_path / "digit.png"):
        assert same(served.predict(one), expected)
    assert len(expected) == 1


def looking_on(data, **changes):
    """What a network takes: its output is its input."""
    return Served(torch.nn.Flatten(), card_of(data, "mlp", **changes), Path(), torch.device("cpu"))


def as_trained(data):
    return on_device(data.train_images, data.train_labels, data.channel_mean(), data.channel_std(), torch.device("cpu"))


def test_files_come_to_the_networks_size_as_those_of_the_training_data_did(tmp_path):
    write_folder(tmp_path / "data", class_tree({"a": 3, "b": 3}, size=40))
    (tmp_path / "data" / "a" / "wide.jpg").write_bytes(encode(noise(90, 1, width=200), "JPEG"))
    (tmp_path / "data" / "b" / "grey.png").write_bytes(encode(noise(30, 2, "L")))
    for fit in ("stretch", "crop", "pad"):
        data = load_data(tmp_path / "data", image_size=(12, 16), fit=fit)
        served = looking_on(data, fit=fit)
        files = sorted((tmp_path / "data").rglob("*.*"))
        assert torch.equal(served.preprocess(files), as_trained(data).batch(slice(None))[0])
        lossless = [file for file in files if file.suffix == ".png"]
        assert torch.equal(served.preprocess([Image.open(file) for file in lossless]), served.preprocess(lossless))


def test_colour_becomes_grey_as_pillow_does_it(served):
    colour = [noise(8, seed) for seed in range(20)]
    grey = [image.convert("L") for image in colour]
    assert same(served.predict(colour), served.predict(grey))


def test_images_of_twelve_bits_are_as_bright_as_in_training(tmp_path):
    def save(name, top):
        Image.fromarray(np.full((6, 6), top, np.uint16)).save(tmp_path / name)
        return tmp_path / name

    (tmp_path / "train" / "a").mkdir(parents=True)
    save("train/a/bright.png", 4095)
    data = load_data(tmp_path / "train")
    assert data.bits == 12
    served = Served(
        torch.nn.Flatten(), card_of(data, "mlp", mean=(0.0,), std=(1 / 255,)), tmp_path, torch.device("cpu")
    )
    dark, white, beyond = (save(f"{top}.png", top) for top in (1024, 4095, 60000))
    assert served.preprocess([dark, white, beyond])[:, 0, 0, 0].tolist() == [64, 255, 255]


def test_the_batch_size_changes_nothing_but_rounding(served, digits):
    a, b = served.predict(digits), served.predict(digits, batch_size=3)
    assert torch.equal(a.labels, b.labels)
    torch.testing.assert_close(a.probabilities, b.probabilities)


def test_several_threads_may_share_it(served, digits, tmp_path):
    expected, filters = served.predict(digits), list(warnings.filters)
    files = [tmp_path / f"{i}.png" for i in range(len(digits))]
    for file, image in zip(files, digits, strict=True):
        Image.fromarray(image[0].numpy()).save(file)
    with ThreadPoolExecutor(4) as pool:
        assert all(same(found, expected) for found in pool.map(served.predict, [digits, files] * 20))
    assert warnings.filters == filters
    assert not served.model.training


def test_networks_of_one_process_take_turns(served, digits, monkeypatch):
    """Precision is the process's: nobody may put it back while another computes."""
    computing, outputs = [], served_module.outputs

    def alone(*given, **named):
        assert not computing
        computing.append(threading.get_ident())
        time.sleep(0.01)
        yield from outputs(*given, **named)
        computing.clear()

    monkeypatch.setattr(served_module, "outputs", alone)
    networks = [Served(copy.deepcopy(served.model), served.card, served.folder, served.device) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(lambda number: networks[number % 2].predict(digits), range(10)))) == 10


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((2, 8, 8)), r"images are float64; give uint8, 0 to 255"),
        (torch.zeros(2, 1, 8, 8), r"images are float32; give uint8"),
        (np.zeros((2, 4, 8, 8), np.uint8), r"images have the shape \(2, 4, 8, 8\); give \(H, W\), "),
        (np.zeros((0, 8, 8), np.uint8), r"images have the shape \(0, 8, 8\); give .* at least one image"),
        (np.zeros(8, np.uint8), r"images have the shape \(8,\)"),
        ([], "there are no images; give at least one"),
        ("nowhere.png", r"nowhere.png: cannot be read \(.*No such file"),
        ([__file__], r"test_served.py: not an image of a known format"),
        ([3], r"^3 is no image; give paths, PIL images"),
        ([np.zeros((2, 8, 8), np.uint8), "x.png"], r"an array of 2 images is in a list of images"),
    ],
)
def test_what_is_no_image_is_one_line(served, images, said):
    with pytest.raises(ws.InputError, match=said) as caught:
        served.predict(images)
    assert "\n" not in str(caught.value)


def test_predictions_can_be_read(served, digits):
    predicted = served.predict(digits)
    lines = str(predicted).splitlines()
    assert lines[0] == "10 images"
    assert lines[1].split("%  ")[1] == predicted.names[0] == served.classes[predicted.labels[0]]
    assert str(served.predict(digits.repeat(3, 1, 1, 1))).endswith("…")


def test_a_model_is_found_by_its_folder_and_by_the_state_that_it_is_current_in(state, served):
    assert served.folder == ws.load(state / "models" / "0001", "cpu").folder == (state / "models" / "0001").resolve()
    assert served.card.about["stage"] == 1
    assert served.classes == tuple("0123456789")


def test_a_place_without_a_model_is_one_line(tmp_path):
    with pytest.raises(ws.InputError, match=r"nowhere is no folder; name the --state of `warmstart retrain`"):
        ws.load(tmp_path / "nowhere")
    with pytest.raises(ws.InputError, match=r"holds no model; name the --state"):
        ws.load(tmp_path)
    (tmp_path / "current").symlink_to("models/0007")
    with pytest.raises(ws.InputError, match=r"current points to models/0007, which is not there; point it to another"):
        ws.load(tmp_path)


def test_a_device_that_is_not_there_is_one_line(state):
    with pytest.raises(ws.InputError, match="device 'cuda:77' is not there; this machine has cpu"):
        ws.load(state, "cuda:77")
