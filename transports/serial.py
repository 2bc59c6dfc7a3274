"""Serial lines through pyserial: any URL that it opens, exclusive, low latency where the driver has it."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, ClassVar, Self

from .deadline import Deadline


class SerialPort:
    """One serial port. Opening it changes no modem line that `settings` doesn't name."""

    kind: ClassVar[str] = "serial"
    name: str
    url: str

    @classmethod
    def open(cls, name: str, settings: Mapping[str, Any]) -> Self:
        """Opens the port; `settings` are `url` and pyserial's keys (baudrate, bytesize, parity, stopbits, rtscts, ...).

        Raises SerialAbsent, SerialBusy (names the process that holds it, where /proc tells), SerialForbidden,
        SerialSettings.
        """
        raise NotImplementedError

    def write(self, data: bytes, deadline: Deadline) -> None:
        """Writes one protocol unit in one call. Raises SerialTimeout, SerialGone."""
        raise NotImplementedError

    def read_exactly(self, size: int, deadline: Deadline) -> bytes:
        """Exactly `size` bytes. Raises SerialTimeout (its `received` has what came), SerialGone."""
        raise NotImplementedError

    def read_until(self, end: bytes, deadline: Deadline, limit: int = 4096) -> bytes:
        """Up to and with `end`. Raises SerialTimeout, SerialFraming after `limit` bytes without it, SerialGone."""
        raise NotImplementedError

    def read_some(self, deadline: Deadline, limit: int = 4096) -> bytes:
        """What is there, at least one byte; b"" when the deadline passes first."""
        raise NotImplementedError

    def drain(self) -> bytes:
        """Forgets what came in and was not read, and returns it."""
        raise NotImplementedError

    def set_line(self, *, baudrate: int | None = None, parity: str | None = None) -> bool:
        """Changes rate or parity ("N", "E", "O") of the open port; False if the driver can't set the parity (a PTY)."""
        raise NotImplementedError

    def set_modem(self, *, dtr: bool | None = None, rts: bool | None = None) -> bool:
        """Sets modem lines, True for asserted (low on the wire); False where the port has none (a PTY)."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
