import pytest
from typer.main import get_command

import warmstart as ws
from commands import warmstart
from warmstart.cli.app import make_app
from warmstart.methods.registry import methods


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")


NAMES = list(get_command(make_app()).commands)


@pytest.mark.parametrize("command", [[], *([name] for name in NAMES), ["theory", "gradient-descent"]])
def test_a_flag_without_a_value_shows_no_type(capfd, command):
    assert warmstart(*command, "--help") == 0
    shown = capfd.readouterr().out
    assert "<bool>" not in shown
    assert "--help" in shown


@pytest.mark.parametrize("command", [[], *([name] for name in NAMES)])
def test_help_fits_80_columns_and_every_command_has_an_example(capfd, command):
    assert warmstart(*command, "--help") == 0
    shown = capfd.readouterr().out

    assert max(map(len, shown.splitlines())) <= 80
    assert f"Usage: {' '.join(['warmstart', *command])}" in shown
    if command:
        assert "Example" in shown
        assert shown.count(f"warmstart {command[0]}") >= 2  # the usage, and an example
    else:
        assert all(name in shown for name in NAMES)


def test_the_help_of_compare_names_every_key_with_its_default(capfd):
    from warmstart.comparison.settings import CompareSettings

    assert warmstart("compare", "--help") == 0
    shown = " ".join(capfd.readouterr().out.replace("│", " ").split())

    for name, setting in CompareSettings.described().items():
        field = CompareSettings.model_fields[name]
        assert f"--{name.replace('_', '-')}" in shown
        default = ("yes" if field.default else "no") if field.annotation is bool else field.default
        text = ",".join(default) if isinstance(default, tuple) else str(default).removesuffix(".0")
        assert f"[default: {setting.default or ('none' if text in ('', 'None') else text)}]" in shown, name
    assert "dash[alpha=0.1]" in shown  # brackets are not taken for markup


def test_the_help_names_every_network():
    from warmstart.grids.settings import ImageGridSettings
    from warmstart.models.registry import networks

    assert all(name in ImageGridSettings.setting("model").help for name in networks())


def test_no_command_shows_the_help(capfd):
    assert warmstart() == 0
    assert "Usage: warmstart" in capfd.readouterr().out


def test_version(capfd):
    assert warmstart("--version") == 0
    assert capfd.readouterr().out == f"warmstart {ws.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compar"], "No such command 'compar'. Did you mean 'compare'?"),
        (["--nonsense"], "No such option: --nonsense"),
        (["report"], "Missing argument 'DIR'"),
        (["methods", "dsh"], "method 'dsh' is unknown; did you mean 'dash'?"),
        (["methods", "nowhere:Mine"], "method 'nowhere:Mine': no module named nowhere"),
    ],
)
def test_a_usage_error_is_one_line_and_2(capfd, arguments, message):
    assert warmstart(*arguments) == 2
    err = capfd.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_methods_lists_each_with_what_it_does_its_settings_and_its_source(capfd):
    assert warmstart("methods") == 0
    lines = capfd.readouterr().out.splitlines()

    assert max(map(len, lines)) <= 80
    names = [line for line in lines if line and not line.startswith(" ")]
    assert names == list(methods())
    text = " ".join(" ".join(lines).split())
    for kind in methods().values():
        assert " ".join(kind.summary.split()) in text
        assert " ".join(kind.source.split()) in text
    assert "alpha=0.3, lambda=0.3" in text
    for kind in methods().values():  # one variant each, or all of them
        assert all(f"variant {variant}: {definition}" in text for variant, definition in kind.variants.items())
        if "variant" in kind().settings():
            assert {str(kind(variant=variant).settings()["variant"]) for variant in kind.variants} == set(kind.variants)


def test_methods_explains_ones_own_as_compare_names_it(capfd, tmp_path, monkeypatch):
    (tmp_path / "own_fade.py").write_text(
        "from dataclasses import dataclass\nfrom typing import Annotated, ClassVar\nimport warmstart as ws\n"
        "from warmstart.setting import Setting\n\n@dataclass(frozen=True)\nclass Fade(ws.Method):\n"
        "    share: Annotated[float, Setting('Of what is kept', at_least=0, below=1)] = 0.5\n    plain: int = 3\n"
        "    name: ClassVar[str] = 'fade'\n    summary: ClassVar[str] = 'let all [weights] fade'\n"
    )
    monkeypatch.chdir(tmp_path)

    assert warmstart("methods", "own_fade:Fade", "own_fade:Fade[share=0.25]") == 0

    lines = [line.strip() for line in capfd.readouterr().out.splitlines()]
    assert lines[:2] == ["own_fade:Fade", "let all [weights] fade"]
    assert lines[2:4] == ["share=0.5: Of what is kept (at least 0 and below 1)", "plain=3"]
    assert "own_fade:Fade[share=0.25]" in lines
    assert "share=0.25: Of what is kept (at least 0 and below 1)" in lines


def test_methods_explains_the_settings_of_those_that_are_named(capfd):
    assert warmstart("methods", "redo", "hare-tortoise") == 0
    lines = capfd.readouterr().out.splitlines()

    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert text.startswith("redo redraw dormant units")
    assert "tau=0.025: Share of the layer's mean activity" in text
    assert "is dormant (at least 0; tuned over 0.01 to 0.5)" in text
    assert "measure=slow: The network that is measured and served; the paper evaluates both (slow, fast)" in text
    assert "shrink-perturb" not in text
