"""A user's typed code, which mypy checks strictly with the package: what is right passes, a mistake does not.

A `type: ignore` that nothing needs is an error too, so those below hold that mypy sees these mistakes.
"""

from collections.abc import Mapping
from typing import cast

import lightning
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import warmstart as ws
from warmstart.integrations import WarmStart
from warmstart.integrations.lightning import WarmStart as LightningWarmStart
from warmstart.integrations.transformers import WarmStart as TransformersWarmStart


class Net(nn.Module):
    """A network with its own loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layer(x))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(self(x), y)


class MyLinear(nn.Linear):
    """A layer of the user's own."""


class Lit(lightning.LightningModule):
    """A module as the pages on Lightning have it."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return batch[0].mean()


def forward_loss(model: Net, batch: tuple[Tensor, Tensor]) -> Tensor:
    return model.loss(*batch)


def rule(layer: MyLinear, granularity: ws.Granularity) -> Mapping[str, tuple[int, ...]]:
    return {"weight": (1,), "bias": (0,)} if layer.bias is not None else {"weight": (1,)}


def spare_the_head(layer: nn.Module, name: str) -> bool:
    return name != "head"


def use(model: Net, module: Lit, loader: DataLoader[tuple[Tensor, Tensor]], granularity: ws.Granularity) -> float:
    """Call what users call."""
    report = ws.dash_(model, loader, forward_loss=forward_loss, granularity=granularity, filter_fn=spare_the_head)
    ws.dash_(model, loader, forward_loss=lambda model, batch: model.loss(*batch))
    ws.dash_(model, loader, nn.CrossEntropyLoss())
    ws.dash_(module, loader, forward_loss=lambda module, batch: module.training_step(batch, 0))
    ws.register_layer(MyLinear, rule)
    ws.diagnose(model, loader, forward_loss=forward_loss)
    WarmStart(ws.Dash(alpha=0.1), loader, forward_loss=forward_loss, filter_fn=spare_the_head)
    LightningWarmStart(ws.Dash(), loader, forward_loss=lambda module, batch: module.training_step(batch, 0))
    loss: ws.ForwardLoss = forward_loss
    TransformersWarmStart(ws.Dash(), loader, forward_loss=loss)
    first: ws.ScaleReport = report.scales[0]
    left: ws.LeftAlone = report.left_alone[0]
    ws.compare(model, str(left))  # type: ignore[call-arg]  # the lab's names have types as well

    ws.dahs_(model, loader)  # type: ignore[attr-defined]  # a name with a typo
    ws.dash_(model, loader, lamda=0.1)  # type: ignore[call-arg]
    TransformersWarmStart(ws.Dash(), lodaer=loader)  # type: ignore[call-arg]
    return first.mean
