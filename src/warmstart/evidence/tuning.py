"""What tuning shows: which trial is chosen of each method, how far trials differ, and what the choice gained."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from matplotlib.figure import Figure
from rich.table import Table

from warmstart.evidence.comparisons import ENOUGH_SEEDS, estimate_difference
from warmstart.evidence.paired import Estimate
from warmstart.evidence.table import mean_std, terminal_table
from warmstart.reporting import figures, html
from warmstart.reporting.html import Html
from warmstart.reporting.scatters import Scatter, scatters
from warmstart.runs.own_recipe import own_recipe
from warmstart.runs.results import Results
from warmstart.wording import counted

FAILED = ("diverged", "given-up", "max-epochs")
"""How a stage ends that makes its trial a failed one: its loss was not finite, or its end was never reached."""
_COLUMNS = ("method", "trial", "settings", "status", "validation_accuracy", "steps", "chosen")


@dataclass(frozen=True)
class Trial:
    """One setting of a method, and how its run ended."""

    label: str
    """The method with its settings, as in results.csv."""
    status: str
    """Of its worst stage: ``done``, ``plateau``, or one of `FAILED`."""
    accuracy: float
    """On the validation part after the last stage; NaN where it was not reached."""
    steps: int
    """Of all stages."""

    @property
    def failed(self) -> bool:
        """Whether it cannot be chosen."""
        return self.status in FAILED or not math.isfinite(self.accuracy)

    @classmethod
    def of(cls, results: Results, label: str) -> Trial:
        """The trial of that label, from its run's rows."""
        rows = results.select(label)
        status = next((row.status for row in rows if row.status in FAILED), rows[-1].status)
        reached = len(rows) == results.stages and status != "diverged"
        return cls(label, status, rows[-1].test_accuracy if reached else math.nan, sum(row.steps for row in rows))


@dataclass(frozen=True)
class Tuned:
    """All trials of one method."""

    method: str
    """As it was given."""
    trials: tuple[Trial, ...]
    """The first is the method as it was given."""

    @cached_property
    def chosen(self) -> Trial:
        """The trial with the best validation accuracy, among equals the cheapest; if all failed, as it was given."""
        ended = [trial for trial in self.trials if not trial.failed]
        return max(ended, key=lambda trial: (trial.accuracy, -trial.steps), default=self.trials[0])

    @property
    def failures(self) -> int:
        """How many trials failed."""
        return sum(trial.failed for trial in self.trials)


@dataclass(frozen=True)
class Tuning:
    """What was tried for all methods, and how the chosen ones fared on the test set."""

    tuned: tuple[Tuned, ...]
    where: str
    """What the trials were judged on, in words."""
    lr: float
    """The rate that was given."""
    tested: Results | None = None
    """The runs on the test set, each method as chosen and as given; None where there are none yet."""

    @property
    def chosen(self) -> Mapping[str, str]:
        """Method as given -> label of the chosen trial."""
        return {one.method: one.chosen.label for one in self.tuned}

    def gain(self, one: Tuned) -> Estimate | None:
        """Test metric as chosen minus as given, paired over seeds; None where it was not measured."""
        if self.tested is None or one.chosen.label == one.method:
            return None
        return estimate_difference(self.tested, one.chosen.label, one.method)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the verdict should know."""
        most = max(len(one.trials) for one in self.tuned)
        notes = [
            f"Each method was tuned: {counted(most, 'trial')}, judged on {self.where}; the seeds here are fresh. The "
            "intervals are of the chosen settings: to tune anew might choose others."
        ]
        for one in self.tuned:
            if one.failures == len(one.trials):
                notes.append(f"{one.method}: all trials failed, so it is as it was given.")
            elif one.failures:
                notes.append(f"{one.method}: {one.failures} of {counted(len(one.trials), 'trial')} failed.")
        return tuple(notes)


def trials_csv(tuning: Tuning) -> str:
    """All trials as CSV, one a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in tuning.tuned:
        for number, trial in enumerate(one.trials, start=1):
            chosen = "yes" if trial is one.chosen else "no"
            writer.writerow([one.method, number, trial.label, trial.status, trial.accuracy, trial.steps, chosen])
    return text.getvalue()


def tuning_blocks(tuning: Tuning) -> list[Html]:
    """What was chosen, the spread over trials and the gain, as a table and a figure."""
    head = (
        *("method", "chosen", "given, %", "chosen, %", "trials, %", "worst to best", "failed"),
        *("gain, points", "95 % interval"),
    )
    caption = (
        f"Validation accuracy of the method as given, of the chosen trial, and of all trials, mean (std): on "
        f"{tuning.where}, after the last stage. The best of several is partly luck. Gain: of the chosen settings over "
        "the given ones on the test set, with seeds that tuning never used, paired over them. All trials are in "
        "`tuning/trials.csv`."
    )
    rows = [_cells(tuning, one) for one in tuning.tuned]
    svg = figures.to_svg(_figure(tuning), name="tuning", description="validation accuracy by learning rate")
    shown = "Each trial of each method: its validation accuracy by its learning rate. Filled: chosen; cross: as given."
    return [html.table(head, rows, caption=caption), html.figure(svg, shown)]


def chosen_table(tuning: Tuning) -> Table:
    """What was chosen and what it gained, for a terminal."""
    table = terminal_table(("tuned", "validation %", "gain, points"))
    for one in tuning.tuned:
        name, _, settings = one.chosen.label.partition("[")
        lines = ",\n  ".join(settings.removesuffix("]").split(",")) if settings else "as given"
        label = f"{one.method}\n  {lines}" if one.chosen.label != one.method else f"{name} (as given)"
        table.add_row(label, _percent(one.chosen.accuracy), _gain(tuning, one)[0])
    return table


def _cells(tuning: Tuning, one: Tuned) -> tuple[str, ...]:
    ended = [100 * trial.accuracy for trial in one.trials if not trial.failed]
    return (
        one.method,
        one.chosen.label.partition("[")[2].removesuffix("]").replace(",", ", ") or "as given",
        _percent(one.trials[0].accuracy),
        _percent(one.chosen.accuracy),
        mean_std(ended, ".1f"),
        f"{min(ended):.1f} to {max(ended):.1f}" if ended else "–",
        str(one.failures),
        *_gain(tuning, one),
    )


def _figure(tuning: Tuning) -> Figure:
    plots = []
    for one in tuning.tuned:
        ended = [trial for trial in one.trials if not trial.failed]
        rates = [own_recipe(trial.label)[1].get("lr", tuning.lr) for trial in ended]
        places = [ended.index(trial) if trial in ended else None for trial in (one.chosen, one.trials[0])]
        plots.append(Scatter(one.method, rates, [100 * trial.accuracy for trial in ended], *places))
    return scatters(plots, x_label="learning rate", y_label="validation accuracy, %")


def _gain(tuning: Tuning, one: Tuned) -> tuple[str, str]:
    gain = tuning.gain(one)
    if gain is None:
        return ("0" if one.chosen.label == one.method else "–"), "–"
    if gain.seeds < ENOUGH_SEEDS:
        return f"{100 * gain.difference:+.1f}", "–"
    low, high = gain.interval()
    return f"{100 * gain.difference:+.1f}", f"{100 * low:+.1f} to {100 * high:+.1f}"


def _percent(accuracy: float) -> str:
    return f"{100 * accuracy:.1f}" if math.isfinite(accuracy) else "failed"
