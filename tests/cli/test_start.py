"""A start without waiting: what only answers imports nothing heavy, and a worker no more than training needs."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "scipy", "matplotlib", "sklearn", "pandas", "pyarrow", "datasets", "transformers"}
PROGRAM = """
import sys
from warmstart.cli.app import run
code = run(sys.argv[1:])
print(code, *sys.modules)
"""


def started(*arguments):
    """The exit code of a command, and the packages that it has imported."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    code, *modules = done.stdout.splitlines()[-1].split()
    return int(code), {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        *(
            [command, "--help"]
            for command in ("compare", "retrain", "reproduce", "predict", "theory", "report", "methods")
        ),
        ["theory", "gradient-descent", "--help"],
    ],
    ids=" ".join,
)
def test_what_only_answers_imports_nothing_heavy(arguments):
    code, imported = started(*arguments)
    assert code == 0
    assert not imported & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["compar"],
        ["compare", "--nonsense"],
        ["compare", "--lr", "0"],
        ["compare", "--optimizer", "sdg"],
        ["compare", "--stages", "many"],
        ["reproduce", "cifar-10"],
        ["predict", "photos"],
        ["predict", "photos", "--state", "state", "--out", "table.xlsx"],
        ["theory", "--gama", "3"],
        ["retrain", "--state", "x", "--data", "y", "--lr", "0"],
        ["retrain", "--state", "x", "--check", "--status"],
        ["report"],
        ["methods", "--dash"],
    ],
    ids=" ".join,
)
def test_what_is_wrong_is_said_before_anything_heavy_is_imported(arguments):
    code, imported = started(*arguments)
    assert code == 2
    assert not imported & HEAVY


def test_the_list_of_methods_needs_no_more_than_torch():
    code, imported = started("methods")
    assert code == 0
    assert imported & HEAVY <= {"torch", "numpy"}


def test_the_face_is_there_before_torch_is():
    program = "import sys, warmstart as ws; print(*sys.modules); print(*dir(ws)); ws.dash_; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules, names, modules_now = done.stdout.splitlines()
    assert not {module.partition(".")[0] for module in modules.split()} & HEAVY
    assert {"dash_", "Dash", "compare"} <= set(names.split())
    assert "torch" in modules_now.split()
