"""A checkpoint of other settings, data or runs is never taken for one's own; nor is a folder that was taken away."""

import os
import shutil

import pytest

from commands import SMALL, numbers, start, wait_until, warmstart
from warmstart.errors import WorkFailedError
from warmstart.storage.lock import FolderLock

GRID = [*SMALL, "--max-epochs", 2, "--methods", "cold,dash", "--jobs", 1]
OTHER_RATE = "saved with other settings or data; choose another --out, or delete it to compute the run again\n"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("done") / "out"
    assert warmstart("compare", *GRID, "--out", out) == 0
    return out


@pytest.fixture
def copy(done, tmp_path):
    shutil.copytree(done, tmp_path / "copy")
    return tmp_path / "copy"


def without_its_record(out):
    (out / "config.yaml").unlink()
    (out / "results.csv").unlink()
    return out


def content(out):
    return {file: file.read_bytes() for file in out.rglob("*") if file.is_file() and file.name[0] != "."}


def test_without_the_record_other_settings_do_not_get_the_old_numbers(copy, capfd):
    before = content(without_its_record(copy))

    assert warmstart("compare", *GRID, "--lr", 0.5, "--out", copy) == 2
    assert capfd.readouterr().err == f"warmstart: {copy}/runs/sgd-cold-seed0/checkpoint.safetensors: {OTHER_RATE}"
    assert content(copy) == before


def test_without_the_record_the_same_settings_go_on(done, copy):
    without_its_record(copy)

    assert warmstart("compare", *GRID, "--out", copy) == 0
    assert numbers(copy) == numbers(done)


def test_another_runs_checkpoint_is_named(copy, capfd):
    own, other = (copy / "runs" / f"sgd-{method}-seed0" / "checkpoint.safetensors" for method in ("cold", "dash"))
    shutil.copy(other, own)

    for command in (("compare", *GRID, "--out", copy), ("report", copy)):
        assert warmstart(*command) == 2
        err = capfd.readouterr().err
        remedy = "delete it to compute sgd-cold-seed0 again"
        assert err == f"warmstart: {own}: this is the run sgd-dash-seed0, not sgd-cold-seed0; {remedy}\n"
    own.unlink()
    assert warmstart("compare", *GRID, "--out", copy) == 0


def test_a_changed_record_does_not_relabel_the_numbers(copy, capfd):
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.001", "lr: 0.01"))

    assert warmstart("report", copy) == 2
    assert capfd.readouterr().err.endswith(OTHER_RATE)


def test_the_runs_of_a_seed_are_known_when_seeds_and_methods_are_added(copy):
    assert warmstart("compare", *GRID, "--methods", "cold,dash,warm", "--seeds", 3, "--out", copy) == 0
    without_its_record(copy)
    assert warmstart("compare", *GRID, "--methods", "warm,dash", "--seeds", 1, "--out", copy) == 0


@pytest.mark.skipif(os.name != "posix", reason="a folder in use cannot be removed there")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_grid_whose_folder_is_replaced_stops_and_does_not_touch_the_other(tmp_path, done, jobs):
    out, flags = tmp_path / "out", [*SMALL, "--until", "1.0", "--stages", 40, "--methods", "cold,dash"]
    first = start("compare", *flags, "--jobs", jobs, "--out", out)
    wait_until(lambda: list(out.glob("runs/*/checkpoint.safetensors")), 120)
    out.rename(tmp_path / "moved")  # as removing it is, for the process that runs
    shutil.copytree(done, out)
    (out / ".warmstart.pid").unlink(missing_ok=True)
    before = content(out)
    _, err = first.communicate(timeout=120)

    assert first.returncode == 1
    assert f"{out} or its lock was removed or replaced while this process used it" in err
    assert "Traceback" not in err
    assert content(out) == before


@pytest.mark.parametrize("lost", [".warmstart.lock", ".warmstart.pid", "."])
def test_a_claim_ends_with_the_lock_it_stands_for(tmp_path, lost):
    with FolderLock(tmp_path / "out") as claim:
        claim.check()
        shutil.rmtree(tmp_path / "out") if lost == "." else (tmp_path / "out" / lost).unlink()
        with pytest.raises(WorkFailedError, match="was removed or replaced while this process used it"):
            claim.check()
