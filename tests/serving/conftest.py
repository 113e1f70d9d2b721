"""A network that was trained on one stage of digits, and its folder."""

import pytest
from cards import card_of

from warmstart.comparison.settings import CompareSettings
from warmstart.data.load import load
from warmstart.runs.image_task import ImageTask
from warmstart.runs.key import RunKey
from warmstart.runs.run import Run
from warmstart.serving.model_folder import write_model
from warmstart.serving.served import load as load_model


@pytest.fixture(scope="session")
def trained():
    """A run of digits whose only stage is trained."""
    settings = CompareSettings.of({"stages": 1, "stage_size": 300, "until": 0.9, "device": "cpu", "threads": 1})
    run = Run(ImageTask(load("digits"), "small-cnn", settings, settings), RunKey("warm", 0, "sgd"), None)
    run.go_on(lambda event: None)
    return run


@pytest.fixture(scope="session")
def state(trained, tmp_path_factory):
    """A folder of models, of which `current` is the trained one."""
    state = tmp_path_factory.mktemp("state")
    write_model(state / "models" / "0001", trained.model, card_of(trained.task.images, "small-cnn", about={"stage": 1}))
    (state / "current").symlink_to("models/0001")
    return state


@pytest.fixture(scope="session")
def served(state):
    """What `ws.load` gives of it."""
    return load_model(state, device="cpu")
