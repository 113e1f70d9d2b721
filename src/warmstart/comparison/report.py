"""The report of a comparison: ``table.md``, ``report.html``, and the same in the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from warmstart.comparison.settings import CompareRecord, CompareSettings, FunctionsRecord
from warmstart.evidence import table
from warmstart.evidence.comparisons import Comparison, multiple
from warmstart.evidence.diagnosis import diagnosis, unsettled_warning
from warmstart.evidence.examples_table import old_new_and_churn
from warmstart.evidence.figures import accuracy_figure, cost_figure
from warmstart.evidence.paired import ERROR, level_text
from warmstart.evidence.plasticity import by_stage, diagnostics_csv, last_stage
from warmstart.evidence.tuning import Tuning, chosen_table, tuning_blocks
from warmstart.evidence.verdict import Verdict
from warmstart.grids.repeat_command import repeat_command
from warmstart.grids.shown_record import shown_record
from warmstart.methods.dash import Dash
from warmstart.methods.registry import methods
from warmstart.reporting import figures, html, markdown
from warmstart.reporting.html import Html
from warmstart.reporting.terminal import Terminal
from warmstart.runs.results import Results
from warmstart.storage.atomic import write_bytes, write_text
from warmstart.wording import counted

_READINGS = {
    "better": "better",
    "no worse": "no loss beyond the margin",
    "worse": "worse",
    "unclear": "not shown either way",
    "too few seeds": "too few seeds",
    "diverged": "diverged",
}


def write_report(
    results: Results,
    verdict: Verdict,
    record: CompareRecord | FunctionsRecord,
    out: Path,
    tuning: Tuning | None = None,
) -> None:
    """Write ``table.md``, ``report.html`` and, for slides, two figures as PNG."""
    lines = [table.markdown(_table_rows(results), results.metric), _table_caption(results) + "\n"]
    notes = [f"- {markdown.sentence(note)}\n" for note in verdict.notes]
    lines += [markdown.sentence(verdict.sentence) + "\n", "".join(notes)]
    write_text(out / "table.md", "\n".join(line for line in lines if line))
    write_text(out / "report.html", _page(results, verdict, record, tuning))
    if any(run.diagnoses for run in results.runs.values()):
        write_text(out / "diagnostics.csv", diagnostics_csv(results))
    for name, figure in (("accuracy", accuracy_figure(results)), ("cost", cost_figure(results))):
        write_bytes(out / f"{name}.png", figures.to_png(figure))


def render_terminal(results: Results, verdict: Verdict, terminal: Terminal, tuning: Tuning | None = None) -> None:
    """Print the table, what was chosen where methods were tuned, the verdict and its notes."""
    terminal.print(table.terminal(_table_rows(results), results.metric))
    terminal.print()
    if (plasticity := last_stage(results)) is not None:
        terminal.print(plasticity)
        terminal.print()
    if tuning is not None:
        terminal.print(chosen_table(tuning))
        terminal.print()
    terminal.print(verdict.sentence, style="bold")
    for note in verdict.notes:
        terminal.print(f"- {note}", style="dim")


def _page(results: Results, verdict: Verdict, record: CompareRecord | FunctionsRecord, tuning: Tuning | None) -> str:
    first: Any = results.rows[0] if results.rows else record.settings
    names = [getattr(first, name, "") for name in ("data", "model", "optimizer")]
    stream = getattr(record, "stream", "") or counted(results.stages, "stage")
    size = [(len(results.seeds), "seed"), (len(results.methods), "method")]
    return html.page(
        f"Retraining on growing data: {first.data}",
        " · ".join(str(part) for part in (*names, stream, *(counted(*one) for one in size)) if part),
        [
            html.paragraph(verdict.sentence, kind="verdict"),
            html.bullets(verdict.notes),
            unsettled_warning(results),
            html.section(
                f"Against {verdict.reference}", _comparison_table(results, verdict), _interval_figure(results, verdict)
            ),
            html.section("Last stage and mean over stages", _paper_table(results, verdict)),
            html.section("Tuning", *([] if tuning is None else tuning_blocks(tuning))),
            html.section("What each method reaches, and what it costs", _figures(results)),
            html.section("Old and new examples, churn, seconds", *old_new_and_churn(results)),
            html.section("Plasticity by stage", *by_stage(results)),
            *diagnosis(results, html.section, verdict.error),
            html.section("How to read this", _guide(results, verdict)),
            html.section("The data", html.bullets(getattr(record, "notes", ()))),
            html.section("Configuration", *shown_record(record, how_to_repeat(record))),
        ],
        footer="Written by warmstart. This file needs no network and no other file.",
    )


def how_to_repeat(record: CompareRecord | FunctionsRecord) -> str:
    """A sentence: the command that repeats a comparison's numbers, or from where it was started."""
    called = "ws.compare" if isinstance(record, FunctionsRecord) else record.called
    if called != "warmstart compare":
        return f"It was started from Python, with `{called}`."
    defaults = {name: field.default for name, field in CompareSettings.model_fields.items()}
    return f"`{repeat_command('compare', record, ('data', 'model'), defaults)}` repeats it."


def _table_rows(results: Results) -> list[table.Row]:
    return [table.Row.of(results, method) for method in results.methods]


def _table_caption(results: Results) -> str:
    seeds = sorted({len(results.finished(method)) for method in results.methods})
    least = "" if len(seeds) == 1 else f"{seeds[0]} to "
    spread = "Mean (sample std)" if seeds[-1] > 1 else "Finished runs only: mean"
    return (
        f"{spread} over {least}{counted(seeds[-1], 'seed')}; last: stage {results.stages}; "
        f"mean: over all stages of a run. Steps are optimizer updates of a stage."
    )


def _paper_table(results: Results, verdict: Verdict) -> Html:
    rows = [table.cells(row, results.metric) for row in _table_rows(results)]
    caption = _table_caption(results)
    return html.table(table.columns(results.metric), rows, caption=caption, best=verdict.recommended)


def _comparison_table(results: Results, verdict: Verdict) -> Html:
    unit = ", points" if results.metric.is_accuracy else ""
    head = (
        "method",
        f"against {verdict.reference}",
        f"last {results.metric.name}{unit}",
        f"{level_text(verdict.error)} interval",
        "steps, last stage",
        "steps, all stages",
        "p",
        "seeds",
    )
    rows = [_comparison_cells(results, comparison) for comparison in verdict.comparisons]
    margin = f"a loss of exactly the margin, {results.metric.difference(verdict.margin)}" if verdict.margin else ""
    caption = (
        f"Each method minus {verdict.reference}, paired over seeds. Steps as a multiple of {verdict.reference}'s. "
        f"p is that of {margin or 'no difference'}; it is at most {verdict.error:.3g} where the interval leaves that "
        f"out.{_together(verdict)}"
    )
    return html.table(head, rows, caption=caption, best=verdict.recommended) if rows else Html("")


def _together(verdict: Verdict) -> str:
    """How several intervals hold together; empty for one."""
    if 1 - verdict.level_of_each >= verdict.error:
        return ""
    each, all_of_them = level_text(1 - verdict.level_of_each), level_text(verdict.error)
    return f" Each interval is at {each}, so that all hold together at {all_of_them}; p is adjusted alike (Bonferroni)."


def _comparison_cells(results: Results, c: Comparison) -> tuple[str, ...]:
    low, high = (results.metric.difference(end, "+", unit=False) for end in (c.low, c.high))
    return (
        c.method,
        _READINGS[c.decision],
        results.metric.difference(c.difference, "+", unit=False),
        f"{low} to {high}" if math.isfinite(c.low) else "–",
        multiple(c.steps_ratio),
        multiple(c.total_steps_ratio, c.total_steps_low, c.total_steps_high),
        "–" if math.isnan(c.p_value) else "< 0.001" if c.p_value < 0.001 else f"{c.p_value:.3f}",
        str(c.seeds),
    )


def _interval_figure(results: Results, verdict: Verdict) -> Html:
    scale, unit = results.metric.scale, ", points" if results.metric.is_accuracy else ""
    bounded = [c for c in verdict.comparisons if math.isfinite(c.low)]
    if not bounded:
        return Html("")
    figure = figures.intervals(
        [figures.Interval(c.method, scale * c.low, scale * c.difference, scale * c.high) for c in bounded],
        x_label=f"last {results.metric.name} minus {verdict.reference}'s{unit}",
        limit=scale * verdict.margin * (-results.metric.sign),
    )
    svg = figures.to_svg(figure, name="intervals", description=f"intervals of the differences from {verdict.reference}")
    side = "right" if results.metric.higher_is_better else "left"
    limit = "dashed line (the margin)" if verdict.margin else "line at zero"
    return html.figure(svg, f"A method whose whole interval lies {side} of the {limit} loses nothing that matters.")


def _figures(results: Results) -> Html:
    if not any(row.status != "diverged" for row in results.rows):
        return Html("")
    band = " The band is one standard deviation over seeds." if len(results.seeds) > 1 else ""
    by_stage = figures.to_svg(
        accuracy_figure(results), name="by-stage", description=f"{results.metric.name} by stage for each method"
    )
    blocks = [html.figure(by_stage, f"Test {results.metric.name} after each stage.{band}")]
    if all(row.steps > 0 for row in results.rows):
        by_cost = figures.to_svg(
            cost_figure(results), name="by-cost", description=f"{results.metric.name} against steps for each method"
        )
        caption = "The same against all steps so far: further left is cheaper, further up is better."
        if not results.metric.higher_is_better:
            caption = "The same against all steps so far: further left is cheaper, further down is better."
        blocks.append(html.figure(by_cost, caption))
    return html.side_by_side(*blocks)


def _sources(labels: Iterable[str]) -> list[str]:
    """The source of each method but DASH, once."""
    known = methods()
    kinds = dict.fromkeys(known.get(label.partition("[")[0]) for label in labels)
    return [f"{kind.name}: {kind.source}" for kind in kinds if kind is not None and kind.source and kind is not Dash]


def _guide(results: Results, verdict: Verdict) -> Html:
    several = (
        f", and to {level_text(verdict.error)} as seeds are added until the verdict is decided: the looks planned "
    )
    looks = f"{several}share the error of {100 * ERROR:.0f} %" if verdict.error < ERROR else ""
    return html.bullets(
        [
            "A stage is one arrival of data, followed by training on all data so far. Steps are optimizer "
            "updates, the measure of cost; what a method itself costs is `method_seconds` in `results.csv`.",
            f"An interval holds the differences from {verdict.reference} that the measurements do not exclude. It "
            "allows for the seeds (order of data and initialisation, paired between methods) and, where per-example "
            "scores are kept, for the choice of test examples. It is widened so that those of all methods hold together"
            f"{looks}.",
            "Recommended is the cheapest method, by steps over all stages, whose interval excludes a loss beyond the "
            f"margin of {results.metric.difference(verdict.margin)}, if it is shown to take fewer steps than "
            f"{verdict.reference}, or to have a better {results.metric.name} in no more. An interval on both sides of "
            "zero is no proof that there is no difference.",
            "It holds for this data, model and training. Without normalisation layers, or at learning rates so high "
            "that all methods are alike, DASH need not pay.",
            "The method: Shin, Oh, Cho, Yun, DASH: Warm-Starting Neural Network Training in Stationary Settings "
            "without Loss of Plasticity, NeurIPS 2024, https://arxiv.org/abs/2410.23495",
            *_sources(results.methods),
        ]
    )
