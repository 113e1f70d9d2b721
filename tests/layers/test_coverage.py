"""What the scales cover: 1x1 kernels, layers without a rule, fused experts, in shares of the weights."""

import json

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import warmstart as ws
from networks import batches_for, cnn
from warmstart.layers.coverage import weights_in


def mostly_1x1():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(16 * 4, 4, bias=False))


def few_1x1():
    model = cnn()
    model[3] = nn.Conv2d(8, 1, 1)
    return nn.Sequential(*model[:3], model[3], nn.Flatten(), nn.Linear(64, 4))


SIZES = {"many": (mostly_1x1, (3, 2, 2), 48, 48 + 16 + 256), "few": (few_1x1, (3, 8, 8), 8, 8 * 27 + 8 + 9 + 260)}


@pytest.mark.parametrize("kind", SIZES)
def test_1x1_kernels_are_named_with_their_share_and_warned_of_where_it_is_large(kind):
    make, shape, single, scaled = SIZES[kind]
    report = ws.dash_(make(), batches_for(shape, 2), cross_entropy, granularity="kernel", apply=False)
    sentence = f"{single} neurons of one weight (1x1 kernels), {single / scaled:.1%} of the scaled weights"
    said, other = (report.warnings, report.notes)[:: 1 if kind == "many" else -1]
    assert sum(sentence in text and "granularity='kernel-or-row'" in text for text in said) == 1
    assert not any("1x1" in text for text in other)
    (finding,) = [finding for finding in ws.validate(make(), granularity="kernel") if "1x1" in finding.problem]
    assert (finding.severity, finding.name) == ("warning" if kind == "many" else "note", "")
    assert sentence in finding.problem


@pytest.mark.parametrize("words", [{}, {"granularity": "kernel-or-row"}, {"granularity": "neuron"}], ids=str)
def test_where_1x1_kernels_are_grouped_there_is_nothing_to_say(words):
    report = ws.dash_(mostly_1x1(), batches_for((3, 2, 2), 2), cross_entropy, **words, apply=False)
    assert "1x1" not in str(report)
    assert not ws.validate(mostly_1x1(), **words)


def test_every_report_that_scales_says_the_share_of_the_weights():
    model = cnn()
    model[3].requires_grad_(False)
    scaled, everything = 8 * 27 + 8 + 36, weights_in(model)
    share = f"{scaled} of {everything} weights ({scaled / everything:.1%})"
    for report, line in (
        (ws.dash_(model, batches_for((3, 8, 8), 2), cross_entropy, apply=False), f"would scale {share}"),
        (ws.shrink_perturb_(model), f"scaled {share}"),
    ):
        assert report.share_scaled == line
        assert line in str(report).splitlines()
        data = json.loads(json.dumps(report.to_dict()))
        assert data["weights"] == everything
        assert sum(layer["weights"] for layer in data["layers"]) == scaled
        assert ws.Report.from_dict(data) == report


def test_a_report_saved_before_there_were_weights_is_read():
    data = ws.shrink_perturb_(cnn()).to_dict()
    del data["weights"]
    for layer in data["layers"]:
        del layer["weights"]
    assert ws.Report.from_dict(data).share_scaled == ""
    assert ws.fire_(cnn()).share_scaled == ""


class Experts(nn.Module):
    """As those of a mixture of experts in transformers; expert 2 of 3 gets no token."""

    def __init__(self, transposed=None):
        super().__init__()
        torch.manual_seed(0)
        self.up_proj = nn.Parameter(torch.randn(3, 6, 5))
        self.up_proj_bias = nn.Parameter(torch.randn(3, 5))
        self.down_proj = nn.Parameter(torch.randn(3, 5, 6))
        if transposed is not None:
            self.is_transposed = transposed
        if transposed is False:
            for weight in (self.up_proj, self.down_proj):
                weight.data = weight.data.mT.contiguous()

    def forward(self, x):
        up, down = self.up_proj, self.down_proj
        if getattr(self, "is_transposed", None) is False:
            up, down = up.mT, down.mT
        half = torch.arange(len(x)) % 2
        x = torch.einsum("ni,nio->no", x, up[half]) + self.up_proj_bias[half]
        return torch.einsum("ni,nio->no", x.relu(), down[half])


def with_experts(transposed):
    return nn.Sequential(Experts(transposed), nn.LayerNorm(6), nn.Linear(6, 4))


def test_experts_that_say_how_they_lie_are_scaled_by_output_and_those_without_a_token_stay():
    one, other = with_experts(True), with_experts(False)
    before = one[0].up_proj.detach().clone()
    for model in (one, other):
        report = ws.dash_(model, batches_for((6,), 4), cross_entropy)
        rows = {layer.name: layer.neurons for layer in report.layers}
        assert (rows["0.up_proj"], rows["0.up_proj_bias"], rows["0.down_proj"]) == (15, 3, 18)
    for name in ("up_proj", "down_proj"):
        torch.testing.assert_close(getattr(one[0], name), getattr(other[0], name).mT)
    ratio = one[0].up_proj / before
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    assert bool((ratio[:2, 0] < 1).any())
    assert bool((ratio[2] == 1).all())


def test_experts_that_do_not_are_warned_of_with_their_share():
    model = with_experts(None)
    report = ws.dash_(model, batches_for((6,), 4), cross_entropy, apply=False)
    (warning,) = report.warnings
    share = 180 / weights_in(model)
    assert warning == (
        f"no rule for 3 parameters, {share + 15 / weights_in(model):.1%} of the trainable weights, the largest "
        "0.up_proj: ws.register_layer adds a rule"
    )
    assert any(finding.severity == "warning" and "0.up_proj" in finding.problem for finding in ws.validate(model))


@pytest.mark.parametrize(("kind", "transposed"), [("Mixtral", False), ("GptOss", True)])
def test_the_experts_of_transformers(kind, transposed):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "vocab_size": 20, "head_dim": 4}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1}
    model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**sizes, **heads))
    tokens = torch.randint(0, 20, (4, 6), generator=torch.Generator().manual_seed(0))
    report = ws.dash_(model, [{"input_ids": tokens, "labels": tokens}], apply=False)
    rows = {layer.name.rpartition(".")[2]: layer.neurons for layer in report.layers if "experts" in layer.name}
    assert (rows["gate_up_proj"], rows["down_proj"]) == (2 * 24, 2 * 8)
    assert (rows.get("gate_up_proj_bias"), rows.get("down_proj_bias")) == ((2, 2) if transposed else (None, None))


PARAMETRISE = nn.utils.parametrizations.weight_norm


def test_weights_that_are_parametrised_are_warned_of_and_their_biases_are_not_shrunk_alone():
    torch.manual_seed(0)
    model = nn.Sequential(PARAMETRISE(nn.Linear(6, 64)), nn.LayerNorm(64), nn.Linear(64, 4))
    report = ws.dash_(model, batches_for((6,), 4), cross_entropy)
    assert [layer.name for layer in report.layers] == ["2.weight", "2.bias"]
    share = (64 + 6 * 64) / weights_in(model)
    assert report.warnings == (
        f"2 parameters parametrised, {share:.1%} of the trainable weights, the largest "
        "0.parametrizations.weight.original1: torch.nn.utils.parametrize.remove_parametrizations undoes it",
    )
    reasons = {entry.name: entry.reason for entry in report.left_alone}
    assert reasons["0.bias"] == "the bias of weights that are left alone"
    assert any(f.severity == "warning" and "2 parameters parametrised" in f.problem for f in ws.validate(model))


def test_where_all_weights_are_parametrised_nothing_is_done():
    model = nn.Sequential(PARAMETRISE(nn.Linear(6, 8)), nn.LayerNorm(8), PARAMETRISE(nn.Linear(8, 4)))
    with pytest.raises(ws.InputError, match="remove_parametrizations undoes it"):
        ws.dash_(model, batches_for((6,), 4), cross_entropy)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weights_that_hooks_compute_are_warned_of():
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 64)), nn.LayerNorm(64), nn.Linear(64, 4))
    (warning,) = ws.dash_(model, batches_for((6,), 4), cross_entropy, apply=False).warnings
    assert warning.startswith("2 parameters made into weights by hooks, ")
    assert "remove_weight_norm" in warning


def test_trained_weights_that_no_gradient_reaches_are_warned_of_and_frozen_ones_are_not():
    class TwoBranches(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen, self.unseen = nn.Linear(6, 8), nn.Linear(6, 8)
            self.head = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 4))

        def forward(self, x):
            return self.head(self.seen(x) + self.unseen(x).detach())

    model = TwoBranches()
    (warning,) = ws.dash_(model, batches_for((6,), 4), cross_entropy, apply=False).warnings
    assert warning.startswith(f"no gradient reached 1 parameter, {48 / weights_in(model):.1%} of the trainable weights")
    model.unseen.requires_grad_(False)
    assert not ws.dash_(model, batches_for((6,), 4), cross_entropy, apply=False).warnings
