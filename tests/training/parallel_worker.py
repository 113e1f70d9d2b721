"""One process of a team: trains with the others, then alone, and compares.

PYTHONPATH=tests/training torchrun --nproc-per-node 2 tests/training/parallel_worker.py
"""

import copy
import os

import torch
from made_stage import SETTINGS, made_examples, seed_of
from torch import nn

from warmstart.models.registry import model_factory
from warmstart.training.loop import Hooks, train_stage
from warmstart.training.optimizers import make_optimizer
from warmstart.training.recipe import Recipe
from warmstart.training.shares import launched_team


def plain_network():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 12), nn.Tanh(), nn.Linear(12, 4))


def normed_network():
    return model_factory("small-cnn")(4, 3, 6)


def train(model, optimizer, count, team):
    made = make_optimizer(Recipe(optimizer=optimizer, **SETTINGS), model)
    epochs = []
    recipe = Recipe(batch_size=8, epochs=3)
    hooks = Hooks(after_epoch=lambda progress: epochs.append(progress.accuracy))
    progress = train_stage(model, made, made_examples(count), recipe, seed_of=seed_of, hooks=hooks, team=team)
    return progress, epochs


def main():
    team = launched_team(torch.device("cpu"))
    # Sums in another order put now and then an activation on the other side of ReLU's kink, which moved weights by 2e-4
    # at most; shares that weigh alike, not by their examples, would move them by 1e-2.
    # With 21 examples the last batch has 5, with 17 it has 1: fewer than there are processes.
    cases = [(normed_network, "sgd", 21), (normed_network, "sam", 21), (plain_network, "sgd", 17)]
    for make, optimizer, count in cases:
        torch.manual_seed(team.rank)  # the first process's weights are everyone's
        together = make()
        alone = copy.deepcopy(together)
        progress, epochs = train(together, optimizer, count, team)
        if team.rank == 0:
            expected, expected_epochs = train(alone, optimizer, count, None)
            assert progress.steps == expected.steps == 9
            assert epochs == expected_epochs
            theirs = alone.state_dict()
            for name, tensor in together.state_dict().items():
                torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-3)
        mine = torch.cat([p.detach().flatten().double() for p in together.state_dict().values()])
        everyones = team.gather(mine.sum().item(), mine.square().sum().item())
        assert all(theirs == everyones[0] for theirs in everyones), "the processes drifted apart"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
    os._exit(0)  # gloo's threads may hang at the interpreter's end
