"""A callback for the Hugging Face Trainer: the method is applied as training begins, once for each arrival of data."""

from __future__ import annotations

import uuid
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from warmstart.errors import InputError
from warmstart.integrations import warm_start
from warmstart.integrations.report_texts import totals
from warmstart.losses import as_forward_loss
from warmstart.methods.lifecycle import require_prepared
from warmstart.undo import all_or_nothing, on_failure

try:
    from safetensors import safe_open
    from safetensors.torch import save_file
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
except ModuleNotFoundError as error:
    raise ImportError(f"warmstart.integrations.transformers needs {error.name}: pip install transformers") from error

KEY = "warmstart"
"""Our key in ``trainer_state.json``; not a class's name, from which the Trainer would make a new callback."""

FILE = "warmstart.safetensors"
"""The method's tensors, in a checkpoint's folder."""


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

    The report's totals go to ``trainer.state.log_history``. A method that changes the network does so as the Trainer is
    made. Methods that act on every update see its gradients accumulated, unscaled and clipped. What a method keeps lies
    in the checkpoint's folder, in ``warmstart.safetensors``. Evaluation sees the model that is trained:
    ``warm_start.measured(model)`` is the one to be served.
    """

    @cached_property
    def _id(self) -> str:
        """In this run's files, so that those of another run in the same folder are not taken for them."""
        return uuid.uuid4().hex

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any
    ) -> None:
        """Prepare the network, before weights are loaded and the optimizer made."""
        self.prepare(objects["model"])
        require_prepared(self.method, objects["model"], objects["optimizer"])

    @all_or_nothing
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any
    ) -> None:
        """Apply the method, unless that has been done for this arrival."""
        model = objects["model"]
        callback_states: Any = state.stateful_callbacks  # a dict here, against its annotation
        saved = callback_states.get(KEY)
        on_failure(partial(self._be_again, dict(vars(self))))
        on_failure(partial(callback_states.update, dict(callback_states)))
        on_failure(callback_states.clear)  # which is called before
        if saved is not None or state.global_step > 0:
            tensors = self._read_state(args, state, (saved or {}).get("state"))
            self.load_state_dict({**saved, "state": tensors} if saved else {})
        batches = objects["train_dataloader"] if self.batches is None else self.batches
        self._check(args, state, done=self._is_applied(model, batches))
        report = self._apply_(
            model,
            batches,
            self.forward_loss or as_forward_loss(None),
            objects["optimizer"],
            step=state.global_step,
        )
        # trainer_state.json holds no tensors, but the id of the file that does.
        callback_states[KEY] = {**self.state_dict(), "state": self._id if self._state else None}
        if report is not None and report.layers:
            state.log_history.append({**totals(report), "step": state.global_step})

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
            callback_states: Any = state.stateful_callbacks
            callback_states[KEY]["state"] = self._id if self._state else None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any) -> None:
        """Write what the method keeps beside the checkpoint, which holds no tensors of callbacks."""
        if not (self._state and args.should_save):
            return
        folder = _folder(args, state)
        if not folder.is_dir():  # a search over hyperparameters has other folders
            warm_start.LOG.warning(f"no folder {folder}: the tensors of {self.method} are not saved, so do not resume")
            return
        tensors = self.state_dict()["state"].items()
        whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors}
        save_file(whole, folder / FILE, {"id": self._id})

    def _read_state(self, args: TrainingArguments, state: TrainerState, wanted: str | None) -> dict[str, Tensor]:
        """The method's tensors, which `on_save` has written beside the checkpoint."""
        if wanted is None:
            return {}
        for folder in (args.resume_from_checkpoint, _folder(args, state)):
            if folder is not None and (file := Path(folder) / FILE).exists():
                with safe_open(file, "pt") as opened:
                    if opened.metadata()["id"] == wanted:
                        self._id = wanted
                        return {name: opened.get_tensor(name) for name in list(opened.keys())}
        raise InputError(
            f"the tensors of {self.method} are missing, {_folder(args, state) / FILE} of this run: resume from a "
            "checkpoint that has them; if it is elsewhere, pass TrainingArguments(resume_from_checkpoint=...)"
        )

    def _check(self, args: TrainingArguments, state: TrainerState, done: bool) -> None:
        """Raise InputError for combinations that would give wrong results silently."""
        if args.deepspeed:
            raise InputError("DeepSpeed keeps its own copies of the weights: use DDP or FSDP2")
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


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    """The folder of this step's checkpoint."""
    return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
