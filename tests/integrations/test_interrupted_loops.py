"""A callback that is interrupted at any line has applied its method, and says so, or neither."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from interruptions import Trial, half_done
from networks import batches_for, mlp, updated
from stateful_methods import METHODS
from warmstart import Report, parse_method
from warmstart.integrations import WarmStart
from warmstart.methods.method import Method

BATCHES = batches_for((6,), 3, size=4)


class Own(Method):
    """A method of a user's own, which knows nothing of any of this."""

    name = "own"

    @torch.no_grad()
    def on_new_data(self, model, stage):
        for parameter in model.parameters():
            parameter.mul_(0.5)
        return Report("own")


def fresh():
    with torch.random.fork_rng():
        return mlp()


def applied(method, second=False):
    """Applied to the first arrival; with ``second``, the call is for the next arrival, after an update."""

    def begin():
        model = mlp()
        warm_start = WarmStart(
            method, BATCHES, cross_entropy, make_model=fresh, initial=copy.deepcopy(fresh().state_dict())
        )
        warm_start.prepare(model)
        optimizer = torch.optim.Adam(model.parameters())
        updated(model, optimizer, BATCHES)
        if second:
            warm_start.apply_(model, optimizer, step=3)
            cross_entropy(model(BATCHES[0][0]), BATCHES[0][1]).backward()
            warm_start.after_backward(model, 3)
            optimizer.step()
            warm_start.after_step(model, 3)
            warm_start.arrival = "the next"

        def remembered():
            said = warm_start.state_dict()
            tensors = {f"state {name}": tensor.clone() for name, tensor in said.pop("state", {}).items()}
            return {"remembers": copy.deepcopy(said), "report": warm_start.report, **tensors}

        return Trial(lambda: warm_start.apply_(model, optimizer, step=3), model, optimizer, remembered)

    return begin


SPELLED = ("dash", "fire", "cold", "shrink-perturb[variant=ash]", "head-reset", "l2-init", "redo")


@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("spelled", [*SPELLED, *METHODS, "own"])
def test_the_method_is_applied_and_remembered_or_neither(spelled, second):
    method = Own() if spelled == "own" else parse_method(spelled)
    wrong, tried = half_done(applied(method, second), "integrations/")
    assert not wrong, f"{len(wrong)} of {tried}: " + "; ".join(wrong[:9])
