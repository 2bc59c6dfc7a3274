"""`SerialEntry`: how a part on a serial line gets into its bootloader, and what the line is set to on each side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import NamedTuple

from ...transports import clock
from ...transports.deadline import Deadline
from ...transports.errors import SerialGone, TransportError
from ...transports.serial.port import SerialPort
from .usb_return import UsbReturn

RETURN_SECONDS = 10.0
"""How long a part that takes its USB port with it may take to come back."""


class LineSettings(NamedTuple):
    """`baudrate` in bit/s, `parity` as pyserial's; None leaves it as it is."""

    baudrate: int | None
    parity: str | None = None


class SerialEntry(ABC):
    """`text`: what the application is sent to jump into its bootloader, "" for nothing; it is taken within `text_seconds`
    and the wire's time, and `settle` seconds are waited after it. `loader`, `application`: their line settings."""

    def __init__(
        self,
        port: SerialPort,
        *,
        text: str,
        text_seconds: float,
        settle: float,
        loader: LineSettings,
        application: LineSettings,
    ) -> None:
        self._port = port
        self._text = text.encode()
        self._text_seconds = text_seconds
        self._settle = settle
        self._loader = loader
        self._application = application
        self._at_loader_settings = False
        self._url = port.url
        self._return = UsbReturn(port)
        self._return_seconds = RETURN_SECONDS
        self._always_leaves = False
        """Whether the part is known to be its own USB device."""
        self._has_left = False
        """Whether its port left with it on the way into its bootloader: so it will on the way out."""

    @property
    def _leaves_usb(self) -> bool:
        """Whether the application may take its port with it: where a text makes it jump into the bootloader."""
        return bool(self._text) and self._return.can_leave

    @property
    @abstractmethod
    def resets(self) -> bool:
        """Whether a line resets the part."""

    @property
    def enters(self) -> bool:
        """Whether anything but a person brings the part into its bootloader."""
        return bool(self._text) or self.resets

    @abstractmethod
    def enter(self) -> bool:
        """Brings the part into its bootloader; False where that takes lines that the port hasn't got.

        Raises TransportError.
        """

    @abstractmethod
    def reset(self) -> bool:
        """Resets the part into its application; False where the port hasn't got the line. Raises TransportError."""

    def await_application(self) -> None:
        """Waits until the application's port is there, once the part was asked to start it. Most parts keep their port.

        Raises TransportError.
        """
        if self._has_left or self._always_leaves:
            self._return.is_leaving()
            self._return.leave_and_come_back(self._return_seconds, self._url, surely=self._has_left)
            self._has_left = False

    def follow(self, gone: SerialGone) -> None:
        """Finds the part again whose port left when it was asked to start another program.

        Raises `gone` where the port can't leave with its part, and what opening raises.
        """
        if not self._leaves_usb:
            raise gone
        self._port.close()
        self._return.come_back(Deadline.after(self._return_seconds))
        self._has_left = True

    def send_text(self) -> None:
        """Sends the text at the application's settings. Raises TransportError."""
        self._send(self._text)

    def end_line(self) -> None:
        """Sends the text's line end, if it has one, so that an application takes nothing from before into its next line.

        Raises TransportError.
        """
        self._send(self._text[len(self._text.rstrip(b"\r\n")) :])

    def _send(self, text: bytes) -> None:
        if text:
            self.use_application_settings()
            self._return.is_leaving()
            wire = self._port.wire_seconds(len(text))
            self._port.write(text, Deadline.after(self._text_seconds + wire))
            clock.sleep(self._settle + wire)

    def use_loader_settings(self) -> None:
        """Raises SerialGone, SerialSettings."""
        self._port.set_line(baudrate=self._loader.baudrate, parity=self._loader.parity)
        self._at_loader_settings = self._loader != LineSettings(None)

    def use_application_settings(self) -> None:
        """Raises SerialGone, SerialSettings."""
        wanted = self._application
        if (
            self._at_loader_settings
            or wanted.baudrate not in (None, self._port.baudrate)
            or wanted.parity not in (None, self._port.parity)
        ):
            self._port.set_line(baudrate=wanted.baudrate, parity=wanted.parity)
            self._at_loader_settings = False

    def close(self) -> None:
        """Leaves the line at the application's settings. Never raises."""
        with suppress(TransportError):
            self.use_application_settings()
