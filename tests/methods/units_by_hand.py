"""Two small networks whose units are spelled out, element by element, and training that a reference can follow.

Nothing here asks `warmstart.layers` which weights belong to a unit.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from warmstart import Stage
from warmstart.layers.units import units, watch
from warmstart.training.optimizers import make_optimizer, step
from warmstart.training.recipe import Recipe

OPTIMIZERS = ("sgd", "sam", "adam", "adamw", "muon")


@dataclass(frozen=True)
class Layer:
    """Where a layer's units lie in an `nn.Sequential`."""

    name: str
    behind: int
    """Their activations are what the first so many modules return."""
    norm: str | None
    reader: str
    slots: int = 1
    """Columns of the reader's weight for each unit."""


def mlp():
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)]
    return nn.Sequential(*layers), [Layer("0", 3, "1", "3"), Layer("3", 5, None, "5")], (6,)


def cnn():
    into, out = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 5, 3)
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 3)]
    model = nn.Sequential(into, nn.BatchNorm2d(6), nn.ReLU(), out, nn.ReLU(), *head)
    return model, [Layer("0", 3, "1", "3"), Layer("3", 5, None, "7", slots=4)], (3, 6, 6)


def channels_last():
    model, layers, shape = cnn()
    return model.to(memory_format=torch.channels_last), layers, shape


NETWORKS = {"mlp": mlp, "cnn": cnn, "channels last": channels_last}


class Training:
    """A network in training, what a reference needs of each update, and the stage that a method is given."""

    def __init__(self, network="mlp", optimizer="sgd", *, number=2, know_first=False, size=4):
        torch.manual_seed(0)
        self.model, self.layers, shape = NETWORKS[network]()
        with torch.no_grad():  # lively norms, and units that are silent now and then
            self.model[0].bias.uniform_(-0.5, 0.5)
            self.model[1].weight.uniform_(0.5, 1.5)
            self.model[1].bias.uniform_(-1.2, 0.3)
            self.model[3].bias.uniform_(-0.3, 0.1)
        first = {name: tensor.clone() for name, tensor in self.model.state_dict().items()} if know_first else {}
        self.batches = [(torch.randn(size, *shape), torch.randint(0, 3, (size,))) for _ in range(60)]
        self.optimizer = (
            torch.optim.Adam(self.model.parameters(), lr=0.05, amsgrad=True)
            if optimizer == "adam"
            else make_optimizer(Recipe(optimizer=optimizer, lr=0.05, momentum=0.9), self.model)
        )
        self.stage = Stage(
            number=number,
            seen=None,
            new=None,
            batches=lambda size: self.batches,
            forward_loss=lambda model, batch: cross_entropy(model(batch[0]), batch[1]),
            fresh=lambda: copy.deepcopy(self.model),
            initial=first,
            generator=torch.Generator().manual_seed(7),
            optimizer=self.optimizer,
            units=lambda: self.units,
        )
        self.units, _ = units(self.model, lambda: self.model(self.batches[0][0]))
        self.activations = {}
        """Of the latest pass, as the modules themselves give them: (batch, units, *positions)."""

    def update(self, number):
        """One update of the optimizer, without the method."""
        inputs, targets = self.batches[number % len(self.batches)]

        def backward():
            other = copy.deepcopy(self.model)
            other.requires_grad_(False)
            self.activations = {layer.name: other[: layer.behind](inputs) for layer in self.layers[1:]}
            other = copy.deepcopy(self.model).requires_grad_(False)
            self.activations["0"] = other[:3](inputs)
            cross_entropy(self.model(inputs), targets).backward()

        self.model.train()
        with watch(self.model, self.units) as seen:
            step(self.optimizer, backward)
        self.stage.activations, self.stage.step = seen, number

    def tensors(self):
        """Every weight, buffer and moment, copied, by name."""
        found = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                found[f"{key} of {name}"] = value.clone() if isinstance(value, torch.Tensor) else torch.tensor(value)
        return found


def redraw_by_hand(tensors, chosen, generator):
    """Redraw units in such a dictionary of tensors, element by element.

    ``chosen`` lists (layer, unit, bound of its incoming weights); the generator is as the method's.
    """
    for layer, unit, bound in chosen:
        weight = tensors[f"{layer.name}.weight"]
        weight[unit] = bound * (2 * torch.rand(weight[unit].shape, generator=generator) - 1)
        tensors[f"{layer.name}.bias"][unit] = 0.0
        if layer.norm is not None:
            for kind, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
                tensors[f"{layer.norm}.{kind}"][unit] = value
    for layer, unit, _ in chosen:
        columns = range(unit * layer.slots, (unit + 1) * layer.slots)
        vectors = [f"{name}.{kind}" for name in (layer.name, layer.norm) for kind in ("weight", "bias")]
        for column in columns:
            tensors[f"{layer.reader}.weight"][:, column] = 0.0
        for name, moment in tensors.items():
            _, of, parameter = name.rpartition(" of ")
            if not of or moment.dim() == 0:  # a weight, or Adam's count of updates, which stays
                continue
            if parameter in vectors:
                moment[unit] = 0.0
            if parameter == f"{layer.reader}.weight":
                for column in columns:
                    moment[:, column] = 0.0


def usual_bound(tensors, layer):
    """PyTorch's own initialisation of linear layers and convolutions."""
    return 1 / math.sqrt(tensors[f"{layer.name}.weight"][0].numel())


def differing(found, expected, near=()):
    """Names of tensors that differ in a bit; those in ``near`` may differ by rounding."""
    assert found.keys() == expected.keys()
    return [
        name
        for name, tensor in found.items()
        if not (
            torch.allclose(tensor, expected[name], 1e-6, 1e-7) if name in near else torch.equal(tensor, expected[name])
        )
    ]
