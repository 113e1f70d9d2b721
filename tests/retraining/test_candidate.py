"""What a candidate begins with: weights, moments and the method's tensors of the stage before, and new rows."""

import pytest
import torch

from nights import DIGITS, arrive, night
from warmstart.retraining.training import Helpers
from warmstart.storage import checkpoint


def stopped(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_known_rows_stay_and_new_ones_are_drawn_with_moments_of_zero(tmp_path, monkeypatch, optimizer):
    data, state = tmp_path / "data", tmp_path / "state"
    for at in (i for i in range(160) if DIGITS.train_labels[i] < 4):
        arrive(data, at, at + 1)
    settings = {"method": "hare-tortoise", "optimizer": optimizer}
    night(data, state, **settings)
    arrive(data, 160, 200)
    monkeypatch.setattr(Helpers, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        night(data, state, **settings)

    before, after = (checkpoint.load(state / f"stages/{number}/checkpoint.safetensors") for number in ("0001", "0002"))
    heads = {"classifier.weight", "classifier.bias"}
    for name, old in before.model_state.items():
        new = after.model_state[name]
        assert torch.equal(new[: len(old)] if name in heads else new, old)
        if name in heads:
            assert new.shape[0] == 10
            assert len(new[4:].unique()) == new[4:].numel()
            slow = after.tensors[f"method.{name}"]
            assert torch.equal(slow[:4], before.tensors[f"method.{name}"])
            assert torch.equal(slow[4:], new[4:])
    moments = "exp_avg" if optimizer == "adamw" else "momentum_buffer"
    for place, old in before.optimizer_state["state"].items():
        new = after.optimizer_state["state"][place][moments]
        assert torch.equal(new[: len(old[moments])], old[moments])
        assert not new[len(old[moments]) :].any()
