"""A run that saves all the time, and may be killed: python killed_run.py METHOD FOLDER [EPOCHS CPU_SECONDS].

It is killed so long after so many epochs, of its own time, so that a busy machine changes nothing.
"""

import signal
import sys
from itertools import count
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
    method, folder, *moment = sys.argv[1:]
    epochs, events = int(moment[0]) if moment else 0, count(1)

    def on_event(event):
        if next(events) == epochs:
            signal.setitimer(signal.ITIMER_PROF, float(moment[1]))  # its signal ends the process where it stands

    make_run(method, Path(folder)).go_on(on_event)
