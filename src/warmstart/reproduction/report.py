"""The report of a reproduction: table.md, report.html and figures, ours beside the published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from warmstart.evidence.diagnosis import diagnosis
from warmstart.evidence.figures import accuracy_figure, steps_figure
from warmstart.grids.shown_record import shown_record
from warmstart.reporting import figures, html, markdown
from warmstart.reporting.html import Html
from warmstart.reporting.terminal import Terminal
from warmstart.reproduction.against_published import QUANTITIES, FigurePair, orders, paired_figures
from warmstart.reproduction.manifest import reproduce_command, sessions_of
from warmstart.reproduction.published import MISPRINTS, PUBLISHED
from warmstart.reproduction.settings import ReproduceSettings, ReproductionRecord
from warmstart.runs.results import Results
from warmstart.storage.atomic import write_bytes, write_text

_PARTS = (("last_accuracy", "mean_accuracy"), ("last_steps", "mean_steps"))
_CAPTIONS = (
    "Test accuracy, mean (std) over seeds: ours, and as published in the paper's main table.",
    "Steps of a stage, in the same way.",
)
_SOURCE = "Shin et al., NeurIPS 2024, https://arxiv.org/abs/2410.23495, main table: ResNet-18, 50 stages"


class Tables:
    """A reproduction's measurements by optimizer, and the paper's figures for them."""

    def __init__(self, record: ReproductionRecord, results: Mapping[str, Results]) -> None:
        """Pair our figures with the published ones; results may be partial."""
        self.record, self.results = record, results
        self.same_settings = record.settings.is_the_papers and not record.notes
        """Whether the published figures are of exactly these settings, so that differences can be given."""
        published = PUBLISHED[record.settings.dataset]
        self.rows: dict[str, dict[str, dict[str, FigurePair]]] = {
            optimizer: {
                method: paired_figures(one, method, published.get((optimizer, method))) for method in one.methods
            }
            for optimizer, one in results.items()
        }

    @property
    def notes(self) -> list[str]:
        """What to know before reading the figures."""
        found = [*self._partial(), *self.record.notes]
        if not self.same_settings:
            found.append(
                "the published figures are of ResNet-18, the protocol incremental and all of the data: here only the "
                "order of the methods can be compared"
            )
        for (dataset, optimizer, method), note in MISPRINTS.items():
            if dataset == self.record.settings.dataset and method in self.rows.get(optimizer, {}):
                found.append(note)
        return found

    def _partial(self) -> list[str]:
        asked = self.record.settings.seeds
        lacking = [
            f"{optimizer} {method} {len(one.finished(method))} of {asked}"
            for optimizer, one in self.results.items()
            for method in one.methods
            if len(one.finished(method)) < asked
        ]
        return [f"partial: complete runs so far: {'; '.join(lacking)}"] if lacking else []

    def heads(self, part: Sequence[str]) -> tuple[str, ...]:
        """The heads of one of an optimizer's two tables; differences only with the paper's own settings."""
        return ("method", *(head for name in part for head in (QUANTITIES[name], *self._after_ours)))

    def cells(self, optimizer: str, part: Sequence[str]) -> list[tuple[str, ...]]:
        """The rows of one of an optimizer's two tables: a method, then each quantity as in `heads`."""
        return [
            (method, *(cell for name in part for cell in row[name].cells()[: 1 + len(self._after_ours)]))
            for method, row in self.rows[optimizer].items()
        ]

    @property
    def _after_ours(self) -> tuple[str, ...]:
        """The heads of the columns that follow ours."""
        return ("published", "difference") if self.same_settings else ("published",)

    def orders(self, optimizer: str) -> list[str]:
        """Whether the methods are in the paper's order, one sentence for each quantity."""
        return orders(self.rows[optimizer])


def write_report(tables: Tables, out: Path) -> None:
    """Write ``table.md``, ``report.html`` and the figures by stage."""
    write_text(out / "table.md", _markdown(tables))
    write_text(out / "report.html", _page(tables, out))
    for optimizer, results in tables.results.items():
        if results.rows:
            write_bytes(out / f"accuracy-{optimizer}.png", figures.to_png(accuracy_figure(results)))
            write_bytes(out / f"steps-{optimizer}.png", figures.to_png(steps_figure(results)))


def render_terminal(tables: Tables, terminal: Terminal) -> None:
    """Print the tables, at most 80 columns wide."""
    for optimizer in tables.results:
        for part in _PARTS:
            shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
            for index, head in enumerate(tables.heads(part)):
                head = optimizer if index == 0 else head.replace(" ", "\n", 1)
                shown.add_column(head, justify="left" if index == 0 else "right", overflow="fold")
            for method, *cells in tables.cells(optimizer, part):
                # Spreads and intervals below their figures: beside them they are wider than 80 columns.
                shown.add_row(method, *(cell.replace(" (", "\n(") if tables.same_settings else cell for cell in cells))
            terminal.print(shown)
        for sentence in tables.orders(optimizer):
            terminal.print(sentence)
        terminal.print()
    for note in tables.notes:
        terminal.print(f"- {note}", style="dim")


def _caption(tables: Tables) -> str:
    return (
        "Mean (standard deviation) over seeds, ours the sample's; last: the last stage, mean: over all stages. "
        + ("Difference: ours minus published, with its 95 % interval (Welch's). " if tables.same_settings else "")
        + f"Published: {_SOURCE}."
    )


def _title(settings: ReproduceSettings) -> str:
    return f"{settings.dataset}, {settings.protocol}, {settings.model}"


def _markdown(tables: Tables) -> str:
    lines = [f"# {_title(tables.record.settings)}", ""]
    for optimizer in tables.results:
        for part in _PARTS:
            lines.append(markdown.table((optimizer, *tables.heads(part)[1:]), tables.cells(optimizer, part)))
        lines += [*(f"- {markdown.sentence(order)}" for order in tables.orders(optimizer)), ""]
    lines += [_caption(tables), "", *(f"- {markdown.sentence(note)}" for note in tables.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _page(tables: Tables, out: Path) -> str:
    settings = tables.record.settings
    size = f"{settings.stages} stages of {settings.stage_size}"
    sections = [_optimizer_section(tables, optimizer) for optimizer in tables.results]
    return html.page(
        f"The paper's table again: {_title(tables.record.settings)}",
        f"{size} · {settings.seeds} seeds",
        [
            html.bullets(tables.notes),
            *sections,
            html.section("Sessions", _sessions(sessions_of(out))),
            html.section("How to read this", html.bullets(_guide(tables))),
            html.section("Configuration", *shown_record(tables.record, _how_to_repeat(tables.record))),
        ],
        footer="Written by warmstart. This file needs no network and no other file.",
    )


def _how_to_repeat(record: ReproductionRecord) -> str:
    return f"`{reproduce_command(record)}` repeats it."


def _optimizer_section(tables: Tables, optimizer: str) -> Html:
    results = tables.results[optimizer]
    blocks = [
        html.table(tables.heads(part), tables.cells(optimizer, part), caption=caption)
        for part, caption in zip(_PARTS, _CAPTIONS, strict=True)
    ]
    blocks.append(html.subsection("The order of the methods", html.bullets(tables.orders(optimizer))))
    if results.rows:
        band = " The band is one standard deviation over seeds." if len(results.seeds) > 1 else ""
        accuracy = figures.to_svg(
            accuracy_figure(results), name=f"accuracy-{optimizer}", description="accuracy by stage"
        )
        steps = figures.to_svg(steps_figure(results), name=f"steps-{optimizer}", description="steps by stage")
        blocks.append(
            html.subsection(
                "Stage by stage",
                html.side_by_side(
                    html.figure(accuracy, f"Test accuracy after each stage.{band}"),
                    html.figure(steps, f"Steps that each stage took.{band}"),
                ),
            )
        )
    return html.section(f"With {optimizer.upper()}", *blocks, *diagnosis(results, html.subsection))


def _guide(tables: Tables) -> list[str]:
    compared = (
        "A difference is ours minus the published figure, with Welch's 95 % interval: the published deviation is taken "
        "for the population's, of as many seeds as the steps' multiples suggest (5, of Tiny-ImageNet 3)."
        if tables.same_settings
        else "The settings are not the paper's, so its figures stand there for the order of the methods, not for their "
        "size."
    )
    return [
        "Each cell is the mean over seeds with the standard deviation in brackets: ours the sample's, the published "
        "one most likely the population's. Last is the last stage, mean is over all stages of a run. Steps are "
        "optimizer updates.",
        f"Published: {_SOURCE}.",
        compared,
        "Two methods count as the other way round only if the 95 % intervals of their differences, ours paired over "
        "seeds and the paper's by Welch's, both leave out 0; else they are too close to be ordered.",
    ]


def _sessions(sessions: Sequence[Mapping[str, Any]]) -> Html:
    if not sessions:
        return Html("")
    rows = [
        (
            one["started"],
            str(one["device"].get("name", one["device"]["kind"])),
            f"{one['wall_seconds']:,.0f} s",
            f"{one['joules'] / 1000:,.0f} kJ" if "joules" in one else "–",
            one["ended"],
        )
        for one in sessions
    ]
    head = ("started", "device", "wall time", "energy of the GPU", "ended")
    return html.table(head, rows, caption="Each start of the work; `manifest.json` has more.", text=True)
