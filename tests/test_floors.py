"""The house: a floor imports from floors below it only, and wings do not import each other."""

import ast
from pathlib import Path

import warmstart

PACKAGE = Path(warmstart.__file__).parent
FLOORS = (
    {
        *("errors", "wording", "seeds", "importing", "precision", "network"),
        *("neurons", "batches", "processes", "gradient_ema"),
    },
    {"methods", "diagnostics"},
    {"training", "streams", "models", "storage", "reporting", "integrations"},
    {"experiments", "retraining", "theory"},
    {"__init__", "__main__", "cli"},
)
FLOOR_OF = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
ORDER_ON_THE_GROUND = (
    *("errors", "wording", "seeds", "importing", "precision", "network"),
    *("batches", "processes", "neurons", "gradient_ema"),
)


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = ["warmstart.__init__" if node.module == "warmstart" else node.module]
        elif isinstance(node, ast.Import):
            names = [f"{alias.name}.__init__" if alias.name == "warmstart" else alias.name for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("warmstart."))


def test_nothing_imports_upwards_or_sideways():
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        part = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part in ("__init__", "__main__"):
            continue
        for imported in imports(file):
            below = FLOOR_OF.get(imported, -1) < FLOOR_OF[part]
            if part in ORDER_ON_THE_GROUND and imported in ORDER_ON_THE_GROUND:
                below = ORDER_ON_THE_GROUND.index(imported) < ORDER_ON_THE_GROUND.index(part)
            face = FLOOR_OF[part] == len(FLOORS) - 1  # its parts may know one another
            if not (below or face or imported == part):
                wrong.append(f"{file.relative_to(PACKAGE)} imports {imported}")
    assert not wrong


def test_every_part_has_its_floor():
    parts = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert parts - {"__pycache__", "py.typed"} <= set(FLOOR_OF)
