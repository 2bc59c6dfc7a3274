"""docs/emulation.md lists the tests of other projects that can't hold, with the reasons that the tests here go by."""

import re
from pathlib import Path

from proxyflash.tests.strangers import test_pyserial, test_python_can, test_pyusb

DOCUMENT = Path(__file__).parents[2] / "docs" / "emulation.md"


def test_what_can_not_hold_is_listed() -> None:
    rows = re.findall(r"^\| (python-can|pyserial|pyusb) \| `(.+?)` \| (.+?) \|$", DOCUMENT.read_text(), re.MULTILINE)
    known = {"python-can": test_python_can.KNOWN, "pyserial": test_pyserial.KNOWN, "pyusb": test_pyusb.KNOWN}
    assert rows == [(suite, name, reason) for suite, listed in known.items() for name, reason in listed.items()]
