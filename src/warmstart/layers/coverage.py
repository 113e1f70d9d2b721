"""How much of a network the scales cover: in weights, not in neurons, of which a 1x1 kernel is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from warmstart.layers.left_alone import LeftAlone
from warmstart.layers.neurons import HOOKED, NO_RULE, PARAMETRISED, UNREACHED, Granularity, Neurons
from warmstart.wording import counted

MUCH = 0.1
"""Share of the weights from which on a remark is a warning."""

_MISSED = (
    (NO_RULE, "no rule for {}", "ws.register_layer adds a rule"),
    (PARAMETRISED, "{} parametrised", "torch.nn.utils.parametrize.remove_parametrizations undoes it"),
    (HOOKED, "{} made into weights by hooks", "torch.nn.utils.remove_weight_norm or its like undoes it"),
    (UNREACHED, "no gradient reached {}", "look for detach, no_grad or reentrant checkpointing in the network"),
)
"""How the reason begins of what a method cannot scale though it is trained, the sentence on it, and the remedy."""


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
    model: nn.Module, entries: Sequence[Neurons], left: Sequence[LeftAlone], granularity: Granularity
) -> Iterator[Remark]:
    """1x1 kernels that are scaled one by one; trained weights that cannot be scaled, where they are many."""
    single = sum(entry.count for entry in entries if entry.size == 1 < entry.count)
    if single and granularity == "kernel":
        share = single / sum(entry.parameter.numel() for entry in entries)
        yield Remark(
            f"{counted(single, 'neuron')} of one weight (1x1 kernels), {share:.1%} of the scaled weights, whose cosine "
            "is only a sign",
            "granularity='kernel-or-row' groups them by output",
            share,
        )
    trained = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.requires_grad}
    matrices = {name for name, parameter in model.named_parameters() if name in trained and parameter.dim() > 1}
    for beginning, sentence, remedy in _MISSED:
        names = [alone.name for alone in left if alone.reason.startswith(beginning) and alone.name in matrices]
        share = sum(map(trained.__getitem__, names)) / max(1, sum(trained.values()))
        if share > MUCH:
            yield Remark(
                f"{sentence.format(counted(len(names), 'parameter'))}, {share:.1%} of the trainable weights, the "
                f"largest {max(names, key=trained.__getitem__)}",
                remedy,
                share,
            )
