"""How a part gets into its loader and out of it: by a text that its application is sent, and by two pins, its reset and
the strap that selects the loader while the part starts.

What the modem lines drive is the board's, and so is what an asserted line does: the profile says both.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from ...transports import clock
from ...transports.deadline import Deadline
from ...transports.errors import TransportError
from ...transports.serial.port import SerialPort

Output = Literal["dtr", "rts", "none"]


@dataclass(frozen=True, slots=True)
class Wiring:
    """`reset`, `strap`: the line that drives the pin; "none": by hand. `..._asserted`: whether it is the line asserted
    (low on the wire) that resets the part, or selects the loader. Seconds: how long the reset is held (`hold`), and how
    long the strap after it, or a text's part is given (`settle`)."""

    reset: Output
    reset_asserted: bool
    strap: Output
    strap_asserted: bool
    hold: float
    settle: float


@dataclass(frozen=True, slots=True)
class LineSettings:
    """`baudrate`: None leaves it as it is. `parity`: as pyserial's."""

    baudrate: int | None
    parity: str


def send_text(port: SerialPort, text: str, seconds: float, settle: float) -> None:
    """Sends what makes an application jump into its loader, within `seconds` and the wire's time; waits `settle` more.

    Raises TransportError.
    """
    data = text.encode()
    wire = port.wire_seconds(len(data))
    port.write(data, Deadline.after(seconds + wire))
    clock.sleep(settle + wire)


class StrappedEntry:
    """`text`: what the application is sent, within `text_seconds`; "": nothing. `loader`, `application`: their lines."""

    def __init__(
        self,
        port: SerialPort,
        wiring: Wiring,
        *,
        text: str,
        text_seconds: float,
        loader: LineSettings,
        application: LineSettings,
    ) -> None:
        self.wiring = wiring
        self._port = port
        self._text = text
        self._text_seconds = text_seconds
        self._loader = loader
        self._application = application
        self._at_loader_settings = False

    @property
    def resets(self) -> bool:
        """Whether a line resets the part."""
        return self.wiring.reset != "none"

    @property
    def is_wired(self) -> bool:
        """Whether the lines alone choose what starts: they drive both pins."""
        return self.resets and self.wiring.strap != "none"

    def enter(self) -> bool:
        """Brings the part into its loader; False where it takes lines that the port hasn't got. Raises TransportError."""
        if self._text:
            self.use_application_settings()
            send_text(self._port, self._text, self._text_seconds, self.wiring.settle)
        driven = self.reset_into(loader=True)
        self.use_loader_settings()
        return driven

    def reset_into(self, *, loader: bool) -> bool:
        """Resets the part through the lines that drive its pins, into its loader or its application.

        False where the port hasn't got these lines. Raises TransportError.
        """
        wiring = self.wiring
        driven = self._select(loader=loader)
        if self.resets:
            driven &= self._drive(wiring.reset, wiring.reset_asserted)
            clock.sleep(wiring.hold)
            driven &= self._drive(wiring.reset, not wiring.reset_asserted)
            clock.sleep(wiring.settle)
        return driven

    def let_go(self) -> None:
        """Selects the loader no more: what starts at the part's next reset is its own choice. Raises TransportError."""
        self._select(loader=False)

    def use_loader_settings(self) -> None:
        """Raises SerialGone, SerialSettings."""
        self._port.set_line(baudrate=self._loader.baudrate, parity=self._loader.parity)
        self._at_loader_settings = True

    def use_application_settings(self) -> None:
        """Raises SerialGone, SerialSettings."""
        if self._at_loader_settings:
            self._port.set_line(baudrate=self._application.baudrate, parity=self._application.parity)
            self._at_loader_settings = False

    def close(self) -> None:
        with suppress(TransportError):
            self.use_application_settings()

    def _select(self, *, loader: bool) -> bool:
        """Whether the strap is as wished, or nothing drives it."""
        wiring = self.wiring
        return wiring.strap == "none" or self._drive(wiring.strap, loader == wiring.strap_asserted)

    def _drive(self, line: Output, asserted: bool) -> bool:
        return self._port.set_modem(dtr=asserted) if line == "dtr" else self._port.set_modem(rts=asserted)
