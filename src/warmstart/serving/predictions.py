"""What a network says of some images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from warmstart.wording import counted, one_line

_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Predictions:
    """The class of each of some images, and how probable the network takes each class to be.

    ``print(predictions)`` shows a line an image.
    """

    labels: Tensor
    """int64 (N,), indices into ``classes``."""
    classes: tuple[str, ...]
    probabilities: Tensor
    """float32 (N, classes)."""

    @property
    def names(self) -> list[str]:
        """The class of each image by its name."""
        return [self.classes[label] for label in self.labels.tolist()]

    def __len__(self) -> int:
        return len(self.labels)

    def __str__(self) -> str:
        lines = [counted(len(self), "image")]
        most = self.probabilities.gather(1, self.labels[:, None])[:_SHOWN, 0].tolist()
        lines += [f"{p:7.1%}  {one_line(name)}" for p, name in zip(most, self.names, strict=False)]
        return "\n".join([*lines, "…"] if len(self) > _SHOWN else lines)
