import pytest

from warmstart.data.paper_sets import PAPER_DATA
from warmstart.errors import InputError
from warmstart.methods.dash import Dash
from warmstart.models.registry import model_factory
from warmstart.reproduction.papers_methods import papers_method
from warmstart.reproduction.protocols import SUMMARIES
from warmstart.reproduction.settings import ReproduceSettings, default_seeds
from warmstart.training.schedule import Schedule


def config(**settings):
    return ReproduceSettings.of({"dataset": "cifar10", **settings})


def test_the_main_table_is_what_one_gets():
    settings = config().with_protocol()
    recipe = settings.recipe()

    assert (settings.model, settings.stages, settings.stage_size) == ("resnet18", 50, 1000)
    assert (recipe.lr, recipe.momentum, recipe.weight_decay) == (1e-3, 0.9, 0)
    assert (recipe.batch_size, recipe.until, recipe.max_epochs) == (128, 0.999, 10_000)
    assert (recipe.augment, recipe.rates) == ((), None)
    assert config().optimizers == ("sgd", "sam")
    assert config().methods == ("cold", "warm", "shrink-perturb", "dash", "fire")
    assert config(dataset="tiny-imagenet").with_protocol().stage_size == 2000
    assert (default_seeds("cifar10"), default_seeds("tiny-imagenet")) == (5, 3)


@pytest.mark.parametrize(
    ("typed", "label", "granularity"),
    [
        ("dash", "dash", "kernel"),
        ("dash[granularity=kernel]", "dash", "kernel"),
        ("dash[alpha=0.1]", "dash[alpha=0.1]", "kernel"),
        ("dash[granularity=kernel-or-row]", "dash[granularity=kernel-or-row]", "kernel-or-row"),
    ],
)
def test_dash_is_the_papers_and_keeps_its_name(typed, label, granularity):
    """Its row in the table stands beside the published one."""
    assert config(methods=typed).methods == (label,)
    assert papers_method(label).granularity == granularity
    assert Dash().granularity == "kernel-or-row"


def test_sota_is_the_appendix():
    protocol = config(dataset="cifar100", protocol="sota").published_protocol

    assert (protocol.recipe.lr, protocol.recipe.weight_decay, protocol.recipe.max_epochs) == (0.1, 5e-4, 260)
    assert protocol.recipe.rates == Schedule("step", None, 1, (60, 120, 160, 200))
    assert protocol.recipe.augment == ("crop", "flip", "rotate")
    model = model_factory("resnet18")(100, 3, 32, **protocol.model_settings["resnet18"])
    assert not [layer for layer in model.modules() if "MaxPool" in type(layer).__name__]


def test_half_is_two_stages_of_150_epochs_each():
    protocol = config(protocol="half").published_protocol

    assert (protocol.stream.stages, protocol.stream.stage_size) == (2, 25_000)
    assert (protocol.recipe.epochs, protocol.recipe.milestones) == (150, (60, 120))


@pytest.mark.parametrize("protocol", SUMMARIES)
@pytest.mark.parametrize("dataset", PAPER_DATA)
def test_every_protocol_fits_every_data_set(protocol, dataset):
    settled = config(dataset=dataset, protocol=protocol).with_protocol().stream()

    assert settled.stages * settled.stage_size <= PAPER_DATA[dataset].train_examples


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({}, True),
        ({"seeds": 1, "methods": "dash", "optimizers": "sgd"}, True),
        ({"stages": 50, "batch_size": 128}, True),
        ({"stages": 10}, False),
        ({"model": "vgg16"}, False),
        ({"protocol": "sota"}, False),
        ({"batch_size": 64}, False),
    ],
)
def test_differences_are_only_taken_where_the_settings_are_the_papers(settings, same):
    assert config(**settings).is_the_papers is same


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "cifar-10"}, "data set 'cifar-10' is unknown; did you mean 'cifar10'"),
        ({"protocol": "sotta"}, "protocol 'sotta' is unknown; did you mean 'sota'"),
        ({"optimizers": "sgd,san"}, "optimizer 'san' is unknown; did you mean 'sam'"),
        ({"optimizers": "sgd,sgd"}, "optimizers: 'sgd' appears twice"),
        ({"optimizers": ""}, "optimizers is empty"),
        ({"stages": 0}, "stages is 0; it must be at least 1"),
        ({"precision": "fp16"}, "precision 'fp16' is unknown"),
        ({"track": "wandbb"}, "tracker 'wandbb' is unknown; did you mean 'wandb'"),
        ({"executor": "slurm"}, "executor 'slurm' is unknown"),
        ({"ray_address": "auto"}, "ray_address is auto, which has no effect without Ray; add --executor ray"),
        ({"gpus_per_run": 0.5}, "gpus_per_run is 0.5, which has no effect without Ray; add --executor ray"),
        ({"gpus_per_run": -1}, "gpus_per_run is -1.0; it must be a finite number, at least 0"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(settings, message):
    with pytest.raises(InputError, match=message):
        config(**settings)
