"""The result of a comparison."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from warmstart.comparison.report import render_terminal, write_report
from warmstart.comparison.settings import CompareRecord, FunctionsRecord
from warmstart.evidence.tuning import Tuning
from warmstart.evidence.verdict import Verdict
from warmstart.grids.results_file import write_results
from warmstart.reporting.terminal import Terminal
from warmstart.runs.results import Results


@dataclass(frozen=True)
class Outcome:
    """The result of a comparison; ``print`` it for the table and the verdict."""

    results: Results
    verdict: Verdict
    record: CompareRecord | FunctionsRecord
    """The settings, versions and fingerprints that the numbers depend on."""
    tuning: Tuning | None = None
    """What was tried and chosen, where methods were tuned; ``results`` has the chosen ones under the methods' names."""

    def __str__(self) -> str:
        """The table and the verdict, at most 80 columns wide."""
        console = Terminal(file=io.StringIO(), width=80)
        self.show(console)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue().rstrip()

    def show(self, terminal: Terminal) -> None:
        """Print the table and the verdict."""
        render_terminal(self.results, self.verdict, terminal, self.tuning)

    def write(self, folder: str | Path) -> None:
        """Write results.csv, table.md and report.html.

        Args:
            folder: Where to write; it is created if it is missing.
        """
        out = Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        results = self.results if self.tuning is None or self.tuning.tested is None else self.tuning.tested
        write_results(out / "results.csv", results.rows)
        self.write_report(out)

    def write_report(self, out: Path) -> None:
        """Write table.md and report.html into a folder."""
        write_report(self.results, self.verdict, self.record, out, self.tuning)
