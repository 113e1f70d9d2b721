"""How much of a network the scales cover: in weights, not in neurons, of which a 1x1 kernel is one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from warmstart.layers.left_alone import LeftAlone
from warmstart.layers.neurons import NO_RULE, Granularity, Neurons
from warmstart.wording import counted

MUCH = 0.1
"""Share of the weights from which on a remark is a warning."""


@dataclass(frozen=True)
class Remark:
    """What is worth knowing of a share of the weights."""

    sentence: str
    remedy: str
    share: float

    @property
    def warns(self) -> bool:
        """Whether the share is large."""
        return self.share > MUCH

    def __str__(self) -> str:
        """One line."""
        return f"{self.sentence}: {self.remedy}"


def weights_in(model: nn.Module) -> int:
    """How many weights a network has, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def remarks(
    model: nn.Module, entries: Sequence[Neurons], left: Iterable[LeftAlone], granularity: Granularity
) -> Iterator[Remark]:
    """1x1 kernels that are scaled one by one; layers without a rule, where they hold much."""
    single = sum(entry.count for entry in entries if entry.size == 1 < entry.count)
    if single and granularity == "kernel":
        share = single / sum(entry.parameter.numel() for entry in entries)
        yield Remark(
            f"{counted(single, 'neuron')} of one weight (1x1 kernels), {share:.1%} of the scaled weights, whose cosine "
            "is only a sign",
            "granularity='kernel-or-row' groups them by output",
            share,
        )
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.dim() > 1}
    without = [alone.name for alone in left if alone.reason.startswith(NO_RULE) and alone.name in sizes]
    share = sum(map(sizes.__getitem__, without)) / max(1, weights_in(model))
    if share > MUCH:
        yield Remark(
            f"no rule for {counted(len(without), 'parameter')}, {share:.1%} of the network's weights, the largest "
            f"{max(without, key=sizes.__getitem__)}",
            "ws.register_layer adds a rule",
            share,
        )
