"""`warmstart theory`: what it writes, what it says, what it refuses."""

import csv
import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from PIL import Image

from commands import warmstart

SMALL = ["--features", 12, "--examples", 60, "--stages", 3, "--gamma", 5, "--tau", 2, "--seeds", 2]
DESCENT = ["--features", 6, "--examples", 10, "--stages", 2, "--filters", 3, "--seeds", 1, "--max-steps", 60]


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")


def table(file):
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_it_writes_a_table_figures_a_page_and_its_parameters(tmp_path, capfd):
    assert warmstart("theory", *SMALL, "--out", tmp_path) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert max(len(line) for line in out.splitlines() if not line.startswith("page: ")) <= 80
    assert f"page: {tmp_path / 'theory.html'}" in out
    assert all(method in out for method in ("cold", "warm", "ideal"))

    rows = table(tmp_path / "theory.csv")
    assert list(rows[0]) == [
        "method", "seed", "stage", "learned_features", "nonzero_gradient_examples", "memorised_examples",
        "test_accuracy",
    ]  # fmt: skip
    assert len(rows) == 3 * 2 * 3
    assert {row["nonzero_gradient_examples"] for row in rows if row["stage"] == "1"} == {"60"}
    settings = yaml.safe_load((tmp_path / "theory.yaml").read_text())
    assert (settings["gamma"], settings["seeds"], settings["max_probability"]) == (5, 2, 0.2)
    assert settings["recorded"]["warmstart"]
    with Image.open(tmp_path / "theory.png") as image:
        assert image.width > 3 * image.height


def test_a_second_start_gives_the_same_files(tmp_path):
    assert warmstart("theory", *SMALL, "--out", tmp_path) == 0
    first = {file.name: file.read_bytes() for file in tmp_path.glob("theory.*")}
    assert warmstart("theory", *SMALL, "--out", tmp_path) == 0
    assert first == {file.name: file.read_bytes() for file in tmp_path.glob("theory.*")}


def test_the_page_needs_no_network_and_holds_the_stream(tmp_path):
    assert warmstart("theory", *SMALL, "--out", tmp_path) == 0
    page = (tmp_path / "theory.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert "http" not in re.sub(r"http://www\.w3\.org/\S+", "", page)
    stream = json.loads(re.search(r'id="stream">(.*?)</script>', page)[1])
    rows = table(tmp_path / "theory.csv")
    for method in ("cold", "warm", "ideal"):
        learned = [int(row["learned_features"]) for row in rows if (row["method"], row["seed"]) == (method, "0")]
        steps = [len(stage) for stage in stream["steps"][method]]
        assert steps == (learned if method == "cold" else [b - a for a, b in zip([0, *learned], learned, strict=False)])


def test_a_long_stream_is_cut_so_that_the_page_stays_small(tmp_path):
    arguments = ["--features", 8, "--examples", 400_000, "--stages", 3, "--gamma", 400_000, "--seeds", 1]
    assert warmstart("theory", *arguments, "--out", tmp_path) == 0
    page = (tmp_path / "theory.html").read_text()
    assert "Of 3 stages the page holds the first 2." in page
    assert len(page) < 2_000_000


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_stepper_counts_what_the_framework_counts(tmp_path):
    """The page works out each state from the examples alone; here it must come to the counts of theory.csv."""
    assert warmstart("theory", *SMALL, "--out", tmp_path) == 0
    page = (tmp_path / "theory.html").read_text()
    stream = re.search(r'id="stream">(.*?)</script>', page)[1]
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    script = script.replace("  stage = Math.min(2, J);\n  show();\n", PROBE)
    assert "console.log" in script
    harness = f"const stream = {json.dumps(stream)};\n{STAND_IN}\n{script}"
    done = subprocess.run(["node", "-e", harness], capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    rows = [row for row in table(tmp_path / "theory.csv") if row["seed"] == "0"]
    for row in rows:
        start, counts, end = found[f"{row['method']} {row['stage']}"]
        assert start[0] == int(row["nonzero_gradient_examples"])
        assert end[2] == int(row["memorised_examples"])
        assert end[0] == 0
        assert all(seen == said for seen, said in counts)


STAND_IN = """
const element = () => ({ textContent: stream, addEventListener() {}, dataset: {}, setAttribute() {} });
globalThis.document = { getElementById: element, querySelectorAll: () => [], documentElement: {} };
globalThis.window = { addEventListener() {} };
globalThis.matchMedia = () => ({ addEventListener() {} });
"""
PROBE = """
  const found = {};
  for (method of ["cold", "warm", "ideal"])
    for (stage = 1; stage <= J; stage++) {
      const steps = data.steps[method][stage - 1], counts = [];
      step = 0;
      const start = look().totals;
      for (; step < steps.length; step++) {
        const [c, k, count] = steps[step];
        counts.push([look().counts[c * K + k], count]);
      }
      step = steps.length + 1;
      found[`${method} ${stage}`] = [start, counts, look().totals];
    }
  console.log(JSON.stringify(found));
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-probability", 1.5], "max_probability is 1.5; it must be a finite number, at least 0 and at most 1"),
        (["--max-probability", "nan"], "max_probability is nan; it must be a finite number, at least 0 and at most 1"),
        (["--max-probability", -0.1], "max_probability is -0.1"),
        (["--gamma", 1001], "gamma is 1001, more than the 1000 examples of a stage"),
        (["--gamma", 0], "gamma is 0; it must be at least 1"),
        (["--tau", 0], "tau is 0; it must be at least 1"),
        (["--tau", 51], "tau is 51, more than the 50 features"),
        (["--features", 0], "features is 0; it must be at least 1"),
        (["--classes", 1], "classes is 1; it must be at least 2"),
        (["--stages", 0], "stages is 0"),
        (["--seeds", 0], "seeds is 0; it must be at least 1"),
        (["--seeds", "x"], "Invalid value for '--seeds'"),
        (["--examples", 10**8], "need 250.0 GB, more than 2 GB; lower stages, examples or features"),
        (["--out", ""], "out is empty; name a folder such as out/theory"),
        (["--gama", 3], "No such option: --gama"),
        (["nonsense"], "No such command 'nonsense'"),
        (["--max-probability", 0.1, "gradient-descent"], "--max-probability stands before gradient-descent"),
        (["gradient-descent", "--noise", -1], "noise is -1.0"),
        (["gradient-descent", "--features", 25], "room for 24"),
        (["gradient-descent", "--max-probability", 2], "max_probability is 2.0; it must be a finite number"),
        (["gradient-descent", "--lr", 0], "lr is 0.0; it must be a finite number, above 0"),
        (["gradient-descent", "--momentum", 1], "momentum is 1.0"),
        (["gradient-descent", "--examples", 1], "each of 2 classes needs at least one"),
        (["gradient-descent", "--filters", 0], "filters is 0"),
        (["gradient-descent", "--filters", 10**20], "more than 2 GB; lower stages, examples or filters"),
        (["gradient-descent", "--examples", 10**20], "more than 2 GB; lower stages, examples or filters"),
        (["gradient-descent", "--seeds", 0], "seeds is 0; it must be at least 1"),
        (["--gamma", 3, "gradient-descent"], "--gamma stands before gradient-descent"),
        (["gradient-descent", "--out", " "], "out is empty; name a folder such as out/theory"),
        (["gradient-descent", "--methods", ","], "methods is empty; name at least one, such as cold,warm,dash"),
        (["gradient-descent", "--methods", "oracl"], "method 'oracl' is unknown; did you mean 'oracle'?"),
        (["gradient-descent", "--methods", "cold,dsh"], "method 'dsh' is unknown; did you mean 'dash'?"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(tmp_path, monkeypatch, capfd, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert warmstart("theory", *arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--gama", "3"], ["--gamma", "0"], ["gradient-descent", "--lr", "0"]], ids=" ".join
)
def test_help_and_a_wrong_flag_do_not_wait_for_heavy_imports(arguments):
    program = f"import sys; from warmstart.cli.app import run; run({['theory', *arguments]}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "warmstart.theory.settings" in loaded
    assert not loaded & {"torch", "numpy", "scipy", "matplotlib", "sklearn"}


def test_gradient_descent_writes_its_files_and_speaks_in_80_columns(tmp_path, capfd):
    assert warmstart("theory", "gradient-descent", *DESCENT, "--out", tmp_path) == 0
    out = capfd.readouterr().out
    assert max(len(line) for line in out.splitlines() if not line.startswith("page: ")) <= 80
    written = {file.name for file in tmp_path.iterdir() if not file.name.startswith(".")}
    assert written == {
        "gradient-descent.csv", "gradient-descent.yaml", "gradient-descent.png", "gradient-descent.html", "filters.csv",
        "features-and-noise.png"
    }  # fmt: skip
    methods = ["cold", "warm", "shrink-perturb", "shrink-perturb[noise_std=0.0]", "dash", "oracle"]
    assert list(dict.fromkeys(row["method"] for row in table(tmp_path / "gradient-descent.csv"))) == methods
    settings = yaml.safe_load((tmp_path / "gradient-descent.yaml").read_text())
    assert settings["methods"] == methods
    assert (settings["features"], settings["grid"], settings["seeds"]) == (6, 5, 1)
    page = (tmp_path / "gradient-descent.html").read_text()
    assert all(method in page.replace("<wbr>", "") for method in methods)
    assert "reached the limit of 60 steps" in page


@pytest.mark.parametrize("command", [["theory"], ["theory", "gradient-descent"]])
def test_help_fits_80_columns_and_has_examples(capfd, command):
    assert warmstart(*command, "--help") == 0
    shown = capfd.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count(" ".join(["warmstart", *command])) >= 3
    assert "\\[" not in shown
