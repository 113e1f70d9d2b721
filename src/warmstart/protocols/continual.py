"""Ten tenths of the data, one after the other."""

from dataclasses import replace

from warmstart.protocols.protocol import Protocol
from warmstart.protocols.tenth import TENTH

CONTINUAL: Protocol = replace(
    TENTH,
    name="continual",
    summary="ten tenths of the data, 100 epochs each on all so far; trained as in tenth",
    source="FIRE, arXiv 2602.08040",
    recipe=TENTH.recipe.model_copy(update={"first_epochs": None}),
    stream={"stages": 10, "stage_size": "10%"},
)
