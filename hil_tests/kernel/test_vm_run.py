"""`vm run` where the kernel has the drivers itself, as this one has them: the command runs here, in no guest."""

from __future__ import annotations

import platform

import pytest
from proxyflash.tools import commands
from proxyflash.tools.vm import host

NEEDS = "can,isotp,slcan,usb"


def test_a_host_that_has_the_drivers_needs_no_guest(capfd: pytest.CaptureFixture[str]) -> None:
    if lacking := host.missing(NEEDS.split(",")):
        pytest.skip(f"this kernel has not all of it ready: {'; '.join(lacking)}")
    words = ["vm", "run", "--needs", NEEDS, "--", "sh", "-c", "uname -r; echo $PROXYFLASH_KERNEL_BENCH; exit 9"]
    assert commands.run(words) == 9
    said = capfd.readouterr()
    assert said.out == f"{platform.release()}\n1\n"
    assert said.err == "this host has the drivers: no guest\n"
