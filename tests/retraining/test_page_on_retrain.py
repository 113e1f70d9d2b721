"""docs/retrain.md, and docs/operating.md after it: their commands run, one after the other."""

import re
import runpy
import shlex
import sys
from pathlib import Path

from commands import warmstart

DOCS = Path(__file__).parents[2] / "docs"
PAGES = "".join((DOCS / name).read_text() for name in ("retrain.md", "operating.md"))


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES, re.MULTILINE | re.DOTALL)


def test_the_page_runs_from_an_empty_folder_to_a_rollback(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    script, use = blocks("python")
    Path("arrive.py").write_text(script)
    shown = [block for block in blocks("sh") if "arrive.py" in block or "--rollback" in block]
    assert len(shown) == 2
    for line in "".join(shown).splitlines():
        program, *words = shlex.split(line, comments=True)
        if program == "python":
            monkeypatch.setattr(sys, "argv", words)
            runpy.run_path(words[0])
        else:
            assert warmstart(*words) == 0, line
    out, err = capsys.readouterr()
    assert "nothing new to train on in photos/: the model of stage 2 stays in service" in err
    assert err.endswith("the model of stage 2 is in service; stage 1 was\n")
    assert "6 files checked: all whole" in out
    exec(use, {})
    assert re.fullmatch(r"\['\d'\]\n", capsys.readouterr().out)
