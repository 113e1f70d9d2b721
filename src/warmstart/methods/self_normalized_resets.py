"""Self-normalised resets:  a unit is redrawn when it has been silent for tau_i updates, tau_i by its own history

    a_i   <- a_i + 1 where the batch leaves it silent, else it fires: a_i is noted, and a_i <- 0
    q_i   =  the percentile of its noted ages above 0, every so many arrivals; the notes are then thrown away
    tau_i <- q_i if q_i < tau_i else 2 tau_i,  clipped to [1, tau_max]

Farias and Jozefiak, Self-Normalized Resets for Plasticity in Continual Learning, ICLR 2025 (arXiv 2410.20098). They
count ages in examples, a batch's size at a time; here an update counts one, so that one rule fits all batch sizes.
Their thresholds are set anew at the end of every 16th task, `threshold_reset_freq` in their code; a task is an arrival.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from warmstart.methods.method import Method, Stage
from warmstart.methods.redrawing import described, layers_to_redraw, redraw_, remembered, seen
from warmstart.methods.report import Report
from warmstart.setting import Options, Setting
from warmstart.undo import all_or_nothing, keep, on_failure


@dataclass(frozen=True)
class SelfNormalizedResets(Method):
    """After every update, redraw the units that have been silent for longer than they usually are."""

    percentile: Annotated[
        float,
        Setting(
            "Share of a unit's own silences that are no reason to redraw it",
            above=0,
            at_most=1,
            search=Options((0.92, 0.95, 0.98, 0.99, 0.995)),
        ),
    ] = 0.98
    every: Annotated[int, Setting("Arrivals of data after which the thresholds tau_i are set anew", at_least=1)] = 16
    tau_max: Annotated[
        int, Setting("Updates of silence after which any unit is redrawn; a threshold begins at half of it", at_least=1)
    ] = 200

    name: ClassVar[str] = "self-normalized-resets"
    summary: ClassVar[str] = "redraw units that have been silent for longer than they usually are"
    source: ClassVar[str] = "SNR, Farias and Jozefiak, ICLR 2025, arXiv 2410.20098"
    year: ClassVar[int] = 2025
    acts: ClassVar[str] = "after each update"
    cost: ClassVar[str] = "activations at each update, 200 numbers a unit"
    limits: ClassVar[str] = "several processes; units that a residual stream shares are left"
    page: ClassVar[str] = "redrawing.md#self-normalised-resets"
    sees_activations: ClassVar[bool] = True

    @all_or_nothing
    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Count the arrival, set the thresholds anew if it is time, and say which units can be redrawn."""
        note = f"units are redrawn after unusual silence, {self.tau_max:,} updates at most"
        report = described(self, stage, note)
        if self._arrivals(stage) % self.every == 0:
            for layer in layers_to_redraw(stage):
                if (tau := stage.state.get(f"tau of {layer.layer}")) is not None:
                    noted = stage.state[f"noted ages of {layer.layer}"]
                    keep([tau, noted])
                    tau.copy_(self.thresholds(noted, tau))
                    noted.zero_()
        return report

    def _arrivals(self, stage: Stage) -> int:
        """How many arrivals there have been, this one included; outside `compare` no stage has their number."""
        if "arrivals" not in stage.state:
            on_failure(partial(stage.state.pop, "arrivals", None))
            stage.state["arrivals"] = torch.zeros((), dtype=torch.long)
        keep([stage.state["arrivals"]])
        return int(stage.state["arrivals"].add_(1))

    @all_or_nothing
    @torch.no_grad()
    def after_step(self, model: nn.Module, stage: Stage) -> None:
        """Count the silence of each unit, and redraw those that reach their threshold."""
        chosen = []
        for layer, activations in seen(model, stage):
            silent = (activations <= 0).all(0)
            ages = remembered(stage, layer, "ages", (layer.count,), dtype=torch.long)
            tau = remembered(stage, layer, "tau", (layer.count,), max(1, self.tau_max // 2), torch.long)
            noted = remembered(stage, layer, "noted ages", (layer.count, self.tau_max + 1), dtype=torch.int)
            _note(noted, ages, ~silent)
            ages.add_(1).mul_(silent)
            old = ages >= tau
            _note(noted, ages, old)
            ages.mul_(~old)
            chosen.append((layer, old.nonzero().flatten()))
        redraw_(model, stage, chosen)

    def thresholds(self, noted: Tensor, tau: Tensor) -> Tensor:
        """The new thresholds, given how often each age was noted (units, ages from 0 on) and the old ones."""
        total = noted[:, 1:].sum(1)
        below = noted[:, 1:].cumsum(1) / total[:, None] < self.percentile
        q = below.sum(1) + (total > 0)  # 0 of a unit without a silence that has ended
        return torch.where(q < tau, q, 2 * tau).clamp(1, self.tau_max)


def _note(noted: Tensor, ages: Tensor, which: Tensor) -> None:
    """Count the ages of some units, those above the largest as the largest."""
    noted.scatter_add_(1, ages.clamp(max=noted.size(1) - 1)[:, None], which[:, None].to(noted.dtype))
