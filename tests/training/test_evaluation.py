import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from networks import assert_same, cnn, snapshot
from warmstart.training import evaluation
from warmstart.training.evaluation import evaluate, recalibrated
from warmstart.training.examples import Examples


def made_examples(count=37, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 6, 6), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 4, (count,), generator=generator)
    return Examples(images, labels, torch.full((3, 1, 1), 120.0), torch.full((3, 1, 1), 60.0))


@pytest.fixture
def model():
    """A network with dropout whose running statistics fit nothing, in a mix of training and eval mode."""
    torch.manual_seed(1)
    model = nn.Sequential(cnn(), nn.Dropout(0.5))
    model(torch.randn(8, 3, 6, 6) * 4 + 1)
    return model


def test_it_equals_a_direct_computation(model):
    examples = made_examples()
    found = evaluate(model, examples)

    model.eval()
    inputs, labels = examples.batch(slice(None))
    output = model(inputs)
    correct = output.argmax(1) == labels
    assert found.loss == pytest.approx(cross_entropy(output, labels).item(), rel=1e-6)
    assert found.accuracy == pytest.approx(correct.double().mean().item(), abs=1e-12)
    assert 0 < found.accuracy < 1  # else the above would prove little
    assert found.correct.dtype == torch.bool
    assert torch.equal(found.correct, correct)


def test_it_is_done_in_full_fp32(model):
    seen = set()

    def note(*_):
        seen.add(
            (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.is_autocast_enabled("cpu"))
        )

    model.register_forward_hook(note)
    with torch.autocast("cpu", torch.bfloat16):
        evaluate(model, made_examples())
        with recalibrated(model, made_examples()):
            pass

    assert seen == {("highest", False, False)}


@pytest.mark.parametrize("batch", [1, 10, 36])
def test_no_result_depends_on_the_batch_size(model, monkeypatch, batch):
    examples = made_examples()
    whole = evaluate(model, examples)
    monkeypatch.setattr(evaluation, "BATCH", batch)

    parts = evaluate(model, examples)
    assert torch.equal(parts.correct, whole.correct)
    assert (parts.accuracy, parts.loss) == (whole.accuracy, pytest.approx(whole.loss, rel=1e-5))


def test_it_leaves_weights_buffers_gradients_and_training_flags_as_they_were(model):
    model[0][1].eval()  # a user's frozen batch norm, in a network that is trained
    before = snapshot(model)

    evaluate(model, made_examples())

    assert_same(before, snapshot(model))


def by_hand(model, examples):
    """Statistics of each batch norm's inputs over the whole set, the running variance unbiased as in PyTorch."""
    inputs, _ = examples.batch(slice(None))
    expected = {}
    for name, layer in model[0].named_children():
        if isinstance(layer, nn.BatchNorm2d):
            mean, var = inputs.mean((0, 2, 3)), inputs.var((0, 2, 3), unbiased=True)
            expected[name] = (mean, var)
            biased = inputs.var((0, 2, 3), unbiased=False)
            inputs = (inputs - mean.view(-1, 1, 1)) / (biased.view(-1, 1, 1) + layer.eps).sqrt()
            inputs = inputs * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1)
        else:
            inputs = layer(inputs)
    return expected


def test_recalibrated_statistics_are_those_of_the_whole_training_set(model):
    examples = made_examples()
    with torch.no_grad():
        expected = by_hand(model, examples)

    with recalibrated(model, examples):
        for name, (mean, var) in expected.items():
            layer = model[0].get_submodule(name)
            assert torch.allclose(layer.running_mean, mean, rtol=1e-4, atol=1e-5)
            assert torch.allclose(layer.running_var, var, rtol=1e-4, atol=1e-5)
    assert len(expected) == 2


def test_several_parts_weigh_alike_so_that_no_part_is_a_few_examples(model, monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH", 18)  # 37 examples: 18 and 19, not 18, 18 and 1
    examples = made_examples()
    parts = []
    model.register_forward_pre_hook(lambda _, inputs: parts.append(len(inputs[0])))

    with recalibrated(model, examples):
        first = model[0][1]
        with torch.no_grad():
            seen = [model[0][0](examples.batch(slice(a, b))[0]) for a, b in ((0, 18), (18, 37))]
        expected = sum(part.mean((0, 2, 3)) for part in seen) / 2
        assert torch.allclose(first.running_mean, expected, rtol=1e-4, atol=1e-5)
    assert parts == [18, 19]


@pytest.mark.parametrize("where", ["inside", "while measuring"])
def test_everything_is_put_back_even_after_an_exception(model, where):
    model[0][1].momentum = 0.3
    model[0][4].eval()
    before, momenta = snapshot(model), (model[0][1].momentum, model[0][4].momentum)
    examples = made_examples()
    if where == "while measuring":
        hook = model[0][6].register_forward_pre_hook(lambda *_: 1 / 0)

    def fail_inside():
        with recalibrated(model, examples):
            assert where == "inside"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    if where == "while measuring":
        hook.remove()

    assert_same(before, snapshot(model))
    assert (model[0][1].momentum, model[0][4].momentum) == momenta


def test_it_repairs_statistics_that_lag_behind(model):
    """What it is for: statistics that are off cost accuracy, and measuring anew makes them not matter."""
    examples = made_examples()
    with recalibrated(model, examples):
        settled = evaluate(model, examples)
    before = evaluate(model, examples)
    with torch.no_grad():
        model[0][1].running_mean.add_(2)

    with recalibrated(model, examples):
        assert evaluate(model, examples).loss == settled.loss
    assert evaluate(model, examples).loss != pytest.approx(before.loss, rel=1e-4)


def test_batch_norm_without_running_statistics_has_nothing_to_recalibrate():
    model = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten(), nn.Linear(108, 4))
    before = snapshot(model)

    with recalibrated(model, made_examples()):
        pass
    assert_same(before, snapshot(model))
