"""pyserial's URL handler for `emulated://<channel>`: the host's end of a `UartWire` of this process.

pyserial imports this module by its name, from the packages in `serial.protocol_handler_packages`, where the wire puts
this module. It behaves as pyserial's POSIX port on a kernel driver: a write returns when the bytes are in the
driver's buffer, a read when it has its bytes or its time is up, and a port that vanished fails every call.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from serial import PortNotOpenError, SerialBase, SerialException, SerialTimeoutException

from ...transports import clock
from .. import registry as wires
from .line import Line
from .wire import TRANSMIT_BUFFER, UartWire

WAKE_WRITER = 1024
"""Free bytes in the transmit buffer at which a waiting writer goes on, so that it isn't woken for each byte."""


class Serial(SerialBase):
    """One opened port. A channel can be opened once at a time."""

    follows_clock = True
    _wire: UartWire | None = None
    _plugs = 0

    def open(self) -> None:
        """Raises SerialException with ENOENT or EBUSY."""
        if self.port is None:
            raise SerialException("Port must be configured before it can be used.")
        if self.is_open:
            raise SerialException("Port is already open.")
        wire: UartWire | None = wires.find(self._channel)
        try:
            if not isinstance(wire, UartWire):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.port)
            wire.claim()
        except OSError as error:
            raise SerialException(error.errno, f"could not open port {self.port}: {error}") from error
        self._wire = wire
        self._plugs = wire.plugs
        self._stop_reading = self._stop_writing = False
        self.is_open = True
        self._reconfigure_port()
        if not self.dsrdtr:
            self._update_dtr_state()
        if not self.rtscts:
            self._update_rts_state()

    def close(self) -> None:
        if self.is_open and self._wire is not None:
            self.is_open = False
            if self._plugs == self._wire.plugs:
                self._wire.release()
            with self._wire.changed:
                self._wire.changed.notify_all()

    @property
    def _channel(self) -> str:
        return str(self.port).partition("://")[2]

    def _opened(self) -> UartWire:
        if not self.is_open or self._wire is None:
            raise PortNotOpenError()
        return self._wire

    def _present(self) -> UartWire:
        """The wire. Raises OSError with EIO once the port vanished, as a system call on it would."""
        wire = self._opened()
        if self._is_gone(wire):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return wire

    def _is_gone(self, wire: UartWire) -> bool:
        return wire.is_gone or self._plugs != wire.plugs

    def _reconfigure_port(self, force_update: bool = False) -> None:
        if self.is_open:
            self._present().set_host_line(Line(self.baudrate, self.bytesize, self.parity, self.stopbits))

    # Reading.

    @property
    def in_waiting(self) -> int:
        return self._present().host.available()

    def read(self, size: int = 1, /) -> bytes:
        """Up to `size` bytes: fewer when `timeout` is up, or when `inter_byte_timeout` passes without one more."""
        wire = self._opened()
        started = clock.monotonic()
        with wire.changed:
            while self.is_open:
                if self._is_gone(wire):
                    raise SerialException("device disconnected: it reports readiness to read but returned no data")
                now = clock.monotonic()
                ready = wire.host.available(now)
                until = self._read_until(started, ready)
                if ready >= size or self._stop_reading or (until is not None and now >= until):
                    break
                _wait(wire, now, until, wire.host.due(size), wire.host.due(ready + 1) if self._paced else None)
            self._stop_reading = False
            return wire.host.take(size)

    @property
    def _paced(self) -> bool:
        return self.inter_byte_timeout is not None

    def _read_until(self, started: float, ready: int) -> float | None:
        """When a read that has `ready` bytes gives up."""
        limits = []
        if self.timeout is not None:
            limits.append(started + self.timeout)
        if self.inter_byte_timeout is not None and ready:
            limits.append(max(started, self._opened().host.arrived_at) + self.inter_byte_timeout)
        return min(limits, default=None)

    def cancel_read(self) -> None:
        """Makes a read on another thread return what it has."""
        wire = self._opened()
        with wire.changed:
            self._stop_reading = True
            wire.changed.notify_all()

    def reset_input_buffer(self) -> None:
        self._present().host.discard_received()

    # Writing.

    @property
    def out_waiting(self) -> int:
        return self._present().host.unsent()

    def write(self, b: Any, /) -> int:
        """Returns when all bytes are in the driver's buffer. Raises SerialTimeoutException after `write_timeout`."""
        wire = self._opened()
        data = bytes(memoryview(b))
        until = None if self.write_timeout is None else clock.monotonic() + self.write_timeout
        self._stop_writing = False
        done = 0
        while done < len(data) and not self._stop_writing:
            room = self._room(wire, len(data) - done, until)
            wire.host.send(data[done : done + room])
            done += room
            if not room and not self._stop_writing:
                if self.write_timeout == 0:
                    break
                raise SerialTimeoutException("Write timeout")
        return done

    def _room(self, wire: UartWire, wanted: int, until: float | None) -> int:
        """Waits until the buffer takes a good part of `wanted` bytes, and says how many; 0 when time is up."""
        enough = min(wanted, WAKE_WRITER)
        with wire.changed:
            while self.is_open and not self._stop_writing:
                if self._is_gone(wire):
                    raise SerialException(f"write failed: {OSError(errno.EIO, os.strerror(errno.EIO))}")
                now = clock.monotonic()
                unsent = wire.host.unsent()
                room = TRANSMIT_BUFFER - unsent
                if room >= enough or (until is not None and now >= until):
                    return max(0, min(room, wanted))
                # Bytes of one rate leave in order: the buffer has room once all but the rest have left.
                leaving = wire.host.free_at - (TRANSMIT_BUFFER - enough) * wire.host.byte_seconds
                _wait(wire, now, until, max(leaving, now + 1e-4))
        return 0

    def cancel_write(self) -> None:
        """Makes a write on another thread return how much it wrote."""
        wire = self._opened()
        with wire.changed:
            self._stop_writing = True
            wire.changed.notify_all()

    def flush(self) -> None:
        """Waits until all bytes have left."""
        wire = self._present()
        with wire.changed:
            while wire.host.unsent() and not self._is_gone(wire):
                _wait(wire, clock.monotonic(), wire.host.free_at)

    def reset_output_buffer(self) -> None:
        self._present().host.discard_unsent()

    # Break and modem lines.

    def _update_break_state(self) -> None:
        self._present().host.set_break(bool(self.break_condition))

    def _update_dtr_state(self) -> None:
        self._present().set_modem(dtr=bool(self.dtr))

    def _update_rts_state(self) -> None:
        self._present().set_modem(rts=bool(self.rts))

    @property
    def cts(self) -> bool:
        return self._present().cts

    @property
    def dsr(self) -> bool:
        return self._present().dsr

    @property
    def ri(self) -> bool:
        return self._present().ri

    @property
    def cd(self) -> bool:
        return self._present().dcd


def _wait(wire: UartWire, now: float, *times: float | None) -> None:
    """Sleeps on the wire's condition until the first of these times, or until the port vanishes."""
    until = min((at for at in (*times, wire.gone_at) if at is not None), default=None)
    wire.changed.wait(None if until is None else max(0.0, until - now))
