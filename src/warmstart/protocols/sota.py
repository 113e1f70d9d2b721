"""The appendix of the DASH paper: the training of the state of the art."""

from warmstart.protocols.protocol import Protocol
from warmstart.training.recipe import Recipe

SOTA = Protocol(
    "sota",
    "as incremental, at 0.1 with weight decay 5e-4, lowered at 60, 120, 160 and 200 of at most 260 epochs; crop, flip",
    "Shin et al., NeurIPS 2024, arXiv 2410.23495, appendix; its augmentation depends on the data, here CIFAR-10's",
    Recipe(
        batch_size=128,
        lr=0.1,
        weight_decay=5e-4,
        max_epochs=260,
        schedule="step",
        milestones=(60, 120, 160, 200),
        warmup=1,
        augment=("crop", "flip"),
    ),
)
