import math

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import warmstart as ws
from networks import assert_same, cnn, mlp, snapshot


def everything_wrong():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 4))
            self.first = nn.Linear(4, 4)
            self.frozen = nn.Linear(4, 4).requires_grad_(False)
            self.parametrised = weight_norm(nn.Linear(4, 4))
            self.pointwise = nn.Conv1d(4, 4, 1)
            self.tied = nn.Linear(4, 4)
            self.tied.weight = self.first.weight

    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():
        model.pointwise.bias[0] = math.nan
    return model


def test_all_findings_come_at_once_gravest_first_and_nothing_is_touched():
    model = everything_wrong()
    findings = ws.validate(model, granularity="kernel")
    text = str(findings)
    assert [f.severity for f in findings] == sorted(
        (f.severity for f in findings), key=["error", "warning", "note"].index
    )
    assert not findings.ok
    for part in (
        "error: pointwise.bias: holds NaN",
        "warning: no normalisation layers",
        "warning: 16 neurons of one weight (1x1 kernels), 36.4% of the scaled weights, whose cosine is only a sign; "
        "granularity='kernel-or-row' groups them by output",
        "note: frozen.weight: left alone, frozen",
        "note: token: left alone, no rule for Net.token",
        "parametrised.parametrizations.weight.original0: left alone, parametrised",
        "note: parametrised.bias: left alone, the bias of weights that are left alone",
        "note: tied.weight: shares its weights with first.weight",
    ):
        assert part in text


def test_a_plain_network_has_no_error():
    model = mlp()
    before = snapshot(model)
    assert ws.validate(model).ok
    assert str(ws.validate(model)) == "no problems found"
    assert_same(before, snapshot(model))
    assert ws.validate(cnn()).ok


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (nn.BatchNorm1d(3), "no weights to scale"),
        (nn.Sequential(nn.LazyLinear(3)), "no shape yet"),
        (nn.Linear(2, 2, device="meta"), "meta device"),
        (nn.Linear(2, 2).requires_grad_(False), "no weights to scale"),
    ],
)
def test_what_methods_refuse_is_an_error(model, problem):
    findings = ws.validate(model)
    assert not findings.ok
    assert problem in str(findings)
