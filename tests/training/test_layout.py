import pytest
import torch
from made_stage import SETTINGS, made_examples, same_weights, seed_of
from torch import nn

from warmstart.models.registry import model_factory
from warmstart.training import layout, loop
from warmstart.training.evaluation import evaluate, recalibrated
from warmstart.training.layout import laid_out
from warmstart.training.loop import Hooks, train_stage
from warmstart.training.optimizers import make_optimizer
from warmstart.training.recipe import OPTIMIZERS, Recipe

FIRST, LAST = torch.contiguous_format, torch.channels_last


def narrow_resnet():
    """Its last convolutions count as wide here: 64 and 128 outputs."""
    torch.manual_seed(0)
    return model_factory("resnet18")(4, 3, 16, width=16)


@pytest.fixture
def _wide(monkeypatch):
    monkeypatch.setattr(layout, "WIDE", 64)


def layouts(model):
    """What each convolution reads and gives from now on, by its number of outputs."""
    seen = {}

    def note(layer, inputs, output):
        formats = [f for f in (FIRST, LAST) for tensor in (inputs[0], output) if tensor.is_contiguous(memory_format=f)]
        seen.setdefault(layer.out_channels, set()).update(formats)

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels > 3:
            layer.register_forward_hook(note)
    return seen


def trained(model, name="sgd", examples=None, epochs=2, hooks=None):
    optimizer = make_optimizer(Recipe(optimizer=name, **SETTINGS), model)
    examples = made_examples(20, size=16) if examples is None else examples
    progress = train_stage(
        model,
        optimizer,
        examples,
        Recipe(batch_size=8, epochs=epochs, channels_last=True),
        seed_of=seed_of,
        hooks=hooks,
    )
    return optimizer, progress


@pytest.mark.usefixtures("_wide")
def test_narrow_convolutions_read_channels_last_maps_and_wide_ones_channels_first():
    model = narrow_resnet()
    seen = layouts(model)
    expected = {16: {LAST}, 32: {LAST}, 64: {FIRST}, 128: {FIRST, LAST}}  # of a single pixel both are true

    trained(model, epochs=1)
    assert seen == expected
    seen.clear()
    evaluate(model, made_examples(20, size=16), channels_last=True)
    assert seen == expected
    seen.clear()
    with recalibrated(model, made_examples(20, size=16), channels_last=True):
        assert seen == expected
    seen.clear()
    model(torch.zeros(2, 3, 16, 16))  # outside it is as before
    assert seen == {16: {FIRST}, 32: {FIRST}, 64: {FIRST}, 128: {FIRST, LAST}}


def test_small_images_are_left_as_they_are():
    torch.manual_seed(0)
    model = model_factory("small-cnn")(4, 3, 8)
    seen = layouts(model)

    trained(model, examples=made_examples(20, size=8), epochs=1)
    assert seen == {32: {FIRST}, 64: {FIRST}}


def test_it_is_undone_whatever_happens():
    model = narrow_resnet()

    def fail():
        with laid_out(model, made_examples(2, size=16)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not any(layer._forward_pre_hooks for layer in model.modules())


def test_a_single_image_without_its_batch_and_one_by_keyword_stay_as_they_are():
    convolution = nn.Conv2d(3, 4, 3)
    with laid_out(convolution, made_examples(2, size=16)):
        assert convolution(torch.zeros(3, 16, 16)).shape == (4, 14, 14)
        assert convolution(input=torch.zeros(1, 3, 16, 16)).is_contiguous()


@pytest.mark.usefixtures("_wide")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_gradients_and_momenta_lie_as_ever_so_that_a_fused_update_pairs_the_right_numbers(name):
    model, contiguous = narrow_resnet(), []

    def after_backward():
        contiguous.extend(p.grad.is_contiguous() for p in model.parameters())

    optimizer, _ = trained(model, name, epochs=1, hooks=Hooks(after_backward=after_backward))

    assert name == "muon" or all(group["fused"] for group in optimizer.param_groups)  # Muon has no fused update
    for parameter in model.parameters():
        state = optimizer.state[parameter].values()
        contiguous += [x.is_contiguous() for x in (parameter, *state) if isinstance(x, torch.Tensor)]
    assert contiguous
    assert all(contiguous)


@pytest.mark.usefixtures("_wide")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_numbers_are_those_of_the_plain_layout_within_rounding(monkeypatch, name):
    """In float64, where rounding is 1e-16. SAM takes its norm in float32, which moves its ascent by 1e-8, and that may
    put one activation of millions on the other side of ReLU's kink, which moves weights by 1e-4."""

    class InFloat64(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = narrow_resnet().double()

        def forward(self, inputs):
            return self.net(inputs.double())

    ours, plain = InFloat64(), InFloat64()
    trained(ours, name)
    after = evaluate(ours, made_examples(20, size=16), channels_last=True)
    monkeypatch.setattr(loop, "laid_out", lambda model, examples, **_: laid_out(model, made_examples(2, size=8)))
    trained(plain, name)

    for mine, theirs in zip(ours.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-3 if name == "sam" else 1e-7)
    assert after.loss == pytest.approx(evaluate(plain, made_examples(20, size=16)).loss, rel=1e-3)


@pytest.mark.usefixtures("_wide")
def test_a_stage_that_is_gone_on_with_gives_the_same_bits():
    whole, stopped = narrow_resnet(), narrow_resnet()
    trained(whole, epochs=3)

    optimizer, half = trained(stopped, epochs=1)
    resumed = narrow_resnet()
    resumed.load_state_dict(stopped.state_dict())
    other = make_optimizer(Recipe(optimizer="sgd", **SETTINGS), resumed)
    other.load_state_dict(optimizer.state_dict())
    start = loop.Progress(half.epochs, half.steps, half.accuracy)
    train_stage(
        resumed,
        other,
        made_examples(20, size=16),
        Recipe(batch_size=8, epochs=3, channels_last=True),
        seed_of=seed_of,
        start=start,
    )

    assert same_weights(whole, resumed)
