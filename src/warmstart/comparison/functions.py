"""`ws.compare`: the grid of methods and seeds over a user's own training and evaluation functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

from warmstart.comparison.fingerprint import model_fingerprint
from warmstart.comparison.function_checks import (
    chosen_seeds,
    inspect_stream,
    methods_by_label,
    require_functions,
    require_sendable,
    seeds_at_most,
    try_functions,
)
from warmstart.comparison.images import ImageComparison
from warmstart.comparison.looks import look_at, seeds_text, wanted_runs
from warmstart.comparison.outcome import Outcome
from warmstart.comparison.settings import CompareSettings, FunctionSettings, FunctionsRecord
from warmstart.data.torch_datasets import from_dataset
from warmstart.errors import InputError, at_least_one, number, within
from warmstart.grids.carry_out import Plan, carry_out
from warmstart.grids.display import Display
from warmstart.grids.record import Provenance
from warmstart.losses import ForwardLoss, as_forward_loss
from warmstart.methods.method import Method
from warmstart.runs.function_task import FunctionTask, TrainingStage
from warmstart.streams.given_parts import GivenStream
from warmstart.wording import counted, split_names


def compare(
    make_model: Callable[[], nn.Module],
    stream: Sequence[Any] | Callable[[int], Sequence[Any]],
    methods: Sequence[str | Method] = ("cold", "warm", "shrink-perturb", "dash"),
    seeds: int | Sequence[int] = 5,
    *,
    train: Callable[[nn.Module, TrainingStage], int | Mapping[str, float]],
    evaluate: Callable[[nn.Module], float | Tensor | Sequence[float]],
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    forward_loss: ForwardLoss | None = None,
    collate: Callable[[list[Any]], Any] = default_collate,
    micro_batch_size: int | None = None,
    metric: str = "accuracy",
    higher_is_better: bool = True,
    margin: float = 0.0,
    max_seeds: int | None = None,
    name: str = "custom",
    out: str | Path | None = None,
    jobs: int = 1,
    track: str | Sequence[str] = (),
    progress: bool = True,
) -> Outcome:
    """Compare methods on a task of your own: your networks, your training, your metric.

    Args:
        make_model: Makes a network from PyTorch's global random state, which is seeded before each call.
        stream: The new data of each stage, oldest first: map-style data sets, sequences of examples, or tuples of
            tensors; or ``stream(seed)`` that gives them, for a split that changes with the seed.
        methods: Names as on the command line, ``"cold,dash"`` or in a list, or methods such as ``ws.Dash(alpha=0.1)``.
        seeds: Repetitions, 0 to N-1, or the seeds themselves.
        train: ``train(model, stage)`` trains in place on ``stage.data`` and returns the number of optimizer updates,
            or a mapping with ``steps`` and, if known, ``epochs``, ``train_accuracy`` and ``seconds``.
        evaluate: ``evaluate(model)`` on your fixed test set: a number, or one score for each test example, whose mean
            is the metric; with scores the intervals allow for the choice of test examples, too.
        make_optimizer: ``make_optimizer(model)``, once a run: ``stage.optimizer``, whose state methods keep or reset.
            If not given, ``train`` makes its own.
        loss_fn: ``loss_fn(output, target)`` for examples that collate to ``(input, target)``; without it batches are
            mappings and the model's output has a ``.loss``.
        forward_loss: ``forward_loss(model, batch) -> scalar``, instead of ``loss_fn`` for anything else.
        collate: Makes a batch of a list of examples.
        micro_batch_size: Examples that fit into one forward and backward pass of DASH's gradients; None for any.
        metric: What ``evaluate`` measures, for the report.
        higher_is_better: False for a metric such as a loss or perplexity.
        margin: The loss in the metric that is acceptable.
        max_seeds: Seeds are added, up to 0 to N-1, until the verdict is decided; they double from look to look, and the
            error of 5 % is split over the looks. It needs ``seeds`` as a number, with which to look first.
        name: What the data is called in the results.
        out: A folder to write to and go on from after an interruption; None keeps everything in memory. It is refused
            for another network or stream; a change of ``train``, ``evaluate``, ``make_optimizer`` or the loss cannot be
            seen and needs a new folder.
        jobs: Processes. More than one needs functions that can be sent to them, so at the top of a module, and ``if
            __name__ == "__main__":`` around the call.
        track: ``tensorboard``, ``wandb`` or ``mlflow``, which then follow the runs; needs ``out``.
        progress: Show what is running, on stderr.

    Returns:
        Results and verdict.

    Raises:
        InputError: If an argument is wrong, or ``out`` is in use or holds another comparison. Each function but
            ``train`` is tried on an untrained network before the first run.
    """
    optional = {"make_optimizer": make_optimizer, "loss_fn": loss_fn, "forward_loss": forward_loss}
    given = {name: function for name, function in optional.items() if function is not None}
    require_functions(make_model=make_model, train=train, evaluate=evaluate, collate=collate, **given)
    within("margin", number("margin", margin), margin >= 0, "at least 0")
    if micro_batch_size is not None:
        at_least_one("micro_batch_size", micro_batch_size)
    at_least_one("jobs", jobs)
    named, chosen = methods_by_label(methods), chosen_seeds(seeds)
    streams = GivenStream(stream)
    stages, data_fingerprint = inspect_stream(streams, seeds_at_most(seeds, chosen, max_seeds))
    task = FunctionTask(
        streams,
        named,
        make_model,
        make_optimizer,
        train,
        evaluate,
        as_forward_loss(loss_fn, forward_loss),
        collate,
        micro_batch_size,
        data=name,
        stages=stages,
    )
    with torch.random.fork_rng():
        model = try_functions(task, chosen[0])
        task = replace(task, model=type(model).__name__)
        settings = FunctionSettings.of(
            {
                "data": name,
                "model": task.model,
                "methods": tuple(named),
                "seeds": tuple(chosen),
                "stages": stages,
                "metric_name": metric,
                "higher_is_better": higher_is_better,
                "margin": margin,
                "max_seeds": max_seeds,
                "device": str(next(model.parameters()).device),
                "threads": torch.get_num_threads(),
                "jobs": jobs,
                "track": tuple(split_names(track)) if isinstance(track, str) else tuple(track),
                **({} if out is None else {"out": str(out)}),
            }
        )
        if jobs > 1:
            require_sendable(task)
        record = FunctionsRecord(
            settings=settings,
            data_fingerprint=data_fingerprint,
            provenance=Provenance.here(),
            model_fingerprint=model_fingerprint(model),
        )
        with Display(quiet=not progress, metric=settings.metric) as display:
            folder, wanted = None if out is None else Path(out), partial(wanted_runs, settings)
            runs = carry_out(Plan(task, record, folder, [_description(settings)], wanted=wanted), display)
    seen = look_at(settings, runs)
    outcome = Outcome(seen.results, seen.verdict, record)
    if out is not None:
        outcome.write(out)
    return outcome


def _description(settings: FunctionSettings) -> str:
    sizes = counted(len(settings.methods), "method"), seeds_text(settings)
    return f"{settings.data}: {' x '.join(sizes)}, {counted(settings.stages, 'stage')}"


def compare_images(train: Any, test: Any | None = None, *, progress: bool = True, **settings: Any) -> Outcome:
    """Run `warmstart compare` on a data set of labelled images, of torch or of Hugging Face's `datasets`.

    Args:
        train: Examples (image, label), or mappings that have both; the image is a PIL image, an array or a tensor, the
            label an integer or a name.
        test: The test part; without one, a fifth of each class of ``train`` is tested, another with each seed. A name
            is what `--test` is on the command line: ``"next"`` tests by the next arrival.
        progress: Show what is running, on stderr.
        settings: As on the command line, with underscores: ``model="resnet18", stages=5, out="out/mine"``. One
            process unless ``jobs`` says more, which needs ``if __name__ == "__main__":`` around the call.

    Returns:
        Results and verdict; the report is in the folder ``out``.

    Raises:
        InputError: If an argument is wrong, or ``out`` is in use or holds another comparison.
    """
    if isinstance(test, str):
        settings["test"], test = test, None
    for argument, part in (("train", train), ("test", test)):
        if isinstance(part, DataLoader):
            raise InputError(f"{argument} is a DataLoader; pass its data set: {argument}=loader.dataset")
        if part is not None and not (hasattr(part, "__len__") and hasattr(part, "__getitem__")):
            raise InputError(f"{argument} is a {type(part).__name__}; give a map-style Dataset of (image, label)")
    if "cache" in settings:
        raise InputError("cache is for images in files; leave it out")
    name = str(settings.pop("data", type(train).__name__))
    chosen = CompareSettings.of({"jobs": 1, **settings, "data": name})
    images = from_dataset(
        train,
        test,
        name=name,
        image_size=chosen.image_size,
        fit=chosen.fit,
        image_column=chosen.image_column,
        label_column=chosen.label_column,
        order=chosen.read_order,
        skip_unreadable=chosen.skip_unreadable,
    )
    with Display(quiet=not progress) as display, torch.random.fork_rng():
        return ImageComparison(chosen, display, images).run()
