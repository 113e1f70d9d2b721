import shutil

import pytest

from commands import SMALL, warmstart
from warmstart.storage import checkpoint


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    out = tmp_path_factory.mktemp("comparison") / "out"
    flags = [*SMALL, "--max-epochs", 2, "--methods", "cold,dash", "--jobs", 1, "--out", out]
    assert warmstart("compare", *flags) == 0
    return out


@pytest.fixture
def copy(comparison, tmp_path):
    shutil.copytree(comparison, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_report_is_written_again_from_what_was_measured(copy, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    before = (copy / "report.html").read_text()
    for name in ("table.md", "report.html"):
        (copy / name).unlink()

    assert warmstart("report", copy) == 0
    shown = capfd.readouterr().out
    assert (copy / "report.html").read_text() == before
    assert "dash" in (copy / "table.md").read_text()
    assert max(len(line) for line in shown.splitlines() if not line.startswith("report: ")) <= 80
    assert shown.endswith(f"report: {copy / 'report.html'}\n")


def test_a_comparison_that_is_not_complete_has_a_report_too(copy, capfd):
    shutil.rmtree(copy / "runs" / "sgd-dash-seed1")
    file = copy / "runs" / "sgd-cold-seed1" / "checkpoint.safetensors"
    saved = checkpoint.load(file)
    saved.metadata["rows"].pop()
    checkpoint.save(file, model=saved.model_state, metadata=saved.metadata, tensors=saved.tensors)

    assert warmstart("report", copy) == 0
    assert "cold" in (copy / "table.md").read_text()
    assert "dash" in capfd.readouterr().out


@pytest.mark.parametrize("key", ["test_set", "rows"])
def test_a_folder_of_another_version_is_refused_in_one_line(copy, capfd, key):
    file = copy / "runs" / "sgd-cold-seed1" / "checkpoint.safetensors"
    saved = checkpoint.load(file)
    if key == "rows":
        saved.metadata["rows"][0]["a_column_to_come"] = 1.0
    else:
        del saved.metadata[key]
    checkpoint.save(file, model=saved.model_state, metadata=saved.metadata, tensors=saved.tensors)

    for command in ("report", "compare"):
        flags = [copy] if command == "report" else [*SMALL, "--max-epochs", 2, "--methods", "cold,dash", "--out", copy]
        assert warmstart(command, *flags) == 2
        assert "was written by another version of warmstart" in capfd.readouterr().err


def test_another_margin_changes_the_report_and_not_the_comparison(copy, capfd):
    config = (copy / "config.yaml").read_bytes()

    assert warmstart("report", copy, "--margin", 0.07) == 0
    assert "beyond the margin of 7.0 points" in (copy / "report.html").read_text()
    assert (copy / "config.yaml").read_bytes() == config


def test_a_reproduction_has_no_margin(tmp_path, capfd):
    (tmp_path / "config.yaml").write_text("dataset: cifar10\nmethods: [cold]\nseeds: 1\nrecorded: {kind: reproduce}\n")

    assert warmstart("report", tmp_path, "--margin", 0.01) == 2
    assert "has no verdict that a margin could change; drop --margin\n" in capfd.readouterr().err


@pytest.mark.parametrize("margin", ["nan", "-0.1", "much"])
def test_a_margin_that_is_none(copy, capfd, margin):
    before = (copy / "report.html").read_bytes()

    assert warmstart("report", copy, "--margin", margin) == 2
    err = capfd.readouterr().err
    assert "margin" in err
    assert err.count("\n") == 1
    assert (copy / "report.html").read_bytes() == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "holds no comparison (config.yaml is missing); give the --out of one"),
        ("stages: 3\n", "was not written by a comparison"),
        ("[broken", "not valid YAML"),
    ],
)
def test_a_folder_without_a_comparison(tmp_path, capfd, config, message):
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)

    assert warmstart("report", tmp_path) == 2
    err = capfd.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_comparison_that_has_finished_nothing_yet(copy, capfd):
    shutil.rmtree(copy / "runs")

    assert warmstart("report", copy) == 2
    assert "holds no finished stage yet; start warmstart compare" in capfd.readouterr().err
