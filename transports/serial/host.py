"""What this host has for serial lines: USB adapters, permissions."""

from __future__ import annotations

import grp
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..quoting import shell_line
from ..transport import HostCheck
from .usb_tty import usb_tty

GROUP = "dialout"
"""Whose members may use serial ports, on Debian and its kin."""
RULES = "/etc/udev/rules.d/70-proxyflash.rules"
USB_DEVICES = Path("/sys/bus/usb/devices")
BY_ID = Path("/dev/serial/by-id")
"""Where udev has the names that stay with an adapter."""


def permission_remedy(path: str) -> str:
    """What gives this user the port: its group, or, where it is root's alone, a line for udev; "": there is no port."""
    try:
        group = grp.getgrgid(Path(path).stat().st_gid).gr_name
    except (OSError, KeyError):
        return ""
    join = "sudo usermod -aG {} $USER, then log in again."
    if group != "root":
        return f"Add yourself to the port's group: {join.format(shell_line([group]))}"
    return (
        f"The port belongs to root alone. Put this line into {RULES}: {_udev_line(path)} Then: "
        f"sudo udevadm control --reload && sudo udevadm trigger; and {join.format(GROUP)}"
    )


def _udev_line(path: str) -> str:
    which = f'KERNEL=="{Path(path).resolve().name}"'
    if (found := usb_tty(path)) is not None:
        with suppress(OSError):
            ids = [(USB_DEVICES / found.place / name).read_text().strip() for name in ("idVendor", "idProduct")]
            which = f'ATTRS{{idVendor}}=="{ids[0]}", ATTRS{{idProduct}}=="{ids[1]}"'
    return f'SUBSYSTEM=="tty", {which}, GROUP="{GROUP}", MODE="0660"'


def ports() -> Iterator[str]:
    """USB serial adapters: by their lasting names, else as the kernel numbers them."""
    lasting = sorted(BY_ID.glob("*"))
    named = {path.resolve() for path in lasting}
    yield from map(str, [*lasting, *(path for path in _numbered() if path not in named)])


def lasting_name(path: str) -> str:
    """One name of a port for all that it has: the one that stays with its adapter, else what its links lead to."""
    real = Path(path).resolve()
    return str(next((link for link in sorted(BY_ID.glob("*")) if link.resolve() == real), real))


def _numbered() -> list[Path]:
    return sorted([*Path("/dev").glob("ttyUSB*"), *Path("/dev").glob("ttyACM*")])


def checks() -> Iterator[HostCheck]:
    if not (found := _numbered()):
        yield HostCheck("no USB serial adapter is attached", None, "Plug one in.")
    for port in found:
        allowed = os.access(port, os.R_OK | os.W_OK)
        yield HostCheck(f"{port} may {'' if allowed else 'not '}be used", allowed, permission_remedy(str(port)))
