"""Gradient descent on patches: the decomposition is exact, and stages are trained as they should be."""

import csv
import math

import pytest
import torch

import warmstart as ws
from warmstart.data.features_and_noise import PatchWorld, draw_examples
from warmstart.errors import InputError
from warmstart.theory.descent_study import run_descent, write_descent
from warmstart.theory.gradient_descent import descend, make_methods
from warmstart.theory.patch_network import PatchNetwork, remove_noise_, split_filters, without_empty_patches
from warmstart.theory.settings import DescentSettings

WORLD = PatchWorld(features=6, grid=3, patch=4, noise=2.0)
METHODS = ("cold", "warm", "shrink-perturb", "shrink-perturb[noise_std=0.0]", "dash", "oracle")


def small(**changes):
    """How small networks are trained on images of WORLD."""
    return DescentSettings(**{**WORLD.model_dump(), "examples": 12, "stages": 2, "filters": 4, "seeds": 1, **changes})


SMALL = small(init_std=0.05, max_steps=150, methods=METHODS)


def network(seed=0):
    torch.manual_seed(seed)
    return PatchNetwork(WORLD, filters=4, init_std=0.1)


def test_the_network_is_the_formula_it_states():
    net, patches = network(), draw_examples(WORLD, 0, 5).patches
    weights = net.filters.weight.detach()
    for example, output in zip(patches, net(patches).detach(), strict=True):
        for label in range(2):
            filters = weights[4 * label : 4 * label + 4]
            wanted = sum(max(0.0, float(w @ x)) ** 2 / 2 for w in filters for x in example)
            assert float(output[label]) == pytest.approx(wanted, rel=1e-4)


def test_empty_patches_make_no_difference():
    examples = draw_examples(WORLD, 0, 40)
    packed = without_empty_patches(examples.patches)
    assert packed.shape[1] < examples.patches.shape[1]
    assert torch.allclose(network()(packed), network()(examples.patches), atol=1e-5)


def test_a_filter_is_its_features_plus_its_noise():
    net, seen = network(), draw_examples(WORLD, 0, 100)  # more examples than directions of noise
    weights, parts = net.filters.weight, split_filters(net, WORLD, seen)
    assert torch.allclose(parts.features**2 + parts.noise**2, (weights**2).sum(dim=1), rtol=1e-4)

    with torch.no_grad():
        weights[0] = 3 * WORLD.feature_vectors[1, 2] + 0.5 * seen.noise[7]
    parts = split_filters(net, WORLD, draw_examples(WORLD, 0, 10))
    assert float(parts.features[0]) == pytest.approx(3, rel=1e-4)
    assert float(parts.noise[0]) == pytest.approx(0.5 * float(seen.noise[7].norm()), rel=1e-4)


def test_noise_of_examples_not_seen_is_not_memorised():
    net, examples = network(), draw_examples(WORLD, 0, 20)
    q, _ = torch.linalg.qr(examples.noise[:11].T)  # the last column is orthogonal to the first ten examples' noise
    with torch.no_grad():
        net.filters.weight[0] = q[:, 10]
    assert split_filters(net, WORLD, draw_examples(WORLD, 0, 10)).noise[0] < 1e-4
    assert split_filters(net, WORLD, examples).noise[0] == pytest.approx(1, rel=1e-4)


def test_the_oracle_forgets_noise_and_nothing_else():
    net, seen = network(), draw_examples(WORLD, 0, 100)
    before = split_filters(net, WORLD, seen)
    remove_noise_(net, WORLD)
    after = split_filters(net, WORLD, seen)
    assert torch.allclose(after.features, before.features, rtol=1e-4)
    assert after.noise.max() < 1e-5
    assert before.noise.min() > 0.1


def test_all_methods_are_alike_in_the_first_stage_and_a_run_repeats():
    methods = make_methods(SMALL)
    runs = {name: descend(SMALL, method, seed=0) for name, method in methods.items()}
    first = {(run[0].steps, run[0].live_examples, run[0].test_accuracy) for run in runs.values()}
    assert len(first) == 1
    again = descend(SMALL, methods["dash"], seed=0)
    assert [(s.steps, s.test_accuracy) for s in again] == [(s.steps, s.test_accuracy) for s in runs["dash"]]


def test_what_each_method_does_to_features_and_noise_when_data_arrives():
    def kept(name):
        first, second = descend(SMALL, make_methods(SMALL)[name], seed=0)[:2]
        return (
            float(second.before.features.norm() / first.after.features.norm()),
            float(second.before.noise.norm() / first.after.noise.norm()),
        )

    assert kept("warm")[0] == pytest.approx(1)
    assert kept("warm")[1] >= 1 - 1e-6  # in the span of more examples' noise it is no shorter
    assert kept("oracle") == (pytest.approx(1, rel=1e-4), pytest.approx(0, abs=1e-4))
    assert kept("shrink-perturb[noise_std=0.0]")[0] == pytest.approx(0.3, rel=1e-4)
    assert all(0.3 <= part < 1 for part in kept("dash"))


def test_old_examples_that_are_right_with_margin_leave_dash_the_new_datas_gradient_alone():
    one, other = (descend(SMALL, ws.Dash(alpha=alpha), seed=0)[1] for alpha in (0.1, 0.9))
    assert torch.allclose(one.before.features, other.before.features, rtol=1e-3)


def test_a_stage_ends_when_no_example_has_gradient_or_at_the_limit():
    for stage in descend(SMALL, ws.Warm(), seed=0):
        assert stage.unfinished_examples == 0 or stage.steps == SMALL.max_steps
        assert stage.live_examples > 0
    limited = small(stages=1, max_steps=3)
    assert [(s.steps, s.unfinished_examples > 0) for s in descend(limited, ws.Warm(), seed=0)] == [(3, True)]


def test_training_that_diverges_is_said():
    with pytest.raises(InputError, match="warm: training diverges in stage 1; lower lr or init_std"):
        descend(small(stages=1, init_std=1e25), ws.Warm(), seed=0)


def test_every_filter_is_written_and_adds_up_to_the_summary(tmp_path):
    study = run_descent(small(init_std=0.05, max_steps=150, methods="warm,oracle"))
    write_descent(study, tmp_path)
    with (tmp_path / "filters.csv").open() as file:
        filters = list(csv.DictReader(file))
    with (tmp_path / "gradient-descent.csv").open() as file:
        summary = list(csv.DictReader(file))
    assert len(filters) == 2 * 2 * 2 * 8  # methods, stages, moments, filters
    for row in summary:
        of_row = [f for f in filters if all(f[key] == row[key] for key in ("method", "seed", "stage"))]
        for moment in ("before", "after"):
            lengths = [float(f["along_noise"]) for f in of_row if f["moment"] == moment]
            assert math.hypot(*lengths) == pytest.approx(float(row[f"noise_{moment}"]), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("", "methods is empty"),
        ("wrm", "did you mean 'warm'"),
        ("dash[alpha=7]", "alpha is 7"),
        ("dash,dash[alpha=0.3]", "'dash' appears twice"),
    ],
)
def test_methods_that_are_none(names, message):
    with pytest.raises(InputError, match=message):
        DescentSettings.of({"methods": names})


def test_a_method_is_treated_as_in_any_other_loop():
    rates = []

    class Watched(ws.Rewarm):
        def after_step(self, model, stage):
            rates.append((stage.number, stage.step, stage.optimizer.param_groups[0]["lr"]))
            super().after_step(model, stage)

    first, second = descend(SMALL, Watched(factor=3.0, updates=10), 0)
    steps = [step for number, step, _ in rates if number == 2]
    assert steps == list(range(second.steps))
    assert [rate for number, _, rate in rates if number == 2][10:] == [SMALL.lr] * (second.steps - 10)

    with pytest.raises(InputError, match="no units that could be redrawn"):  # its one layer feeds the output
        descend(SMALL, ws.parse_method("redo[every=5]"), 0)

    class Untrained(ws.Method):
        def measured(self, model, state):
            return network()

    served = descend(SMALL, Untrained(), 0)[0]
    assert (served.steps, served.after.noise.tolist()) == (first.steps, first.after.noise.tolist())
    assert served.test_accuracy != first.test_accuracy
