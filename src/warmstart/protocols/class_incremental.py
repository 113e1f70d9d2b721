"""Classes arrive in groups."""

from dataclasses import replace

from warmstart.protocols.continual import CONTINUAL
from warmstart.protocols.protocol import Protocol

CLASS_INCREMENTAL: Protocol = replace(
    CONTINUAL,
    name="class-incremental",
    summary="20 groups of classes, 100 epochs each on all so far, tested on the classes that have arrived",
    source="FIRE, arXiv 2602.08040; Dohare et al., Nature 2024, trains 200 epochs by SGD",
    stream={"order": "classes", "stages": 20, "stage_size": None},
)
