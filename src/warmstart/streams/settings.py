"""The settings of a stream of images."""

from __future__ import annotations

from typing import Annotated, ClassVar

from warmstart.settings import Setting, Settings


class StreamSettings(Settings):
    """What arrives when."""

    title: ClassVar[str] = "The stream"

    stages: Annotated[int, Setting("Arrivals of data", "N", at_least=1)] = 6
    stage_size: Annotated[int, Setting("New examples a stage", "N", at_least=1)] = 50
