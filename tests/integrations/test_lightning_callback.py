"""What is particular to Lightning: its loaders, training_step, hooks, loggers and strategies."""

import csv
import pickle
from types import SimpleNamespace

import pytest
import torch
from arrivals import assert_equal, last_months, months
from loops import BATCH, lightning_module, lit
from test_every_loop import DASH, dashed
from test_stateful_methods import made
from torch import nn
from torch.utils.data import DataLoader, Subset

import warmstart as ws
from stateful_methods import AgeAndRedraw, SlowCopy

pytest.importorskip("lightning")
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from torchmetrics import MeanMetric

from warmstart.integrations.lightning import WarmStart

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def fit(module, folder, *callbacks, loader=None, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    options = {**quiet, "max_steps": 1, "enable_checkpointing": False, **options}
    trainer = Trainer(**options, callbacks=list(callbacks), default_root_dir=folder)
    trainer.fit(module, loader or DataLoader(months("cnn"), batch_size=BATCH))
    return trainer


class Before(Callback):
    """Keeps what the network is like when training starts, after all else."""

    def on_train_start(self, trainer, module):
        self.network = {name: tensor.clone() for name, tensor in module.network.state_dict().items()}
        self.logged = dict(trainer.callback_metrics)
        self.gathered = [metric.update_called for metric in module.modules() if isinstance(metric, MeanMetric)]


def test_the_trainers_own_loader_is_read_in_order(tmp_path):
    before = Before()
    loader = DataLoader(months("cnn"), batch_size=BATCH, shuffle=True)
    fit(lit(last_months("cnn"), 4), tmp_path, WarmStart(DASH), before, loader=loader)
    assert_equal(before.network, dashed("cnn")[0].state_dict())


def test_of_the_trainers_own_loader_only_the_listed_examples_are_read(tmp_path):
    """The others are for validation: here those that come last."""
    part, whole = Before(), Before()
    for before, loader in (
        (part, DataLoader(months("cnn", 24), batch_size=BATCH, sampler=range(16))),
        (whole, DataLoader(Subset(months("cnn", 24), range(16)), batch_size=BATCH)),
    ):
        fit(lit(last_months("cnn"), 4), tmp_path, WarmStart(DASH), before, loader=loader)
    assert_equal(part.network, whole.network)


def test_several_loaders_need_batches(tmp_path):
    loaders = {"a": DataLoader(months("cnn"), batch_size=BATCH), "b": DataLoader(months("cnn"), batch_size=BATCH)}
    with pytest.raises(ws.InputError, match="cannot be read in order"):
        fit(lit(last_months("cnn"), 4), tmp_path, WarmStart(DASH), loader=loaders)


def test_nothing_that_training_step_logs_stays(tmp_path):
    class Measured(lightning_module()):
        def __init__(self, *args):
            super().__init__(*args)
            self.mean = MeanMetric()
            self.seen = []

        def training_step(self, batch):
            loss = self.network(**batch)["loss"]
            self.mean(loss)
            self.log("mean", self.mean)
            self.log_dict({"loss": loss}, on_step=True, on_epoch=True)
            self.seen.append(self.trainer.current_epoch)
            return {"loss": loss}

    module, before = Measured(last_months("cnn"), 4), Before()
    logger = CSVLogger(tmp_path)
    fit(module, tmp_path, WarmStart(DASH), before, logger=logger, log_every_n_steps=1, max_steps=4)
    assert_equal(before.network, dashed("cnn")[0].state_dict())
    assert before.logged == {}
    assert before.gathered == [False]
    assert len(module.seen) == 4 + 7  # updates, and micro-batches of 4 in batches of 1, 5, 5 and 5
    assert "log" not in vars(module)
    with open(f"{logger.log_dir}/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    scales = [row["warmstart/scale"] for row in rows if row.get("warmstart/scale")]
    assert len(scales) == 1
    assert 0.3 <= float(scales[0]) <= 1
    assert sum(bool(row.get("loss_step")) for row in rows) == 4


def test_batches_take_the_modules_way_to_the_device(tmp_path):
    class Normalised(lightning_module()):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return {**batch, "pixel_values": batch["pixel_values"] * 2}

    before = Before()
    fit(Normalised(last_months("cnn"), 4), tmp_path, WarmStart(DASH), before)
    network, data = last_months("cnn"), months("cnn")
    batches = [data.batch(a, b) for a, b in ((0, 1), (1, 6), (6, 11), (11, 16))]
    doubled = [{**batch, "pixel_values": batch["pixel_values"] * 2} for batch in batches]
    ws.dash_(network, doubled, micro_batch_size=BATCH)
    assert_equal(before.network, network.state_dict())


def test_a_loss_of_ones_own(tmp_path):
    before = Before()
    warm_start = WarmStart(DASH, forward_loss=lambda module, batch: module.network(**batch)["loss"])
    fit(lit(last_months("cnn"), 4), tmp_path, warm_start, before)
    assert_equal(before.network, dashed("cnn")[0].state_dict())


def test_mixed_precision_does_not_touch_the_gradients(tmp_path):
    before = Before()
    fit(lit(last_months("cnn"), 4), tmp_path, WarmStart(DASH), before, precision="bf16-mixed")
    assert_equal(before.network, dashed("cnn")[0].state_dict())


class Manual:
    def training_step(self, batch):
        self.optimizers().step()


def manual():
    class Module(Manual, lightning_module()):
        automatic_optimization = False

    return Module(last_months("cnn"), 4)


@pytest.mark.parametrize(("method", "message"), [(ws.Dash(), "forward_loss"), (ws.L2Init(), "acts on every update")])
def test_updates_by_hand_are_refused_where_they_would_go_wrong(method, message, tmp_path):
    module = manual()
    loss = None if method == ws.Dash() else lambda module, batch: module.network(**batch)["loss"]
    with pytest.raises(ws.InputError, match=message):
        fit(module, tmp_path, WarmStart(method, forward_loss=loss))
    assert_equal(module.network, last_months("cnn"))


@pytest.mark.parametrize("strategy", [FSDPStrategy, DeepSpeedStrategy])
def test_strategies_with_copies_of_the_weights_are_refused(strategy):
    trainer = SimpleNamespace(strategy=object.__new__(strategy))
    with pytest.raises(ws.InputError, match="FSDP2 by ModelParallelStrategy"):
        WarmStart(DASH).on_train_start(trainer, lit(last_months("cnn"), 4))


def test_a_hidden_loss_scale_is_refused():
    network = last_months("cnn")
    optimizer = SimpleNamespace(_step_supports_amp_scaling=True)
    plugin = SimpleNamespace(scaler=object())
    trainer = SimpleNamespace(strategy=None, precision_plugin=plugin, optimizers=[optimizer])
    with pytest.raises(ws.InputError, match="fused"):
        WarmStart(ws.L2Init()).on_train_start(trainer, lit(network, 4))


def test_last_months_checkpoint_may_be_resumed_as_a_whole(tmp_path):
    """Its fit had no callback: the method acts, once, on the weights that it holds; optimizer and schedule go on."""
    first = fit(lit(last_months("cnn"), 8), tmp_path, max_steps=4)
    first.save_checkpoint(tmp_path / "june.ckpt")
    warm_start = WarmStart(DASH)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    trainer = Trainer(**quiet, max_steps=8, callbacks=[warm_start], default_root_dir=tmp_path)
    loader = DataLoader(months("cnn"), batch_size=BATCH)
    trainer.fit(lit(last_months("cnn"), 8), loader, ckpt_path=tmp_path / "june.ckpt")
    assert any(note.startswith("a fit resumed at step 4:") for note in warm_start.report.notes)
    assert trainer.global_step == 8
    state = torch.load(trainer.checkpoint_callback.best_model_path)["callbacks"]["WarmStart{'method': 'dash'}"]
    assert state["arrival"] == "16 examples"


def test_a_network_is_prepared_before_its_optimizer_is_made(tmp_path):
    module = lit(made(), 4)
    trainer = fit(module, tmp_path, WarmStart(AgeAndRedraw()))
    slopes = [layer.weight for layer in module.modules() if isinstance(layer, nn.PReLU)]
    held = [parameter for group in trainer.optimizers[0].param_groups for parameter in group["params"]]
    assert len(slopes) == 3
    assert all(any(slope is parameter for parameter in held) for slope in slopes)


@pytest.mark.parametrize("prepared", [False, True])
def test_a_network_made_in_configure_model_is_prepared_there(prepared, tmp_path):
    warm_start = WarmStart(AgeAndRedraw())

    class Late(lightning_module()):
        def configure_model(self):
            if not hasattr(self, "later"):
                self.network = made()
                if prepared:
                    warm_start.prepare(self)

    if prepared:
        fit(Late(nn.Identity(), 4), tmp_path, warm_start)
        assert warm_start.report is not None
        return
    with pytest.raises(ws.InputError, match=r"call prepare\(model\) right after making it"):
        fit(Late(nn.Identity(), 4), tmp_path, warm_start)


def test_units_read_in_the_midst_of_an_epoch_leave_logs_and_metrics_alone(tmp_path):
    class Late(AgeAndRedraw):
        sees_activations = False

        def on_new_data(self, model, stage):
            return ws.warm_(model)

        def after_step(self, model, stage):
            if stage.step == 1:
                assert len(stage.units()) == 4

    class Measured(lightning_module()):
        def __init__(self, *args):
            super().__init__(*args)
            self.mean = MeanMetric()

        def training_step(self, batch):
            loss = self.network(**batch)["loss"]
            self.mean(loss)
            self.log("mean", self.mean, on_step=False, on_epoch=True)
            return loss

    found = []
    for method in (Late(), ws.Warm()):
        warm_start = WarmStart(method)
        network = made()
        WarmStart(Late()).prepare(network)
        trainer = fit(Measured(network, 4), tmp_path, warm_start, max_steps=-1, max_epochs=1)
        found.append(trainer.callback_metrics["mean"].item())
    assert found[0] == found[1]


def test_the_module_that_is_served_is_another_one(tmp_path):
    module, warm_start = lit(made(), 4), WarmStart(SlowCopy())
    fit(module, tmp_path, warm_start, max_steps=3)
    served = warm_start.measured(module)
    assert type(served) is type(module)
    assert not torch.equal(served.network.layers[0].weight, module.network.layers[0].weight)


class HeadAlone(lightning_module()):
    """A module that freezes by what it gives the optimizer."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.network.head.parameters(), lr=0.01)


def test_what_the_optimizer_does_not_hold_is_left_alone(tmp_path):
    module, before, warm_start = HeadAlone(last_months("cnn"), 4), Before(), WarmStart(DASH)
    fit(module, tmp_path, warm_start, before)
    old = last_months("cnn").state_dict()
    changed = {name for name, tensor in before.network.items() if not torch.equal(tensor, old[name])}
    assert changed == {"head.weight", "head.bias"}
    assert "not in the optimizer" in {entry.reason for entry in warm_start.report.left_alone}


def saved_by(folder, *callbacks):
    """A checkpoint of a fit with these callbacks."""
    fit(lit(last_months("cnn"), 8), folder, *callbacks, max_steps=4).save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


def resumed(checkpoint, *callbacks):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    trainer = Trainer(**quiet, max_steps=5, callbacks=list(callbacks), enable_checkpointing=False)
    trainer.fit(lit(last_months("cnn"), 8), DataLoader(months("cnn"), batch_size=BATCH), ckpt_path=checkpoint)


def test_two_methods_in_one_trainer_remember_each_their_own(tmp_path):
    checkpoint = saved_by(tmp_path, WarmStart(DASH), WarmStart(ws.Rewarm(updates=4)))
    two = WarmStart(ws.Rewarm(updates=4)), WarmStart(DASH)
    resumed(checkpoint, *two)
    assert [warm_start.report.method for warm_start in two] == ["rewarm", "dash"]
    assert not any("resumed" in note for warm_start in two for note in warm_start.report.notes), "none acted again"


def test_resuming_with_another_method_is_refused(tmp_path):
    checkpoint = saved_by(tmp_path, WarmStart(DASH))
    with pytest.raises(ws.InputError, match="was treated with dash"):
        resumed(checkpoint, WarmStart(ws.Fire()))


def test_a_checkpoint_of_an_earlier_preview_is_resumed(tmp_path):
    file = saved_by(tmp_path, WarmStart(DASH))
    checkpoint = torch.load(file, weights_only=False)
    (state,) = checkpoint["callbacks"].values()
    del state["method"]
    checkpoint["callbacks"] = {"WarmStart": state}
    torch.save(checkpoint, file)
    warm_start = WarmStart(DASH)
    resumed(file, warm_start)
    assert not any("resumed" in note for note in warm_start.report.notes)


def test_it_can_be_pickled_after_a_fit(tmp_path):
    warm_start = WarmStart(DASH)
    fit(lit(last_months("cnn"), 4), tmp_path, warm_start)
    assert pickle.loads(pickle.dumps(warm_start)).report == warm_start.report
