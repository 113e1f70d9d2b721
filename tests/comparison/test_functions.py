"""`ws.compare` over functions of one's own, and `ws.compare_images` over a torch data set."""

import math
import random
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import warmstart as ws
from commands import numbers
from stateful_methods import AgeAndRedraw, SlowCopy


def data(count, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 4, generator=generator)
    return inputs, (inputs[:, 0] > 0).long()


CHUNKS = [data(24, 0), TensorDataset(*data(24, 1)), list(zip(*data(24, 2), strict=True))]
TEST = data(50, 3)


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


ONE = network()


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


def wider():
    return nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 2))


def no_training(model, stage):
    raise AssertionError("a run has begun")


def run(*, model=network, stream=CHUNKS, **changes):
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
    return ws.compare(model, stream, **arguments)


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


def worse(model, stage):
    """Costs a step and learns nothing."""
    return 1


def test_seeds_are_added_until_it_is_decided(tmp_path):
    plain = {"methods": ["cold", "warm"], "train": worse}
    more = run(**plain, seeds=3, max_seeds=7)
    assert [look.seed for look in more.results.select("warm", stage=3)] == list(range(7))
    assert not more.verdict.decided
    assert more.verdict.notes[-1].startswith("Look 3 of 3, 7 seeds: not decided, and no seeds are added. ")

    outcome = run(**plain, seeds=5, max_seeds=9, margin=1.0, out=tmp_path)
    assert outcome.verdict.decided
    assert {row.seed for row in outcome.results.rows} == set(range(5))
    assert "seeds:\n- 0\n- 1\n- 2\n- 3\n- 4\n" in (tmp_path / "config.yaml").read_text()
    assert "max_seeds: 9\n" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("seeds", "most", "message"),
    [
        ([0, 1, 2], 7, "give seeds as a number, not as a list"),
        (3, 2, "max_seeds is 2, below seeds, 3; ask for at least as many"),
        (3, "many", "max_seeds is 'many'; it must be a whole number"),
        (3, 10**9, "max_seeds is more than 10,000"),
    ],
)
def test_the_most_seeds_that_do_not_go_with_the_first(seeds, most, message):
    with pytest.raises(ws.InputError, match=message):
        run(seeds=seeds, max_seeds=most, train=no_training)


def test_methods_with_state_go_on_in_functions_of_ones_own_with_the_same_numbers(tmp_path):
    methods = [SlowCopy(), AgeAndRedraw(every=2)]
    run(methods=methods, out=tmp_path / "whole", seeds=1)
    stages = []

    def failing(model, stage):
        stages.append(stage.number)
        if len(stages) in (2, 5):
            raise OSError("the disk went away")
        return train(model, stage)

    for _ in range(2):
        with pytest.raises(OSError, match="went away"):
            run(methods=methods, out=tmp_path / "broken", seeds=1, train=failing)
    run(methods=methods, out=tmp_path / "broken", seeds=1, train=failing)
    assert stages == [1, 2, 2, 3, 1, 1, 2, 3]
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "broken")


def test_a_method_is_told_the_update_and_the_micro_batches_and_names_what_is_evaluated():
    told, evaluated, trained = [], [], []

    class Told(AgeAndRedraw):
        def after_step(self, model, stage):
            rows = {name: len(activations) for name, activations in stage.activations.items()}
            told.append((stage.number, stage.step, stage.optimizer.param_groups[0]["lr"], rows))

        def after_backward(self, model, stage):
            stage.optimizer.param_groups[0]["lr"] = 0.5

        def measured(self, model, state):
            trained.append(model)
            return SlowCopy().measured(model, state)

    def two_halves(model, stage):
        model.train()
        inputs, labels = next(iter(DataLoader(stage.data, 12)))
        for _ in range(2):
            for half in (slice(0, 6), slice(6, 12)):
                cross_entropy(model(inputs[half]), labels[half]).backward()
            stage.after_backward()
            stage.optimizer.step()
            stage.after_step()
            evaluate(model)
            model.train()
            assert stage.optimizer.param_groups[0]["lr"] == 0.1
        return 2

    def look(model):
        evaluated.append(model)
        return evaluate(model)

    run(methods=[Told()], seeds=1, stream=CHUNKS[:2], train=two_halves, evaluate=look)
    assert told == [(stage, step, 0.5, {"0": 12}) for stage in (1, 2) for step in (0, 1)]
    _, *of_run = evaluated  # the first one was tried before all runs
    assert len(of_run) == len(trained) == 2
    assert isinstance(of_run[0][2], nn.PReLU)
    assert not any(measured is model for measured, model in zip(of_run, trained, strict=True))


def test_a_metric_that_is_better_when_lower_and_has_no_scores():
    outcome = run(
        methods=["cold", "warm"],
        metric="loss",
        higher_is_better=False,
        evaluate=lambda model: float(cross_entropy(model.eval()(TEST[0]), TEST[1])),
    )
    assert all(run.scores is None for run in outcome.results.runs.values())
    assert "%" not in str(outcome).splitlines()[1]


def test_a_loss_may_be_a_module():
    usual, with_module = (run(methods=["dash"], loss_fn=loss) for loss in (cross_entropy, nn.CrossEntropyLoss()))
    assert [row.test_accuracy for row in with_module.results.rows] == [row.test_accuracy for row in usual.results.rows]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": []}, "empty"),
        ({"methods": ["cold", "cold"]}, "twice"),
        ({"methods": ["clod"]}, "did you mean 'cold'"),
        ({"methods": [ws.Dash]}, r"the class Dash; make a method of it: Dash\(...\)"),
        ({"methods": [3]}, "methods holds 3; give names such as 'dash'"),
        ({"methods": None}, "methods is None; give names such as 'cold,warm,dash'"),
        ({"model": nn.Linear(3, 2)}, "a Linear; it must be a function"),
        ({"methods": "cold,clod"}, "did you mean 'cold'"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": "3"}, "seeds is '3'; it must be a whole number"),
        ({"seeds": 3.0}, r"seeds is 3\.0; it must be a whole number"),
        ({"seeds": [1, 1]}, "1 appears twice"),
        ({"seeds": [0, "1"]}, "a seed is '1'"),
        ({"margin": -1}, "margin is -1.0; it must be a finite number, at least 0"),
        ({"micro_batch_size": 0}, "micro_batch_size is 0"),
        ({"evaluate": None}, "evaluate is None"),
        ({"evaluate": lambda model: None}, "evaluate returned nothing; it must return a number, or one score"),
        ({"loss_fn": "ce"}, "loss_fn is 'ce', a str; it must be a function"),
        ({"loss_fn": None}, "without loss_fn a batch must be a mapping"),
        ({"make_optimizer": lambda model: None}, "make_optimizer returned nothing"),
        (
            {"model": lambda: ONE},
            r"make_model gave \S+ twice, and runs would share it: make a new network in each call",
        ),
        ({"model": lambda: None}, "what make_model returns is a NoneType, not a network"),
        ({"stream": TensorDataset(*data(24, 0))}, "the stream is a TensorDataset; give a list with the new data of"),
        ({"stream": iter(CHUNKS)}, "the stream is a list_iterator"),
        ({"stream": [data(4, 0), {"x": 1}]}, "stage 2 of the stream is a dict"),
        ({"stream": [(torch.zeros(3), torch.zeros(4))]}, r"tensors of the shapes \(3,\), \(4,\)"),
        ({"stream": lambda seed: CHUNKS[: seed + 1]}, "the stream has 1 or 2 or 3 stages"),
    ],
)
def test_wrong_arguments_are_one_clear_line_before_the_first_run(changes, message):
    with pytest.raises(ws.InputError, match=message):
        run(**{"train": no_training, **changes})


def with_an_empty_buffer():
    model = network()
    model.register_buffer("none_yet", torch.zeros(0))
    return model


def test_two_networks_share_no_memory_where_there_is_none():
    assert run(model=with_an_empty_buffer, methods=["warm"], seeds=1).results.rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": lambda model, stage: None}, "must return its number"),
        ({"train": lambda model, stage: {"epochs": 1}}, "steps always"),
        ({"evaluate": lambda model: torch.zeros(2, 2)}, r"a tensor of the shape \(2, 2\); .* one score for each"),
        ({"methods": ["l2-init"], "train": lambda model, stage: 1}, r"stage\.after_backward\(\)"),
    ],
)
def test_what_a_function_does_wrong_is_one_clear_line(changes, message):
    with pytest.raises(ws.InputError, match=message):
        run(**changes)


def test_a_folder_is_of_one_network_and_one_stream(tmp_path):
    few = {"methods": "cold,warm", "seeds": 1, "out": tmp_path}
    first = run(**few)
    assert str(run(**few, train=no_training).results.rows) == str(first.results.rows)
    with pytest.raises(ws.InputError, match=r"model_fingerprint is '\w+' there and '\w+' now"):
        run(**few, model=wider)
    for chunks in ([CHUNKS[1], CHUNKS[0], CHUNKS[2]], [*CHUNKS[:2], data(25, 2)]):
        with pytest.raises(ws.InputError, match="the data at 'custom' has changed since the first start"):
            run(**few, stream=chunks)


def test_a_stream_of_each_seed_takes_more_seeds_and_notices_a_change(tmp_path):
    few = {"methods": "cold", "out": tmp_path}
    run(**few, seeds=1, stream=lambda seed: [data(24, seed), data(24, 9)])
    run(**few, seeds=2, stream=lambda seed: [data(24, seed), data(24, 9)])
    with pytest.raises(ws.InputError, match="has changed"):
        run(**few, seeds=2, stream=lambda seed: [data(24, seed or 5), data(24, 9)])
    with pytest.raises(ws.InputError, match="has changed"):
        run(**few, seeds=3, stream=lambda seed: [data(24, 5 if seed == 1 else seed), data(24, 9)])


def test_examples_that_come_out_differently_each_time_are_the_same_data(tmp_path):
    class Cropped(list):
        def __getitem__(self, index):
            return super().__getitem__(index) + random.random(), index % 2

    few = {"methods": "warm", "seeds": 1, "out": tmp_path, "train": lambda model, stage: 1}
    for _ in range(2):
        run(**few, stream=[Cropped(torch.zeros(9, 4)), Cropped(torch.ones(9, 4))])
    with pytest.raises(ws.InputError, match="has changed"):
        run(**few, stream=[Cropped(torch.zeros(9, 4)), Cropped(torch.ones(8, 4))])


def test_other_versions_than_at_the_first_start_are_warned_of(tmp_path):
    few = {"methods": "cold", "seeds": 1, "out": tmp_path}
    run(**few)
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace(f"torch: {torch.__version__}", "torch: '1.0'"))
    with pytest.warns(UserWarning, match=r"^torch is .* now and was 1\.0: new runs may differ"):
        run(**few)


def test_where_no_method_takes_gradients_there_need_be_no_loss_and_no_batch():
    ragged = [[(torch.zeros(length), 0) for length in (2, 3)]] * 2
    outcome = run(methods="cold,warm", loss_fn=None, stream=ragged, train=lambda model, stage: 1, seeds=1)
    assert len(outcome.results.rows) == 4


def test_a_metric_that_is_no_number_is_called_that():
    with pytest.warns(UserWarning, match="evaluate gives nan for an untrained network"):
        outcome = run(methods="cold,warm", metric="loss", evaluate=lambda model: math.nan)
    assert "cold's loss is not a finite number in 3 of 3 seeds" in outcome.verdict.sentence
    assert "diverged" not in " ".join([outcome.verdict.sentence, *outcome.verdict.notes])


def test_progress_shows_the_metric_and_no_percent_of_what_is_no_accuracy(capfd):
    run(methods="cold", seeds=1, metric="loss", evaluate=lambda model: 0.0394, progress=True)
    shown = capfd.readouterr().err
    assert "1 method x 1 seed, " in shown
    assert "[1/1] cold seed 0: loss 0.0394, " in shown
    assert "%" not in shown


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
    page = (tmp_path / "out" / "report.html").read_text()
    assert "It was started from Python, with <code>ws.compare_images</code>." in page
    in_order = {"order": "given", "stage_size": 12, "test": "next", "out": str(tmp_path / "next")}
    outcome = ws.compare_images(TensorDataset(images, labels), progress=False, **{**settings, **in_order})
    assert outcome.record.settings.test == "next"
    with pytest.raises(ws.InputError, match="did you mean 'stages'"):
        ws.compare_images(TensorDataset(images, labels), stage=2)
    with pytest.raises(ws.InputError, match=r"train is a DataLoader; pass its data set: train=loader\.dataset"):
        ws.compare_images(DataLoader(TensorDataset(images, labels)))


ODD = "=$x$|`<script>alert(1)</script>\x1b[31m\u202e\udcff\n[a](b)"


class Odd(ws.Method):
    """A method with an odd name, as a user may give one."""

    name = "_" + ODD


def test_odd_names_are_harmless_wherever_they_are_written(tmp_path):
    outcome = run(methods=["cold", Odd()], name=ODD, metric=ODD, out=tmp_path / "out")
    outcome.write(tmp_path / "again")
    shown = str(outcome)
    assert all(line.isprintable() for line in shown.splitlines())
    for folder in ("out", "again"):
        page = (tmp_path / folder / "report.html").read_text(encoding="utf-8")
        table = (tmp_path / folder / "table.md").read_text(encoding="utf-8")
        assert "<script" not in page
        assert "$x$" in page
        assert not {"\x1b", "\u202e"} & {*page, *table}
        assert not re.search(r"(?<!\\)<script", table)
        assert len({line.replace(r"\|", "").count("|") for line in table.splitlines()[:4]}) == 1


def test_out_may_be_a_path_or_text_everywhere(tmp_path):
    images = TensorDataset(torch.rand(40, 1, 4, 4), torch.arange(40) % 2)
    settings = {"stages": 1, "stage_size": 20, "seeds": 1, "methods": "cold", "max_epochs": 1, "progress": False}
    for out in (tmp_path / "path", str(tmp_path / "text")):
        ws.compare_images(images, batch_size=8, out=out, **settings)
        run(out=Path(out, "functions"), methods="cold", seeds=1).write(Path(out, "again"))
        assert (tmp_path / out / "again" / "results.csv").exists()


@pytest.mark.parametrize("out", ["a" * 300, "a\0b", "loop", "taken", "taken/below"])
def test_an_out_that_cannot_be_a_folder_is_refused(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("precious")
    (tmp_path / "loop").symlink_to("nowhere")
    with pytest.raises(ws.InputError):
        run(out=out, train=no_training)
    with pytest.raises(ws.InputError):
        ws.compare_images(TensorDataset(torch.rand(40, 1, 4, 4), torch.arange(40) % 2), out=Path(out), progress=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["loop", "taken"]
