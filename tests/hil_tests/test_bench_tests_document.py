"""The documents on bench tests: their examples are run, the tables are those of the plugin."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from proxyflash.docs import fixtures_table
from proxyflash.hil_tests import needs, plugin

from .conftest import Suite

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT, START = ((DOCS / name).read_text(encoding="utf-8") for name in ("bench-tests.md", "start-tests.md"))
EXAMPLES = re.findall(r"^```python\n(.*?)^```", DOCUMENT + START, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    return re.split(rf"^## {re.escape(title)}$", DOCUMENT, flags=re.MULTILINE)[1].partition("\n## ")[0]


def listed(title: str) -> list[str]:
    """What the first columns of a section's tables name."""
    rows = re.findall(r"^\| (`.*?) \|", section(title), re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


@pytest.mark.parametrize(("number", "passed"), list(enumerate((12, 8, 2, 1, 2, 5, 5, 5, 1, 6, 10))))
def test_an_example_runs(suite: Suite, number: int, passed: int) -> None:
    """On the bench that a run without --bench has, on simulated time, with no time read that is real."""
    (suite.folder / "test_example.py").write_text(EXAMPLES[number])
    done = suite.pytester.runpytest_inprocess(
        *suite.arguments(bench=False), "--simulated-time", "-W", "error", "test_example.py"
    )
    done.assert_outcomes(passed=passed)


def test_the_examples_are_all_run() -> None:
    assert len(EXAMPLES) == 11
    assert "    10 passed\n" in START


def test_the_options_are_all_listed(suite: Suite) -> None:
    said = suite.pytester.runpytest_inprocess("--help").stdout.str()
    mine = said.partition("firmware bench tests (proxyflash):")[2].partition("\n\n")[0]
    assert re.findall(r"^  (--[a-z-]+)", mine, re.MULTILINE) == [option.split()[0] for option in listed("Options")]


def test_the_table_of_the_fixtures_is_that_of_their_docstrings() -> None:
    assert fixtures_table.page() == DOCUMENT, "run: python -m proxyflash.docs.reference"


def test_the_example_of_each_fixture_runs(suite: Suite) -> None:
    for name, fixture in fixtures_table.fixtures().items():
        assert re.search(rf"\bdef test_\w+\(.*\b{name}\b", fixture.example), name
        (suite.folder / f"test_{name}.py").write_text(fixture.example)
    done = suite.pytester.runpytest_inprocess(*suite.arguments(bench=False), "--simulated-time", "-W", "error")
    # The emulated bench has five components, one of them an stm32-uart; `bench` is taken once.
    done.assert_outcomes(passed=6 * 5 + 1 + 1)


def test_what_needs_takes_is_all_listed() -> None:
    things, _, markers = section("Markers").partition("| marker |")
    named = re.findall(r"`\"?([a-z]+)[\"=]`", "".join(re.findall(r"^\| (`.*?) \|", things, re.MULTILINE)))
    assert sorted(named) == sorted((*needs.things(), *needs.KEYS))
    assert re.findall(r"^\| `([a-z]+)`", markers, re.MULTILINE) == [
        text.partition(":")[0] for text in plugin.MARKERS[1:]
    ]
