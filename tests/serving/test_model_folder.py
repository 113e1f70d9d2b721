import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from warmstart.errors import InputError
from warmstart.methods.lifecycle import prepare_
from warmstart.methods.registry import parse_method
from warmstart.models.registry import model_factory
from warmstart.serving.model_folder import CARD, WEIGHTS, ModelCard, check_model, read_card, read_model, write_model

DIGITS = ModelCard(
    model="small-cnn",
    classes=tuple("0123456789"),
    channels=1,
    image_size=8,
    fit="stretch",
    mean=(0.3,),
    std=(0.2,),
    about={"stage": 3, "accuracy": 0.96},
)


def made(name="small-cnn"):
    torch.manual_seed(1)
    return model_factory(name)(10, 1, 8)


def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def folder(tmp_path):
    write_model(tmp_path / "models" / "0001", made(), DIGITS)
    return tmp_path / "models" / "0001"


def test_a_model_comes_back_bit_for_bit_in_eval_mode_and_draws_no_random_number(folder):
    expected, before = made(), torch.get_rng_state()
    model, card = read_model(folder)
    assert equal(model, expected)
    assert not model.training
    assert card == DIGITS == read_card(folder)
    assert torch.equal(before, torch.get_rng_state())


def test_any_tool_finds_the_weights_by_their_own_names(folder):
    model = made()
    model.load_state_dict(load_file(folder / WEIGHTS))
    assert equal(model, made())


def test_a_later_model_takes_the_place_of_an_earlier_one_and_nothing_else_stays(folder):
    later = made("small-cnn[norm=layer]")
    write_model(folder, later, replace(DIGITS, model="small-cnn[norm=layer]", image_size=(8, 8), about={2: 1, 10: 1}))
    model, card = read_model(folder)
    assert equal(model, later)
    assert card.image_size == (8, 8)
    assert [path.name for path in folder.parent.iterdir()] == ["0001"]
    assert {path.name for path in folder.iterdir()} == {CARD, WEIGHTS}


@pytest.mark.parametrize("failing", ["write_bytes", "write_text"])
def test_a_full_disk_leaves_the_earlier_model(folder, monkeypatch, failing):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"warmstart.serving.model_folder.{failing}", full)
    with pytest.raises(OSError, match="No space left"):
        write_model(folder, made("small-cnn[norm=layer]"), DIGITS)
    assert equal(read_model(folder)[0], made())
    assert [path.name for path in folder.parent.iterdir()] == ["0001"]


def test_what_is_no_model_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="there is something else than a model; choose another folder"):
        write_model(tmp_path, made(), DIGITS)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def change(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def rewrite(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: change(folder / WEIGHTS), rf"{WEIGHTS}: damaged \(its SHA-256 .*; restore it from a copy"),
        (lambda folder: (folder / WEIGHTS).unlink(), rf"{WEIGHTS}: no such file, but {CARD} is there; restore it"),
        (lambda folder: (folder / CARD).unlink(), rf"{CARD}: no such file; name the folder of a model"),
        (lambda folder: (folder / CARD).write_bytes(b"{"), rf"{CARD}: damaged, or no model of warmstart's"),
        (lambda folder: (folder / CARD).write_text("[1]"), rf"{CARD}: damaged, or no model of warmstart's"),
        (lambda folder: rewrite(folder / CARD, mean=[0.2]), rf"{CARD}: damaged, or no model of warmstart's"),
        (lambda folder: rewrite(folder / CARD, classes=3), rf"{CARD}: damaged, or no model of warmstart's"),
        (lambda folder: rewrite(folder / CARD, format=2), rf"{CARD}: a model of format 2, .* reads format 1; update"),
    ],
)
def test_damage_is_one_line_that_names_the_file(folder, harm, said):
    check_model(folder)
    harm(folder)
    for read in (check_model, read_model):
        with pytest.raises(InputError, match=said) as caught:
            read(folder)
        assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_what_the_factory_makes_now_are_said_to(folder):
    write_model(folder, made(), replace(DIGITS, model="small-cnn[norm=layer]"))
    with pytest.raises(InputError, match=r"the weights do not fit the network that small-cnn\[norm=layer\] makes now"):
        read_model(folder)


def make_nothing(num_classes, in_channels, image_size):
    raise RuntimeError("the disk with my constants\nis gone")


def test_a_factory_that_fails_now_is_one_line(folder):
    write_model(folder, made(), replace(DIGITS, model=f"{__name__}:make_nothing"))
    with pytest.raises(InputError, match=r"it raised RuntimeError: the disk with my constants is gone$"):
        read_model(folder)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.again = nn.Linear(64, 64)
        self.again.weight = self.first.weight
        self.out = nn.Linear(64, 10)

    def forward(self, images):
        return self.out(self.again(self.first(images.flatten(1))))


def make_tied(num_classes, in_channels, image_size):
    return Tied()


def test_tied_weights_are_stored_once_and_are_tied_again(tmp_path):
    tied = Tied()
    write_model(tmp_path / "m", tied, replace(DIGITS, model=f"{__name__}:make_tied"))
    model, _ = read_model(tmp_path / "m")
    assert "again.weight" not in load_file(tmp_path / "m" / WEIGHTS)
    assert model.again.weight is model.first.weight
    assert equal(model, tied)


def test_layers_that_a_method_has_put_in_are_put_in_again(tmp_path):
    plain = "small-cnn[norm=none]"
    method, model = parse_method("normalize-and-project"), made(plain)
    prepare_(method, model)
    write_model(tmp_path / "m", model, replace(DIGITS, model=plain, method=str(method)))
    again, _ = read_model(tmp_path / "m")
    assert str(again) == str(model) != str(made(plain))
    assert "LayerNorm" in str(again)
