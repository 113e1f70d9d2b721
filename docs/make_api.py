"""Write docs/api.md from the docstrings of everything that `warmstart` and its integrations offer.

Run it after a public docstring or signature has changed: ``python docs/make_api.py``. It reads the source without
importing it, so no framework need be installed.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
INTEGRATIONS = ("warm_start", "lightning", "transformers")
"""Modules of `warmstart.integrations` that have a `WarmStart`; the first is the face's own."""

HEAD = """# Every function and class

```python
import torch

import warmstart as ws
```

A trailing underscore means that a network is changed in place. Bad input raises `ws.InputError`, and nothing is changed
then. (The page is written from the docstrings, by `python docs/make_api.py`.)
"""
SECTIONS = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example):$", re.MULTILINE)
ITEM = re.compile(r"^(\*{0,2}\w+): ", re.MULTILINE)

BOUNDS = ("above", "at_least", "below", "at_most")
"""Of a `Setting`'s range, as its arguments are called."""

Documented = ast.FunctionDef | ast.ClassDef


def page() -> str:
    """Write the page.

    Returns:
        Its Markdown.
    """
    offered = sorted(_offered(), key=lambda item: item[0].lower())
    functions = [(name, node) for name, node in offered if isinstance(node, ast.FunctionDef)]
    classes = [(name, node) for name, node in offered if isinstance(node, ast.ClassDef)]
    methods = [(name, node) for name, node in classes if "Method" in map(ast.unparse, node.bases)]
    others = [pair for pair in classes if pair not in methods]
    changing = [(name, node) for name, node in functions if name.endswith("_")]
    plain = [pair for pair in functions if pair not in changing]
    parts = [HEAD]
    for title, entries in (
        ("Functions that change a network", changing),
        ("Other functions", plain),
        ("Methods as settings", methods),
        ("Other classes", others),
    ):
        parts += [f"## {title}\n", *(_entry(f"ws.{name}", node) for name, node in entries)]
    parts.append("## Integrations\n")
    for module in INTEGRATIONS:
        node = _definition(f"warmstart.integrations.{module}", "WarmStart")
        assert node is not None
        path = "warmstart.integrations" + ("" if module == INTEGRATIONS[0] else f".{module}")
        parts.append(_entry(f"{path}.WarmStart", node))
    written = "\n".join(parts)
    types = [f"- `{name}` = `{meaning}`" + (f": {text}" if text else "") for name, meaning, text in _aliases(written)]
    return "\n".join([written, "## Types in the signatures\n", *types, ""])


def _aliases(written: str) -> Iterator[tuple[str, str, str]]:
    """Name, meaning and documentation of each type with a name of its own that stands in a signature."""
    found = {}
    for file in sorted((ROOT / "src" / "warmstart").rglob("*.py")):
        body = ast.parse(file.read_text(encoding="utf-8")).body
        for node, text in _with_text_below(body):
            if isinstance(node, ast.Assign) and re.match(r"(Callable|Literal)\[", meaning := ast.unparse(node.value)):
                found[ast.unparse(node.targets[0])] = (meaning, _code(text))
    for name in sorted(found):
        if re.search(rf": {name}\b", written):
            yield name, *found[name]


def _offered() -> Iterator[tuple[str, Documented]]:
    """Each function and class of the face with its definition."""
    face = _parsed("warmstart.__init__")
    assigned = {ast.unparse(node.targets[0]): node.value for node in face.body if isinstance(node, ast.Assign)}
    wanted = {name for names in ast.literal_eval(assigned["_WHERE"]).values() for name in names}
    for node in ast.walk(face):
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in wanted & {alias.name for alias in node.names}:
                if (found := _definition(node.module, name)) is not None:
                    yield name, found


def _definition(module: str, name: str) -> Documented | None:
    """The definition of a name, followed through a package that only passes it on; None of a type's other name."""
    tree = _parsed(module)
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return node
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return None
        if isinstance(node, ast.ImportFrom) and node.module and name in {alias.name for alias in node.names}:
            return _definition(node.module, name)
    raise LookupError(f"{module} does not define {name}")


def _parsed(module: str) -> ast.Module:
    file = ROOT.joinpath("src", *module.split("."))
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _entry(name: str, node: Documented, level: int = 3) -> str:
    """A heading, the signature, and the docstring; for a class its fields and methods as well."""
    lines = [f"{'#' * level} `{name}`\n", f"```python\n{_signature(name, node)}\n```\n", _prose(node)]
    if isinstance(node, ast.ClassDef):
        made = next((part for part in _functions(node) if part.name == "__init__"), None)
        lines += [_prose(made)] if made else []
        if "warm_start.WarmStart" in map(ast.unparse, node.bases):
            lines.append("It takes the arguments of `warmstart.integrations.WarmStart`.\n")
        lines += [_fields(node)]
        lines += [_entry(f"{name}.{part.name}", part, level + 1) for part in _own_methods(node)]
    return "\n".join(line for line in lines if line)


def _signature(name: str, node: Documented) -> str:
    short = name.rpartition(".")[2]
    if isinstance(node, ast.FunctionDef):
        if any(ast.unparse(decorator) == "property" for decorator in node.decorator_list):
            return f"{short}: {ast.unparse(node.returns) if node.returns else 'Any'}"
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return _call(short, _arguments(node.args), returns)
    made = next((part for part in _functions(node) if part.name == "__init__"), None)
    if made is not None:
        return _call(short, _arguments(made.args))
    if not node.decorator_list:
        return short
    return _call(
        short,
        [f"{ast.unparse(f.target)}: {_type(f.annotation)}{_default(f)}" for f, _ in _settings(node)],
    )


def _call(name: str, arguments: list[str], returns: str = "") -> str:
    line = f"{name}({', '.join(arguments)}){returns}"
    if len(line) <= 100:
        return line
    return "\n".join([f"{name}(", *(f"    {argument}," for argument in arguments), f"){returns}"])


def _arguments(arguments: ast.arguments) -> list[str]:
    """Each argument with type and default, and the stars between them."""
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    shown = [_argument(a, d) for a, d in zip(plain, defaults, strict=True) if a.arg not in ("self", "cls")]
    if arguments.vararg:
        shown.append(f"*{_argument(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        shown.append("*")
    shown += [_argument(a, d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return shown + ([f"**{_argument(arguments.kwarg, None)}"] if arguments.kwarg else [])


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg + (f": {ast.unparse(argument.annotation)}" if argument.annotation else "")
    return text if default is None else f"{text} = {ast.unparse(default)}"


def _functions(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    return (part for part in node.body if isinstance(part, ast.FunctionDef))


def _own_methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """Public methods; of a class that extends another none, since they are that one's hooks."""
    extends = any(ast.unparse(base).startswith(("Method", "warm_start.")) for base in node.bases)
    return (part for part in _functions(node) if not part.name.startswith("_") and not extends)


def _settings(node: ast.ClassDef) -> Iterator[tuple[ast.AnnAssign, str]]:
    """The fields of a dataclass, each with the string that stands below it, or the help in its annotation."""
    for part, text in _with_text_below(node.body):
        if isinstance(part, ast.AnnAssign) and "ClassVar" not in ast.unparse(part.annotation):
            yield part, text or _help(part.annotation)


def _type(annotation: ast.expr) -> str:
    """A type without what `Annotated` adds to it."""
    match annotation:
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[plain, *_])):
            return ast.unparse(plain)
    return ast.unparse(annotation)


def _help(annotation: ast.expr) -> str:
    """What a `Setting` in a type says of the field, and its range."""
    for call in ast.walk(annotation):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Setting":
            bounds = [f"{k.arg.replace('_', ' ')} {ast.unparse(k.value)}" for k in call.keywords if k.arg in BOUNDS]
            text = ast.literal_eval(call.args[0])
            return f"{text} ({' and '.join(bounds)})." if bounds else f"{text}."
    return ""


def _with_text_below(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Each statement with the string that stands below it as its documentation."""
    for part, following in zip(body, [*body[1:], None], strict=True):
        below = following.value if isinstance(following, ast.Expr) else None
        text = below.value if isinstance(below, ast.Constant) and isinstance(below.value, str) else ""
        yield part, " ".join(text.split())


def _default(field: ast.AnnAssign) -> str:
    if field.value is None:
        return ""
    value = ast.unparse(field.value)
    return f" = {'...' if value.startswith('field(') else value}"


def _fields(node: ast.ClassDef) -> str:
    lines = [f"- `{ast.unparse(field.target)}`: {_code(text)}" for field, text in _settings(node) if text]
    return "\n".join(["**Fields**\n", *lines, ""]) if lines else ""


def _prose(node: Documented) -> str:
    """The docstring as Markdown: its sections as lists."""
    text = ast.get_docstring(node) or ""
    first, *sections = SECTIONS.split(text)
    parts = [_fenced(_code(first.strip()))]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        content = inspect.cleandoc(body)
        if title == "Example":
            parts.append(f"```pycon\n{content}\n```")
            continue
        named = title in ("Args", "Attributes", "Raises")
        content = ITEM.sub(r"- `\1`: ", content) if named else " ".join(content.split())
        parts.append(f"**{'Arguments' if title == 'Args' else title}**\n\n{_code(content)}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _fenced(text: str) -> str:
    """Indented code of a docstring becomes a block."""
    return re.sub(r"(?m)(?:^    .*\n?)+", lambda m: f"```python\n{inspect.cleandoc(m[0])}\n```\n", text)


def _code(text: str) -> str:
    """Docstrings write code in double backticks, Markdown in single ones."""
    return text.replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
