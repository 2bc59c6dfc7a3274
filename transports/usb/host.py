"""What this host has for USB: libusb, permissions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..transport import HostCheck

DEVICES = Path("/sys/bus/usb/devices")
HUB = "09"
"""bDeviceClass of hubs (USB 2.0, 11.23.1)."""


def has_devices() -> bool:
    """Whether this host has USB, with or without a device on it."""
    return DEVICES.is_dir() and any(DEVICES.iterdir())


def devices() -> Iterator[str]:
    """VENDOR:PRODUCT of each device but hubs, as the kernel lists them."""
    found = set()
    for device in DEVICES.glob("*"):
        with suppress(OSError):
            if (device / "bDeviceClass").read_text().strip() != HUB:
                found.add(":".join((device / name).read_text().strip() for name in ("idVendor", "idProduct")))
    yield from sorted(found)


def checks() -> Iterator[HostCheck]:
    try:
        import usb.backend.libusb1
    except ImportError:
        return  # said among the packages

    if usb.backend.libusb1.get_backend() is None:
        yield HostCheck("libusb is not installed", None, "sudo apt-get install libusb-1.0-0")
        return
    yield HostCheck("libusb", True)
    for device in sorted(Path("/dev/bus/usb").glob("*/*")):
        if not os.access(device, os.R_OK | os.W_OK):
            rule = 'SUBSYSTEM=="usb", ATTR{idVendor}=="0483", ATTR{idProduct}=="df11", MODE="0660", TAG+="uaccess"'
            fix = f"Put a line like this, with your device's ids, into /etc/udev/rules.d/70-proxyflash.rules: {rule}"
            yield HostCheck(f"{device} may not be used", None, fix)
            return
