import io
import math
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from made_up import HERE, PAPER, change, drop, make_record, make_results
from warmstart.comparison.report import render_terminal, write_report
from warmstart.comparison.settings import CompareSettings, FunctionSettings, FunctionsRecord
from warmstart.evidence.figures import accuracy_figure
from warmstart.evidence.sequential import look
from warmstart.evidence.verdict import judge
from warmstart.reporting.terminal import Terminal
from warmstart.runs.metric import Metric

CONTROL = "shrink-perturb[noise_std=0]"
VOID = {"meta", "br", "wbr", "path", "use", "rect"}


class Page(HTMLParser):
    """What a browser would find: the text, the ids, what is referred to, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.sources, self.text = [], [], [], ""
        self.feed(text)
        assert self.open == [], "unclosed tags"

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        found = dict(attrs)
        if "id" in found:
            self.ids.append(found["id"])
        self.sources += [(tag, found[key]) for key in ("src", "href", "xlink:href") if key in found]

    def handle_startendtag(self, tag, attrs):
        if tag in VOID:
            self.handle_starttag(tag, attrs)
        else:
            self.handle_starttag(tag, attrs)
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def report(results, folder, record=None, **settings):
    record = record or make_record(results, **settings)
    verdict = judge(results, margin=record.settings.margin)
    write_report(results, verdict, record, folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    return verdict, text, " ".join(Page(text).text.split())


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return report(make_results((*PAPER, CONTROL)), tmp_path_factory.mktemp("full"))


def test_the_page_is_one_file_with_unique_ids_that_all_resolve(full):
    _, html, _ = full
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    for tag, target in page.sources:
        if target.startswith("#"):
            assert target[1:] in page.ids
        else:
            assert tag == "a"
            assert target.startswith("https://")
    for used in re.findall(r"url\(([^)]*)\)", html):
        assert used.startswith("#")
        assert used[1:] in page.ids
    assert "<script" not in html
    assert "@import" not in html


def test_it_follows_the_scheme_and_adapts_to_phone_and_print(full):
    _, html, _ = full
    assert 'name="viewport"' in html
    assert '<html lang="en">' in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert "currentColor" in html
    assert "#010203" not in html
    assert html.count('role="img" aria-label="') == 4


def test_it_states_verdict_table_and_intervals(full):
    verdict, _, text = full
    assert verdict.sentence in text
    for comparison in verdict.comparisons:
        low, high = (f"{100 * end:+.1f}" for end in (comparison.low, comparison.high))
        assert f"{low} to {high}" in text
    assert "last accuracy %" in text
    assert "torch2.13.0" in text
    assert "https://arxiv.org/abs/2410.23495" in text
    assert "DASH's scales by layer" in text
    assert "share at 0.3" in text


def lines_of(results):
    """Each line of a figure: name, colour and marker, in the order of the legend."""
    lines = accuracy_figure(results).axes[0].lines
    return [(line.get_label(), line.get_color(), line.get_marker()) for line in lines]


def test_a_methods_colour_does_not_change_with_its_rank():
    worst = make_results(levels={"dash": (0.5, 61)})
    assert lines_of(worst) == lines_of(make_results())
    assert [name for name, *_ in lines_of(make_results(("dash", "cold", "warm")))] == ["cold", "dash", "warm"]


def test_it_gives_the_command_that_repeats_it_and_the_changed_settings_first(tmp_path):
    results = make_results(("cold", CONTROL), stages=3)
    record = make_record(results, data="my photos/", lr=0.1)
    _, html, text = report(results, tmp_path, record)
    words = re.search(r"warmstart (compare .*) repeats it\.", text)[1]
    program, *flags = shlex.split(words)
    given = {flag[2:].replace("-", "_"): value for flag, value in zip(flags[::2], flags[1::2], strict=True)}
    assert program == "compare"
    assert CompareSettings.of(given) == record.settings
    keys = re.findall(r'<tr><th scope="row">(\w+)', html.split("Configuration")[1])
    assert keys[:3] == ["data", "stages", "lr"]
    assert {*keys[3:6]} == {"methods", "device", "threads"}
    assert keys.index("lr") < keys.index("model") < keys.index("torch")
    assert not {"jobs", "executor", "ray_address", "track", "image_size", "out"} & set(keys)
    assert ">None<" not in html


@pytest.mark.parametrize("called", ["ws.compare", "ws.compare_images"])
def test_no_command_repeats_what_was_started_from_python(tmp_path, called):
    results = make_results()
    if called == "ws.compare":
        given = {
            "data": "mine",
            "model": "Mine",
            "methods": results.methods,
            "seeds": tuple(results.seeds),
            "stages": 6,
        }
        settings = FunctionSettings.of({**given, "device": "cpu", "threads": 1})
        fingerprints = {"data_fingerprint": "f00d", "model_fingerprint": "beef"}
        record = FunctionsRecord(settings=settings, provenance=HERE, **fingerprints)
    else:
        record = make_record(results).model_copy(update={"called": called})
    _, _, text = report(results, tmp_path, record)
    assert f"It was started from Python, with {called}." in text
    assert "warmstart compare" not in text


def test_the_control_shows_what_direction_adds(full, tmp_path):
    _, _, text = full
    assert f"dash minus {CONTROL}, last accuracy: +" in text
    same = make_results((*PAPER, CONTROL), levels={CONTROL: (0.975, 61)}, test_size=300)
    assert "not shown to come from its direction" in report(same, tmp_path)[2]
    _, _, without = report(make_results(), tmp_path)
    assert f"run the same command with {CONTROL} among the methods" in without
    _, _, no_dash = report(make_results(("cold", "warm")), tmp_path)
    assert CONTROL not in no_dash


def test_every_interval_says_the_level_that_the_looks_leave_it(tmp_path):
    results = make_results((*PAPER, CONTROL))
    found = look(results, (5, 10, 20), margin=0.005)
    write_report(found.results, found.verdict, make_record(results, max_seeds=20), tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    text = " ".join(Page(html).text.split())
    assert found.verdict.sentence in text
    assert "(99.3 % interval" in found.verdict.sentence
    assert "99.3 % interval" in text.split("Against cold")[1].split("steps, last stage")[0]
    assert re.search(rf"dash minus {re.escape(CONTROL)}.*\(99\.3 % interval", text)
    assert "p is that of a loss of exactly the margin, 0.5 points; it is at most 0.00714 where" in text
    assert "to 99.3 % as seeds are added until the verdict is decided" in text
    assert "Look 1 of 3, 5 seeds: decided." in text
    assert "--max-seeds 20" in text
    assert "95 %" not in text + (tmp_path / "table.md").read_text(encoding="utf-8")


def test_table_is_mean_and_sample_std_over_seeds(tmp_path):
    results = make_results(("cold", "dash"), seeds=3, stages=2)
    for seed, (first, last) in enumerate([(0.5, 0.90), (0.6, 0.92), (0.7, 0.94)]):
        change(results, "cold", seed=seed, stage=1, test_accuracy=first, steps=10)
        change(results, "cold", seed=seed, stage=2, test_accuracy=last, steps=100 + 10 * seed)
    report(results, tmp_path)
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        "method", "last accuracy %", "last steps", "mean accuracy %", "mean steps",
    ]  # fmt: skip
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == [
        "cold", "92.00 (2.00)", "110 (10)", "76.00 (6.00)", "60 (5)",
    ]  # fmt: skip


def test_recalibrated_accuracy_stands_beside_the_plain_one_only_with_batch_norm(tmp_path):
    results = make_results(("cold", "dash"))
    change(results, "cold", test_accuracy=0.90, recalibrated_test_accuracy=0.93)
    _, _, text = report(results, tmp_path)
    assert "+3.00 (0.00)" in text
    _, _, text = report(make_results(batch_norm=False), tmp_path)
    assert "recalibrated" not in text


def test_too_few_updates_for_running_statistics_are_warned_of(tmp_path):
    results = make_results(("cold", "dash"))
    for method in results.methods:
        change(results, method, steps=22)
    assert "running statistics could follow" not in report(results, tmp_path)[2]
    change(results, "dash", stage=6, steps=15)
    _, _, text = report(results, tmp_path)
    assert "dash (5 of 30). After 15, the fewest, 21% of the statistics" in text
    change(results, "dash", recalibrated_test_accuracy=math.nan)
    assert "running statistics could follow" not in report(results, tmp_path)[2]


def test_partial_and_diverged_runs_are_shown_as_such(tmp_path):
    results = make_results()
    drop(results, "dash", seed=4, after=3)
    change(results, "warm", seed=1, stage=4, status="diverged", test_accuracy=math.nan)
    change(results, "cold", stage=5, status="max-epochs")
    _, _, text = report(results, tmp_path)
    assert "So far (19 of 20 runs)" in text
    assert "dash: 1 of 5 seeds not finished" in text
    assert "warm diverged in 1 of 5 seeds" in text
    assert "over 4 to 5 seeds" in text
    assert "cold: in 5 of 30 stages the stopping rule never held" in text


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_a_comparison_that_has_hardly_begun_can_be_reported(rows, tmp_path):
    results = make_results()
    for place, (method, seed) in enumerate(results.runs):
        drop(results, method, seed=seed, after=rows - results.stages * place)
    verdict, _, text = report(results, tmp_path)
    assert verdict.recommended is None
    assert verdict.sentence in text


def test_every_run_diverged_can_be_reported(tmp_path):
    results = make_results(("cold", "dash"), stages=1)
    for method in results.methods:
        change(results, method, status="diverged", test_accuracy=math.nan)
    assert "cold itself diverged in 5 of 5 seeds" in report(results, tmp_path)[2]


def test_text_from_outside_is_escaped(tmp_path):
    results = make_results(("cold", "dash"))
    name = 'my[note="<b>&"]'
    change(results, "cold", data="<img src=x onerror=alert(1)>")
    results = results.under({"cold": "cold", name: "dash"})
    record = make_record(results, methods="cold", data="<script>alert(1)</script>")
    _, html, text = report(results, tmp_path, record)
    assert "<script>" not in html
    assert "<img" not in html
    assert "<b>" not in html
    assert name in text


def test_large_grids_and_any_metric(tmp_path):
    methods = ["cold", "dash", *(f"shrink-perturb[variant=hare-tortoise,shrink=0.{i}]" for i in range(10))]
    results = make_results(methods, seeds=1, stages=50, test_size=50)
    results = replace(results, metric=Metric("error", higher_is_better=False))
    for method in methods:
        change(results, method, steps=0)
    _, _, text = report(results, tmp_path)
    assert "last error" in text
    assert "accuracy" not in text.split("How to read this")[0]
    assert "further left is cheaper" not in text


def test_terminal_fits_80_columns_and_ends_with_the_verdict():
    methods = [
        *PAPER,
        "shrink-perturb[variant=hare-tortoise]",
        "dash[alpha=0.1,lambda_=0.05]",
        "self-normalized-resets",
    ]
    results = make_results(methods, levels={"cold": (0.9, 30237)})
    verdict = judge(results)
    console = Terminal(width=80, record=True, file=io.StringIO())
    render_terminal(results, verdict, console)
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "[variant=hare-tortoise]" in text
    assert "…" not in text
    assert " ".join(text.split()).endswith(verdict.sentence + "".join(f" - {note}" for note in verdict.notes))
