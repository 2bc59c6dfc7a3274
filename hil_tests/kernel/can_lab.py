"""What the CAN tests share: can-utils' programs on an interface, and a peer that speaks ISO-TP through the kernel."""

from __future__ import annotations

import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from proxyflash.transports.can.bus import CanBus, CanId
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.isotp.opening import Addressing, IsoTpAddress

from .waiting import LONG, wait_until

NORMAL = IsoTpAddress(request=CanId(0x7E0), response=CanId(0x7E8))
ADDRESSES: dict[str, tuple[IsoTpAddress, tuple[str, ...]]] = {
    "normal-11": (NORMAL, ("-s", "7E8", "-d", "7E0")),
    "normal-29": (
        IsoTpAddress(request=CanId(0x18EF_0001, True), response=CanId(0x18EF_0002, True)),
        ("-s", "18EF0002", "-d", "18EF0001"),
    ),
    "normal-fixed": (
        IsoTpAddress(Addressing.NORMAL_FIXED, target=0x10, source=0xF1),
        ("-s", "18DAF110", "-d", "18DA10F1"),
    ),
    "extended-11": (
        IsoTpAddress(Addressing.EXTENDED, CanId(0x600), CanId(0x601), target=0x55, source=0xAA),
        ("-s", "601", "-d", "600", "-x", "AA:55"),
    ),
    "extended-29": (
        IsoTpAddress(Addressing.EXTENDED, CanId(0x18EF_0001, True), CanId(0x18EF_0002, True), target=0x55, source=0xAA),
        ("-s", "18EF0002", "-d", "18EF0001", "-x", "AA:55"),
    ),
    "mixed-11": (
        IsoTpAddress(Addressing.EXTENDED, CanId(0x600), CanId(0x601), target=0x99, source=0x99),
        ("-s", "601", "-d", "600", "-x", "99:99"),
    ),
    "mixed-29": (
        IsoTpAddress(Addressing.EXTENDED, CanId(0x18CE_10F1, True), CanId(0x18CE_F110, True), target=0x99, source=0x99),
        ("-s", "18CEF110", "-d", "18CE10F1", "-x", "99:99"),
    ),
}
"""By name: our address, and the options of can-utils' ISO-TP programs for its peer (ISO 15765-2:2016, 10.3)."""
FD_OPTIONS = ("-L", "72:64:1")
SOL_CAN_ISOTP = 106
"""Linux, include/uapi/linux/can.h: SOL_CAN_BASE + CAN_ISOTP."""


def soon() -> Deadline:
    return Deadline.after(LONG)


def counting(size: int) -> bytes:
    """Bytes of which no stretch is like another that lies a multiple of 256 away."""
    return bytes((number * 7 + (number >> 8)) & 0xFF for number in range(size))


def socketcan(interface: str, *, fd: bool = False) -> CanBus:
    return CanBus.open("desk", {"interface": "socketcan", "channel": interface, "fd": fd})


def listeners(interface: str) -> int:
    """How many receive filters of sockets there are on an interface (Linux, net/can/proc.c)."""
    lists = Path("/proc/net/can").glob("rcvlist_*")
    return sum(line.split()[:1] == [interface] for path in lists for line in path.read_text().splitlines())


class Program:
    """A program that runs, its output in a file."""

    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self.process = process
        self.output = output

    @property
    def lines(self) -> list[str]:
        """Its whole lines."""
        return self.output.read_text().split("\n")[:-1]

    def wait_lines(self, count: int) -> list[str]:
        wait_until(lambda: len(self.lines) >= count, f"{count} lines in {self.output}")
        return self.lines

    def end(self, seconds: float = LONG) -> list[str]:
        """Stops it as Ctrl-C does; its lines."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(seconds)
        return self.lines


def program(*words: str | Path) -> list[str]:
    """Its command line. Skips where can-utils are not there."""
    if shutil.which(str(words[0])) is None:
        pytest.skip("can-utils is not installed")
    return list(map(str, words))


@contextmanager
def listening(interface: str, output: Path, *words: str | Path, seconds: float = LONG) -> Iterator[Program]:
    """A program that listens on the interface, from when it does until the end of the block.

    Args:
        output: the file of what it writes to stdout and stderr.
        seconds: how long it may take until it listens.
    """
    before = listeners(interface)
    with output.open("w") as file:
        command = ["stdbuf", "-oL", *program(*words)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, text=True)
    try:
        wait_until(lambda: listeners(interface) > before or process.poll() is not None, f"{words[0]} listens", seconds)
        assert process.poll() is None, output.read_text()
        yield Program(process, output)
    finally:
        process.kill()
        process.wait(LONG)


@contextmanager
def candump(interface: str, output: Path) -> Iterator[Program]:
    """candump with its log format on stdout, and room for what comes in while it has no processor."""
    with listening(interface, output, "candump", "-L", "-r", "16000000", interface) as dump:
        yield dump


def isotpsend(interface: str, options: tuple[str, ...], pdu: bytes) -> subprocess.Popen[str]:
    """Sends a PDU; it ends when it is sent."""
    process = subprocess.Popen(program("isotpsend", *options, interface), stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    with process.stdin as file:
        file.write(pdu.hex(" ") + "\n")
    return process


def kernel_limit() -> int:
    """The longest PDU that this kernel's ISO-TP takes: a constant before 6.4, a parameter of the module since."""
    try:
        return int(Path("/sys/module/can_isotp/parameters/max_pdu_size").read_text())
    except OSError:
        return 66_000


@contextmanager
def kernel_peer(interface: str, *, fd: bool = False, block_size: int = 0, st_min: int = 0) -> Iterator[socket.socket]:
    """The peer of NORMAL, on the kernel's ISO-TP socket; its options by hand (include/uapi/linux/can/isotp.h)."""
    with socket.socket(socket.PF_CAN, socket.SOCK_DGRAM, socket.CAN_ISOTP) as peer:
        peer.setsockopt(SOL_CAN_ISOTP, 2, struct.pack("BBB", block_size, st_min, 0))
        if fd:
            peer.setsockopt(SOL_CAN_ISOTP, 5, struct.pack("BBB", 72, 64, 1))
        peer.bind((interface, 0x7E0, 0x7E8))
        peer.settimeout(LONG)
        yield peer
