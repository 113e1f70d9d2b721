"""A comparison's looks at its runs: what they show so far, and which runs are wanted next."""

from __future__ import annotations

from collections.abc import Mapping

from warmstart.comparison.settings import CompareSettings, FunctionSettings
from warmstart.evidence.sequential import Look, look
from warmstart.grids.carry_out import Wanted
from warmstart.grids.collect import collect
from warmstart.runs.key import RunKey
from warmstart.runs.state import RunState
from warmstart.wording import counted


def look_at(settings: CompareSettings | FunctionSettings, runs: Mapping[RunKey, RunState]) -> Look:
    """Judge the runs at the last look that is complete, or what there is before the first."""
    assert settings.stages is not None  # a comparison on images has counted them
    results = collect(settings, settings.stages, runs)
    if isinstance(settings, CompareSettings) and settings.chosen:
        results = results.under(settings.chosen)
    return look(results, settings.looks, margin=settings.margin)


def wanted_runs(settings: CompareSettings | FunctionSettings, runs: Mapping[RunKey, RunState]) -> Wanted:
    """The runs up to the next look, or up to the one that ends the comparison."""
    if len(settings.looks) == 1:
        return Wanted(settings.runs())
    seen = look_at(settings, runs)
    return Wanted(settings.runs(seen.wanted), seen.line)


def seeds_text(settings: CompareSettings | FunctionSettings) -> str:
    """``"5 seeds"``, or ``"5 to 20 seeds"`` where they are added."""
    first, last = settings.looks[0], settings.looks[-1]
    return counted(first, "seed") if first == last else f"{first} to {last} seeds"
