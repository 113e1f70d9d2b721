"""A Lightning callback: the method is applied as a fit begins, once for each arrival of data.

It works with either package that Lightning comes in, ``lightning`` and ``pytorch_lightning``. Each has classes of its
own, so that what is asked here is never of which class something is.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from warmstart.errors import InputError
from warmstart.integrations import warm_start
from warmstart.integrations.report_texts import totals
from warmstart.undo import afterwards, all_or_nothing

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:

    def _callback() -> type:
        """The base class, which is the same in both packages; of that which is imported already, if one is."""
        for package in sorted(("lightning.pytorch", "pytorch_lightning"), key=lambda name: name not in sys.modules):
            with suppress(ModuleNotFoundError):
                return import_module(package).Callback
        raise ImportError("warmstart.integrations.lightning needs Lightning: pip install lightning")

    Callback = _callback()

COPIES_WEIGHTS = frozenset({"FSDPStrategy", "DeepSpeedStrategy"})
"""Strategies with copies of their own, which a change in place does not reach."""


class WarmStart(warm_start.WarmStart, Callback):
    """Last month's weights, all data so far, a fresh fit; resumed with ``ckpt_path``, it does not act twice.

        module = LitModel.load_from_checkpoint("june.ckpt")
        trainer = Trainer(max_epochs=10, callbacks=[WarmStart(ws.Dash(), DataLoader(june_and_july, batch_size=64))])
        trainer.fit(module, train_loader, ckpt_path="last")

    Without ``batches`` the trainer's own training loader is read, in its data set's order; pass it where training
    augments. Without a loss, ``module.training_step(batch, 0)`` is called in eval mode, on batches that went through
    the module's transfer hooks: what it logs is dropped, metrics of torchmetrics in the module stay as they are;
    anything else that it changes stays changed, so pass ``forward_loss(module, batch)`` where it does more than compute
    a loss.

    A method that changes the network does so as the fit is set up; where ``configure_model`` makes layers, call
    ``warm_start.prepare(self)`` at its end. Methods that act on every update see its gradients unscaled, accumulated
    and not yet clipped. Validation sees the module that is trained: ``warm_start.measured(module)`` is the one to be
    served.
    """

    @property
    def state_key(self) -> str:
        """Where a checkpoint keeps the state: by the method, so that a Trainer may have two of them."""
        return self._generate_state_key(method=self.method.name)

    def __getstate__(self) -> dict[str, Any]:
        of_module = ("log", "log_dict")  # which a Trainer puts into every callback
        return {name: value for name, value in super().__getstate__().items() if name not in of_module}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the network, before weights are loaded and optimizers made."""
        if not _makes_its_layers_late(pl_module):
            self.prepare(pl_module)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Forget earlier fits: what the checkpoint holds decides, and its own state follows."""
        self.load_state_dict({})
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning does not declare it
        own = {callback.state_key for callback in callbacks}
        for key, state in checkpoint.get("callbacks", {}).items():  # of another method, or from an earlier preview
            if key not in own and str(key).startswith(type(self).__qualname__):
                self.load_state_dict(state)

    @all_or_nothing
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Apply the method, unless that has been done for this arrival."""
        self._check(trainer, pl_module)
        batches: Any = trainer.train_dataloader if self.batches is None else self.batches
        step = trainer.global_step
        report = self._apply_(
            pl_module,
            batches,
            self.forward_loss or _training_loss(trainer),
            trainer.optimizers[0] if len(trainer.optimizers) == 1 else None,
            step=step,
        )
        if report is not None and report.layers:
            for logger in trainer.loggers:
                logger.log_metrics(totals(report), step=step)
        if self.method.acts_on_updates:  # Lightning has no hook between the update and the schedule's step
            trainer.optimizers[0].register_step_post_hook(lambda *_: self.after_step(pl_module, trainer.global_step))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Let the method act on the gradients."""
        if self.method.acts_on_updates:
            self.after_backward(pl_module, trainer.global_step)

    @contextmanager
    def _outside_training(self, model: Any) -> Iterator[None]:
        """A context for forward passes that are not part of training: they log nothing either."""
        with super()._outside_training(model), _without_logging(model):
            yield

    def _check(self, trainer: Trainer, module: LightningModule) -> None:
        """Raise InputError for combinations that would give wrong results silently."""
        for name in COPIES_WEIGHTS & {kind.__name__ for kind in type(trainer.strategy).__mro__}:
            raise InputError(f"{name} keeps its own copies of the weights: use DDP, or FSDP2 by ModelParallelStrategy")
        if not module.automatic_optimization:
            if self.forward_loss is None:
                raise InputError("training_step makes its own updates: pass WarmStart(..., forward_loss=...)")
            if self.method.acts_on_updates:
                raise InputError(f"{self.method} acts on every update: call its function in training_step yourself")
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        fused = any(getattr(optimizer, "_step_supports_amp_scaling", False) for optimizer in trainer.optimizers)
        if self.method.acts_on_updates and scaler is not None and fused:
            raise InputError("a fused optimizer hides the loss scale of 16-mixed: use bf16-mixed, or fused=False")


def _training_loss(trainer: Trainer) -> Any:
    """The loss that ``training_step`` returns, for a batch that is prepared as in training."""

    def loss_of(module: Any, batch: Any) -> Any:
        batch = trainer.precision_plugin.convert_input(batch)
        batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
        batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        step = module.training_step
        output = step(batch, 0) if _takes_index(step) else step(batch)
        return output if output is None or isinstance(output, Tensor) else output["loss"]

    return loss_of


def _makes_its_layers_late(module: LightningModule) -> bool:
    """Whether the module has a ``configure_model`` of its own, not that of Lightning's ``ModelHooks``."""
    return next(kind.__name__ for kind in type(module).__mro__ if "configure_model" in vars(kind)) != "ModelHooks"


def _takes_index(step: Any) -> bool:
    """Whether ``training_step`` has a second parameter, for the batch's number."""
    try:
        inspect.signature(step).bind(None, 0)
    except TypeError:
        return False
    return True


@contextmanager
def _without_logging(module: LightningModule) -> Iterator[None]:
    """Make ``self.log`` do nothing meanwhile, and restore the metrics afterwards."""
    if "log" in vars(module):  # nested
        yield
        return

    def nothing(*_: Any, **__: Any) -> None:
        """Log nothing."""

    from torchmetrics import Metric  # which both packages need

    metrics = [metric for metric in module.modules() if isinstance(metric, Metric)]
    gathered = [(metric._update_count, _copied(metric.metric_state)) for metric in metrics]

    def put_back() -> None:
        for name in ("log", "log_dict"):
            vars(module).pop(name, None)
        for metric, (count, state) in zip(metrics, gathered, strict=True):
            metric.reset()
            metric._update_count = count
            for name, value in state.items():
                setattr(metric, name, value)

    with afterwards(put_back):
        vars(module).update(log=nothing, log_dict=nothing)
        yield


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.clone() if isinstance(value, Tensor) else list(value) for name, value in state.items()}
