"""A method that is interrupted at any line has either not begun or is done: nothing stays half changed."""

import copy

import pytest
import torch
from method_table import ROWS, Network
from torch.nn.functional import cross_entropy

import warmstart as ws
from interruptions import Trial, half_done
from networks import batches_for, updated
from warmstart import Stage, parse_method

BATCHES = batches_for((3, 6, 6), 3, size=4)


def loss(model, batch):
    return cross_entropy(model(batch[0]), batch[1])


def trained_network(make_optimizer=None):
    """A network with gradients in place and a frozen norm, and its optimizer with moments."""
    torch.manual_seed(0)
    model = Network()
    optimizer = (make_optimizer or torch.optim.Adam)(model.parameters(), lr=0.01)
    updated(model, optimizer, BATCHES)
    loss(model, BATCHES[0]).backward()
    model.norm.eval()
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
}


@pytest.mark.parametrize("name", CALLS)
def test_a_function_interrupted_at_any_line_has_changed_nothing_or_is_done(name):
    wrong, tried = half_done(CALLS[name], seed=len(name))
    assert not wrong, f"{len(wrong)} of {tried}: " + "; ".join(wrong[:9])


def on_new_data(spelled, also_updates):
    def begin():
        model, optimizer = trained_network()
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
        )
        method = parse_method(spelled)

        if also_updates:
            return Trial(lambda: method.after_backward(model, stage), model, optimizer)
        return Trial(
            lambda: method.on_new_data(model, stage),
            model,
            optimizer,
            lambda: {"generator": generator.get_state(), **{f"state {n}": t for n, t in stage.state.items()}},
        )

    return begin


@pytest.mark.parametrize("spelled", [row.spelled for row in ROWS])
def test_a_method_interrupted_at_any_line_has_changed_nothing_or_is_done(spelled):
    wrong, tried = half_done(on_new_data(spelled, False), seed=len(spelled))
    assert not wrong, f"{len(wrong)} of {tried}: " + "; ".join(wrong[:9])
