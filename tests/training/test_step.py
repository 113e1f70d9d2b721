import pytest
import torch
from made_stage import SETTINGS, made_examples, same_weights, seed_of
from torch import nn

from networks import cnn
from warmstart.training.loop import Hooks, train_stage
from warmstart.training.optimizers import make_optimizer
from warmstart.training.recipe import Recipe
from warmstart.training.step import make_step, tf32


def trained(precision, epochs=3, **settings):
    model = cnn()
    optimizer = make_optimizer(Recipe(optimizer="sgd", **SETTINGS), model)
    recipe = Recipe(batch_size=8, epochs=epochs, precision=precision, **settings)
    return model, train_stage(model, optimizer, made_examples(20), recipe, seed_of=seed_of)


def test_on_the_cpu_tf32_is_fp32():
    assert same_weights(trained("tf32")[0], trained("fp32")[0])


def test_bf16_computes_in_bf16_and_keeps_weights_and_gradients_in_fp32():
    seen = []

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = cnn()
            self.net[3].register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))

        def forward(self, inputs):
            return self.net(inputs)

    model = Watching()
    optimizer = make_optimizer(Recipe(optimizer="sgd", **SETTINGS), model)
    hooks = Hooks(after_backward=lambda: seen.extend(p.grad.dtype for p in model.parameters()))
    train_stage(
        model,
        optimizer,
        made_examples(8),
        Recipe(batch_size=8, epochs=1, precision="bf16"),
        seed_of=seed_of,
        hooks=hooks,
    )

    assert seen[0] is torch.bfloat16
    assert set(seen[1:]) == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    model(made_examples(8).batch(slice(None))[0])
    assert seen[-1] is torch.float32  # what comes after training is not affected


def test_bf16_stays_near_fp32():
    rounded, plain = trained("bf16")[0], trained("fp32")[0]

    for ours, theirs in zip(rounded.parameters(), plain.parameters(), strict=True):
        assert not torch.equal(ours, theirs)
        assert torch.allclose(ours, theirs, atol=0.02)


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_switched_for_the_gpu_and_put_back(allowed):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32

    def fail():
        with tf32(allowed, torch.device("cuda")):
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (allowed, allowed)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before


def test_a_step_gives_loss_and_accuracy_before_its_update():
    model, (inputs, labels) = cnn(), made_examples(20).batch(slice(None))
    optimizer = make_optimizer(Recipe(optimizer="sgd", **SETTINGS), model)
    reference = cnn().train()(inputs)

    loss, accuracy = make_step(model, optimizer)(inputs, labels)

    assert loss.item() == pytest.approx(nn.functional.cross_entropy(reference, labels).item())
    assert accuracy.item() == pytest.approx((reference.argmax(1) == labels).sum().item() / 20)
    assert not same_weights(model, cnn())


def test_on_the_cpu_nothing_is_recorded():
    assert same_weights(trained("tf32", captured=True)[0], trained("tf32", captured=False)[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"augment": ("crop", "flop")}, r"augment 'flop' is unknown; did you mean 'flip'\?"),
        ({"first_epochs": 3}, "first_epochs is for stages of fixed length; give --epochs for the others"),
        ({"clip": 0.0}, "clip is 0.0; it must be a finite number, above 0"),
        ({"precision": "fp16"}, r"precision 'fp16' is unknown; did you mean"),
    ],
)
def test_unknown_names_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe(batch_size=8, **settings)


def test_a_stage_of_so_many_epochs_is_done_after_them():
    _, progress = trained("tf32", epochs=2)

    assert (progress.status, progress.epochs) == ("done", 2)


def test_label_smoothing_is_that_of_pytorchs_loss():
    model = cnn().eval()
    inputs, labels = torch.randn(6, 3, 8, 8), torch.arange(6) % 4
    plain, smooth = (
        make_step(model, torch.optim.SGD(model.parameters(), lr=0.0), label_smoothing=s) for s in (0.0, 0.1)
    )

    expected = torch.nn.functional.cross_entropy(model(inputs), labels, label_smoothing=0.1)
    assert torch.equal(smooth(inputs, labels)[0], expected.detach())
    assert not torch.equal(plain(inputs, labels)[0], expected.detach())


@pytest.mark.parametrize("clip", [0.05, 1e6])
def test_all_gradients_together_are_clipped_behind_the_method(clip):
    model = cnn()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    raised = []

    def double():
        for p in model.parameters():
            p.grad *= 2
        raised.append(torch.stack([p.grad.norm() for p in model.parameters()]).norm())

    make_step(model, optimizer, clip=clip, after_backward=double)(*made_examples(8).batch(slice(None)))
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert raised[0] > 0.05
    assert torch.allclose(norm, raised[0].clamp(max=clip), rtol=1e-4)


def test_the_first_stage_may_have_other_epochs():
    recipe = Recipe(epochs=3, first_epochs=5, schedule="cosine")
    assert [recipe.of_stage(number).epochs for number in (1, 2, 3)] == [5, 3, 3]
    assert recipe.of_stage(1).rates.epochs == 5
    assert Recipe(epochs=3).of_stage(1) == Recipe(epochs=3)
