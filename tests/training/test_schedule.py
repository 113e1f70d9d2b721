import pytest
import torch
from made_stage import made_examples, seed_of

from networks import cnn
from warmstart.errors import InputError
from warmstart.training.loop import Hooks, train_stage
from warmstart.training.optimizers import make_optimizer
from warmstart.training.recipe import OPTIMIZERS, Recipe
from warmstart.training.schedule import Schedule

SOTA = Schedule("step", None, 1, (60, 120, 160, 200))


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
    schedule = Schedule("constant", None, 3)
    rates = [schedule.rate(0.3, epoch, batch, 5) for epoch in range(4) for batch in range(5)]

    assert rates == pytest.approx([0.3 * (i + 1) / 15 for i in range(15)] + [0.3] * 5)


@pytest.mark.parametrize(("epochs", "climb"), [(20, 10), (10, 5), (1, 0)])
def test_a_warm_up_may_be_a_share_of_the_stage_and_climbs_evenly(epochs, climb):
    """Hare & Tortoise's `warmup_ratio` of a stage's updates: linear, then the full rate; theirs begins at 0."""
    rates = rates_of(batches=5, base=0.1, epochs=epochs, warmup="10%")
    expected = [0.1 * (update + 1) / climb for update in range(climb)] + [0.1] * (5 * epochs - climb)
    assert rates == pytest.approx(expected)
    assert rates_of(batches=5, epochs=epochs, warmup="0%") == [0.1] * 5 * epochs


def test_a_longer_first_stage_climbs_for_as_large_a_share():
    recipe = Recipe.of({"epochs": 10, "first_epochs": 100, "warmup": "10%"})
    assert [recipe.of_stage(number).rates.warmup for number in (1, 2)] == [10, 1]
    assert Recipe.of({"warmup": "3"}) == Recipe.of({"warmup": 3})


def test_without_warm_up_or_milestones_the_rate_stays():
    assert {Schedule().rate(0.1, epoch, 2, 5) for epoch in range(9)} == {0.1}
    assert Recipe().rates is None


def rates_of(batches=5, base=0.1, **settings):
    schedule = Recipe(**settings).rates
    return [
        schedule.rate(base, epoch, batch, batches) for epoch in range(settings["epochs"]) for batch in range(batches)
    ]


@pytest.mark.parametrize("warmup", [0, 2])
def test_a_cosine_is_pytorchs_and_begins_after_the_warm_up(warmup):
    ours = rates_of(schedule="cosine", epochs=6, warmup=warmup)[5 * warmup :]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    theirs, schedule = [], torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(ours))
    for _ in ours:
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()

    assert ours == pytest.approx(theirs)
    assert ours[-1] > 0


def test_one_cycle_rises_for_three_tenths_and_ends_as_low_as_pytorchs():
    rates = rates_of(batches=10, schedule="one-cycle", epochs=10)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    theirs = []
    # PyTorch counts positions from the first update to the last, ours to the end of the last: hence one more.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, len(rates) + 1, cycle_momentum=False, pct_start=0.31)
    for _ in rates:
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()

    assert rates[0] == pytest.approx(0.1 / 25)
    assert max(rates) == rates[30] == pytest.approx(0.1)
    assert rates == pytest.approx(theirs, abs=0.1 * 0.03)


def test_a_step_without_milestones_is_that_of_wide_resnets():
    assert Recipe(schedule="step", epochs=200).rates.milestones == (60, 120, 160)
    for epochs, begins in ((1, []), (2, [1]), (3, [1, 2]), (5, [2, 3, 4])):  # of these few, not two at once or at once
        rates = Recipe(schedule="step", epochs=epochs).rates
        assert rates is not None
        falls = [rates.rate(1.0, epoch, 0, 1) for epoch in range(epochs)]
        assert falls == pytest.approx([0.2 ** sum(begin <= epoch for begin in begins) for epoch in range(epochs)])
    assert rates_of(batches=1, schedule="step", epochs=10) == pytest.approx(
        [0.1] * 3 + [0.02] * 3 + [0.004] * 2 + [0.0008] * 2
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "cosine"}, "schedule cosine needs to know a stage's length; give --epochs"),
        ({"schedule": "one-cycle"}, "schedule one-cycle needs to know"),
        ({"schedule": "step"}, "give --milestones or --epochs"),
        ({"schedule": "step", "milestones": (60, 60)}, "milestones: '60' appears twice"),
        ({"schedule": "step", "milestones": (90, 60)}, r"milestones are \(90, 60\); they must be ascending epochs"),
        ({"schedule": "step", "milestones": (0, 60)}, "milestone is 0; it must be at least 1"),
        ({"milestones": (60,)}, "milestones are for schedule step"),
        (
            {"schedule": "step", "milestones": (5, 60), "epochs": 60},
            "milestone 60 is beyond a stage's 60 epochs; leave it out",
        ),
        ({"nesterov": True, "optimizer": "adamw"}, "nesterov is for sgd and sam; with adamw give --no-nesterov, and a"),
        ({"schedule": "one-cycle", "epochs": 9, "warmup": 1}, "rises by itself; leave warmup out"),
        ({"warmup": -1}, "warmup is -1; it must be at least 0"),
        ({"warmup": "10%"}, "warmup is 10% of a stage, whose length is not known; give --epochs, or epochs"),
        (
            {"warmup": "100%", "epochs": 5},
            "warmup is '100%'; give a number of epochs, or a share of a stage such as 10%",
        ),
        ({"warmup": "-1"}, "warmup is '-1'; give a number of epochs"),
        ({"warmup": 5, "epochs": 5}, "warmup is 5 of 5 epochs; give --warmup 4, or more --epochs"),
        ({"schedule": "cosin", "epochs": 3}, "schedule 'cosin' is unknown; did you mean 'cosine'"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov needs momentum"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0; it must be a finite number, at least 0 and below 1"),
        ({"augment": ("crop", "flop")}, "augment 'flop' is unknown; did you mean 'flip'"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Recipe.of(settings)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_update_of_a_stage_has_its_rate_and_the_full_one_is_back_at_each_epochs_end(name):
    model, rates, rests = cnn(), [], []
    optimizer = make_optimizer(Recipe(optimizer=name, lr=0.1, momentum=0.9, weight_decay=0.0), model)
    updating = getattr(optimizer, "base_optimizer", optimizer)
    updating.register_step_post_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
    recipe = Recipe(batch_size=8, epochs=4, schedule="step", milestones=(2, 3), warmup=1)
    hooks = Hooks(after_epoch=lambda progress: rests.append(optimizer.param_groups[0]["lr"]))

    for _ in range(2):  # it starts anew in each stage
        train_stage(model, optimizer, made_examples(20), recipe, seed_of=seed_of, hooks=hooks)

    stage = [0.1 / 3, 0.2 / 3, 0.1, *[0.1] * 3, *[0.02] * 3, *[0.004] * 3]
    assert rates == pytest.approx(2 * stage)
    assert rests == [0.1] * 8


@pytest.mark.parametrize("schedule", [{}, {"schedule": "step", "milestones": (2, 3), "warmup": 1}])
def test_a_method_may_change_the_rate_of_a_single_update(schedule):
    def trained(factor):
        model, rates = cnn(), []
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer.register_step_post_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))

        def after_backward():
            optimizer.param_groups[0]["lr"] *= factor if len(rates) in (1, 5, 8) else 1

        recipe, hooks = (
            Recipe(batch_size=8, epochs=4, **schedule),
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
    recipe = Recipe(batch_size=8, epochs=4, warmup=2)

    with pytest.raises(KeyboardInterrupt):
        train_stage(model, optimizer, made_examples(20), recipe, seed_of=seed_of, hooks=Hooks(after_step=fail))
    assert optimizer.param_groups[0]["lr"] == 0.1
