import math

import pytest
import torch
from made_stage import made_examples, seed_of

from networks import cnn
from warmstart.errors import InputError
from warmstart.training.loop import Hooks, train_stage
from warmstart.training.optimizers import make_optimizer
from warmstart.training.recipe import OPTIMIZERS, Recipe
from warmstart.training.schedule import Schedule

SOTA = Schedule((60, 120, 160, 200), 0.2, 1)


@pytest.mark.parametrize(
    ("epoch", "batch", "rate"),
    [
        (0, 0, 0.1 / 8),
        (0, 3, 0.1 * 4 / 8),
        (0, 7, 0.1),
        (1, 0, 0.1),
        (59, 7, 0.1),
        (60, 0, 0.02),
        (120, 0, 0.004),
        (160, 0, 0.0008),
        (200, 0, 0.00016),
        (259, 7, 0.00016),
    ],
)
def test_the_papers_schedule(epoch, batch, rate):
    assert SOTA.rate(0.1, epoch, batch, 8) == pytest.approx(rate)


def test_warm_up_is_a_straight_line_over_all_its_updates():
    schedule = Schedule((), 1.0, 3)
    rates = [schedule.rate(0.3, epoch, batch, 5) for epoch in range(4) for batch in range(5)]

    assert rates == pytest.approx([0.3 * (i + 1) / 15 for i in range(15)] + [0.3] * 5)


def test_without_warm_up_or_milestones_the_rate_stays():
    assert {Schedule((), 0.2, 0).rate(0.1, epoch, 2, 5) for epoch in range(9)} == {0.1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (((60, 60), 0.2, 0), r"milestones are \(60, 60\); they must be ascending epochs, above 0"),
        (((0, 60), 0.2, 0), "milestones are"),
        (((60,), 0.0, 0), "factor is 0.0; it must be a finite number, above 0"),
        (((60,), math.nan, 0), "factor is nan"),
        (((60,), 0.2, -1), "warm-up is -1 epochs"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Schedule(*settings)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_update_of_a_stage_has_its_rate_and_the_full_one_is_back_at_each_epochs_end(name):
    model, rates, rests = cnn(), [], []
    optimizer = make_optimizer(Recipe(optimizer=name, lr=0.1, momentum=0.9, weight_decay=0.0), model)
    updating = getattr(optimizer, "base_optimizer", optimizer)
    updating.register_step_post_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
    recipe = Recipe(batch_size=8, until=None, max_epochs=4, schedule=Schedule((2, 3), 0.5, 1))
    hooks = Hooks(after_epoch=lambda progress: rests.append(optimizer.param_groups[0]["lr"]))

    for _ in range(2):  # it starts anew in each stage
        train_stage(model, optimizer, made_examples(20), recipe, seed_of=seed_of, hooks=hooks)

    stage = [0.1 / 3, 0.2 / 3, 0.1, *[0.1] * 3, *[0.05] * 3, *[0.025] * 3]
    assert rates == pytest.approx(2 * stage)
    assert rests == [0.1] * 8


@pytest.mark.parametrize("schedule", [None, Schedule((2, 3), 0.5, 1)])
def test_a_method_may_change_the_rate_of_a_single_update(schedule):
    def trained(factor):
        model, rates = cnn(), []
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer.register_step_post_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))

        def after_backward():
            optimizer.param_groups[0]["lr"] *= factor if len(rates) in (1, 5, 8) else 1

        recipe, hooks = (
            Recipe(batch_size=8, until=None, max_epochs=4, schedule=schedule),
            Hooks(after_backward=after_backward),
        )
        train_stage(model, optimizer, made_examples(20), recipe, seed_of=seed_of, hooks=hooks)
        assert optimizer.param_groups[0]["lr"] == 0.1
        return rates

    usual = trained(1)
    assert trained(10) == [rate * 10 if i in (1, 5, 8) else rate for i, rate in enumerate(usual)]


def test_an_error_in_the_middle_of_an_epoch_leaves_the_full_rate():
    def fail():
        raise KeyboardInterrupt

    model = cnn()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe = Recipe(batch_size=8, until=None, max_epochs=4, schedule=Schedule((), 1.0, 2))

    with pytest.raises(KeyboardInterrupt):
        train_stage(model, optimizer, made_examples(20), recipe, seed_of=seed_of, hooks=Hooks(after_step=fail))
    assert optimizer.param_groups[0]["lr"] == 0.1
