import re
import subprocess
import sys

import pytest

from warmstart.errors import InputError
from warmstart.importing import import_named


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_name_in_a_package_of_the_current_folder(folder):
    (folder / "my_nets").mkdir()
    (folder / "my_nets" / "wide.py").write_text("answer = 42")

    assert import_named("my_nets.wide:answer", "model") == 42


def test_the_current_folder_does_not_hide_packages_that_are_imported_later(folder):
    (folder / "my_factory.py").write_text("make = dict")
    (folder / "colorsys.py").write_text("mine = True")  # stands for the user's own datasets.py

    import_named("my_factory:make", "model")

    check = "import sys; sys.path[:] = {path!r}; import colorsys; print(hasattr(colorsys, 'mine'))"
    done = subprocess.run(
        [sys.executable, "-c", check.format(path=sys.path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
    assert sys.path[-1] == str(folder)  # and what the module imports when it is called is found


@pytest.mark.parametrize("reference", ["net.py:make", "folder/net:make", "net:", ":make", "net:make()", "a..b:c"])
def test_another_form_is_refused(reference):
    with pytest.raises(InputError, match=r"not of the form pkg\.module:name"):
        import_named(reference, "model")


def test_a_missing_module_says_where_it_was_sought(folder):
    with pytest.raises(InputError, match=f"model 'nowhere:make': no module named nowhere in {re.escape(str(folder))}"):
        import_named("nowhere:make", "model")


def test_a_missing_package_around_a_module_is_the_one_named(folder):
    (folder / "outer").mkdir()

    with pytest.raises(InputError, match=r"no module named outer\.inner"):
        import_named("outer.inner.deep:make", "model")


def test_what_the_module_itself_misses_is_told_apart(folder):
    (folder / "needs_more.py").write_text("import absent_dependency")

    with pytest.raises(InputError, match=r"needs_more needs a module that is missing: .*absent_dependency"):
        import_named("needs_more:make", "model")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def make(:", "importing broken raised SyntaxError"),
        ("raise RuntimeError('two\\nlines')", "importing broken raised RuntimeError: two lines$"),
        ("raise SystemExit(2)", "importing broken raised SystemExit"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_clear_line(folder, source, message):
    (folder / "broken.py").write_text(source)

    with pytest.raises(InputError, match=message) as caught:
        import_named("broken:make", "model")
    assert "\n" not in str(caught.value)


def test_a_missing_name_gets_the_nearest_one(folder):
    (folder / "has_names.py").write_text("def make_net(): ...")

    with pytest.raises(InputError, match=r"has_names has no 'makenet'; did you mean 'make_net'\?"):
        import_named("has_names:makenet", "method")


def test_a_missing_name_in_an_empty_module(folder):
    (folder / "has_nothing.py").write_text("")

    with pytest.raises(InputError, match=r"has_nothing has no 'make'$"):
        import_named("has_nothing:make", "model")
