"""Without a framework its callback says how to install it, and all else works."""

import importlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize("framework", ["lightning", "transformers"])
def test_a_missing_framework_gives_the_install_line(framework, monkeypatch):
    packages = (framework, "pytorch_lightning")  # Lightning comes in either
    for name in [name for name in sys.modules if name.split(".")[0] in packages]:
        monkeypatch.delitem(sys.modules, name)
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"warmstart.integrations.{framework}", raising=False)
    with pytest.raises(ImportError, match=f"pip install {framework}"):
        importlib.import_module(f"warmstart.integrations.{framework}")


def test_the_plain_one_needs_torch_alone():
    code = "import sys, warmstart.integrations; print({'lightning', 'transformers', 'accelerate'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
