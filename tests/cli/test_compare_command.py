import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from commands import SMALL, numbers, start, warmstart


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder, so that whatever is written shows."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", sys.path[:])
    return folder


SHORT = ["--stages", "2", "--stage-size", "30", "--seeds", "2", "--device", "cpu", "--threads", "1"]


def images(count=40, classes=4):
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, 8, 8), dtype=np.uint8), np.arange(count) % classes


def refused(capfd, folder, *arguments):
    """A command is refused in one line, and leaves no trace; that line."""
    before = sorted(folder.rglob("*"))
    assert warmstart("compare", *arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("warmstart: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert sorted(file for file in folder.rglob("*") if "__pycache__" not in file.parts) == before
    return err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "cold,dsh"], "method 'dsh' is unknown; did you mean 'dash'?"),
        (["--methods", "dash[alpha=7]"], "alpha is 7.0; it must be a finite number, above 0 and at most 1"),
        (["--methods", "nosuch:Method"], "no module named nosuch"),
        (["--model", "smal-cnn"], "unknown model 'smal-cnn' (your own is named pkg.module:factory); did you mean"),
        (["--optimizer", "adam"], "optimizer 'adam' is unknown; did you mean 'adamw'?"),
        (["--stage-sise", "5"], "--stage-size"),
        (["--stages", "many"], "Invalid value for '--stages'"),
        (["--lr"], "--lr"),
        (["one.yaml", "two.yaml"], "unexpected extra argument"),
        (["nosuch.yaml"], "nosuch.yaml: cannot be read (No such file or directory)"),
        (["--data", "nosuch"], "nosuch: no such file or folder"),
        (["--data", "."], "no images in it"),
        (["--data", ""], "data is empty"),
        (["--stages", "29"], "(of 1797; the others are held out), but 29 stages of 50 need 1450; --stages 28 or"),
        (["--order", "day"], "digits: there are no columns, so no 'day' to order by"),
        (["--order", ""], "order is empty; name random"),
        (["--order", "given", "--stages", "1500"], "digits: 0 arrivals, but 1500 are needed; lower --stages"),
        (["--order", "given", "--stage-size", "2000"], "digits: 0 arrivals, but 1 are needed; lower --stages or"),
        (["--test", "nxt"], "test 'nxt' is unknown; did you mean 'next'?"),
        (["--test", "next", "--stages", "36"], "but 36 stages of 50 and the next of 50 need 1850; --stages 34 or"),
        (["--batch-size", "1"], "batches of one example cannot be batch-normalised; raise --batch-size"),
        (["--lr", "nan"], "lr is nan; it must be a finite number, above 0"),
        (["--max-seeds", "4"], "max_seeds is 4, below seeds, 5; ask for at least as many"),
        (["--until", "1.5"], "until is 1.5; it must be a finite number, above 0 and at most 1"),
        (
            ["--until", "0.9", "--epochs", "3"],
            "until has no effect with epochs, 3 a stage; leave one of them out, or give --max",
        ),
        (
            ["--protocol", "practice", "--max-epochs", "9"],
            "max_epochs has no effect with epochs, 30 a stage; leave one",
        ),
        (["--protocol", "practice", "--optimizer", "adamw"], "nesterov is for sgd and sam; with adamw give --no-nes"),
        (["--device", "gpu"], "device 'gpu' is not there"),
        (["--image-size", "100000"], "image_size is 100000; it must be at least 1 and at most 4096"),
        (["--out", ""], "out is empty; name a folder such as out/compare"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(folder, capfd, arguments, message):
    assert message in refused(capfd, folder, *arguments)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("number = 5", "our_models:number' is of type int and cannot be called"),
        ("def number(a, b, c): return 3", "it returned int, not a torch.nn.Module"),
        ("def other(a, b, c): return 3", "our_models has no 'number'; choose from other"),
        ("def number(a): return 3", "called as factory(10, 1, 8) (num_classes, in_channels, image_size) it raised"),
        ("import sys\ndef number(*_): sys.exit(0)", "(num_classes, in_channels, image_size) it raised SystemExit: 0"),
        ("import nosuchmodule", "our_models needs a module that is missing: No module named 'nosuchmodule'"),
        ("from torch.nn import Identity\ndef number(*_): return Identity()", "has no trainable parameter"),
        (
            "import torch\ndef number(*_): return torch.nn.Linear(7, 10)",
            "the network cannot read images of shape",
        ),
        (
            "import torch\ndef number(*_): return torch.nn.LazyLinear(10)",
            "number: weight has no shape yet",
        ),
        ("import torch\ndef number(*_): return torch.nn.Linear(8, 3)", "the network's output for 2 images has"),
    ],
)
def test_a_factory_that_is_none(folder, capfd, code, message):
    (folder / "our_models.py").write_text(code)
    try:
        assert message in refused(capfd, folder, "--model", "our_models:number")
    finally:
        sys.modules.pop("our_models", None)


DEPTHS = """
import torch
from torch import nn

def number(classes, channels, size):
    rates = [rate.item() for rate in torch.linspace(0, 0.1, 2)]
    layers = [nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), *map(nn.Dropout, rates), nn.Linear(16, classes)]
    return nn.Sequential(*layers)
"""


def test_a_factory_that_computes_with_tensors(folder):
    """As for stochastic depth, whose rates are read from a tensor."""
    (folder / "our_depths.py").write_text(DEPTHS)
    try:
        assert warmstart("compare", *SMALL, "--model", "our_depths:number", "--methods", "cold", "--jobs", 1) == 0
    finally:
        sys.modules.pop("our_depths", None)


OWN = """
import sys
from dataclasses import dataclass
import warmstart

@dataclass(frozen=True)
class Own(warmstart.Method):
    name = "own"

    def on_new_data(self, model, stage):
        if {condition}:
            {body}
        return warmstart.Report("own")
"""
MISBEHAVING = {
    "sys.exit(0)": "method our_methods:Own fails on a new network: SystemExit: 0",
    "return None": "method own: on_new_data returned None; it must return a warmstart.Report of what it did",
    "return 3": "method own: on_new_data returned 3; it must return a warmstart.Report of what it did",
    "return warmstart.Report('own', {'weights': model})": "method our_methods:Own reports what no file can hold",
    "return model.no_such_layer": "method our_methods:Own fails on a new network: AttributeError: ",
}


@pytest.mark.parametrize("body", MISBEHAVING)
def test_a_method_that_misbehaves_is_named_before_anything_is_written(folder, capfd, body):
    (folder / "our_methods.py").write_text(OWN.format(body=body, condition="True"))
    try:
        assert MISBEHAVING[body] in refused(capfd, folder, *SMALL, "--methods", "warm,our_methods:Own")
    finally:
        sys.modules.pop("our_methods", None)


def test_a_misspelt_setting_that_only_the_network_shows_poisons_no_folder(folder, capfd):
    remedy = "method head-reset[head=clasifier]: the model has no module 'clasifier'; did you mean 'classifier'?"
    assert remedy in refused(capfd, folder, *SMALL, "--methods", "head-reset[head=clasifier]")
    grid = [*SMALL, "--max-epochs", 1, "--jobs", 1, "--out", folder / "out"]
    assert warmstart("compare", *grid, "--methods", "warm") == 0
    before = (folder / "out" / "config.yaml").read_bytes()

    assert warmstart("compare", *grid, "--methods", "warm,head-reset[head=clasifier]") == 2
    assert (folder / "out" / "config.yaml").read_bytes() == before
    assert warmstart("compare", *grid, "--methods", "warm,head-reset[head=classifier]") == 0


def test_a_method_that_exits_once_it_is_used_is_said_to_have_failed(folder, capfd):
    (folder / "our_methods.py").write_text(OWN.format(body="sys.exit(0)", condition="stage.seen > 8"))
    try:
        assert warmstart("compare", *SMALL, "--methods", "our_methods:Own") == 1
    finally:
        sys.modules.pop("our_methods", None)
    assert "warmstart: your own code called sys.exit(0); let it raise an error instead" in capfd.readouterr().err


def test_a_method_of_ones_own_that_is_none(folder, capfd):
    (folder / "our_methods.py").write_text("class Halve: pass")
    try:
        message = refused(capfd, folder, "--methods", "cold,our_methods:Halve")
    finally:
        sys.modules.pop("our_methods", None)
    assert "method 'our_methods:Halve' must be a dataclass that extends warmstart.Method" in message


def test_an_image_that_cannot_be_read_is_named(folder, capfd):
    for number, (image, label) in enumerate(zip(*images(), strict=True)):
        (folder / "photos" / f"class{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "photos" / f"class{label}" / f"{number}.png")
    broken = folder / "photos" / "class2" / "6.png"
    broken.write_bytes(broken.read_bytes()[:60])

    assert "6.png" in refused(capfd, folder, "--data", "photos", "--stages", 2, "--stage-size", 10)


def test_what_is_left_out_and_not_tested_is_said_and_stands_in_the_report(folder, capfd):
    for number, (image, label) in enumerate(zip(*images(), strict=True)):
        name = f"class{label}" if number != 9 else "rare <b>"
        (folder / "photos" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "photos" / name / f"{number}.png")
    (folder / "photos" / "class2" / "6.png").write_bytes(b"damaged")
    flags = ["--skip-unreadable", "--stage-size", 12, "--stages", 1, "--test", "next", "--seeds", 2]

    assert warmstart("compare", "--data", "photos", *flags, "--batch-size", 2, "--max-epochs", 1, "--jobs", 1) == 0

    said, page = capfd.readouterr().err, (folder / "out" / "compare" / "report.html").read_text()
    assert "1 of 40 images" in said
    assert "1 of 40 images" in page
    assert "tested by the next arrival" in page
    assert "<b>" not in page.replace("<body>", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, np.zeros_like(y)), "one class only"),
        (lambda x, y: (np.where(x > 250, np.nan, x / 255), y), "NaN"),
        (lambda x, y: (x.astype(float) * 1000, y), "x_train"),
        (lambda x, y: (x[:0], y[:0]), "x_train"),
    ],
)
def test_data_that_cannot_be_trained_on(folder, capfd, change, message):
    pixels, labels = change(*images())
    np.savez(folder / "data.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)

    assert message in refused(capfd, folder, "--data", "data.npz", "--stages", 2, "--stage-size", 10)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """The smallest comparison."""
    out = tmp_path_factory.mktemp("earlier")
    flags = [*SMALL, "--seeds", 1, "--max-epochs", 2, "--methods", "cold,dash", "--jobs", 1, "--out", out]
    assert warmstart("compare", *flags) == 0
    return out, flags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", 0.5], "lr is 0.001 there and 0.5 now"),
        (["--stages", 3], "stages is 2 there and 3 now"),
        (["--methods", "cold"], "also holds method dash: methods may be added, not dropped"),
        (["--methods", "cold,dash,wram"], "did you mean 'warm'?"),
    ],
)
def test_a_refusal_leaves_an_earlier_comparison_untouched(earlier, capfd, arguments, message):
    out, flags = earlier
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file() and file.name[0] != "."}

    assert warmstart("compare", *flags, *arguments) == 2
    err = capfd.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert {file: file.read_bytes() for file in before} == before


def test_an_out_that_is_a_file_is_refused(folder, capfd):
    (folder / "taken").write_text("precious")

    assert "taken is not a folder to write to" in refused(capfd, folder, "--out", "taken")
    assert (folder / "taken").read_text() == "precious"


@pytest.mark.parametrize("command", ["compare", "theory", "reproduce", "report"])
@pytest.mark.parametrize("out", ["a" * 300, "a/" * 3000, "taken", "taken/below", "loop"])
def test_a_folder_that_cannot_be_one_is_refused(folder, capfd, command, out):
    (folder / "taken").write_text("precious")
    (folder / "loop").symlink_to("nowhere")
    before = sorted(folder.iterdir())
    rest = {"report": [out], "reproduce": ["cifar10", "--data", "features-and-noise", "--out", out]}
    assert warmstart(command, *rest.get(command, ["--out", out])) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert sorted(folder.iterdir()) == before


def test_a_nul_character_in_a_folder_is_refused(folder, capfd):
    (folder / "c.yaml").write_text('out: "a\\0b"')
    assert "c.yaml: out cannot be the name of a folder" in refused(capfd, folder, "c.yaml")


def test_a_damaged_checkpoint_is_named_and_not_written_over(tmp_path, capfd):
    flags = [*SMALL, "--seeds", 1, "--max-epochs", 1, "--methods", "warm", "--jobs", 1, "--out", tmp_path]
    assert warmstart("compare", *flags) == 0
    file = tmp_path / "runs" / "sgd-warm-seed0" / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    capfd.readouterr()

    assert warmstart("compare", *flags) == 2
    err = capfd.readouterr().err
    assert f"{file}: damaged checkpoint" in err
    assert err.count("\n") == 1
    first = numbers(tmp_path)
    file.unlink()
    assert warmstart("compare", *flags) == 0
    assert numbers(tmp_path) == first


def test_its_output_fits_80_columns_and_ends_with_the_verdict(earlier, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out, flags = earlier

    assert warmstart("compare", *flags, "--seeds", 1) == 0
    shown = capfd.readouterr()
    lines = [line for line in shown.out.splitlines() if not line.startswith("report: ")]  # a path is as long as it is
    assert max(map(len, lines)) <= 80
    assert any("cold" in line for line in lines)
    assert shown.out.rstrip().endswith(f"report: {out / 'report.html'}")
    assert "\nNo claim: 1 seed finished, and it takes 3 to tell methods apart" in shown.out


def test_a_crash_is_one_line_too_unless_one_wants_to_see_it(folder, capfd, monkeypatch):
    def crash(*_, **__):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr("warmstart.comparison.images.ImageComparison", crash)
    assert warmstart("compare") == 1
    err = capfd.readouterr().err
    assert "RuntimeError: out of memory (WARMSTART_DEBUG=1 shows where); the same command goes on from here" in err
    assert err.count("\n") == 1
    monkeypatch.setenv("WARMSTART_DEBUG", "1")
    with pytest.raises(RuntimeError):
        warmstart("compare")


def test_a_process_of_its_own_gives_the_exit_code(tmp_path):
    process = start("compare", "--modle", "x", cwd=tmp_path)
    out, err = process.communicate()

    assert (process.returncode, out) == (2, "")
    assert err.startswith("warmstart: No such option: --modle")
    assert "--model" in err
    assert err.count("\n") == 1


MISSING = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Without())
sys.argv[1:], blocked = ["compare"], sys.argv[1]
sys.argv.insert(1, blocked)
from warmstart.cli.main import main
main()
"""


@pytest.mark.parametrize("package", ["typer"])
def test_a_missing_package_of_the_lab_is_answered_by_the_line_that_installs_it(package):
    done = subprocess.run([sys.executable, "-c", MISSING, package], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr == f"warmstart: the command line needs {package}: pip install 'warmstart[lab]'\n"


def test_threads_are_put_back(earlier):
    before = torch.get_num_threads()
    assert warmstart("compare", *earlier[1]) == 0
    assert torch.get_num_threads() == before


def test_a_dry_run_says_what_it_will_cost_and_leaves_nothing(folder, capfd):
    assert warmstart("compare", *SHORT, "--epochs", 3, "--methods", "cold,dash", "--dry-run") == 0
    shown = capfd.readouterr().out

    # Three epochs of 2 and then 4 batches of 16: 18 steps a run.
    assert [line.split()[:4] for line in shown.splitlines() if line.startswith("sgd")] == [
        ["sgd", "cold", "2", "36"],
        ["sgd", "dash", "2", "36"],
    ]
    assert "estimate: 4 runs left, about 72 steps, " in shown
    assert "3 epochs a stage" in shown
    assert "memory: about " in shown
    assert list(folder.iterdir()) == []


def test_a_dry_run_says_what_the_first_look_costs_and_the_most(folder, capfd):
    grid = [*SHORT, "--epochs", 3, "--methods", "cold,dash", "--seeds", 3, "--max-seeds", 8]
    assert warmstart("compare", *grid, "--dry-run") == 0
    shown = capfd.readouterr().out

    assert "small-cnn, sgd; 2 methods x 3 to 8 seeds" in shown
    assert "estimate to the look at 3 seeds: 6 runs left, about 108 steps, " in shown
    assert "  at most, with 8 seeds: 16 runs left, about 288 steps, " in shown
    assert list(folder.iterdir()) == []


def test_a_dry_run_tries_the_first_stage_where_a_rule_ends_it_and_counts_what_is_left(folder, capfd):
    grid = [*SMALL, "--methods", "cold", "--jobs", 1, "--out", folder / "out"]
    assert warmstart("compare", *grid, "--seeds", 1) == 0
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert warmstart("compare", *grid, "--seeds", 2, "--dry-run") == 0
    shown = capfd.readouterr().out

    assert "estimate: 1 run left, about" in shown
    assert "as many epochs a stage as cold took in the" in shown
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert warmstart("compare", *grid, "--seeds", 1, "--dry-run") == 0
    assert "estimate: nothing is left to do" in capfd.readouterr().out
