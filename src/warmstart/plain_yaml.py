"""YAML as people mean it: 1.2's plain values, so that ``1:30``, ``no`` and a date are text, and nothing that grows."""

from __future__ import annotations

import re
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
_READ = tuple(_TAG + kind for kind in ("null", "bool", "int", "float", "str", "seq", "map"))
_PLAIN = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
"""Kind -> what a plain value of it looks like, and how it begins; all else is text."""


def load(text: str) -> Any:
    """Read one document; YAMLError, ValueError or RecursionError if it is no plain YAML or has a key twice."""
    return yaml.load(text, _Loader)


def dump(content: Any) -> str:
    """Write a document, its keys in the order given, that `load` and readers of YAML 1.1 read alike."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose without aliases: nine lines of them stand for a billion values."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it refers to another part of itself with '*'; write the values out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Construct a mapping in which each key stands once."""
        seen: set[str] = set()
        for key in (key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key in seen:
                raise yaml.YAMLError(f"key '{key:.60}' stands there twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would take for something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write everything out."""
        return True


_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in (*_READ, None)}
for _kind, (_pattern, _first) in _PLAIN.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _kind, re.compile(f"^(?:{_pattern})$"), _first)
