"""A tenth of the data for long, then all of it for a while."""

from warmstart.protocols.protocol import Protocol
from warmstart.training.recipe import Recipe

TENTH = Protocol(
    "tenth",
    "a tenth of the data for 1000 epochs, then all for 100: Adam 1e-3, first climbing, clipped at 0.5, batches of 256",
    "FIRE, arXiv 2602.08040; Hare & Tortoise (arXiv 2406.02596) besides draws half of the tenth's labels at random",
    Recipe(
        optimizer="adamw",
        batch_size=256,
        lr=1e-3,
        warmup="10%",
        clip=0.5,
        first_epochs=1000,
        epochs=100,
        new_optimizer=True,
    ),
    {"stages": 2, "stage_size": "10%,90%"},
    names_optimizer=True,
)
