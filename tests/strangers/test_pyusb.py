"""pyusb's own tests over `EmulatedUsbBackend` (BSD: run as a program), on an emulation of the device that they want."""

import json
import subprocess
import sys

from proxyflash.tests.strangers.suites import HERE, differences, fetch

SELF_POWERED = "the device that it wants has a supply of its own; emulated devices live off the bus"
KNOWN = {
    "test_backend::BackendTest::test_get_configuration_descriptor": SELF_POWERED,
    "test_control::ControlTest::test_get_status": SELF_POWERED,
    "test_integration::ConfigurationTest::test_attributes": SELF_POWERED,
    "test_legacy::LegacyTest::test_configuration_descriptor": SELF_POWERED,
}
"""The tests that can't hold, and why. Isochronous transfers, which the backend lacks, they pass over by themselves."""


def test_its_own_suite() -> None:
    home = fetch("pyusb", "tests")
    command = [sys.executable, str(HERE / "point_usb.py")]
    done = subprocess.run(command, cwd=home / "tests", capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    sys.stderr.write(done.stderr)
    outcomes = json.loads(done.stdout)
    assert differences(outcomes, KNOWN) == {}
    assert list(outcomes.values()).count("passed") >= 60
