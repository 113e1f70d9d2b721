"""What is particular to the Hugging Face Trainer: its data, loss, precision and checkpoints."""

import json

import numpy as np
import pytest
import torch
from arrivals import assert_equal, draw, last_months, months
from loops import BATCH, HuggingFace, InterruptedRunError, watch
from test_every_loop import DASH, dashed
from test_stateful_methods import made
from torch import nn
from torch.optim.lr_scheduler import LinearLR
from torch.utils.data import DataLoader

import warmstart as ws
from stateful_methods import AgeAndRedraw, SlowCopy

pytest.importorskip("transformers")
from transformers import Trainer, TrainerCallback, TrainingArguments

from warmstart.integrations.transformers import WarmStart

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


class Before(TrainerCallback):
    """Keeps what the network is like when training starts, after all else."""

    def on_train_begin(self, args, state, control, model, **_):
        self.network = {name: tensor.clone() for name, tensor in model.state_dict().items()}


def started(network, folder, warm_start, **options):
    """The network as the callback leaves it."""
    trainer = HuggingFace.trainer(network, months("cnn"), folder, warm_start, **options)
    before = Before()
    trainer.add_callback(before)
    trainer.add_callback(watch([], 1))
    with pytest.raises(InterruptedRunError):
        trainer.train()
    return before.network


def test_the_trainers_own_data_are_read_in_order(tmp_path):
    network = started(last_months("cnn"), tmp_path, WarmStart(DASH), train_sampling_strategy="random")
    assert_equal(network, dashed("cnn")[0].state_dict())


def test_data_without_an_order_need_batches(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(months("cnn"))

    trainer = HuggingFace.trainer(last_months("cnn"), months("cnn"), tmp_path, WarmStart(DASH), max_steps=2)
    trainer.train_dataset = Stream()
    with pytest.raises(ws.InputError, match="cannot be read in order"):
        trainer.train()


def test_mixed_precision_does_not_touch_the_gradients(tmp_path):
    trained = last_months("cnn")
    network = started(trained, tmp_path, WarmStart(DASH), bf16=True)
    assert_equal(network, dashed("cnn")[0].state_dict())
    out = trained.forward(**months("cnn").batch(0, 4))  # autocast is back around it
    assert torch.equal(out["logits"], out["logits"].bfloat16().float())


def test_smoothed_labels_need_the_trainers_loss(tmp_path):
    network, smooth = last_months("vit"), {"label_smoothing_factor": 0.1, "epochs": 1}
    with pytest.raises(ws.InputError, match=r"trainer\.compute_loss"):
        HuggingFace.train(network, months("vit"), tmp_path, WarmStart(DASH), **smooth)
    assert_equal(network, last_months("vit"))

    warm_start = WarmStart(DASH, forward_loss=lambda model, batch: trainer.compute_loss(model, batch))
    trainer = HuggingFace.trainer(network, months("vit"), tmp_path, warm_start, **smooth)
    trainer.train()
    assert [layer.mean for layer in warm_start.report.layers] != [layer.mean for layer in dashed("vit")[1].layers]


@pytest.mark.parametrize("restore", [False, True])
def test_it_remembers_whether_callbacks_are_restored_or_not(restore, tmp_path, caplog):
    options = {"restore_callback_states_from_checkpoint": restore}
    with pytest.raises(InterruptedRunError):
        HuggingFace.train(last_months("cnn"), months("cnn"), tmp_path, WarmStart(DASH), stop_at=6, **options)
    caplog.clear()
    again = WarmStart(DASH)
    HuggingFace.train(last_months("cnn"), months("cnn"), tmp_path, again, resume=True, **options)
    assert "not again" in caplog.text
    assert again.report.layers


def test_totals_are_logged_and_the_report_lies_in_the_checkpoint(tmp_path):
    HuggingFace.train(last_months("cnn"), months("cnn"), tmp_path, WarmStart(DASH), epochs=1)
    state = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())
    assert 0.3 <= state["log_history"][0]["warmstart/scale"] <= 1
    assert state["stateful_callbacks"]["warmstart"]["report"]["method"] == "dash"


def test_a_finished_checkpoint_is_refused_for_new_data(tmp_path):
    data = months("cnn")
    HuggingFace.train(last_months("cnn"), data, tmp_path, WarmStart(DASH), epochs=1)
    HuggingFace.train(last_months("cnn"), data, tmp_path, WarmStart(DASH), epochs=1, resume=True)  # nothing to do
    network, july = last_months("cnn"), WarmStart(DASH, arrival="july")
    with pytest.raises(ws.InputError, match="has finished its training"):
        HuggingFace.train(network, data, tmp_path, july, epochs=1, resume=True)


def test_two_calls_of_train_act_once_and_a_new_network_anew(tmp_path):
    warm_start = WarmStart(DASH)
    trainer = HuggingFace.trainer(last_months("cnn"), months("cnn"), tmp_path, warm_start, epochs=1)
    for acts in (True, False):
        warm_start.report = None
        trainer.train()
        assert (warm_start.report is not None) == acts
    warm_start.report = None
    HuggingFace.train(last_months("cnn"), months("cnn"), tmp_path, warm_start, epochs=1)
    assert warm_start.report is not None


def test_an_adapter_is_shrunk_and_its_frozen_base_is_not(tmp_path):
    peft = pytest.importorskip("peft")
    base = last_months("gpt2")
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # it starts at zero
            torch.nn.init.normal_(parameter, std=0.1)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    warm_start = WarmStart(DASH, DataLoader(months("gpt2"), batch_size=BATCH))
    HuggingFace.train(model, months("gpt2"), tmp_path, warm_start, epochs=1)
    assert {layer.name.split(".")[-3] for layer in warm_start.report.layers} == {"lora_A", "lora_B"}
    for name, parameter in frozen.items():
        assert torch.equal(model.get_parameter(name), parameter)


def test_tied_weights_are_scaled_once(tmp_path):
    network, warm_start = last_months("gpt2"), WarmStart(DASH)
    HuggingFace.train(network, months("gpt2"), tmp_path, warm_start, epochs=1)
    names = [layer.name for layer in warm_start.report.layers]
    assert "transformer.wte.weight" in names
    assert "lm_head.weight" not in names
    assert network.lm_head.weight is network.transformer.wte.weight


def test_a_fresh_network_is_drawn_for_cold(tmp_path):
    torch.manual_seed(5)
    fresh = draw("cnn")
    network = started(last_months("cnn"), tmp_path, WarmStart(ws.Cold(), make_model=lambda: fresh))
    assert_equal(network, fresh.state_dict())


def test_a_network_is_prepared_as_the_trainer_is_made_and_before_its_optimizer(tmp_path):
    network = made()
    arguments = TrainingArguments(str(tmp_path), max_steps=2, use_cpu=True, report_to=[], disable_tqdm=True)
    trainer = Trainer(network, arguments, train_dataset=months("cnn"), callbacks=[WarmStart(AgeAndRedraw())])
    slopes = [layer.weight for layer in network.modules() if isinstance(layer, nn.PReLU)]
    trainer.train()
    held = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
    assert len(slopes) == 3
    assert all(any(slope is parameter for parameter in held) for slope in slopes)


def test_an_optimizer_made_before_the_trainer_prepares_is_refused(tmp_path):
    with pytest.raises(
        ws.InputError, match=r"the optimizer does not hold layers\.2\.weight, .* after prepare\(model\)"
    ):
        HuggingFace.trainer(made(), months("cnn"), tmp_path, WarmStart(AgeAndRedraw()))


def kept_by(folder):
    """Train for an epoch, so that the state lies in a checkpoint; the folder of that."""
    warm_start, network = WarmStart(SlowCopy()), made()
    with pytest.raises(InterruptedRunError):
        HuggingFace.train(network, months("cnn"), folder, warm_start, stop_at=6)
    return folder / "checkpoint-4"


def resumed(folder, checkpoint, **options):
    warm_start = WarmStart(SlowCopy())
    trainer = HuggingFace.trainer(made(), months("cnn"), folder, warm_start, **options)
    trainer.train(resume_from_checkpoint=checkpoint)
    return warm_start.state_dict()["state"]


@pytest.mark.parametrize("instead", ["nothing", "another run's"])
def test_a_checkpoint_without_what_the_method_keeps_is_refused(instead, tmp_path):
    file = kept_by(tmp_path / "run") / "warmstart.safetensors"
    resumed(tmp_path / "run", file.parent)
    file.unlink()
    if instead == "another run's":
        (kept_by(tmp_path / "other") / "warmstart.safetensors").rename(file)
    with pytest.raises(
        ws.InputError, match=r"the tensors of slow-copy are missing, .*warmstart\.safetensors"
    ) as refused:
        resumed(tmp_path / "run", file.parent)
    assert "\n" not in str(refused.value)


def test_a_checkpoint_that_lies_elsewhere_is_found_where_the_arguments_say(tmp_path):
    expected = resumed(tmp_path / "run", kept_by(tmp_path / "run"))
    elsewhere = kept_by(tmp_path / "other").rename(tmp_path / "elsewhere")
    found = resumed(tmp_path / "new", elsewhere, resume_from_checkpoint=str(elsewhere))
    assert_equal(found, expected)


def test_trainer_state_holds_no_tensors(tmp_path):
    state = json.loads((kept_by(tmp_path) / "trainer_state.json").read_text())["stateful_callbacks"]["warmstart"]
    assert state.keys() == {"arrival", "method", "report", "state"}
    assert len(state["state"]) == 32


def test_what_the_optimizer_does_not_hold_is_left_alone(tmp_path):
    network, warm_start = last_months("cnn"), WarmStart(DASH)
    trainer, before = HuggingFace.trainer(network, months("cnn"), tmp_path, warm_start, max_steps=1), Before()
    trainer.optimizer = torch.optim.SGD(network.head.parameters(), lr=0.01)
    trainer.lr_scheduler = LinearLR(trainer.optimizer)
    trainer.add_callback(before)
    trainer.train()
    old = last_months("cnn").state_dict()
    changed = {name for name, tensor in before.network.items() if not torch.equal(tensor, old[name])}
    assert changed == {"head.weight", "head.bias"}


def test_settings_of_numpy_are_written_into_the_trainers_state(tmp_path):
    warm_start = WarmStart(ws.Dash(alpha=np.float32(0.25), batch_size=5))
    HuggingFace.train(last_months("cnn"), months("cnn"), tmp_path, warm_start, epochs=1)
    (file,) = tmp_path.glob("checkpoint-*/trainer_state.json")
    told = json.loads(file.read_text())["stateful_callbacks"]["warmstart"]
    assert told["method"] == "dash[alpha=0.25,batch_size=5]"
    assert told["report"]["settings"]["alpha"] == 0.25


def test_a_wrong_argument_is_refused():
    with pytest.raises(TypeError, match="nonsense"):
        WarmStart(DASH, nonsense=3)
