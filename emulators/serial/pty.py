"""The host's end of a `UartWire` as a pseudo-terminal, so that any program can open it by a path.

A pseudo-terminal carries neither rate nor parity, but its slave keeps the rate that a program sets, and the master can
read it: bytes go onto the wire at that rate. The kernel forces a slave to 8 bits without parity, so data bits, parity
and stop bits are always those of the device: a program can get its rate wrong here, not its parity. There are no modem
lines; the wire's stay released.

The bridge has a thread of its own, and a thread wakes up late. What it brings late to the program is not the program's
fault: the program's answer counts as sent earlier by as much, so that the line alone limits the speed.

The slave is kept open here as well: the master then sees no hang-up when a program closes it, and the next one can
open it. What the device sends meanwhile waits for that one, as far as the kernel's buffer goes.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import tty
from collections.abc import Callable

from ...transports import clock
from .line import Line
from .wire import TRANSMIT_BUFFER, UartWire

BUNCH = 16
"""Bytes that are carried to the program in one go while more come in, as by a UART's FIFO."""

LATE_SECONDS = 0.05
"""What the bridge makes up for at most: a line that is further behind was stopped with its machine."""

RATES = {getattr(termios, name): int(name[1:]) for name in dir(termios) if name[0] == "B" and name[1:].isdigit()}

TCGETS2 = 0x802C542A
"""<asm-generic/ioctls.h>: _IOR('T', 0x2A, struct termios2)."""
TERMIOS2 = struct.Struct("=4IB19s2I")
"""<asm-generic/termbits.h>, struct termios2: four words of flags, c_line, c_cc, c_ispeed, c_ospeed."""


def serve_pty(wire: UartWire) -> tuple[str, Callable[[], None]]:
    """The path to open, and a function that ends it. Raises OSError when the wire's host end is in use."""
    bridge = _Bridge(wire)
    return bridge.path, bridge.close


class _Bridge:
    def __init__(self, wire: UartWire) -> None:
        clock.real("a pseudo-terminal")
        wire.claim()
        self._wire = wire
        self._master, self._slave = os.openpty()
        # By default the group tty may write to it.
        os.fchmod(self._slave, 0o600)
        tty.setraw(self._slave, termios.TCSANOW)
        self.path = os.ttyname(self._slave)
        os.set_blocking(self._master, False)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ended = False
        self._outgoing = b""
        self._late = 0.0
        """How long after its arrival the last byte was brought to the program."""
        wire.host.listener = self._call
        self._thread = clock.Thread(target=self._run, name=f"pty {self.path}")
        self._thread.start()

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._call()
            self._thread.join()

    def _call(self) -> None:
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        try:
            while not self._ended and not self._wire.is_gone:
                self._carry()
        finally:
            self._ended = True
            self._wire.host.listener = lambda: None
            self._wire.release()
            for descriptor in (self._master, self._slave, self._wake):
                os.close(descriptor)

    def _carry(self) -> None:
        """Waits until there is something to carry, and carries it."""
        host = self._wire.host
        self._outgoing = self._outgoing or host.take(host.available())
        room = TRANSMIT_BUFFER - host.unsent()
        readable, writable, _ = select.select(
            [self._wake, self._master] if room > 0 else [self._wake],
            [self._master] if self._outgoing else [],
            [],
            self._until_next(room),
        )
        if self._wake in readable:
            os.eventfd_read(self._wake)
        if writable:
            self._outgoing = self._outgoing[os.write(self._master, self._outgoing) :]
            self._late = min(clock.monotonic() - host.arrived_at, LATE_SECONDS)
        if self._master in readable:
            data = os.read(self._master, room)
            self._wire.set_host_line(self._line())
            host.send(data, at=clock.monotonic() - self._late)

    def _until_next(self, room: int) -> float | None:
        """Seconds until the wire has bytes for the program, or has room for the program's; None: nothing is due."""
        host = self._wire.host
        times = [self._wire.gone_at]
        if not self._outgoing:
            times.append(host.due(max(1, min(BUNCH, host.expected()))))
        if room <= 0:
            times.append(host.free_at - TRANSMIT_BUFFER // 2 * host.byte_seconds)
        known = [at for at in times if at is not None]
        return max(0.0, min(known) - clock.monotonic()) if known else None

    def _line(self) -> Line:
        device = self._wire.device
        rate = self._rate() or self._wire.host.line.baudrate
        parity = device.measured_parity if device.measuring else device.line.parity
        return Line(rate, device.line.bytesize, parity, device.line.stopbits)

    def _rate(self) -> int:
        """Bits a second that the program has set; 0: none."""
        speed = termios.tcgetattr(self._master)[5]
        if speed in RATES:
            return RATES[speed]
        # Any other rate, such as Katapult's 250,000: Linux keeps it beside the constants, in c_ospeed of its termios2.
        found = fcntl.ioctl(self._master, TCGETS2, bytes(TERMIOS2.size))
        return int(TERMIOS2.unpack(found)[-1])
