"""Half of the data, then all of it, in the DASH paper's training; Ash and Adams' own is `ash-adams`."""

from dataclasses import replace

from warmstart.protocols.sota import SOTA

HALF = replace(
    SOTA,
    name="half",
    summary="half of the data, then all of it: 150 epochs each, trained as in sota, lowered at 60 and 120",
    source="the sota recipe of Shin et al., arXiv 2410.23495, in the two stages of their figure 19 (ImageNet-1k)",
    recipe=SOTA.recipe.model_copy(update={"epochs": 150, "milestones": (60, 120)}),
    stream={"stages": 2, "stage_size": "50%"},
)
