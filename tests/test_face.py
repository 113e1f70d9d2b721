"""What `import warmstart` gives, and that it needs torch alone."""

import importlib.metadata
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import warmstart as ws

WITH_TORCH_ALONE = """
import sys

class Without:
    # To this finder blocked packages do not exist: they can neither be imported nor, as torch does, looked for.
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in BLOCKED else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]

import torch
from torch import nn
from torch.nn.functional import cross_entropy
import warmstart as ws
from warmstart.layers.units import units
from warmstart.methods.registry import methods

def network():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

model, batches = network(), [(torch.randn(16, 4), torch.randint(0, 3, (16,))) for _ in range(3)]
first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batches[0]), 4, shuffle=True)

reports = [ws.dash_(model, batches, cross_entropy), ws.dash_(model, ws.oldest_first(loader), cross_entropy)]
ema = ws.GradientEMA(model)
cross_entropy(model(batches[0][0]), batches[0][1]).backward()
ema.update()
reports.append(ws.dash_from_(model, ema))
reports += [ws.shrink_perturb_(model), ws.shrink_perturb_(model, variant="ash", other=network())]
reports += [ws.cold_(model, network(), optimizer=optimizer), ws.warm_(model), ws.warm_reset_(model, optimizer)]
reports.append(ws.head_reset_(model, "3"))
ws.l2_init_(model, first)
stage = ws.Stage(
    number=2, seen=48, new=16, batches=lambda size: batches,
    forward_loss=lambda m, b: cross_entropy(m(b[0]), b[1]),
    fresh=network, initial=first, generator=torch.Generator(), optimizer=optimizer,
    units=lambda: units(model, lambda: model(batches[0][0]))[0],
)
for name in methods():
    reports.append(ws.parse_method(name).on_new_data(model, stage))
for report in reports:
    assert str(report) and report.to_dict()
for lab, kind in ((lambda: ws.compare, AttributeError), (reports[0].figure, ImportError)):
    try:
        lab()
    except kind as error:
        assert "pip install 'warmstart[lab]'" in str(error), error
    else:
        raise AssertionError("this should have needed the lab")
import inspect
assert not hasattr(ws, "compare") and "compare" in dir(ws)
assert {"dash_", "Dash"} <= dict(inspect.getmembers(ws)).keys()
from warmstart import *
assert Dash is ws.Dash
print("used", len(reports))
"""


NAMES = set(ws._MODULE_OF)
TYPES = {"ForwardLoss", "Granularity"}


def top_modules(distribution):
    files = importlib.metadata.files(distribution) or []
    return {file.parts[0].removesuffix(".py") for file in files if file.parts[0] not in ("..", "bin")}


def torch_and_what_it_needs():
    """Top-level modules of torch and, recursively, of the packages that it cannot be installed without."""
    waiting, seen, modules = ["torch"], set(), set()
    while waiting:
        name = re.match(r"[\w.-]+", waiting.pop()).group().lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            waiting += [line for line in importlib.metadata.requires(name) or [] if "extra ==" not in line]
            modules |= top_modules(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
    return modules


def test_the_core_imports_and_works_with_torch_alone():
    blocked = set(importlib.metadata.packages_distributions()) - torch_and_what_it_needs() - {"warmstart"}
    assert blocked >= {"numpy", "pydantic", "yaml", "rich", "typer", "matplotlib", "PIL"}
    script = f"BLOCKED = {sorted(blocked)!r}\n{WITH_TORCH_ALONE}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("used")


def test_importing_it_loads_no_part_of_the_lab():
    script = textwrap.dedent(
        """
        import sys, torch
        before = set(sys.modules)
        import warmstart
        new = set(sys.modules) - before
        ours = {name.split(".")[1] for name in new if name.startswith("warmstart.")}
        assert not ours & LAB, ours & LAB
        """
    )
    core = {"layers", "methods", "diagnostics", "integrations"}
    lab = {path.name for path in Path(ws.__file__).parent.iterdir() if path.is_dir()} - core
    done = subprocess.run([sys.executable, "-c", f"LAB = {lab!r}\n{script}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_name_exists_and_is_documented():
    assert sorted(set(ws.__all__)) == ws.__all__
    assert set(ws.__all__) < NAMES <= set(dir(ws))
    for name in NAMES - TYPES:
        value = getattr(ws, name)
        documentation = inspect.getdoc(value) or ""
        assert documentation.strip(), name
        if inspect.isclass(value):
            assert not documentation.startswith(f"{name}("), f"{name} has only what @dataclass writes"
        elif value.__code__.co_argcount:
            assert "Args:" in documentation, name


def test_functions_that_change_a_model_end_with_an_underscore_and_take_it_first():
    for name in NAMES:
        if name.endswith("_"):
            assert next(iter(inspect.signature(getattr(ws, name)).parameters)) == "model", name


def test_every_method_is_on_the_face():
    from warmstart.methods.registry import methods

    for kind in methods().values():
        assert getattr(ws, kind.__name__, None) is kind


def test_the_version_is_that_of_the_package():
    assert ws.__version__ == importlib.metadata.version("warmstart")


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(ws, "dahs_")


def test_who_looks_for_the_callback_is_told_where_it_is():
    with pytest.raises(AttributeError, match=r"from warmstart\.integrations import WarmStart"):
        _ = ws.WarmStart
