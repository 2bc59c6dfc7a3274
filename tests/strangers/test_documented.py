"""docs/emulation.md lists the tests of other projects that can't hold, with the reasons that the tests here go by."""

import re
from pathlib import Path

from proxyflash.tests.strangers import test_pyserial, test_python_can, test_pyusb

DOCUMENT = Path(__file__).parents[2] / "docs" / "emulation.md"
SUITES = {"python-can": test_python_can, "pyserial": test_pyserial, "pyusb": test_pyusb}


def rows(what: str) -> list[tuple[str, str, str]]:
    """Those of the table with this heading: suite, the code in the second column, reason."""
    table = re.search(rf"^\| suite \| {what} \| reason \|\n\|[-|]+\n((?:\|.*\n)+)", DOCUMENT.read_text(), re.MULTILINE)
    assert table
    return [(suite, text, reason) for _, suite, text, reason, _ in map(split, table[1].splitlines())]


def split(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")]


def test_what_can_not_hold_is_listed() -> None:
    listed = [(suite, text.strip("`"), reason) for suite, text, reason in rows("test")]
    assert listed == [(name, *known) for name, suite in SUITES.items() for known in suite.KNOWN.items()]


def test_what_is_left_out_is_listed() -> None:
    listed = [(suite, name, why) for suite, text, why in rows("left out") for name in re.findall("`(.+?)`", text)]
    assert sorted(listed) == sorted((name, *out) for name, suite in SUITES.items() for out in suite.LEFT_OUT.items())
