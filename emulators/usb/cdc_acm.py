"""An emulated USB serial adapter of the class CDC-ACM: the host's end of a `UartWire` as a USB device.

USB Class Definitions for Communications Devices 1.2 (CDC), and its PSTN Subclass 1.2. The adapter takes the line's
settings (SET_LINE_CODING), the modem lines (SET_CONTROL_LINE_STATE), breaks (SEND_BREAK) and data, and gives data. It
has no news on its interrupt endpoint: nothing that is emulated drives the host's inputs.

Nothing here waits: what the wire has no room for, or has not brought yet, is asked for again (NAK).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from ...transports import clock
from ..serial.line import Line
from ..serial.wire import TRANSMIT_BUFFER, UartWire
from .device import BULK, INTERRUPT, Descriptors, EndpointDescriptor, InterfaceDescriptor, Stall, UsbFunction

VENDOR_ID, PRODUCT_ID = 0x1209, 0x0002
"""pid.codes' ids for tests."""
DATA_OUT, DATA_IN, NOTIFICATIONS = 0x01, 0x81, 0x82
LINE_CODING = struct.Struct("<IBBB")
"""dwDTERate, bCharFormat, bParityType, bDataBits (PSTN, table 17)."""
PARITIES = "NOEMS"
STOP_BITS = (1, 1.5, 2)
DATA_BITS = (5, 6, 7, 8)
"""The class has 16 too."""
DTR, RTS = 1, 2
"""wValue of SET_CONTROL_LINE_STATE (PSTN, table 18)."""
BREAK_UNTIL_TOLD = 0xFFFF
"""wValue of SEND_BREAK, whose other values are milliseconds (PSTN, 6.3.13)."""
LATE_SECONDS = 0.05
"""What is made up for at most when the host's side of USB is late: see `serve_pty`."""


class Request(IntEnum):
    """PSTN, table 13."""

    SET_LINE_CODING = 0x20
    GET_LINE_CODING = 0x21
    SET_CONTROL_LINE_STATE = 0x22
    SEND_BREAK = 0x23


def descriptors(serial: str) -> Descriptors:
    functional = bytes.fromhex(
        "05 24 00 20 01"  # header: CDC 1.2 (CDC, 5.2.3.1)
        "05 24 01 00 01"  # call management: none; over interface 1 (PSTN, 5.3.1)
        "04 24 02 06"  # abstract control: line coding, line state and break (PSTN, 5.3.2)
        "05 24 06 00 01"  # union: interface 0 controls 1 (CDC, 5.2.3.2)
    )
    told = (EndpointDescriptor(NOTIFICATIONS, INTERRUPT, 16, 10),)
    carried = (EndpointDescriptor(DATA_OUT, BULK), EndpointDescriptor(DATA_IN, BULK))
    return Descriptors(
        VENDOR_ID, PRODUCT_ID, 0x0100, "proxyflash", "emulated serial adapter", serial,
        (
            InterfaceDescriptor(0, 0, 2, 2, 1, extra=functional, endpoints=told),
            InterfaceDescriptor(1, 0, 10, 0, 0, endpoints=carried),
        ),
    )  # fmt: skip


class CdcAcm:
    """The adapter. `function` gets plugged into a USB port. It claims the wire's host end; see `release`."""

    def __init__(self, wire: UartWire, serial: str) -> None:
        """Raises OSError with EBUSY when the wire's host end is in use."""
        wire.claim()
        self._wire = wire
        self._late = 0.0
        """How long after its arrival the last byte was brought to the host."""
        self.is_full = False
        """Whether the host had data that the transmitter had no room for. The wire's listener is called when it begins."""
        self._break_ends: clock.SomeTimer | None = None
        self.function = UsbFunction(
            descriptors(serial),
            self._request,
            self.let_go,
            endpoints={
                DATA_OUT: _Endpoint(take=self._take),
                DATA_IN: _Endpoint(give=self._give),
                NOTIFICATIONS: _Endpoint(),
            },
        )

    def let_go(self) -> None:
        """Releases the modem lines and ends a break, as an adapter does that is unplugged or reset."""
        self._hold_break(0)
        self._wire.set_modem(dtr=False, rts=False)

    def release(self) -> None:
        """Gives the wire's host end back."""
        self.let_go()
        self._wire.release()

    def _give(self, size: int) -> bytes | None:
        host = self._wire.host
        data = host.take(min(size, host.available()))
        if not data:
            return None
        self._late = min(clock.monotonic() - host.arrived_at, LATE_SECONDS)
        return data

    def _take(self, data: bytes) -> int:
        host = self._wire.host
        fitting = data[: max(0, TRANSMIT_BUFFER - host.unsent())]
        host.send(fitting, at=clock.monotonic() - self._late)
        was_full, self.is_full = self.is_full, len(fitting) < len(data)
        if self.is_full and not was_full:
            host.listener()
        return len(fitting)

    def _request(self, kind: int, request: int, value: int, index: int, data: bytes, length: int) -> bytes:
        if index != 0 or bool(kind & 0x80) != (request == Request.GET_LINE_CODING):
            raise Stall
        match request:
            case Request.SET_LINE_CODING:
                self._wire.set_host_line(_line(data))
            case Request.GET_LINE_CODING:
                line = self._wire.host.line
                stop, parity = STOP_BITS.index(line.stopbits), PARITIES.index(line.parity)
                return LINE_CODING.pack(line.baudrate, stop, parity, line.bytesize)
            case Request.SET_CONTROL_LINE_STATE:
                self._wire.set_modem(dtr=bool(value & DTR), rts=bool(value & RTS))
            case Request.SEND_BREAK:
                self._hold_break(value)
            case _:
                raise Stall
        return b""

    def _hold_break(self, milliseconds: int) -> None:
        if self._break_ends is not None:
            self._break_ends.cancel()
            self._break_ends = None
        self._wire.host.set_break(milliseconds > 0)
        if 0 < milliseconds < BREAK_UNTIL_TOLD:
            self._break_ends = clock.Timer(milliseconds / 1000, self._wire.host.set_break, (False,))
            self._break_ends.start()


def _line(data: bytes) -> Line:
    """Raises Stall."""
    if len(data) != LINE_CODING.size:
        raise Stall
    rate, stop, parity, bits = LINE_CODING.unpack(data)
    if not rate or stop >= len(STOP_BITS) or parity >= len(PARITIES) or bits not in DATA_BITS:
        raise Stall
    return Line(rate, bits, PARITIES[parity], STOP_BITS[stop])


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """One direction or none: an endpoint that never has anything."""

    give: Callable[[int], bytes | None] = lambda size: None
    take: Callable[[bytes], int] = lambda data: 0
