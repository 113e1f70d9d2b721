"""The settings of a stream of images."""

from __future__ import annotations

from typing import Annotated

from warmstart.settings import Setting, Settings


class StreamSettings(Settings):
    """What arrives when."""

    stages: Annotated[int, Setting("Arrivals of data", "N", at_least=1)] = 6
    stage_size: Annotated[int, Setting("New examples a stage", "N", at_least=1)] = 50
