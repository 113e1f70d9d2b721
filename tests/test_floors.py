"""The house: a floor imports from floors below it only, wings do not import each other, and there is no circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import warmstart

PACKAGE = Path(warmstart.__file__).parent
GROUND = (
    *(
        "errors",
        "wording",
        "spelling",
        "image_size",
        "seeds",
        "plain_yaml",
        "setting",
        "settings",
        "importing",
        "mlflow_server",
        "undo",
        "precision",
        "interruption",
        "launch",
    ),
    *("network", "losses", "batches", "loaders", "class_labels", "processes"),
)
"""In this order: each imports from those before it only."""
FLOORS = (
    *({part} for part in GROUND),
    {"layers"},
    *({part} for part in ("gradient_pass", "gradient_ema", "average_gradient")),
    {"methods"},
    {"diagnostics"},
    {"decoding"},
    {"data", "models", "storage", "reporting", "integrations"},
    {"training", "streams"},
    {"protocols"},
    {"runs"},
    {"serving"},
    {"evidence"},
    {"grids"},
    {"comparison", "reproduction", "retraining", "theory"},
    {"cli"},
    {"__init__", "__main__"},
)
FLOOR_OF = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
BESIDE = {("training", "integrations"), ("streams", "integrations")}
"""Straight above methods: the callbacks need torch and the framework, and no engine."""
LARGEST = 0.15
"""Share of the lines that a folder may hold."""


def module_of(file):
    return ".".join(("warmstart", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_of(file): file for file in PACKAGE.rglob("*.py")}


def imports(file):
    """The modules of this package that a file imports, wherever in it; what it names for types only is left out."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: imports by relative names: write warmstart. in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def imported_modules(file):
    for name in imports(file):
        if name.split(".")[0] == "warmstart":
            yield name if name in MODULES else name.rpartition(".")[0] or "warmstart"


def part_of(module):
    return module.split(".")[1] if "." in module else "__init__"


def test_nothing_imports_upwards_or_sideways():
    wrong = []
    for module, file in MODULES.items():
        part = part_of(module)
        for imported in imported_modules(file):
            other = part_of(imported)
            version_only = other == "__init__" and part == "cli"
            if other != part and not version_only and (FLOOR_OF[other] >= FLOOR_OF[part] or (part, other) in BESIDE):
                wrong.append(f"{module} imports {imported}")
    assert not wrong


def test_no_circle():
    graph = {module: set(imported_modules(file)) - {module, "warmstart"} for module, file in MODULES.items()}
    TopologicalSorter(graph).prepare()  # a CycleError names the circle


def test_every_part_has_its_floor():
    parts = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert parts - {"__pycache__", "py.typed"} <= set(FLOOR_OF)


def test_no_folder_is_too_large():
    lines = {}
    for file in (file for file in PACKAGE.rglob("*") if file.suffix in (".py", ".css", ".js")):
        part = file.relative_to(PACKAGE).parts[0]
        lines[part] = lines.get(part, 0) + len(file.read_text().splitlines())
    shares = {part: count / sum(lines.values()) for part, count in lines.items()}
    assert {part: share for part, share in shares.items() if share > LARGEST} == {}


def test_packages_hold_no_logic():
    """An `__init__` says what the folder is, and at most hands names on."""
    for file in PACKAGE.rglob("__init__.py"):
        if file.parent != PACKAGE:
            kinds = {type(node) for node in ast.parse(file.read_text()).body}
            assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign}, file
