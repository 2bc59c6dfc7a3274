"""The docstrings below the fields of a class, as descriptions of the keys that the fields are.

Python forgets these texts, so they are read from the source.
"""

from __future__ import annotations

import ast
import inspect
from functools import cache
from itertools import pairwise
from pathlib import Path


def field_texts(kind: type) -> dict[str, str]:
    """The docstring below each field of a class and its bases, on one line.

    A field that a subclass declares again without a docstring keeps its text.
    """
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__ != "builtins":
            found |= _below_fields(base)
    return found


def _below_fields(kind: type) -> dict[str, str]:
    path = inspect.getsourcefile(kind)
    assert path is not None, kind
    body = _classes(Path(path)).get(kind.__qualname__, [])
    found = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match text:
                case ast.Expr(value=ast.Constant(value=str(said))):
                    found[field.target.id] = " ".join(said.split())
    return found


@cache
def _classes(path: Path) -> dict[str, list[ast.stmt]]:
    """The bodies of a module's classes."""
    tree = ast.parse(path.read_bytes())
    return {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}
