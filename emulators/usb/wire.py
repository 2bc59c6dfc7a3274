"""`UsbWire`: an emulated full-speed USB bus: ports, enumeration, control transfers at their true time, faults.

The time of a control transfer is that of its bytes at 12 Mbit/s: 45 bytes of protocol overhead for its three stages
with one data packet, and 13 for each further packet (USB 2.0, tables 5-2 and 5-9). The schedule is absolute: a transfer
begins when it is asked for or when the one before it has ended, and what a thread wakes up late after one counts as
asked for earlier by as much. So late wake-ups do not make the bus slower, and pauses do not make it faster.
"""

from __future__ import annotations

from collections.abc import Callable

from ...transports import clock
from .. import registry as wires
from ..faults import Fault, Faults
from ..supply import PowerLost
from .device import UsbFunction

BIT_RATE = 12_000_000
TRANSFER_OVERHEAD = 45
PACKET_OVERHEAD = 13
MOST_ADDRESSES = 127
"""USB 2.0, 9.4.6: a device's address is 1 to 127."""
LATE_SECONDS = 0.05
"""What is made up for at most after a late wake-up: a thread that is further behind was stopped with its machine."""


class DeviceGone(Exception):
    """The device is not on the bus any more."""


class TransferTimeout(Exception):
    """A transfer got no answer."""


class Port:
    """A place on the bus: what is plugged into it now, under which address."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.function: UsbFunction | None = None
        self.address = 0


class UsbWire:
    """`pace`: 1.0 real time, 0.0 no waiting. Faults count control transfers to devices."""

    def __init__(self, channel: str, *, faults: Faults | None = None, pace: float = 1.0) -> None:
        self.channel = channel
        self.faults = faults or Faults()
        self.pace = pace
        self.changed = clock.Condition()
        self.changes = 0
        """How often a device came or went."""
        self.busy_seconds = 0.0
        self.ports: list[Port] = []
        self._address: int = 0
        """The latest that was given."""
        self._free_at = 0.0
        self._woken = clock.local()
        """`late`: how many seconds too late the thread came back from its last transfer."""
        self._timers: dict[clock.SomeTimer, None] = {}
        self._closed = False
        wires.register(channel, self)

    def new_port(self) -> Port:
        with self.changed:
            port = Port(len(self.ports) + 1)
            self.ports.append(port)
            return port

    def plug(self, port: Port, function: UsbFunction) -> None:
        """A device appears at a port, under a new address."""
        with self.changed:
            self._address = self._free_address()
            port.function, port.address = function, self._address
            self.changes += 1
            self.changed.notify_all()

    def _free_address(self) -> int:
        """The next one, and after the last one the first again, as Linux does."""
        used = {port.address for port in self.ports if port.function is not None}
        following: tuple[int, ...] = (*range(self._address + 1, MOST_ADDRESSES + 1), *range(1, self._address + 1))
        return next(number for number in following if number not in used)

    def unplug(self, port: Port) -> None:
        with self.changed:
            if port.function is not None:
                port.function = None
                self.changes += 1
                self.changed.notify_all()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Does something after `seconds` times `pace`; at once with pace 0."""
        if seconds * self.pace <= 0:
            action()
            return

        def fire() -> None:
            self._timers.pop(timer, None)
            action()

        timer = clock.Timer(seconds * self.pace, fire)
        with self.changed:
            if self._closed:
                return
            self._timers[timer] = None
        timer.start()

    def control(self, port: Port, function: UsbFunction, setup: bytes, data: bytes) -> bytes:
        """One control transfer: what comes from the device. Raises Stall, DeviceGone, TransferTimeout."""
        self._require(port, function)
        fault = self.faults.draw()
        if fault is Fault.DISCONNECT:
            self.unplug(port)
        if fault is Fault.DROP:
            raise TransferTimeout
        if fault is Fault.DELAY:
            clock.sleep(self.faults.plan.delay_seconds)
        self._require(port, function)
        asked = clock.monotonic() - getattr(self._woken, "late", 0.0)
        kind = setup[0]
        if fault is Fault.CORRUPT and not kind & 0x80:
            data = self.faults.corrupted(data)
        try:
            if fault is Fault.DUPLICATE and not kind & 0x80:
                function.control(setup, data)
            answer = function.control(setup, data)
        except PowerLost:
            raise DeviceGone from None
        self._wait(asked, len(answer) if kind & 0x80 else len(data), function.descriptors.max_packet)
        if fault is Fault.CORRUPT and kind & 0x80:
            answer = self.faults.corrupted(answer)
        return answer

    def close(self) -> None:
        with self.changed:
            self._closed = True
            timers = list(self._timers)
        for timer in timers:
            timer.cancel()
            timer.join()
        wires.forget(self.channel)

    def _require(self, port: Port, function: UsbFunction) -> None:
        if port.function is not function:
            raise DeviceGone

    def _wait(self, asked: float, count: int, packet: int) -> None:
        packets = max(1, -(-count // packet))
        seconds = (TRANSFER_OVERHEAD + count + PACKET_OVERHEAD * (packets - 1)) * 8 / BIT_RATE
        with self.changed:
            self.busy_seconds += seconds
            if not self.pace:
                return
            self._free_at = ends = max(self._free_at, asked) + seconds * self.pace
        left = ends - clock.monotonic()
        if left > 0:
            clock.sleep(left)
        self._woken.late = min(clock.monotonic() - ends, LATE_SECONDS)
