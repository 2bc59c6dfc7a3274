"""`UartWire`: a serial line with two ends, the host's and the device's, and the modem lines.

A byte takes its true time: start, data, parity and stop bits at the sender's rate, from the moment it is written or
the byte before it has left, whichever is later. The rule that keeps this exact: each byte has its time of arrival
from the moment it is written, on one absolute schedule for each direction; a reader that wakes up late finds
everything that was due by then. So nothing needs a thread of its own: a reader sleeps until the byte that it wants is
due. Bytes that a change of settings finds in the transmitter keep the settings that they were written with.

Faults are drawn when a byte is written, in that order, over both directions.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import serial

from ...transports import clock
from .. import registry as wires
from ..faults import Fault, Faults
from .line import Line, received

TRANSMIT_BUFFER = 4096
"""Bytes that the host's driver takes before a write has to wait."""

RECEIVE_BUFFER = 65536
"""Bytes that an end keeps unread; what comes after them is lost."""

USB_BYTE_SECONDS = 10e-6
"""What a byte takes to and from a small USB device, about."""

RUNS_AHEAD = 1024
"""Runs of bytes that may pile up on the wire to an end that doesn't look."""


def _nobody() -> None:
    """The listener of an end that nothing listens on."""


@dataclass(slots=True)
class _Run:
    """Bytes that arrive one after the other: the first at `due`, each next `step` seconds later."""

    due: float
    step: float
    data: bytes
    line: Line
    broken: bool = False
    """A break: no stop bit where there should be one."""

    def arrived(self, now: float) -> int:
        """How many have arrived."""
        if now < self.due:
            return 0
        # A reader that slept until a byte's own time must find it: the small part makes up for rounding.
        return min(len(self.data), int((now - self.due) / self.step + 1e-6) + 1) if self.step else len(self.data)

    def skip(self, count: int) -> None:
        self.due += count * self.step
        self.data = self.data[count:]


class UartEnd:
    """One end. Its methods may be called on any thread; times are `time.monotonic`'s.

    `line`: its settings. `checks`: it drops bytes with parity or framing errors (a microcontroller's firmware); the
    host's end keeps them, as a Linux port does. `measuring`: the next frame is taken as it was sent, and sets the
    line to its rate, 8 data bits, `measured_parity` (a bootloader that measures the rate). `room`: how many unread bytes
    it keeps. `listener`: called after bytes were put on the wire to this end, on the writer's thread.
    """

    def __init__(self, wire: UartWire, *, checks: bool) -> None:
        self.wire = wire
        self.line = Line()
        self.checks = checks
        self.measuring = False
        self.measured_parity = "E"
        self.room = RECEIVE_BUFFER
        self.listener: Callable[[], None] = _nobody
        self.arrived_at = 0.0
        """When the last byte arrived."""
        self.free_at = 0.0
        """When the last byte that was sent has left, and the line is free."""
        self.low = False
        self.peer = self
        self._coming: deque[_Run] = deque()
        self._unread = bytearray()

    @property
    def byte_seconds(self) -> float:
        """How long a byte takes that this end sends."""
        return (USB_BYTE_SECONDS if self.wire.is_usb else self.line.frame_seconds) * self.wire.pace

    # Receiving.

    @property
    def unread(self) -> int:
        """Bytes that `available` has found and nobody has taken; they are this end's reader's alone."""
        return len(self._unread)

    def available(self, now: float | None = None) -> int:
        """Bytes that can be read."""
        with self.wire.changed:
            self._arrive(clock.monotonic() if now is None else now)
            return len(self._unread)

    def due(self, size: int) -> float | None:
        """When this end will have `size` bytes, if each frame gives one; None: fewer are on their way."""
        with self.wire.changed:
            size -= len(self._unread)
            if size <= 0:
                return 0.0
            for run in self._coming:
                if size <= len(run.data):
                    return run.due + (size - 1) * run.step
                size -= len(run.data)
            return None

    def expected(self) -> int:
        """Bytes that can be read and frames that are on their way."""
        with self.wire.changed:
            return len(self._unread) + self._in_transit()

    def take(self, size: int) -> bytes:
        """Up to `size` of the bytes that `available` has found."""
        with self.wire.changed:
            data = bytes(self._unread[:size])
            del self._unread[:size]
            return data

    def discard_received(self, until: float | None = None) -> None:
        """Forgets all bytes that have arrived by then (None: by now)."""
        with self.wire.changed:
            self._arrive(clock.monotonic() if until is None else until)
            self._unread.clear()

    # Sending.

    def send(self, data: bytes, at: float | None = None) -> None:
        """Puts bytes into the transmitter. `at`: when they were ready, if that is earlier than now."""
        if not data:
            return
        with self.wire.changed:
            start = max(clock.monotonic() if at is None else at, self.free_at)
            self.free_at = start
            if not self.low and not self.wire.is_gone:
                self._transmit(data)
            self.wire.changed.notify_all()
        self.peer.listener()

    def unsent(self) -> int:
        """Bytes that have not left the transmitter."""
        with self.wire.changed:
            now = clock.monotonic()
            return sum(len(run.data) - run.arrived(now) for run in self.peer._coming)

    def discard_unsent(self) -> None:
        with self.wire.changed:
            now = clock.monotonic()
            self.peer._arrive(now)
            self.peer._coming.clear()
            self.free_at = min(self.free_at, now)
            self.wire.changed.notify_all()

    def set_break(self, on: bool) -> None:
        """Holds the line low, or lets it go. What is sent meanwhile is lost."""
        with self.wire.changed:
            if on and not self.low:
                step = self.byte_seconds
                due = max(clock.monotonic(), self.free_at) + step
                self.peer._coming.append(_Run(due, step, b"\0", self.line, broken=True))
            self.low = on
            self.wire.changed.notify_all()
        self.peer.listener()

    def _transmit(self, data: bytes) -> None:
        wire = self.wire
        step = self.byte_seconds
        coming = self.peer._coming
        if len(coming) > RUNS_AHEAD:
            self.peer._arrive(clock.monotonic())
        if wire.faults.spare(len(data)):
            coming.append(_Run(self.free_at + step, step, data, self.line))
            self.free_at += step * len(data)
            return
        for index in range(len(data)):
            byte = data[index : index + 1]
            fault = wire.faults.draw()
            self.free_at += step
            if fault is Fault.DISCONNECT:
                wire.vanish(self.free_at)
                return
            if fault is Fault.DROP:
                continue
            if fault is Fault.CORRUPT:
                byte = wire.faults.corrupted(byte)
            elif fault is Fault.DELAY:
                self.free_at += wire.faults.plan.delay_seconds
            coming.append(_Run(self.free_at, step, byte, self.line))
            if fault is Fault.DUPLICATE:
                self.free_at += step
                coming.append(_Run(self.free_at, step, byte, self.line))

    def _in_transit(self) -> int:
        return sum(len(run.data) for run in self._coming)

    def _arrive(self, now: float) -> None:
        """Takes all bytes from the wire that have arrived by `now`."""
        gone = self.wire.gone_at
        if gone is not None and self is self.wire.host:
            now = min(now, gone)
        while self._coming:
            run = self._coming[0]
            count = run.arrived(now)
            if not count:
                return
            if self.measuring:
                count = 1
                self.measuring = False
                self.line = Line(run.line.baudrate, 8, self.measured_parity, 1)
                data = run.data[:1]
            else:
                data = self._sampled(run, count)
            self.arrived_at = run.due + (count - 1) * run.step
            # A USB device that has no room for more says so (NAK), and the host keeps it.
            self._unread += data if self.wire.is_usb else data[: max(0, self.room - len(self._unread))]
            run.skip(count)
            if not run.data:
                self._coming.popleft()

    def _sampled(self, run: _Run, count: int) -> bytes:
        if run.broken:
            return b"" if self.checks else b"\0"
        if self.wire.is_usb or self.line.understands(run.line):
            return run.data[:count]
        return b"".join(received(byte, run.line, self.line, self.checks) for byte in run.data[:count])


class UartWire:
    """A serial line of this process, found by pyserial under `emulated://<channel>` until it is closed.

    `pace`: 1.0 takes the time that the line takes, 0.0 none. `changed` is notified of every change.

    The host's outputs `dtr` and `rts` are True when asserted, which is low on a TTL adapter's pin; both are False while
    no program has the port open. `modem_listener` is called after either changed, or the host set its port. The host's
    inputs `cts`, `dsr`, `dcd`, `ri` are the device's to set.

    `is_usb`: there is no line, the device is the USB adapter itself: bytes come in as they were sent, whatever the two
    ends' settings are. `plugs`: how often it was plugged in again; a port that was opened before is gone for good.
    """

    def __init__(self, channel: str, *, faults: Faults | None = None, pace: float = 1.0) -> None:
        """Raises ValueError when the channel's name is taken."""
        self.channel = channel
        self.faults = faults or Faults()
        self.pace = pace
        self.is_usb = False
        self.plugs = 0
        self.changed = clock.Condition()
        self.host = UartEnd(self, checks=False)
        self.device = UartEnd(self, checks=True)
        self.host.peer, self.device.peer = self.device, self.host
        self.dtr = self.rts = False
        self.cts = self.dsr = self.dcd = self.ri = False
        self.modem_listener: Callable[[], None] = _nobody
        self.gone_at: float | None = None
        """When the host's port vanished, or will, by a fault."""
        self._claimed = False
        wires.register(channel, self)
        package = __name__.rpartition(".")[0]
        if package not in serial.protocol_handler_packages:
            serial.protocol_handler_packages.append(package)

    def host_settings(self) -> dict[str, Any]:
        """What a bench file would have to say to open the host's end."""
        return {"url": f"emulated://{self.channel}"}

    def close(self) -> None:
        self.unplug()
        wires.forget(self.channel)

    @property
    def is_gone(self) -> bool:
        return self.gone_at is not None and clock.monotonic() >= self.gone_at

    def claim(self) -> None:
        """Takes the host's end for one program. Raises OSError with EBUSY or ENOENT."""
        with self.changed:
            number = errno.ENOENT if self.is_gone else errno.EBUSY if self._claimed else 0
            if number:
                raise OSError(number, os.strerror(number), self.channel)
            self._claimed = True
            self.host.discard_received()

    def release(self) -> None:
        """Gives the host's end back; the driver lets go of the modem lines."""
        self.set_modem(dtr=False, rts=False)
        self.host.set_break(False)
        with self.changed:
            self._claimed = False

    def set_host_line(self, line: Line) -> None:
        """The host sets its port."""
        if line != self.host.line:
            self.host.line = line
            self.modem_listener()

    def set_modem(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """The host asserts or releases its outputs."""
        with self.changed:
            before = (self.dtr, self.rts)
            self.dtr = self.dtr if dtr is None else dtr
            self.rts = self.rts if rts is None else rts
            moved = before != (self.dtr, self.rts)
        if moved:
            self.modem_listener()

    def unplug(self) -> None:
        """The host's adapter is pulled out: its port vanishes and its outputs are released."""
        self.vanish(clock.monotonic())
        self.set_modem(dtr=False, rts=False)

    def vanish(self, at: float) -> None:
        """The host's port vanishes at this time."""
        with self.changed:
            self.gone_at = at if self.gone_at is None else min(at, self.gone_at)
            self.changed.notify_all()
        self.host.listener()

    def plug(self) -> None:
        """The adapter is plugged in again; what it was to send and had received is lost."""
        with self.changed:
            self.gone_at = None
            self.plugs += 1
            self._claimed = self.dtr = self.rts = False
            self.host.discard_unsent()
            self.host.discard_received()
        self.host.listener()
