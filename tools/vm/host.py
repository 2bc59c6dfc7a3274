"""This host itself: whether its own kernel has what a command needs, ready for use, and the command on it then.

Only asks: loads no module and makes no interface.
"""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from .errors import VmTime

SLCAN = 17
"""N_SLCAN, a line discipline (include/uapi/linux/tty.h)."""
CAN_FD_MTU = 72
"""CANFD_MTU of linux/can.h: an interface with this one takes FD frames."""
SYS = Path("/sys")


def _can() -> str:
    link = SYS / "class" / "net" / "vcan0"
    try:
        socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW).close()
        mtu, flags = (link / "mtu").read_text(), (link / "flags").read_text()
    except OSError as error:
        return "there is no vcan0" if isinstance(error, FileNotFoundError) else f"CAN sockets: {error.strerror}"
    up = int(flags, 16) & 1
    return "" if up and int(mtu) == CAN_FD_MTU else f"vcan0 is not up with an MTU of {CAN_FD_MTU}"


def _isotp() -> str:
    try:
        socket.socket(socket.AF_CAN, socket.SOCK_DGRAM, socket.CAN_ISOTP).close()
    except OSError as error:
        return f"ISO-TP sockets: {error.strerror}"
    return ""


def _slcan() -> str:
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSETD, struct.pack("i", SLCAN))
    except OSError as error:
        return f"slcan on a PTY: {error.strerror}"
    finally:
        os.close(theirs)
        os.close(ours)
    return ""


def _usb() -> str:
    attach = SYS / "devices" / "platform" / "vhci_hcd.0" / "attach"
    return "" if os.access(attach, os.W_OK) else f"{attach} can't be written"


def _gadget() -> str:
    gadgets = SYS / "kernel" / "config" / "usb_gadget"
    if not os.access(gadgets, os.W_OK):
        return f"{gadgets} can't be written"
    return "" if list((SYS / "class" / "udc").glob("dummy_udc.*")) else "dummy_hcd is not loaded"


CHECKS: dict[str, Callable[[], str]] = {"can": _can, "isotp": _isotp, "slcan": _slcan, "usb": _usb, "gadget": _gadget}
"""What a command may need, and the check that returns the fault."""


def missing(needs: Iterable[str]) -> list[str]:
    """What is missing on this host, one sentence each without a full stop."""
    return [fault for need in needs if (fault := CHECKS[need]())]


def run(words: Sequence[str], environment: Mapping[str, str], out: TextIO | None, time_limit: float) -> int:
    """The command's exit status, as a shell has it. `out`: None for this process's own standard output.

    When the time limit (seconds) passes, and at Ctrl-C, the command ends at once and with all that it started.
    """
    process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=out, start_new_session=True)
    try:
        status = process.wait(time_limit)
    except subprocess.TimeoutExpired as error:
        raise VmTime(f"the time limit of {time_limit:g} s passed", remedy="--time-limit SECONDS.") from error
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return status if status >= 0 else 128 - status
