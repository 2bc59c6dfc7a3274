"""pyserial's URL handler for `replay://`: a recorded serial line.

    from proxyflash.emulators.replay import protocol_replay
    protocol_replay.make_known()
    port = serial.serial_for_url("replay://session.jsonl?bus=imu-uart")

`bus` may be left out where the recording has one serial line. A write that was not recorded raises ReplayMismatch.
"""

from __future__ import annotations

import errno
import os
import termios
from typing import Any
from urllib.parse import parse_qs

from serial import PortNotOpenError, SerialBase, SerialException

from .serial import SerialTrack, make_known
from .track import find_track

__all__ = ["Serial", "make_known"]


class Serial(SerialBase):
    """One opened port."""

    follows_clock = True
    _track: SerialTrack | None = None

    def open(self) -> None:
        """Raises SerialException for a file that is not a recording with that bus."""
        if self.port is None:
            raise SerialException("Port must be configured before it can be used.")
        if self.is_open:
            raise SerialException("Port is already open.")
        place, _, query = str(self.port).partition("://")[2].partition("?")
        bus = parse_qs(query).get("bus", [""])[0]
        try:
            self._track = find_track(place, bus, SerialTrack)
        except Exception as error:
            raise SerialException(errno.ENOENT, f"could not open port {self.port}: {error}") from error
        self.is_open = True
        self._track.opened(baudrate=self.baudrate, parity=self.parity, dtr=bool(self.dtr), rts=bool(self.rts))

    def close(self) -> None:
        self.is_open = False

    def _opened(self) -> SerialTrack:
        if not self.is_open or self._track is None:
            raise PortNotOpenError()
        return self._track

    def _reconfigure_port(self, force_update: bool = False) -> None:
        if self.is_open and not self._opened().set_line(baudrate=self.baudrate, parity=self.parity):
            raise termios.error(errno.EINVAL, os.strerror(errno.EINVAL))

    @property
    def in_waiting(self) -> int:
        return self._opened().waiting()

    def read(self, size: int = 1, /) -> bytes:
        """Up to `size` bytes: fewer when `timeout` is up."""
        return self._opened().read(size, self.timeout)

    def write(self, b: Any, /) -> int:
        data = bytes(memoryview(b))
        self._opened().write(data)
        return len(data)

    def reset_input_buffer(self) -> None:
        self._opened().forget()

    def reset_output_buffer(self) -> None:
        self._opened()

    def flush(self) -> None:
        self._opened()

    @property
    def out_waiting(self) -> int:
        self._opened()
        return 0

    def _update_break_state(self) -> None:
        self._opened()

    def _update_dtr_state(self) -> None:
        self._set_modem(dtr=bool(self.dtr))

    def _update_rts_state(self) -> None:
        self._set_modem(rts=bool(self.rts))

    def _set_modem(self, **lines: bool) -> None:
        if not self._opened().set_line(**lines):
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    @property
    def cts(self) -> bool:
        return False

    @property
    def dsr(self) -> bool:
        return False

    @property
    def ri(self) -> bool:
        return False

    @property
    def cd(self) -> bool:
        return False
