"""No regular expression of the product takes time that grows faster than the text: none repeats what repeats already."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("transports", "flashers", "enumerators", "updates", "emulators", "tools")
TAKES_PATTERN = {"compile", "match", "fullmatch", "search", "sub", "split", "findall", "finditer"}
REPEATS = {_constants.MAX_REPEAT, _constants.MIN_REPEAT}


def patterns(path: Path) -> Iterator[str]:
    """The constant patterns that a module gives to `re`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "re"
            and node.func.attr in TAKES_PATTERN
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, str)
        ):
            yield node.args[0].value


def repeats_a_repetition(parsed: Any, within: bool = False) -> bool:
    """Whether a repetition without an end lies directly in another one, with nothing fixed beside it."""
    for operation, argument in parsed:
        if operation in REPEATS:
            _, most, inner = argument
            endless = most is _constants.MAXREPEAT
            if endless and within and len(parsed) == 1:
                return True
            if repeats_a_repetition(inner, within or endless):
                return True
        elif operation is _constants.SUBPATTERN:
            if repeats_a_repetition(argument[-1], within):
                return True
        elif operation is _constants.BRANCH and any(repeats_a_repetition(part, within) for part in argument[1]):
            return True
    return False


def test_the_patterns_of_the_product_are_linear() -> None:
    found = {text for package in PACKAGES for path in (ROOT / package).rglob("*.py") for text in patterns(path)}
    assert found
    assert [text for text in found if repeats_a_repetition(_parser.parse(text))] == []


@pytest.mark.parametrize("text", [r"(a+)+b", r"(?:\d*)*", r"((x|y+)*)z"])
def test_one_that_is_not_is_found(text: str) -> None:
    re.compile(text)
    assert repeats_a_repetition(_parser.parse(text))
