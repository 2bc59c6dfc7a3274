"""What this host has for serial lines: USB adapters, permissions."""

from __future__ import annotations

import grp
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import SerialAmbiguous
from ..quoting import shell_line
from ..transport import HostCheck
from .usb_tty import MOST_LISTED, alike, usb_tty

GROUP = "dialout"
"""Whose members may use serial ports, on Debian and its kin."""
RULES = "/etc/udev/rules.d/70-proxyflash.rules"
USB_DEVICES = Path("/sys/bus/usb/devices")
BY_ID = Path("/dev/serial/by-id")
"""Where udev has the names that stay with an adapter."""
BY_PATH = Path("/dev/serial/by-path")
"""Where udev has the names that stay with the place that an adapter is plugged into."""


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
    yield from dict.fromkeys(lasting_name(str(path)) for path in [*sorted(BY_ID.glob("*")), *_numbered()])


def lasting_name(path: str) -> str:
    """One name of a port for all that it has: the name that stays with its adapter, else the port that its links lead to.

    Adapters without a serial number, or with equal ones, share one name under /dev/serial/by-id, which leads to any of them:
    such an adapter is named by its place.
    """
    real = Path(path).resolve()
    device = usb_tty(str(real))
    is_known = device is None or (device.serial and len(alike(device)) == 1)
    return _link(BY_ID if is_known else BY_PATH, real) or str(real)


def refuse_ambiguous(url: str) -> None:
    """Raises SerialAmbiguous where a port is named by what several adapters have in common."""
    if url.startswith("hwgrep://") and "&" not in url:
        from serial.tools import list_ports

        with suppress(re.error):
            found = sorted(list_ports.grep(url.removeprefix("hwgrep://")))
            if len({(info.location or info.device).partition(":")[0] for info in found}) > 1:
                raise _ambiguous(url, [info.device for info in found])
    elif Path(url).parent == BY_ID and (device := usb_tty(url)) is not None and len(same := alike(device)) > 1:
        raise _ambiguous(url, [port.path for port in same])


def _ambiguous(url: str, paths: Sequence[str]) -> SerialAmbiguous:
    names = [_link(BY_PATH, Path(path)) or path for path in paths]
    return SerialAmbiguous(
        f"{url} fits {len(names)} adapters: {', '.join(paths[:MOST_LISTED])}",
        remedy=f"Give the bus one of these urls: {', '.join(names[:MOST_LISTED])}",
    )


def _link(folder: Path, real: Path) -> str:
    return str(next((link for link in sorted(folder.glob("*")) if link.resolve() == real), ""))


def _numbered() -> list[Path]:
    return sorted([*Path("/dev").glob("ttyUSB*"), *Path("/dev").glob("ttyACM*")])


def checks() -> Iterator[HostCheck]:
    if not (found := _numbered()):
        yield HostCheck("no USB serial adapter is attached", None, "Plug one in.")
    for port in found:
        allowed = os.access(port, os.R_OK | os.W_OK)
        yield HostCheck(f"{port} may {'' if allowed else 'not '}be used", allowed, permission_remedy(str(port)))
