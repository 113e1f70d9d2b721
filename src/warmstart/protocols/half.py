"""Half of the data, then all of it."""

from dataclasses import replace

from warmstart.protocols.sota import SOTA

HALF = replace(
    SOTA,
    name="half",
    summary="half of the data, then all of it: 150 epochs each, trained as in sota, lowered at 60 and 120",
    source="Ash and Adams, NeurIPS 2020, arXiv 1910.08475; Shin et al., arXiv 2410.23495, figure 19",
    recipe=SOTA.recipe.model_copy(update={"epochs": 150, "milestones": (60, 120)}),
    stream={"stages": 2, "stage_size": "50%"},
)
