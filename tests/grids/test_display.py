import time

from commands import wait_until
from warmstart.grids import display as module
from warmstart.grids.display import Display
from warmstart.runs.key import RunKey
from warmstart.runs.run import Event
from warmstart.runs.stage_result import StageResult
from warmstart.training.loop import Progress

KEY = RunKey("cold", 0, "sgd")


def lines_until(enough, capfd):
    """What is written to stderr until it is enough."""
    shown = ""

    def is_enough():
        nonlocal shown
        shown += capfd.readouterr().err
        return enough(shown.splitlines())

    wait_until(is_enough)
    return shown.splitlines()


def test_without_a_terminal_a_line_says_now_and_then_that_work_goes_on(capfd, monkeypatch):
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.05)
    with Display() as display:
        display.plan(["a plan"], keys=[KEY], stages=3, done=[])
        display.event(Event(KEY, 2, Progress(epochs=7, steps=70, accuracy=0.5)))
        written = lines_until(lambda shown: len(shown) >= 3, capfd)

    assert written[0] == "a plan"
    assert "0/1 runs, ? left; cold seed 0, sgd stage 2, epoch 7    train 50.0%" in written


SLOWING = Progress(
    epochs=300, steps=1, accuracy=0.951, span_accuracy=95.1, span_loss=20.0, before_accuracy=0.95, before_loss=0.2
)


def test_a_stage_that_no_longer_rises_is_said_to(capfd, monkeypatch):
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.05)
    with Display() as display:
        display.plan([], keys=[KEY], stages=3, done=[])
        display.event(Event(KEY, 1, SLOWING))
        lines_until(lambda shown: any("train 95.1%, no rise since epoch 200" in line for line in shown), capfd)


def row(seed):
    return StageResult("d", "m", "sgd", "cold", seed, 1, 10, 0.5, 1.0, 1.0, 5, 1, 2.0, 0.0, status="done")


def test_runs_that_are_added_are_announced_and_counted(capfd):
    keys = [RunKey("cold", seed, "sgd") for seed in range(4)]
    with Display() as display:
        display.plan(["a plan"], keys=keys[:1], stages=1, done=[])
        display.event(Event(keys[0], 1, Progress(), row(0)))
        display.more("look 1 of 2; seeds 1 to 3 come next", keys[1:], [row(1)])
        display.event(Event(keys[2], 1, Progress(), row(2)))
    written = capfd.readouterr().err.splitlines()

    assert written[1].startswith("[1/1] cold seed 0")
    assert written[2] == "look 1 of 2; seeds 1 to 3 come next"
    assert written[3].startswith("[3/4] cold seed 2")


def test_a_quiet_display_is_quiet(capfd, monkeypatch):
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.01)
    with Display(quiet=True) as display:
        display.plan(["a plan"], keys=[KEY], stages=3, done=[])
        time.sleep(0.1)
    assert capfd.readouterr().err == ""
