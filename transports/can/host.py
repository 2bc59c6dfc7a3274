"""What this host has for CAN: sockets of the kernel, interfaces."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..quoting import shell_line
from ..transport import HostCheck

NET = Path("/sys/class/net")
CAN_DEVICE_TYPE = "280"
"""ARPHRD_CAN of Linux's if_arp.h, as /sys/class/net/<name>/type has it."""

IP_SECONDS = 5.0
"""How long `ip` may take."""
IFF_UP = 1
"""Of Linux's if.h: operstate is "unknown" of a virtual interface that is up."""


def interfaces() -> Iterator[Path]:
    """The kernel's CAN interfaces: their folders, whose names are those of the interfaces."""
    for link in sorted(NET.iterdir()) if NET.is_dir() else []:
        kind = link / "type"
        if kind.is_file() and kind.read_text().strip() == CAN_DEVICE_TYPE:
            yield link


def link_info(name: str) -> tuple[str, Sequence[str]]:
    """The kind of an interface ("can", "vcan", "slcan") and its control modes, such as LISTEN-ONLY; "": not known.

    The kernel has them in no file, so `ip` of iproute2 is asked.
    """
    words = ["ip", "-details", "-json", "link", "show", "dev", name]
    try:
        done = subprocess.run(words, capture_output=True, timeout=IP_SECONDS, check=True)
        (link,) = json.loads(done.stdout)
        info = link["linkinfo"]
        return str(info["info_kind"]), info.get("info_data", {}).get("ctrlmode", ())
    except (OSError, ValueError, TypeError, LookupError, AttributeError, subprocess.SubprocessError):
        return "", ()


def checks() -> Iterator[HostCheck]:
    try:
        socket.socket(socket.PF_CAN, socket.SOCK_RAW, socket.CAN_RAW).close()
    except (OSError, AttributeError):
        fix = "sudo modprobe can-raw; on a kernel without it, use an adapter that python-can drives from user space"
        yield HostCheck("the kernel has no CAN sockets", None, fix)
        return
    yield HostCheck("the kernel has CAN sockets", True)
    for link in interfaces():
        up = bool(int((link / "flags").read_text(), 16) & IFF_UP)
        # Of a virtual one there is no device, and no bit rate.
        rate = ["type", "can", "bitrate", "500000"] if (link / "device").exists() else []
        fix = shell_line(["sudo", "ip", "link", "set", "dev", link.name, "up", *rate])
        yield HostCheck(f"CAN interface {link.name} is {'up' if up else 'down'}", up, fix)
