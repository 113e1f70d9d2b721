"""What the methods themselves warned of while a grid ran."""

from __future__ import annotations

import re

from warmstart.runs.results import Results
from warmstart.wording import counted


def method_warnings(results: Results) -> list[str]:
    """Each method's warnings as sentences, the first of those that differ in their numbers only."""
    first: dict[tuple[str, str], tuple[str, set[tuple[int, int]]]] = {}
    for method, seed in sorted(results.runs):
        for stage, report in sorted(results.runs[method, seed].reports.items()):
            for warning in report.get("warnings", ()):
                kind = method, re.sub(r"[0-9][0-9.,e+-]*", "#", warning)
                first.setdefault(kind, (warning, set()))[1].add((seed, stage))
    sentences = []
    for method in results.methods:
        for (of, _), (warning, places) in first.items():
            if of == method:
                sentences.append(f"{method} warned in {counted(len(places), 'stage')}: {warning.rstrip('.')}.")
    return sentences
