"""What becomes of the readers of a command's output, and of the names in it."""

import os
import subprocess
import sys

import pytest

from commands import SMALL, rows, warmstart

COMMAND = [sys.executable, "-m", "warmstart"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="pipes and descriptors are POSIX's")


def shell(script, *arguments, **environment):
    """Run a script of bash, in which "$@" is a command of ours."""
    return subprocess.run(
        ["bash", "-c", script, "bash", *COMMAND, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    out = tmp_path_factory.mktemp("comparison") / "out"
    flags = [*SMALL, "--seeds", 1, "--max-epochs", 1, "--methods", "cold,dash", "--jobs", 1, "--out", out]
    done = shell('"$@" | true; echo ${PIPESTATUS[0]}', "compare", *flags)
    assert done.stdout == b"0\n"
    return out, flags


@posix
def test_the_work_is_done_whether_or_not_anybody_reads(comparison):
    out, _ = comparison
    assert len(rows(out)) == 2 * 2
    assert (out / "report.html").exists()


@posix
@pytest.mark.parametrize("script", ['"$@" | true', '"$@" 2>&- | head -1', '"$@" >&- 2>&- <&-'])
@pytest.mark.parametrize("command", ["--help", "methods", "theory", "compare", "report"])
def test_a_reader_that_has_seen_enough_is_no_error(comparison, tmp_path, script, command):
    out, flags = comparison
    others = {"theory": ["--stages", 2, "--seeds", 1, "--out", tmp_path], "compare": flags, "report": [out]}
    done = shell(f"exec 3>&1; ({script}; exit ${{PIPESTATUS[0]}}); echo code $? >&3", command, *others.get(command, []))
    assert done.stdout.endswith(b"code 0\n")
    assert not any(word in done.stderr for word in (b"warmstart:", b"Error", b"ignored"))


@posix
@pytest.mark.parametrize("script", ['"$@" 2>&1 | true', '"$@" 2>&-', '"$@" >&- 2>&-'])
def test_an_error_that_nobody_reads_keeps_its_code(script):
    done = shell(f"({script}; exit ${{PIPESTATUS[0]}}); echo code $?", "compare", "--nonsense")
    assert done.stdout == b"code 2\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_output_that_cannot_be_written_is_an_error_at_the_end():
    done = shell('"$@" > /dev/full', "methods")
    assert done.returncode == 1
    message = "the work is done, but not all of the output could be written: No space left on device"
    assert done.stderr.decode() == f"warmstart: {message}\n"


@posix
def test_a_closed_stdout_does_not_lead_into_a_file():
    program = "from warmstart.cli.output import *; use_lasting_streams(); f = open('/dev/zero'); print(f.fileno() > 2)"
    script = f'{sys.executable} -c "{program}; sys.stderr.write(str(f.fileno()))" >&-'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stderr) > 2


ODD = "a\x1b[31mb\x9b2Jc\u202ed\re\nf\x07g"


GIVEN = os.fsdecode(ODD.encode() + b"\xff")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["compare"],
        *(["compare", flag] for flag in ("--data", "--methods", "--model", "--stages", "--device")),
        ["theory", "gradient-descent", "--methods"],
        ["reproduce"],
        ["report"],
    ],
    ids=" ".join,
)
def test_what_is_given_does_nothing_in_a_terminal(arguments, capfd):
    assert warmstart(*arguments, GIVEN) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.isprintable()


@posix
@pytest.mark.parametrize("environment", [{}, {"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}], ids=str)
def test_nor_does_it_in_any_encoding(environment):
    done = shell('"$@"', "compare", "--data", GIVEN, **environment)
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.isprintable()
