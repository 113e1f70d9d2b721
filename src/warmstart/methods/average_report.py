"""What an average of gradients covers: how many examples, old ones and classes, and whether a short batch dominates.

The batch k places from the end has the weight (1-alpha)^k, whatever it holds: an example of a short batch weighs more.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from warmstart.errors import InputError
from warmstart.gradient_ema import GradientEMA
from warmstart.wording import counted

_TOO_SMALL_A_SPAN = 0.1
"""Share of the batches below which old data may not count at all; the number of new examples would tell."""


_FEWEST_LABELS = 32
"""Labels from which on the classes among them say something."""

_TOO_FEW_CLASSES = 0.25
"""Share of all labels that are of classes not seen lately, beyond what is expected in random order."""


def coverage(ema: GradientEMA, new_examples: int | None, labels: Tensor | None = None) -> tuple[list[str], list[str]]:
    """Notes and warnings on what an average covered; ``new_examples`` and the ``labels`` of all the data if known."""
    sizes = ema.sizes[::-1]
    batches = f"{ema.updates:,} batch{'' if ema.updates == 1 else 'es'}"
    left_out = f"{ema.left_out:,} older batch{'' if ema.left_out == 1 else 'es'} left out"
    if not all(sizes):  # objects whose examples cannot be counted
        share = [] if new_examples is None else ["old data's share is not known: its examples cannot be counted"]
        return [f"averaged {batches}, {left_out}", *share], []
    if new_examples is not None and new_examples > ema.examples and not ema.left_out:
        raise InputError(f"new_examples is {new_examples:,}, but the batches hold {ema.examples:,}")
    powers = [(1 - ema.alpha) ** k for k in range(len(sizes))]
    weights = [power / sum(powers) for power in powers]
    effective = 1 / sum(weight**2 / size for weight, size in zip(weights, sizes, strict=True))
    notes = [f"averaged {batches}, {ema.examples:,} examples (about {effective:,.0f} effectively), {left_out}"]
    warnings = []
    if 2 * sizes[0] < max(sizes):
        warnings.append(
            f"the newest batch has {counted(sizes[0], 'example')}, others {max(sizes):,}, and weighs "
            f"{weights[0]:.0%}: pass ws.oldest_first(loader), where the oldest is the short one"
        )
    span = ema.updates / (ema.updates + ema.left_out)
    if new_examples is None and span < _TOO_SMALL_A_SPAN:
        warnings.append(
            f"the batches that count are {span:.1%} of the data, so maybe all new: pass new_examples=N, which tells "
            "old data's share; larger batches (batch_size=) or a smaller alpha reach further back"
        )
    warnings += _on_classes(ema.labels[::-1], weights, labels)
    if new_examples is not None:
        old = _old_share(weights, sizes, new_examples)
        notes.append(f"old data has {old:.1%} of the average's weight")
        if old < 0.01:
            warnings.append("old data is under 1 %, use larger batches or a smaller alpha")
    return notes, warnings


def _old_share(weights: list[float], sizes: list[int], new_examples: int) -> float:
    """The weight of all but the last ``new_examples``; one batch may hold both old and new ones."""
    share = 0.0
    for weight, size, through in zip(weights, sizes, accumulate(sizes), strict=True):
        old = min(size, max(0, through - new_examples))
        share += weight * old / size
    return share


def _on_classes(batches: list[Tensor | None], weights: list[float], labels: Tensor | None) -> list[str]:
    """A warning where the newest examples are of fewer classes than all, as in data sorted by class."""
    known = [batch.cpu() for batch in batches if batch is not None]
    if len(known) < len(weights):
        return []
    newest, weight = known[0][:0], 0.0
    for batch, share in zip(known, weights, strict=True):
        if weight >= 0.5 and len(newest) >= _FEWEST_LABELS:
            break
        newest, weight = torch.cat([newest, batch]), weight + share
    classes, counts = (torch.cat(known) if labels is None else labels).unique(return_counts=True)
    shares = counts / counts.sum()
    seen = torch.isin(classes, newest)
    unseen = shares[~seen].sum() - (shares * (1 - shares) ** len(newest)).sum()
    if len(newest) < _FEWEST_LABELS or unseen < _TOO_FEW_CLASSES:
        return []
    return [
        f"the newest {len(newest):,} examples, which weigh {weight:.0%}, have {int(seen.sum())} of "
        f"{len(classes):,} classes, as in data sorted by class: pass "
        "DataLoader(Subset(dataset, order)), order being that of arrival, and random within an arrival"
    ]
