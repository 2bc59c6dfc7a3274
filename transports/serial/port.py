"""Serial lines through pyserial: any URL that it opens, exclusive, low latency where the driver has it.

pyserial opens and configures. What is a file descriptor underneath (a device, socket://) is then read and written
directly, one wait and one system call for a protocol unit: pyserial's own read and write would make two more of each,
and a change of its time-out reconfigures the line. Every other URL goes through pyserial's read and write.

Modem lines. Linux itself asserts DTR and RTS whenever a port is opened, before any program can say otherwise, and that
resets boards that wire DTR to their reset. Beyond it, opening changes no line that the settings don't name:
- `dtr = false`, `rts = false` release the lines as soon as the port is open, both in one step; some milliseconds of
  it remain;
- `hupcl = false` keeps the lines asserted at closing, so that the next opening makes no edge (the first still does).
  The device keeps this setting until it is unplugged;
- unnamed, the lines stay as the kernel has set them, and fall at closing. Over rfc2217:// pyserial asserts both.
"""

from __future__ import annotations

import errno
import os
import re
import select
import termios
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import serial

from .. import clock
from ..deadline import Deadline
from ..errors import SerialFraming, SerialGone, SerialSettings, SerialTimeout
from ..transport import HostCheck, Transport, Where
from . import host, opening
from .opening import checked, is_pty, let_others_open, open_port, set_modem_bits

if TYPE_CHECKING:
    from ..recording.recorder import Recorder

DRAIN_LIMIT = 65_536
"""Bytes that `drain` takes at most, and `until_quiet` keeps: a part that never stops sending must not hold us."""
MANY = 16
"""Missing bytes for which a read of many doesn't wake up one by one."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.0002, 0.005
"""Seconds between two looks: a system is not more exact than the first, and a line that is gone is noticed after the second."""


class SerialPort(Transport):
    """One serial port. Opening it changes no modem line that `settings` doesn't name.

    One thread may read while another writes; not two at the same.
    """

    kind: ClassVar[str] = "serial"
    steers_parts: ClassVar[bool] = True
    settings_schema = opening.SCHEMA
    where_form: ClassVar[str] = "/dev/PORT"
    url: str
    recorder: Recorder | None = None

    def __init__(self, name: str, url: str, port: serial.SerialBase) -> None:
        self.name = name
        self._settings: Mapping[str, Any] = {"url": url}
        self._take(url, port)

    def _take(self, url: str, port: serial.SerialBase) -> None:
        self.url = url
        self._port = port
        self._socket = url.startswith("socket:")
        self._has_parity = not self._socket and not is_pty(port)
        self._ahead = b""
        direct = self._socket or type(port) is serial.Serial
        self._line: _Line = _Descriptor(port.fileno()) if direct else _Handler(port)

    @classmethod
    def open(cls, name: str, settings: Mapping[str, Any]) -> Self:
        """Opens the port; `settings` are `url` and pyserial's keys, and `dtr`, `rts`, `hupcl` (see the module).

        pyserial's: baudrate, bytesize, parity, stopbits, xonxoff, rtscts, dsrdtr, exclusive (true unless given). A
        pseudo-terminal is always opened with 8 bits and no parity, the only thing that it can do.

        Raises SerialAbsent, SerialAmbiguous, SerialBusy (names the process that holds it, where /proc shows it),
        SerialForbidden, SerialSettings.
        """
        checked(settings)
        port = cls(name, settings["url"], open_port(settings))
        port._settings = dict(settings)
        return port

    @classmethod
    def check(cls, name: str, settings: Mapping[str, Any]) -> None:
        opening.check(settings)

    @classmethod
    def where(cls, text: str) -> Where | None:
        """The path of a device, which begins with "/" or ".", or a URL of pyserial's."""
        return opening.where(text)

    @classmethod
    def nearly(cls, text: str) -> str:
        """A device by its bare name: ttyUSB0."""
        return f"/dev/{text}" if re.fullmatch(r"(?:tty|rfcomm)\w+", text) else ""

    @classmethod
    def misplaced(cls, text: str) -> tuple[str, str] | None:
        """A bit rate after the device, as other tools have it: /dev/ttyUSB0:115200."""
        return opening.misplaced(text)

    @classmethod
    def wheres(cls) -> Iterator[str]:
        return host.ports()

    @classmethod
    def keys(cls, settings: Mapping[str, Any]) -> Iterable[str]:
        return opening.KEYS

    @classmethod
    def surprises(cls, settings: Mapping[str, Any]) -> Iterator[str]:
        return opening.surprises(settings)

    @classmethod
    def default_rate(cls, settings: Mapping[str, Any]) -> tuple[str, str]:
        return opening.default_rate(settings)

    @classmethod
    def host_checks(cls) -> Iterator[HostCheck]:
        return host.checks()

    def reopen(self, url: str = "") -> None:
        """Closes the port, and opens it with the settings that it was opened with first, at another `url` if given.

        For a device that leaves its bus and comes back. After a failure the port is closed, and may be opened so again.
        Raises what `open` raises.
        """
        self.close()
        settings = {**self._settings, "url": url or self._settings["url"]}
        self._take(settings["url"], open_port(settings))
        if self.recorder is not None:
            self.recorder.note(self.name, f"opened again: {self.url}")

    @property
    def path(self) -> str:
        """The device that was opened, where the URL only says how to find it (hwgrep://); else the URL."""
        return str(self._port.port) if isinstance(self._port, serial.Serial) else self.url

    @property
    def baudrate(self) -> int:
        """bit/s, as set now."""
        return int(self._port.baudrate)

    @property
    def rate(self) -> str:
        """The same for a person, such as "115,200 bit/s"."""
        return f"{self.baudrate:,} bit/s"

    @property
    def parity(self) -> str:
        """As set now: "N", "E", "O", or pyserial's "M" and "S"; "N" without one (a PTY, a socket)."""
        return str(self._port.parity) if self._has_parity else "N"

    def wire_seconds(self, count: float) -> float:
        """How long this number of bytes takes on the line as it is set now, start, parity and stop bits included."""
        bits = 1 + self._port.bytesize + (self.parity != "N") + self._port.stopbits
        return float(count * bits / self._port.baudrate)

    def write(self, data: bytes, deadline: Deadline | float) -> None:
        """Writes one protocol unit in one call. Raises SerialTimeout, SerialGone."""
        deadline = Deadline.of(deadline)
        if self.recorder is not None:
            self.recorder.serial(self.name, True, data)
        try:
            taken = self._line.send(data, deadline)
        except OSError as error:
            raise self._gone("writing", error) from error
        if taken < len(data):
            raise SerialTimeout(f"the port {self.url} took {taken} of {len(data)} bytes before the deadline")

    def read_exactly(self, size: int, deadline: Deadline | float) -> bytes:
        """Exactly `size` bytes. Raises SerialTimeout (its `received` has what came), SerialGone."""
        deadline = Deadline.of(deadline)
        data = self.read_some(deadline, size) if size else b""
        began, before = clock.monotonic() if len(data) < size else 0.0, len(data)
        while (missing := size - len(data)) > 0:
            if missing >= MANY and len(data) > before:
                self._let_come(missing, (clock.monotonic() - began) / (len(data) - before), deadline)
            more = self._receive(missing, deadline)
            if not more:
                raise SerialTimeout(f"{len(data)} of {size} bytes came from {self.url}", received=data)
            data += more
        return data

    def read_until(self, end: bytes, deadline: Deadline | float, limit: int = 4096) -> bytes:
        """Up to and with `end`. Raises SerialTimeout, SerialFraming after `limit` bytes without it, SerialGone."""
        deadline = Deadline.of(deadline)
        data, self._ahead = self._ahead, b""
        while True:
            stop = data.find(end, 0, limit)
            if stop >= 0:
                stop += len(end)
                data, self._ahead = data[:stop], data[stop:]
                return data
            if len(data) >= limit:
                self._ahead = data[limit:]
                raise SerialFraming(f"{limit} bytes came from {self.url} without the end {end!r}")
            more = self._receive(limit - len(data), deadline)
            if not more:
                raise SerialTimeout(f"{len(data)} bytes came from {self.url} without the end {end!r}", received=data)
            data += more

    def read_some(self, deadline: Deadline | float, limit: int = 4096) -> bytes:
        """What is there, at least one byte; b"" when the deadline passes first. Raises SerialGone."""
        deadline = Deadline.of(deadline)
        if self._ahead:
            data, self._ahead = self._ahead[:limit], self._ahead[limit:]
            return data
        return self._receive(limit, deadline)

    def drain(self) -> bytes:
        """Forgets what came in and was not read, and returns it. Raises SerialGone."""
        data, self._ahead = self._ahead, b""
        now = Deadline(0.0)
        while len(data) < DRAIN_LIMIT and (more := self._receive(4096, now, drained=True)):
            data += more
        return data

    def until_quiet(self, seconds: float, deadline: Deadline | float) -> bytes:
        """Listens until nothing has come for `seconds`, or the deadline passes; the last `DRAIN_LIMIT` bytes of what came.

        Raises SerialGone.
        """
        deadline = Deadline.of(deadline)
        heard = b""
        while not deadline.expired and (more := self.read_some(deadline.sooner(seconds))):
            heard = (heard + more)[-DRAIN_LIMIT:]
        return heard

    def set_line(self, *, baudrate: int | None = None, parity: str | None = None) -> bool:
        """Changes rate or parity ("N", "E", "O") of the open port; False if the driver can't set the parity (a PTY).

        Raises SerialSettings for a wrong rate or parity, SerialGone.
        """
        if baudrate is not None and baudrate < 1:
            raise SerialSettings(f"baudrate = {baudrate} is not a bit rate")
        if parity is not None and parity not in self._port.PARITIES:
            raise SerialSettings(f"parity = {parity!r} is none of {', '.join(self._port.PARITIES)}")
        if baudrate is not None and not self._set("baudrate", baudrate):
            raise SerialSettings(f"the port {self.url} can't do {baudrate} bit/s")
        if parity is None:
            return True
        return self._set("parity", parity) if self._has_parity else parity == "N"

    def set_modem(self, *, dtr: bool | None = None, rts: bool | None = None) -> bool:
        """Sets modem lines, True for asserted (low on the wire); False where the port has none (a PTY, a socket).

        Both lines of a device change in one call, without a state between. Raises SerialGone.
        """
        if self._socket:
            return False
        try:
            if isinstance(self._port, serial.Serial):
                set_modem_bits(self._port.fileno(), {termios.TIOCM_DTR: dtr, termios.TIOCM_RTS: rts})
            else:
                if dtr is not None:
                    self._port.dtr = dtr
                if rts is not None:
                    self._port.rts = rts
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EINVAL):
                return False
            raise self._gone("setting modem lines", error) from error
        if self.recorder is not None:
            self.recorder.line(self.name, dtr=dtr, rts=rts)
        return True

    def close(self) -> None:
        """Closes the port; what came in and was not read is lost. A second call does nothing.

        Linux gives a line that takes nothing, as a USB device that hangs, 30 s for what was written, and no user can
        forbid it; unless the adapter is pulled out.
        """
        self._line = _Closed()
        self._ahead = b""
        let_others_open(self._port)
        with suppress(OSError):
            self._port.close()

    def _receive(self, limit: int, deadline: Deadline, *, drained: bool = False) -> bytes:
        try:
            data = self._line.receive(limit, deadline)
        except OSError as error:
            raise self._gone("reading", error) from error
        if self.recorder is not None and data:
            self.recorder.serial(self.name, False, data, drained=drained)
        return data

    def _let_come(self, missing: int, each: float, deadline: Deadline) -> None:
        """Waits until about half of what is missing is there, instead of waking up for each byte.

        `each`: seconds that each of the bytes before took; those to come are taken to need no more than the line's rate.
        """
        pause = min(missing * min(each, self.wire_seconds(1)) / 2, LONGEST_PAUSE, deadline.remaining)
        if pause >= SHORTEST_PAUSE:
            clock.sleep(pause)

    def _set(self, key: str, value: int | str) -> bool:
        """Sets one of pyserial's properties; False, with everything as before, if the driver refuses the value."""
        before = getattr(self._port, key)
        try:
            setattr(self._port, key, value)
        except (ValueError, OverflowError, termios.error, OSError) as error:
            if isinstance(error, OSError) or (isinstance(error, termios.error) and error.args[0] != errno.EINVAL):
                raise self._gone(f"setting the {key}", error) from error
            # pyserial keeps the refused value, and every later change would fail on it.
            with suppress(ValueError, OverflowError, termios.error, OSError):
                setattr(self._port, key, before)
            return False
        if self.recorder is not None:
            self.recorder.line(self.name, **{key: value})
        return True

    def _gone(self, doing: str, error: Exception) -> SerialGone:
        if self.recorder is not None:
            self.recorder.note(self.name, f"gone, while {doing}: {error}")
        return SerialGone(f"the port {self.url} is gone, while {doing}: {error}".rstrip("."))


class _Line(Protocol):
    """How bytes come and go. Both calls raise OSError when the port is gone."""

    def receive(self, limit: int, deadline: Deadline) -> bytes:
        """At least one byte, at most `limit`; b"" when the deadline passes first."""

    def send(self, data: bytes, deadline: Deadline) -> int:
        """How many bytes were taken until the deadline."""


class _Descriptor:
    """A file descriptor that does not block."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._readable = select.poll()
        self._readable.register(descriptor, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(descriptor, select.POLLOUT)

    def receive(self, limit: int, deadline: Deadline) -> bytes:
        while self._readable.poll(_milliseconds(deadline)):
            with suppress(BlockingIOError):
                data = os.read(self._descriptor, limit)
                if not data:
                    raise OSError(errno.EIO, "it is ready to be read but has no data")
                return data
        return b""

    def send(self, data: bytes, deadline: Deadline) -> int:
        taken = 0
        while True:
            with suppress(BlockingIOError):
                taken += os.write(self._descriptor, data[taken:] if taken else data)
            if taken == len(data) or not self._writable.poll(_milliseconds(deadline)):
                return taken


class _Handler:
    """One of pyserial's URL handlers, or a plug-in of it, through its own read and write."""

    LONGEST_WAIT = 0.5
    """Seconds for one read: rfc2217:// notices a lost connection between reads only."""

    def __init__(self, port: serial.SerialBase) -> None:
        self._port: Any = port

    def receive(self, limit: int, deadline: Deadline) -> bytes:
        while True:
            # Not `timeout`: that property configures the line again, over rfc2217:// by a negotiation.
            self._port._timeout = min(deadline.remaining, self.LONGEST_WAIT)
            data: bytes = self._port.read(1 if limit == 1 else min(limit, max(1, self._port.in_waiting)))
            if data or deadline.expired:
                return data

    def send(self, data: bytes, deadline: Deadline) -> int:
        self._port._write_timeout = deadline.remaining
        try:
            self._port.write(data)
        except (serial.SerialTimeoutException, clock.Full):
            return 0
        finally:
            # rfc2217:// refuses to change its line as long as there is one.
            self._port._write_timeout = None
        return len(data)


class _Closed:
    def receive(self, limit: int, deadline: Deadline) -> bytes:
        raise OSError(errno.EBADF, "it was closed")

    def send(self, data: bytes, deadline: Deadline) -> int:
        raise OSError(errno.EBADF, "it was closed")


def _milliseconds(deadline: Deadline) -> float:
    return min(deadline.remaining * 1000, 1e9)
