"""`ws.compare` over functions of one's own, and `ws.compare_images` over a torch data set."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import warmstart as ws
from commands import numbers


def data(count, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 4, generator=generator)
    return inputs, (inputs[:, 0] > 0).long()


CHUNKS = [data(24, 0), TensorDataset(*data(24, 1)), list(zip(*data(24, 2), strict=True))]
TEST = data(50, 3)


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def train(model, stage):
    model.train()
    steps = 0
    for inputs, labels in DataLoader(stage.data, 12, shuffle=True):
        stage.optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        stage.after_backward()
        stage.optimizer.step()
        stage.after_step()
        steps += 1
    return {"steps": steps, "epochs": 1}


def evaluate(model):
    model.eval()
    with torch.no_grad():
        return (model(TEST[0]).argmax(1) == TEST[1]).float()


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def run(**changes):
    arguments = {
        "methods": ["cold", ws.Dash(alpha=0.5), "l2-init"],
        "seeds": 3,
        "train": train,
        "evaluate": evaluate,
        "make_optimizer": sgd,
        "loss_fn": cross_entropy,
        "progress": False,
        **changes,
    }
    return ws.compare(network, CHUNKS, **arguments)


def test_the_grid_runs_and_judges_over_ones_own_functions(tmp_path):
    before = torch.get_rng_state()
    outcome = run(out=tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    rows = outcome.results.rows
    assert len(rows) == 3 * 3 * 3
    assert {row.method for row in rows} == {"cold", "dash[alpha=0.5]", "l2-init"}
    assert [row.steps for row in outcome.results.select("cold", seed=0)] == [2, 4, 6]
    assert [row.train_examples for row in outcome.results.select("cold", seed=0)] == [24, 48, 72]
    assert outcome.verdict.sentence in " ".join(str(outcome).split())
    assert {"results.csv", "table.md", "report.html", "config.yaml"} <= {path.name for path in tmp_path.iterdir()}


def test_it_goes_on_where_it_stopped_with_the_same_numbers(tmp_path):
    run(out=tmp_path / "whole")
    calls = 0

    def failing(model, stage):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise OSError("the disk went away")
        return train(model, stage)

    with pytest.raises(OSError, match="went away"):
        run(out=tmp_path / "broken", train=failing)
    run(out=tmp_path / "broken")
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "broken")
    with pytest.raises(ws.InputError, match="metric"):
        run(out=tmp_path / "broken", metric="F1")


def test_a_metric_that_is_better_when_lower_and_has_no_scores():
    outcome = run(
        methods=["cold", "warm"],
        metric="loss",
        higher_is_better=False,
        evaluate=lambda model: float(cross_entropy(model.eval()(TEST[0]), TEST[1])),
    )
    assert not outcome.results.scores
    assert "%" not in str(outcome).splitlines()[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": []}, "empty"),
        ({"methods": ["cold", "cold"]}, "twice"),
        ({"methods": ["clod"]}, "did you mean 'cold'"),
        ({"seeds": []}, "seeds is empty"),
        ({"train": lambda model, stage: None}, "must return its number"),
        ({"train": lambda model, stage: {"epochs": 1}}, "steps always"),
        ({"evaluate": lambda model: torch.zeros(2, 2)}, "one score for each"),
        ({"methods": ["l2-init"], "train": lambda model, stage: 1}, r"stage\.after_backward\(\)"),
    ],
)
def test_wrong_arguments_are_one_clear_line(changes, message):
    with pytest.raises(ws.InputError, match=message):
        run(**changes)


def test_an_empty_stage_is_named():
    with pytest.raises(ws.InputError, match="stage 2: 0 examples"):
        ws.compare(network, [data(4, 0), []], train=train, evaluate=evaluate, progress=False)


def test_a_torch_dataset_of_images(tmp_path):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    images = (torch.rand(60, 1, 8, 8, generator=generator) * 100 + 120 * labels.view(-1, 1, 1, 1)).byte()
    settings = {"stages": 2, "stage_size": 12, "seeds": 1, "batch_size": 6, "methods": "cold,dash", "max_epochs": 2}
    outcome = ws.compare_images(
        TensorDataset(images, labels), out=str(tmp_path / "out"), data="stripes", progress=False, **settings
    )
    assert {row.data for row in outcome.results.rows} == {"stripes"}
    assert (tmp_path / "out" / "report.html").exists()
    with pytest.raises(ws.InputError, match="did you mean 'stages'"):
        ws.compare_images(TensorDataset(images, labels), stage=2)
