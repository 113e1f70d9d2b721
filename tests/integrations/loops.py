"""The same training in four loops: batches of 4 in order, AdamW, a linear schedule, a checkpoint at each epoch."""

from dataclasses import dataclass
from importlib import import_module

import torch
from torch.optim.lr_scheduler import LinearLR
from torch.utils.data import DataLoader

from warmstart import integrations

LR = 1e-2
BATCH = 4


class InterruptedRunError(Exception):
    pass


def optimizer_and_schedule(network, steps):
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR)
    return optimizer, LinearLR(optimizer, 1.0, 0.1, total_iters=steps)


class Bare:
    WarmStart = integrations.WarmStart

    @staticmethod
    def train(network, data, folder, warm_start=None, *, epochs=2, stop_at=None, resume=False, accumulate=1):
        """Train, stop at a step by an exception; returns the learning rates that were used."""
        loader = DataLoader(data, batch_size=BATCH)
        optimizer, schedule = optimizer_and_schedule(network, epochs * len(loader) // accumulate)
        done, step, rates = 0, 0, []
        if resume:
            saved = torch.load(folder / "last.pt")
            done, step = saved["epochs"], saved["step"]
            network.load_state_dict(saved["network"])
            optimizer.load_state_dict(saved["optimizer"])
            schedule.load_state_dict(saved["schedule"])
            if warm_start is not None:
                warm_start.load_state_dict(saved["warm_start"])
        if warm_start is not None:
            warm_start.apply_(network, optimizer, step=step)
        network.train()
        for epoch in range(done, epochs):
            for i, batch in enumerate(loader, start=1):
                (network(**batch)["loss"] / accumulate).backward()
                if i % accumulate:
                    continue
                if warm_start is not None:
                    warm_start.after_backward(network, step)
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                if warm_start is not None:
                    warm_start.after_step(network, step)
                optimizer.zero_grad()
                schedule.step()
                step += 1
                if step == stop_at:
                    raise InterruptedRunError
            state = {} if warm_start is None else warm_start.state_dict()
            parts = {"network": network, "optimizer": optimizer, "schedule": schedule}
            states = {name: part.state_dict() for name, part in parts.items()}
            folder.mkdir(exist_ok=True)
            torch.save({**states, "warm_start": state, "epochs": epoch + 1, "step": step}, folder / "last.pt")
        return rates


class Accelerate:
    WarmStart = integrations.WarmStart

    @staticmethod
    def train(network, data, folder, warm_start=None, *, epochs=2, stop_at=None, resume=False, accumulate=1):
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
        loader = DataLoader(data, batch_size=BATCH)
        optimizer, schedule = optimizer_and_schedule(network, epochs * len(loader) // accumulate)
        model, optimizer, loader, schedule = accelerator.prepare(network, optimizer, loader, schedule)
        done, step, rates = 0, 0, []
        if warm_start is not None:
            accelerator.register_for_checkpointing(warm_start)
        if resume:
            accelerator.load_state(folder / "last")
            done, step = 1, len(loader) // accumulate
        if warm_start is not None:
            warm_start.apply_(model, optimizer, step=step)
        model.train()
        for epoch in range(done, epochs):
            for batch in loader:
                with accelerator.accumulate(model):
                    accelerator.backward(model(**batch)["loss"])
                    if warm_start is not None and accelerator.sync_gradients:
                        warm_start.after_backward(model, step)
                    rates.append(optimizer.param_groups[0]["lr"])
                    optimizer.step()
                    if warm_start is not None and accelerator.sync_gradients:
                        warm_start.after_step(model, step)
                    schedule.step()
                    optimizer.zero_grad()
                step += accelerator.sync_gradients
                if step == stop_at:
                    raise InterruptedRunError
            if epoch == 0:
                accelerator.save_state(folder / "last")
        return rates


@dataclass(frozen=True)
class Lightning:
    package: str
    """Lightning comes in two, whose classes differ."""

    @property
    def WarmStart(self):  # noqa: N802  # a class
        from warmstart.integrations.lightning import WarmStart

        return WarmStart

    def train(
        self, network, data, folder, warm_start=None, *, epochs=2, stop_at=None, resume=False, accumulate=1, **options
    ):
        lightning = import_module(self.package)
        save = lightning.callbacks.ModelCheckpoint(folder, save_last=True, save_on_train_epoch_end=True)
        rates = []

        class Watch(lightning.Callback):
            def on_train_batch_end(self, trainer, *_):
                if trainer.global_step == stop_at:
                    raise InterruptedRunError

            def on_before_optimizer_step(self, trainer, module, optimizer):
                rates.append(optimizer.param_groups[0]["lr"])

        loader = options.pop("loader", None) or DataLoader(data, batch_size=BATCH)
        make_module = options.pop("module", lightning_module(self.package))
        module = make_module(network, epochs * len(loader) // accumulate)
        callbacks = [save, Watch()] if warm_start is None else [warm_start, save, Watch()]
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
        trainer = lightning.Trainer(
            **{**quiet, **options},
            max_epochs=epochs,
            accumulate_grad_batches=accumulate,
            callbacks=callbacks,
            default_root_dir=folder,
            devices=1,
        )
        trainer.fit(module, loader, ckpt_path="last" if resume else None)
        return rates


def lit(network, steps):
    """A LightningModule around a network."""
    return lightning_module()(network, steps)


def lightning_module(package="lightning.pytorch"):
    class Lit(import_module(package).LightningModule):
        def __init__(self, network, steps):
            super().__init__()
            self.network = network.train()
            self.steps = steps

        def training_step(self, batch, batch_idx):
            loss = self.network(**batch)["loss"]
            self.log("loss", loss, on_step=True)
            return loss

        def configure_optimizers(self):
            optimizer, schedule = optimizer_and_schedule(self.network, self.steps)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    return Lit


class HuggingFace:
    @property
    def WarmStart(self):  # noqa: N802  # a class
        from warmstart.integrations.transformers import WarmStart

        return WarmStart

    @staticmethod
    def train(network, data, folder, warm_start=None, *, epochs=2, stop_at=None, resume=False, accumulate=1, **options):
        from transformers.trainer_utils import get_last_checkpoint

        options |= {"epochs": epochs, "accumulate": accumulate}
        trainer = HuggingFace.trainer(network, data, folder, warm_start, **options)
        if resume and hasattr(network, "from_pretrained"):
            # The Trainer loads no weights that save_pretrained renames (transformers issue 43701), such as a ViT's.
            last = get_last_checkpoint(str(folder))
            network.load_state_dict(type(network).from_pretrained(last).state_dict())
        rates = []
        trainer.add_callback(watch(rates, stop_at))
        trainer.train(resume_from_checkpoint=resume or None)
        return rates

    @staticmethod
    def trainer(network, data, folder, warm_start=None, *, epochs=2, accumulate=1, **options):
        from transformers import Trainer, TrainingArguments

        usual = {"train_sampling_strategy": "sequential", "max_grad_norm": 0.0, "logging_strategy": "no"}
        args = TrainingArguments(
            str(folder),
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=accumulate,
            save_strategy="epoch",
            learning_rate=LR,
            use_cpu=True,
            disable_tqdm=True,
            report_to=[],
            dataloader_pin_memory=False,
            **{**usual, **options},
        )
        steps = epochs * (len(data) // BATCH) // accumulate
        callbacks = [] if warm_start is None else [warm_start]
        optimizers = optimizer_and_schedule(network, steps)
        return Trainer(network, args, train_dataset=data, callbacks=callbacks, optimizers=optimizers)


def watch(rates, stop_at):
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, optimizer, **_):
            rates.append(optimizer.param_groups[0]["lr"])

        def on_step_end(self, args, state, control, **_):
            if state.global_step == stop_at:
                raise InterruptedRunError

    return Watch()


LOOPS = {
    "bare": Bare(),
    "accelerate": Accelerate(),
    "lightning": Lightning("lightning.pytorch"),
    "pytorch-lightning": Lightning("pytorch_lightning"),
    "hugging-face": HuggingFace(),
}
