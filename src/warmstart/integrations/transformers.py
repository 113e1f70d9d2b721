"""A callback for the Hugging Face Trainer: the method is applied as training begins, once for each arrival of data."""

from __future__ import annotations

from typing import Any

from warmstart.errors import InputError
from warmstart.integrations import warm_start
from warmstart.losses import as_forward_loss

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError as error:
    raise ImportError(f"warmstart.integrations.transformers needs {error.name}: pip install transformers") from error

KEY = "warmstart"
"""Where ``trainer_state.json`` remembers. No class has that name: the Trainer would make a new callback from it."""


class WarmStart(warm_start.WarmStart, TrainerCallback):
    """Last month's weights, all data so far, a fresh schedule; resumed from a checkpoint, it does not act twice.

        last = get_last_checkpoint("july") if Path("july").exists() else None
        model = AutoModelForCausalLM.from_pretrained(last or "june")
        trainer = Trainer(model, args, train_dataset=june_and_july, callbacks=[WarmStart(ws.Dash())])
        trainer.train(resume_from_checkpoint=last)

    The model is loaded from the last checkpoint because the Trainer restores some kinds in part only (transformers
    issue 43701).

    Without ``batches`` the Trainer's own training set is read in its order, by its own collator; pass a loader where
    training augments. Without a loss, that of ``model(**batch)`` is used. Where the Trainer computes another one (label
    smoothing, ``compute_loss_func``, a subclass), pass ``forward_loss=lambda model, batch: trainer.compute_loss(model,
    batch)``, which may stand before ``trainer`` exists.

    The report's totals go to ``trainer.state.log_history``. Methods that act on every update see its gradients
    accumulated, unscaled and clipped.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any
    ) -> None:
        """Apply the method, unless that has been done for this arrival."""
        model = objects["model"]
        remembered: Any = state.stateful_callbacks  # a dict by now, whatever its annotation says
        saved = remembered.get(KEY)
        if saved is not None or state.global_step > 0:
            self.load_state_dict(saved or {})
        batches = objects["train_dataloader"] if self.batches is None else self.batches
        self._check(args, state, done=self._is_applied(model, batches))
        report = self._apply_(
            model,
            batches,
            self.forward_loss or as_forward_loss(None),
            objects["optimizer"],
            step=state.global_step,
        )
        remembered[KEY] = self.state_dict()
        if report is not None and report.layers:
            state.log_history.append({**warm_start.totals(report), "step": state.global_step})

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any
    ) -> None:
        """Let the method act on the gradients."""
        if self.method.acts_on_updates:
            self.after_backward(objects["model"], state.global_step)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any
    ) -> None:
        """Let the method act on the weights."""
        if self.method.acts_on_updates:
            self.after_step(objects["model"], state.global_step)

    def _check(self, args: TrainingArguments, state: TrainerState, done: bool) -> None:
        """Refuse what would go wrong unnoticed, before anything changes."""
        if args.deepspeed:
            raise InputError("DeepSpeed keeps weights in copies of its own: use DDP or FSDP2")
        if args.label_smoothing_factor and self.forward_loss is None:
            raise InputError(
                "the Trainer smooths labels: pass forward_loss=lambda model, batch: trainer.compute_loss(model, batch)"
            )
        if self.method.acts_on_updates and args.fp16 and not args.max_grad_norm:
            raise InputError(f"{self.method} acts on gradients, which fp16 without max_grad_norm scales: use bf16")
        if state.global_step >= state.max_steps and not done:
            raise InputError(
                f"the checkpoint has finished its training (step {state.global_step}): load only its weights, and give "
                "the new data an output_dir of its own"
            )
