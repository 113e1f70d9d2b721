"""The scripts of the recipes run as they stand and do what their pages say; tests/test_docs.py reads the pages."""

import logging
import re
import runpy
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[1] / "examples" / "recipes"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a recipe's script in a folder of its own, as a user does; gives its names and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(name):
        names = runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        return names, capsys.readouterr().out

    return run


def test_the_imagenet_script_acts_once_and_begins_its_schedule_again(run):
    _, first = run("imagenet_script")
    june, july = first.split("dash(")
    assert june == july[july.index("epoch 0") :]  # all epochs again, at the same rates
    assert june.startswith("epoch 0, learning rate 0.1\n")
    assert "old data has 25.5% of the average's weight" in july
    _, again = run("imagenet_script")
    assert again == ""


def test_of_data_sorted_by_class_only_their_own_order_is_warned_of(run):
    _, out = run("sorted_by_class")
    as_it_is, *ordered = out.splitlines()
    assert as_it_is.startswith("as it is: the newest 200 examples, which weigh 52%, have 3 of 10 classes")
    assert len(ordered) == 4
    assert all(line.endswith(": in order, as far as classes tell") for line in ordered)


def test_a_head_that_grows_keeps_its_old_rows(run):
    names, out = run("new_class")
    head = torch.nn.Linear(8, 4)
    wider = names["grown"](head, 6)
    assert wider.weight.shape == (6, 8)
    assert torch.equal(wider.weight[:4], head.weight)
    assert torch.equal(wider.bias[:4], head.bias)
    old, new = (float(accuracy) for accuracy in re.findall(r"trained: old classes (\S+), the new one (\S+)", out)[0])
    assert old > 0.9
    assert new > 0.5


def test_rounds_of_active_learning_are_in_order_of_labelling(run):
    names, out = run("active_learning")
    assert out.count("accuracy") == 4
    labelled = names["labelled"]
    assert len(set(labelled)) == len(labelled) == 5 * names["ROUND"]
    assert torch.equal(names["so_far"][-1][0], names["pool"][labelled[-1]][0])


def test_an_average_made_anew_is_nearer_to_the_network_than_the_old_one(run):
    _, out = run("averaged_model")
    anew, old = (float(share) for share in re.findall(r"made anew (\S+) away, the old one (\S+)", out)[0])
    assert anew < 0.9 * old
    assert float(out.split()[-1]) > 0.8


@pytest.mark.parametrize(
    ("name", "framework"),
    [
        ("lightning_module", "lightning"),
        ("hugging_face_images", "transformers"),
        ("hugging_face_text", "transformers"),
    ],
)
def test_with_a_framework_dash_acts_once_on_both_months(name, framework, run, caplog):
    caplog.set_level(logging.INFO, "warmstart")
    pytest.importorskip(framework)
    run(name)
    assert caplog.text.count("neurons scaled by") == 1
    assert "old data has 32.9% of the average's weight" in caplog.text
    caplog.clear()
    run(name)
    assert "neurons scaled by" not in caplog.text
