"""A task without data, for tests of how runs are carried out."""

from dataclasses import dataclass

from torch import nn

from warmstart.methods.registry import parse_method
from warmstart.runs.task import Measured, StageData


@dataclass
class TinyTask:
    """One weight matrix, never changed; who inherits says how it is trained."""

    act: str = ""
    """What happens in training, by name."""
    data: str = "none"
    model: str = "linear"
    stages: int = 2

    def make_model(self):
        return nn.Linear(2, 1)

    def method(self, name):
        return parse_method(name)

    def make_optimizer(self, model, key):
        return None

    def stage_data(self, seed, number):
        return StageData(number, 1, lambda size: [], lambda model, batch: model(batch), examples=seed)

    def measure(self, model, data):
        return Measured(accuracy=data.examples / 10, loss=model.weight.sum().item())

    def diagnose(self, model, stage, data):
        return ()
