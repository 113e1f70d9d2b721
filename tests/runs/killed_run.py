"""A run that saves all the time, to be killed: python killed_run.py METHOD FOLDER; it says when training begins."""

import sys
from pathlib import Path

from warmstart.comparison.settings import CompareSettings
from warmstart.data.load import load
from warmstart.runs import run as run_module
from warmstart.runs.grid_folder import GridFolder
from warmstart.runs.image_task import ImageTask
from warmstart.runs.key import RunKey
from warmstart.runs.run import Run
from warmstart.training import loop


def make_run(method, folder):
    settings = {"stages": 3, "stage_size": 60, "batch_size": 8, "until": 1.0, "max_epochs": 5, "threads": 1}
    chosen = CompareSettings.of({**settings, "device": "cpu"})
    task = ImageTask(load("digits"), chosen.model, chosen, chosen, "cpu")
    return Run(task, RunKey(method, 2, "sgd"), folder and GridFolder(folder))


if __name__ == "__main__":
    run_module.SAVE_EVERY, loop.SEGMENT = -1.0, 3
    run = make_run(sys.argv[1], Path(sys.argv[2]))
    print("training", flush=True)
    run.go_on(lambda event: None)
