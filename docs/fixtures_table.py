"""Writes the table of the fixtures in bench-tests.md from the docstrings of the pytest plugin.

`python -m proxyflash.docs.reference` writes it; a test holds the page to the docstrings, and runs the example of each.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from _pytest.fixtures import FixtureFunctionDefinition
from proxyflash.hil_tests import plugin

PAGE = Path(__file__).parent / "bench-tests.md"
HEAD = "| fixture | is |\n|---|---|\n"


@dataclass(frozen=True)
class Fixture:
    """What the docstring of a fixture says: in words, and by an example, which is a whole test module."""

    meaning: str
    example: str


def fixtures() -> dict[str, Fixture]:
    """The public fixtures, by their names."""
    found = {}
    for name, value in vars(plugin).items():
        if isinstance(value, FixtureFunctionDefinition) and not name.startswith("_"):
            meaning, _, example = inspect.cleandoc(value.__doc__ or "").partition("\n\nExample:\n\n")
            found[name] = Fixture(" ".join(meaning.split()), textwrap.dedent(example))
    return found


def page() -> str:
    """The text of the page, with the table as the docstrings have it."""
    text = PAGE.read_text(encoding="utf-8")
    rows = "".join(f"| `{name}` | {fixture.meaning} |\n" for name, fixture in fixtures().items())
    return re.sub(rf"{re.escape(HEAD)}(\|.*\n)+", lambda _: HEAD + rows, text)
