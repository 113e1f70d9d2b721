"""`compare --diagnose` measures at each stage's start and changes no number; an interrupted run measures the same."""

import csv
import math

import pytest
import torch

from warmstart.comparison.images import ImageComparison
from warmstart.comparison.settings import CompareSettings
from warmstart.data.load import load
from warmstart.diagnostics.measure import measures
from warmstart.evidence.plasticity import TEN, last_stage
from warmstart.grids.display import Display
from warmstart.runs import run as module
from warmstart.runs.grid_folder import GridFolder
from warmstart.runs.image_task import ImageTask
from warmstart.runs.key import RunKey
from warmstart.runs.run import Run

SETTINGS = {"stages": 3, "stage_size": 100, "until": 0.9, "device": "cpu", "threads": 1, "jobs": 1}
KEY = RunKey("dash", 0, "sgd")


def task(diagnosed):
    settings = CompareSettings.of(SETTINGS)
    return ImageTask(load("digits"), "small-cnn", settings, settings, diagnosed=diagnosed)


def test_what_is_measured_changes_no_number():
    plain, diagnosed = (Run(task(on), KEY, None).go_on(lambda event: None) for on in (False, True))
    assert [(row.test_loss, row.steps) for row in plain.rows] == [(row.test_loss, row.steps) for row in diagnosed.rows]
    assert not plain.diagnoses
    assert diagnosed.diagnoses.keys() == {1, 2, 3}
    for stage, values in diagnosed.diagnoses.items():
        taken = {name.partition("[")[0] for name, layer, _ in values if not layer}
        few = {"feature-rank", "feature-effective-rank"} if stage < 3 else set()  # 256 features
        assert taken == measures().keys() - few | ({"previous-accuracy"} if stage > 1 else set())
        assert all(math.isfinite(value) for _, _, value in values)


def test_what_a_method_leaves_of_old_knowledge_is_seen_before_the_first_update():
    """A network drawn anew knows nothing; a shrunk one all, once its statistics follow."""
    known = {}
    for method in ("cold", "warm", "shrink-perturb[noise_std=0]"):
        values = Run(task(True), RunKey(method, 0, "sgd"), None).go_on(lambda event: None).diagnoses[2]
        known[method] = {name: value for name, _, value in values if name.startswith("previous-accuracy[epoch 0")}
    kept, settled = "previous-accuracy[epoch 0]", "previous-accuracy[epoch 0, recalibrated]"
    assert max(known["cold"].values()) < 0.4
    assert min(known["warm"].values()) > 0.85
    shrunk = known["shrink-perturb[noise_std=0]"]
    assert shrunk[settled] > 0.85 > shrunk[kept]


def test_an_interrupted_run_measures_the_same(tmp_path, monkeypatch):
    whole = Run(task(True), KEY, None).go_on(lambda event: None)
    monkeypatch.setattr(module, "SAVE_EVERY", -1.0)

    class StoppedError(Exception):
        pass

    def stop(event):
        if event.stage == 2 and event.progress.epochs == 2 and event.finished_stage is None:
            raise StoppedError

    with pytest.raises(StoppedError):
        Run(task(True), KEY, GridFolder(tmp_path)).go_on(stop)
    assert Run(task(True), KEY, GridFolder(tmp_path)).go_on(lambda event: None).diagnoses == whole.diagnoses


@pytest.mark.parametrize("method", ["cold", "warm", "shrink-perturb"])
def test_a_network_that_was_drawn_anew_has_come_no_way(method):
    run = Run(task(True), RunKey(method, 0, "sgd"), None).go_on(lambda event: None)
    come = [next(value for name, _, value in run.diagnoses[stage] if name == "distance") for stage in (1, 2, 3)]
    assert come[0] == 0
    assert all(value == 0 if method == "cold" else value > 0 for value in come[1:])


def test_what_was_drawn_anew_is_known_after_an_interruption(tmp_path):
    run = Run(task(False), RunKey("cold", 0, "sgd"), GridFolder(tmp_path))
    run.go_on(lambda event: None)
    again = Run(task(False), RunKey("cold", 0, "sgd"), GridFolder(tmp_path))
    assert again.first.keys() == run.first.keys()
    assert all(torch.equal(again.first[name], first) for name, first in run.first.items())
    assert any(not torch.equal(run.initial[name], first) for name, first in run.first.items())


def test_a_comparison_shows_them_and_writes_all(tmp_path):
    out = tmp_path / "grid"
    settings = CompareSettings.of({**SETTINGS, "methods": "cold,warm", "seeds": 1, "diagnose": True, "out": str(out)})
    with Display(quiet=True) as display:
        results = ImageComparison(settings, display).run().results
    table = last_stage(results)
    assert list(table.columns[0].cells) == list(TEN)
    rows = list(csv.DictReader((out / "diagnostics.csv").read_text().splitlines()))
    assert {row["method"] for row in rows} == {"cold", "warm"}
    which = {"measure": "dormant-units", "stage": "3", "method": "warm"}
    dormant = [row for row in rows if row.items() >= which.items()]
    assert [row["layer"] == "" for row in dormant] == [True] + [False] * (len(dormant) - 1)
    page = (out / "report.html").read_text()
    assert "Plasticity by stage" in page
    assert "gradient-norm" in page
