"""The callbacks' texts: a report in brief, in a few numbers, and notes on the optimizer and batch norm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from warmstart.layers.norms import batch_norms
from warmstart.methods.method import Method
from warmstart.methods.report import Report
from warmstart.wording import counted


def state_notes(
    model: nn.Module, report: Report, optimizer: torch.optim.Optimizer | None, has_state: bool, step: int
) -> Iterator[str]:
    """A sentence each on the optimizer, if known, and on batch-norm statistics; ``step`` counts the updates so far."""
    if optimizer is not None and step > 0:
        yield f"a fit resumed at step {step}: optimizer state and learning-rate schedule continue from there"
    elif optimizer is not None:
        yield "the optimizer keeps its state" if has_state else "a new fit: fresh optimizer state and schedule"
    if report.layers and batch_norms(model) and not any("batch-norm" in note for note in report.notes):
        yield "batch-norm statistics kept: train before predicting"


def totals(report: Report) -> dict[str, float]:
    """A report in a few numbers by name, for loggers.

    Returns:
        The numbers of parameters changed and left alone; of a method that scales also its neurons, their mean scale and
        the share at the lower bound.
    """
    numbers: dict[str, float] = {
        "warmstart/changed": len(report.layers),
        "warmstart/left_alone": len(report.left_alone),
    }
    if neurons := sum(layer.neurons for layer in report.scales):
        numbers["warmstart/neurons"] = neurons
        numbers["warmstart/scale"] = sum(layer.mean * layer.neurons for layer in report.scales) / neurons
        numbers["warmstart/at_lambda"] = sum(layer.at_lambda * layer.neurons for layer in report.scales) / neurons
    return numbers


def in_brief(report: Report) -> str:
    """The report without its rows: a few lines of at most 80 columns."""
    if not report.layers:
        return str(report)
    return str(replace(report, layers=(), left_alone=(), weights=0, notes=(_done(report), *report.notes)))


def in_one_line(method: Method, report: Report) -> str:
    """That a method has been applied, and to how much."""
    return f"{method} applied: {_done(report) if report.layers else '; '.join(report.notes)}"


def _done(report: Report) -> str:
    numbers, left = totals(report), counted(len(report.left_alone), "parameter")
    done = f"{counted(len(report.layers), 'parameter')} changed"
    if report.scales:
        done = f"{numbers['warmstart/neurons']:,} neurons scaled by {numbers['warmstart/scale']:.3f} on average"
    return ", ".join(filter(None, (done, report.share_scaled, f"{left} left alone")))


def already_applied(method: Method, arrival: str) -> str:
    """The line that says why nothing was done."""
    return (
        f"{method} has been applied for this arrival ({arrival}), so not again: pass another arrival='...' for new data"
    )
