"""A method that is interrupted at any line has either not begun or is done: nothing stays half changed."""

import copy
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from method_table import ROWS, Network
from torch.nn.functional import cross_entropy

import warmstart as ws
from interruptions import EVERY_LINE, Trial, differing, half_done
from networks import batches_for, cnn, mlp, updated
from warmstart import Stage, parse_method
from warmstart.layers.norms import batch_norms
from warmstart.layers.recalibration import recalibrate_
from warmstart.layers.units import watch
from warmstart.methods.hare_tortoise import _return_
from warmstart.methods.units_and_activations import UnitsOf
from warmstart.undo import all_or_nothing

BATCHES = batches_for((3, 6, 6), 3, size=4)


def loss(model, batch):
    return cross_entropy(model(batch[0]), batch[1])


def trained_network(make=Network):
    """A network with all gradients but one and a frozen norm, and its optimizer with moments."""
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    updated(model, optimizer, BATCHES)
    loss(model, BATCHES[0]).backward()
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    matrices[1].grad = None
    batch_norms(model)[0].eval()
    return model, optimizer


def dash(**arguments):
    def begin():
        model, optimizer = trained_network()
        given = {"optimizer": optimizer} if "optimizer_state" in arguments else {}
        return Trial(lambda: ws.dash_(model, BATCHES, cross_entropy, **given, **arguments), model, optimizer)

    return begin


def dash_from():
    model, optimizer = trained_network()
    ema = ws.GradientEMA(model)
    ema.update()
    ema.update()
    options = {"optimizer": optimizer, "optimizer_state": "scale"}
    return Trial(
        lambda: ws.dash_from_(model, ema, **options),
        model,
        optimizer,
        lambda: {f"average {name}": average.clone() for name, average in copy.deepcopy(ema).average.items()},
    )


def dash_on_a_nan():
    model, optimizer = trained_network()
    batches = [(inputs * torch.nan, targets) for inputs, targets in BATCHES]
    return Trial(lambda: ws.dash_(model, batches, cross_entropy), model, optimizer)


def dash_without_gradients():
    model, optimizer = trained_network()

    def call():
        with torch.inference_mode():
            ws.dash_(model, BATCHES, cross_entropy, micro_batch_size=2)

    return Trial(call, model, optimizer)


def plain(work):
    def begin():
        model, optimizer = trained_network()
        generator = torch.Generator().manual_seed(1)
        return Trial(
            lambda: work(model, optimizer, generator),
            model,
            optimizer,
            lambda: {"generator": generator.get_state()},
        )

    return begin


def fresh():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Network()


INITIAL = copy.deepcopy(fresh().state_dict())

CALLS = {
    "dash_": dash(),
    "dash_, apply=False": dash(apply=False),
    "dash_, recalibrate": dash(batch_norm="recalibrate"),
    "dash_, moments scaled": dash(optimizer_state="scale"),
    "dash_, moments reset": dash(optimizer_state="reset"),
    "dash_, all": dash(batch_norm="recalibrate", optimizer_state="scale", micro_batch_size=2, alpha=0.99),
    "dash_ on a NaN": dash_on_a_nan,
    "dash_ in inference mode": dash_without_gradients,
    "dash_from_": dash_from,
    "fire_": plain(lambda model, optimizer, _: ws.fire_(model, optimizer=optimizer)),
    "cold_": plain(lambda model, optimizer, _: ws.cold_(model, fresh(), optimizer=optimizer)),
    "warm_reset_": plain(lambda model, optimizer, _: ws.warm_reset_(model, optimizer)),
    "shrink_perturb_": plain(lambda model, _, generator: ws.shrink_perturb_(model, generator=generator)),
    "shrink_perturb_, PyTorch's noise": plain(lambda model, *_: ws.shrink_perturb_(model)),
    "shrink_perturb_, ash": plain(lambda model, *_: ws.shrink_perturb_(model, variant="ash", other=fresh())),
    "head_reset_": plain(lambda model, _, generator: ws.head_reset_(model, "head", generator=generator)),
    "head_reset_, PyTorch's draw": plain(lambda model, *_: ws.head_reset_(model, "head")),
    "l2_init_": plain(lambda model, *_: ws.l2_init_(model, INITIAL)),
    "l2_init_, dash": plain(lambda model, *_: ws.l2_init_(model, INITIAL, 1e-2, variant="dash")),
    "fire_, polar": plain(lambda model, optimizer, _: ws.fire_(model, optimizer=optimizer, variant="polar")),
    "recalibrate_": plain(lambda model, *_: recalibrate_(model, [(BATCHES[0], 4.0)], loss)),
    "a return to the slow network": plain(lambda model, *_: _return_(model, INITIAL)),
    "parseval_": plain(lambda model, *_: ws.parseval_(model)),
    "parseval_, chung": plain(lambda model, *_: ws.parseval_(model, variant="chung", head="head")),
}


def is_all_or_nothing(begin, *files):
    wrong, tried = half_done(begin, *files)
    assert not wrong, f"{len(wrong)} of {tried}: " + "; ".join(wrong[:9])


@pytest.mark.parametrize("name", CALLS)
def test_a_function_interrupted_at_any_line_has_changed_nothing_or_is_done(name):
    is_all_or_nothing(CALLS[name])


@pytest.mark.parametrize("name", ["cold", "fire"])
def test_a_function_that_keeps_nothing_is_found(name, monkeypatch):
    monkeypatch.setattr(f"warmstart.methods.{name}.keep", lambda tensors: None)
    wrong, _ = half_done(CALLS[f"{name}_"])
    assert any("head.weight" in said for said in wrong)


def reading_units():
    model = mlp()
    return Trial(all_or_nothing(UnitsOf(model, lambda size: batches_for((6,), 1, size=4), loss)), model)


@pytest.mark.parametrize(
    ("begin", "files"),
    [
        (
            CALLS["dash_, all"],
            ("gradient_ema.py", "gradient_pass.py", "average_gradient.py", "network.py", "precision.py"),
        ),
        (reading_units, ("layers/tracing.py",)),
    ],
    ids=["an average of gradients", "the graph"],
)
def test_what_methods_rest_on_leaves_no_trace_when_it_is_interrupted(begin, files):
    is_all_or_nothing(begin, *files)


def a_stage(spelled, act, *, updates=0, make=Network):
    """A stage after so many updates."""

    def begin():
        model, optimizer = trained_network(make)
        generator = torch.Generator().manual_seed(1)
        stage = Stage(
            number=2,
            seen=12,
            new=4,
            batches=lambda size: BATCHES,
            forward_loss=loss,
            fresh=fresh,
            initial=INITIAL,
            generator=generator,
            optimizer=optimizer,
            units=UnitsOf(model, lambda size: BATCHES, loss),
        )
        with watch(model, stage.units()) as stage.activations:
            loss(model, BATCHES[0]).backward()
        for of_layer in stage.activations.values():
            of_layer[:, ::2] = 0  # silent units
        method = parse_method(spelled)
        for stage.step in range(updates):
            method.after_backward(model, stage)
            method.after_step(model, stage)
        return Trial(
            lambda: act(method, model, stage),
            model,
            optimizer,
            lambda: {"generator": generator.get_state(), **{f"state {n}": t.clone() for n, t in stage.state.items()}},
        )

    return begin


def new_data(method, model, stage):
    method.on_new_data(model, stage)


def update(method, model, stage):
    method.after_step(model, stage)


@pytest.mark.parametrize("spelled", [row.spelled for row in ROWS])
def test_a_method_interrupted_at_any_line_has_changed_nothing_or_is_done(spelled):
    is_all_or_nothing(a_stage(spelled, new_data))


@pytest.mark.parametrize("spelled", [row.spelled for row in ROWS if parse_method(row.spelled).acts_on_updates])
def test_so_has_a_method_that_remembers_an_update(spelled):
    is_all_or_nothing(a_stage(spelled, new_data, updates=1))


@pytest.mark.parametrize("updates", [0, 1])
@pytest.mark.parametrize(
    "spelled", [*(row.spelled for row in ROWS if row.moments), "soft-weight-rescaling", "normalize-and-project"]
)
def test_an_update_interrupted_at_any_line_has_changed_nothing_or_is_done(spelled, updates):
    is_all_or_nothing(a_stage(spelled, update, updates=updates))


def test_an_update_interrupted_at_any_line_has_moved_the_next_bias_or_not():
    is_all_or_nothing(a_stage("continual-backprop[rate=1.0,maturity=0]", update, make=cnn))


def update_of(weight):
    def begin():
        model, optimizer = trained_network()
        ema = ws.GradientEMA(model)
        ema.left_out = 1  # so that norms are kept too
        ema.update()

        def remembered():
            parts = {**ema._sum, **{f"largest {name}": norm for name, norm in ema.largest.items()}}
            return {"updates": ema.updates, "decay": ema._decay, **{name: part.clone() for name, part in parts.items()}}

        return Trial(lambda: ema.update(weight), model, optimizer, remembered)

    return begin


def test_an_update_of_the_average_that_fails_leaves_it_as_it_was():
    is_all_or_nothing(update_of(2.0), "gradient_ema.py")


@pytest.mark.parametrize("weight", ["2", float("nan"), float("inf")])
def test_a_weight_that_is_no_finite_number_is_refused(weight):
    trial = update_of(weight)()
    before = trial.state()
    with pytest.raises(ws.InputError, match="weight is"):
        trial.call()
    assert not differing(before, trial.state())


def expanded_weights(model, optimizer):
    layer = model.point
    layer.weight = torch.nn.Parameter(torch.ones(1, 8, 1, 1).expand(8, 8, 1, 1))


def expanded_moments(model, optimizer):
    state = optimizer.state[model.point.weight]
    state["exp_avg"] = torch.ones(1).expand(8, 8, 1, 1)


def weights_of_inference(model, optimizer):
    with torch.inference_mode():
        model.point.weight = torch.nn.Parameter(torch.ones(8, 8, 1, 1))


def moments_of_inference(model, optimizer):
    with torch.inference_mode():
        optimizer.state[model.point.weight]["exp_avg"] = torch.ones(8, 8, 1, 1)


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (expanded_weights, "point.weight cannot .*expand"),
        (expanded_moments, "exp_avg of point.weight cannot .*expand"),
        (weights_of_inference, "point.weight cannot .* inference mode"),
        (moments_of_inference, "exp_avg of point.weight cannot .* inference mode"),
    ],
)
def test_what_cannot_be_written_in_place_is_refused_before_gradients_are_computed(spoil, name):
    model, optimizer = trained_network()
    spoil(model, optimizer)
    before = Trial(None, model, optimizer).state()
    asked = []

    def batches():
        asked.append(True)
        yield from BATCHES

    options = {"optimizer": optimizer, "optimizer_state": "scale"} if "moments" in spoil.__name__ else {}
    with pytest.raises(ws.InputError, match=name):
        ws.dash_(model, batches(), cross_entropy, **options)
    assert not asked
    assert not differing(before, Trial(None, model, optimizer).state())


@pytest.mark.parametrize("spoil", [expanded_weights, weights_of_inference])
@pytest.mark.parametrize(
    "work",
    [
        ws.shrink_perturb_,
        ws.fire_,
        lambda model: ws.cold_(model, fresh()),
        lambda model: ws.head_reset_(model, "point"),
    ],
    ids=["shrink_perturb_", "fire_", "cold_", "head_reset_"],
)
def test_other_methods_refuse_what_cannot_be_written_in_place(work, spoil):
    model, optimizer = trained_network()
    spoil(model, optimizer)
    before = Trial(None, model, optimizer).state()
    with pytest.raises(ws.InputError, match=r"point\.weight cannot be changed in place"):
        work(model)
    assert not differing(before, Trial(None, model, optimizer).state())


def test_the_weights_are_kept_only_once_by_calls_inside_each_other():
    """The outer call puts back what an inner one had finished, and an inner one that failed is put back alone."""
    model, _ = trained_network()
    before = Trial(None, model).state()
    between = {}

    @all_or_nothing
    def outer():
        ws.shrink_perturb_(model, noise_std=0.0)
        between.update(Trial(None, model).state())
        with pytest.raises(ws.InputError):
            ws.dash_(model, [(inputs * torch.nan, targets) for inputs, targets in BATCHES], cross_entropy)
        assert not differing(between, Trial(None, model).state())
        ws.dash_(model, BATCHES, cross_entropy)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        outer()
    assert not differing(before, Trial(None, model).state())


CHILD = """
import os, signal, sys, torch
import warmstart as ws
from method_table import Network
from networks import batches_for

torch.set_num_threads(1)
torch.manual_seed(0)
model = Network()
batches = batches_for((3, 6, 6), 2, size=4)
tensors = [*model.parameters(), *model.buffers()]
old = [tensor.detach().clone() for tensor in tensors]
ws.dash_(model, batches, torch.nn.functional.cross_entropy)
new = [tensor.detach().clone() for tensor in tensors]
flags = [layer.training for layer in model.modules()]
armed, inside, hits = False, False, 0

def say(word):
    os.write(1, (word + chr(10)).encode())

def on_signal(number, frame):
    global armed, hits
    if not armed:
        say("missed")
        return
    armed, hits = False, hits + inside
    raise KeyboardInterrupt

def is_(values):
    return all(torch.equal(one, other) for one, other in zip(tensors, values))

def sound():
    kept = [layer.training for layer in model.modules()] == flags and torch.is_grad_enabled()
    return kept and (is_(old) or is_(new)) and all(parameter.grad is None for parameter in model.parameters())

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, on_signal)
say("ready")
while hits < int(sys.argv[1]):
    with torch.no_grad():
        for tensor, value in zip(tensors, old):
            tensor.copy_(value)
    try:
        armed = inside = True
        ws.dash_(model, batches, torch.nn.functional.cross_entropy)
        inside = False
        armed = False
    except KeyboardInterrupt:
        inside = False
        say("hit" if sound() else "half done")
say("end")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_real_signals_at_any_moment_find_the_old_weights_or_the_new_ones():
    """The next one is sent once the last is dealt with, so that it hits the call and not the child's own checks."""
    wanted = 2000 if EVERY_LINE else 40
    tests = Path(__file__).parent
    paths = os.pathsep.join([str(Path(ws.__file__).parents[1]), str(tests), str(tests.parent)])
    command, moments = [sys.executable, "-c", CHILD, str(wanted)], random.Random(0)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}) as child:
        said = [child.stdout.readline().strip()]
        while said[-1] in ("ready", "hit", "missed"):
            time.sleep(moments.uniform(0.0, 0.02))
            child.send_signal(moments.choice((signal.SIGINT, signal.SIGTERM)))
            said.append(child.stdout.readline().strip())
        child.kill()
    assert "half done" not in said
    assert said[-1] == "end", said[-3:]
