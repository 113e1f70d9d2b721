"""`warmstart retrain` on the command line: its answers, exit codes, and what it shows in 80 columns."""

import re

import pytest

from commands import warmstart
from nights import arrive

FAST = ["--epochs", 2, "--lr", 0.01, "--device", "cpu", "--threads", 1]


@pytest.fixture
def call(tmp_path, capsys):
    """Call the command on a folder of digits; its exit code, output and errors."""
    arrive(tmp_path / "data", 0, 60)

    def called(*arguments, data=tmp_path / "data"):
        flags = ["--state", tmp_path / "state", *arguments]
        code = warmstart("retrain", *(["--data", data, *FAST] if data else []), *flags)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    called.data, called.state = tmp_path / "data", tmp_path / "state"
    return called


def test_a_first_night_a_second_one_and_nothing_new(call):
    code, _, err = call()
    assert code == 0
    assert [line.partition(":")[0] for line in err.splitlines()] == ["stage 1"] * 2 + ["stage 1 is promoted"]

    arrive(call.data, 60, 75)
    code, _, err = call("--promote", "always")
    assert code == 0
    assert "stage 2 is promoted" in err

    code, _, err = call()
    assert (code, err) == (0, f"nothing new to train on in {call.data}: the model of stage 2 stays in service\n")


def test_a_rejected_candidate_is_one_line_and_code_one(call):
    call()
    arrive(call.data, 60, 75)
    code, _, err = call("--lr", 30)
    assert code == 1
    last = err.splitlines()[-1]
    assert last.startswith("warmstart: stage 2 is rejected: worse than current by more than the margin of 0.5 points")
    assert "the model of stage 1 stays in service" in last


def test_the_history_fits_into_80_columns_and_says_why(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    call()
    arrive(call.data, 60, 75)
    call("--lr", 30)
    (call.data / "1" / "bad.png").write_text("no image")
    arrive(call.data, 75, 90)
    call("--promote", "always", "--cold-every", 2, "--max-bad", "10%")
    call("--withdraw", 1, data=None)

    code, out, _ = call("--status", data=None)

    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    numbered = [line.split() for line in out.splitlines() if line[:1].isdigit()]
    assert [line[0] for line in numbered] == ["1", "2", "3*"]
    assert [line[3] for line in numbered] == ["promoted", "rejected", "promoted"]
    told = " ".join(out.split())
    assert "stage 2 was rejected: worse than current" in told
    assert "left out since stage 3: 1/bad.png: not an image" in told
    assert "stage 3: trained from scratch" in told
    assert re.search(r"on \d\d-\d\d \d\d:\d\d: 60 examples of stage 1 withdrawn", told)

    (call.data / "1" / "bad.png").unlink()
    call()
    assert "left out" not in call("--status", data=None)[1]


def test_the_report_is_one_file_that_refers_to_nothing(call):
    call()
    arrive(call.data, 60, 75)
    call("--promote", "always")
    code, out, _ = call("--report", data=None)
    assert code == 0
    assert out == f"report: {call.state / 'report.html'}\n"
    page = (call.state / "report.html").read_text()
    assert "The model of stage 2 is in service" in page
    assert "<svg" in page
    assert "http://www.w3.org" in page
    assert "<script" not in page
    assert 'src="' not in page


def test_check_and_rollback(call):
    call()
    arrive(call.data, 60, 75)
    call("--promote", "always")
    assert call("--check", data=None)[:2] == (0, "6 files checked: all whole\n")
    code, _, err = call("--rollback", data=None)
    assert (code, err) == (0, "the model of stage 1 is in service; stage 2 was\n")
    assert call("--rollback", 2, data=None)[0] == 0

    (call.state / "models/0001/weights.safetensors").write_bytes(b"")
    code, out, err = call("--check", data=None)
    assert code == 1
    assert "models/0001/weights.safetensors: damaged" in out
    assert err.endswith("1 fault found\n")  # and no call would go on from there


def test_withdraw_erase_and_readmit(call):
    call()
    arrive(call.data, 60, 75)
    call("--promote", "always")
    three = next(iter(sorted((call.data / "3").iterdir())))
    code, _, err = call("--withdraw", 2, "--withdraw", three, "--erase", data=None)
    assert code == 0
    assert err.startswith("16 examples of stages 1, 2 withdrawn: ")
    assert err.splitlines()[-1] == "erased from the data of stages 1, 2; their weights are as they were"
    code, _, err = call("--readmit", three, data=None)
    assert (code, err) == (0, "1 example readmitted: what lies in the data folder arrives with the next call\n")
    code, _, err = call("--readmit", three, data=None)
    assert code == 2
    assert f"{three}: 1 image, none of which has arrived in {call.state}" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--status", "--check"], "--status and --check exclude each other"),
        (["3"], "3 is a stage for --rollback"),
        (["--rollback", "--withdraw", "3"], "--rollback and --withdraw exclude each other"),
        (["--withdraw", "3"], "holds no state"),
        (["--readmit", "3", "--erase"], "--erase says what --withdraw does"),
        ([], "name the images that arrive with --data PATH"),
        (["--status"], "holds no state"),
        (["--rollback"], "holds no state"),
        (["--data", "nowhere"], "nowhere: no such file or folder"),
        (
            ["--data", "x", "--max-churn", "200%"],
            "max_churn is 2.0; it must be a finite number, at least 0",
        ),
        (["--data", "x", "--max-bad", "1"], "max_bad is '1'; write 1%, or a share such as 0.01"),
        (["--data", "x", "--max-churn", "2"], "max_churn is '2'; write 2%, or a share such as 0.01"),
        (["--data", "x", "--method", "dsh"], "method 'dsh' is unknown"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_line_and_code_two(call, arguments, message):
    code, _, err = call(*arguments, data=None)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not call.state.exists()


def test_a_state_is_named(capsys):
    assert warmstart("retrain", "--data", "x") == 2
    assert capsys.readouterr().err == "warmstart: name the folder of the state with --state DIR\n"


def test_the_history_shows_the_year_of_what_is_older(call, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1.6e9)  # September 2020
    call()
    out = call("--status", data=None)[1]
    assert "2020-09-13" in out
