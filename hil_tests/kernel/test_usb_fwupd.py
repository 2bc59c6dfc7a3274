"""fwupd's own DFU plugin (Debian's fwupdtool, without its daemon) on emulated parts through the kernel's USB.

A fwupdtool that was built for a libusb before 1.0.27, as Debian 12's is, updates no USB device at all: libusb and its own
udev listener want the same netlink address, its process id ("bind to udev socket failed: Address already in use"). The
listener's is chosen by the kernel here instead, by a `bind` that is loaded before libc's; nothing else is changed.

What it updates here are parts that fwupd 2.0.20 can update as it is. It can't those of ST's own loader: of several
alternate settings in a row it takes every second one for an extra descriptor of the one before, misses the functional
descriptor, and writes in blocks of 64 bytes whatever wTransferSize is. Nor resident-dfu: at the first address of a sector
it looks up the one before, which may not be written there. Nor slot-dfu and waiting-dfu: it reads back at once, while the
device is in dfuMANIFEST and stalls.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from proxyflash.hil_tests.kernel.usb_lab import BLIND, WINDOW, Kind, Part, run
from proxyflash.hil_tests.kernel.waiting import LONG

NEW = "1.7.0"

ANY_ADDRESS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/netlink.h>
#include <sys/socket.h>

int bind(int socket, const struct sockaddr *address, socklen_t length)
{
    int (*next)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");
    struct sockaddr_nl any;

    if (address->sa_family != AF_NETLINK || length != sizeof any)
        return next(socket, address, length);
    any = *(const struct sockaddr_nl *)address;
    any.nl_pid = 0;
    return next(socket, (const struct sockaddr *)&any, length);
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bind")
    (folder / "bind.c").write_text(ANY_ADDRESS)
    run("gcc", "-shared", "-fPIC", "-o", str(folder / "bind.so"), str(folder / "bind.c"), "-ldl")
    return folder / "bind.so"


def fwupdtool(library: Path, *words: str) -> str:
    if shutil.which("fwupdtool") is None:
        pytest.skip("fwupd is not installed")
    done = subprocess.run(
        ["fwupdtool", *words, "--plugins", "dfu", "--json"],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        timeout=2 * LONG,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_sees_and_updates_both(usb_parts: dict[Kind, Part], library: Path) -> None:
    found: dict[str, dict[str, Any]] = {
        device["Serial"]: device for device in json.loads(fwupdtool(library, "get-devices"))["Devices"]
    }
    for kind, suffix, protocol in ((WINDOW, "dfuse", "com.st.dfuse"), (BLIND, "dfu", "org.usb.dfu")):
        part = usb_parts[kind]
        device = found[part.serial]
        assert (device["Name"], device["Vendor"], device["Plugin"]) == ("part", "Acme", "dfu")
        major, minor, step = map(int, part.running().split("."))
        assert device["VersionRaw"] == major << 8 | minor << 4 | step
        assert device["Protocols"] == [protocol]
        assert "updatable" in device["Flags"]
        fwupdtool(library, "install-blob", str(part.file(NEW, suffix)), device["DeviceId"])
        part.wait_running(NEW)
