"""pyserial's own suite over `emulated://` (BSD: run as a program). Its tests of other kinds of port are left out."""

from pathlib import Path

import pytest
from proxyflash.tests.strangers.suites import differences, fetch, files, run

pytestmark = pytest.mark.real_time("a suite that nobody here wrote")

FILES = ("test", "test_advanced", "test_cancel", "test_context", "test_exclusive", "test_high_load", "test_iolib",
         "test_readline", "test_rs485", "test_settings_dict", "test_threaded")  # fmt: skip
KNOWN = {
    "test::Test_MoreTimeouts::test_WriteTimeout": "the emulated line has no XON/XOFF flow control",
    "test_cancel::TestCancelWrite::test_cancel_once": "1024 bytes fit into the driver's buffer: the write doesn't wait",
}
"""The tests that can't hold, and why."""
LEFT_OUT = {
    "run_all_tests": "it runs the others",
    "test_asyncio": "the module that it tries is no longer part of pyserial",
    "test_pty": "it opens a pseudo-terminal",
    "test_rfc2217": "it opens another kind of port",
    "test_timeout_class": "it opens no port",
    "test_url": "it opens another kind of port",
    "test_util": "it opens no port",
}
"""The files that aren't run, and why."""


def test_its_own_suite(tmp_path: Path) -> None:
    home = fetch("pyserial", "test")
    assert files(home / "test") == {*FILES, *LEFT_OUT}
    outcomes = run(home, "point_serial", tmp_path / "report.xml", *(f"test/{name}.py" for name in FILES))
    assert differences(outcomes, KNOWN) == {}
    assert list(outcomes.values()).count("passed") >= 40  # Those for a port of the kernel are skipped by the suite.
