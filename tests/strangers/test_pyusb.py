"""pyusb's own tests over `EmulatedUsbBackend` (BSD: run as a program), on an emulation of the device that they want."""

import json
import subprocess
import sys

import pytest
from proxyflash.tests.strangers.point_usb import FILES
from proxyflash.tests.strangers.suites import HERE, differences, fetch, files

pytestmark = pytest.mark.real_time("a suite that nobody here wrote")

KNOWN: dict[str, str] = {}
"""The tests that can't hold, and why. Isochronous transfers, which the backend doesn't have, they pass over by themselves."""
LEFT_OUT = {
    "devinfo": "it has no tests",
    "utils": "it has no tests",
    "testall": "it runs the others",
}
"""The files that aren't run, and why."""


def test_its_own_suite() -> None:
    home = fetch("pyusb", "tests")
    assert files(home / "tests") == {*FILES, *LEFT_OUT}
    command = [sys.executable, str(HERE / "point_usb.py")]
    done = subprocess.run(command, cwd=home / "tests", capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    sys.stderr.write(done.stderr)
    outcomes = json.loads(done.stdout)
    assert differences(outcomes, KNOWN) == {}
    assert list(outcomes.values()).count("passed") >= 60
