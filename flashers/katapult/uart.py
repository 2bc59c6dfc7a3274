"""`katapult-uart`: Katapult on a serial line, or on a board's own USB serial port.

The application is brought into its bootloader by the text that Klipper's takes for that, or by the touch of its USB port at
1200 bit/s.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from ...transports.deadline import Deadline
from ...transports.errors import SerialGone, SerialTimeout
from ...transports.serial.port import SerialPort
from ..errors import NoResponse, PartWrongMode
from ..flasher import Identity
from ..serial.bootloader import SerialBootloader
from ..serial.entry import LineSettings, SerialEntry
from ..serial.exchange import QUIET_SECONDS, STREAM_SECONDS
from ..serial.usb_touch import touch
from ..settings import Settings
from .client import LOST, Client, Link
from .flasher import KatapultMemory
from .profile import KLIPPER_TEXT, KatapultUartAddress, KatapultUartProfile

if TYPE_CHECKING:
    from ..describing import Describer

GREET_SECONDS = 0.2
"""How long a bootloader has for its first answer each time that it is looked for."""


class UartLink(Link):
    def __init__(self, port: SerialPort) -> None:
        self.name = port.name
        self._port = port

    def seconds(self, count: int) -> float:
        return self._port.wire_seconds(count)

    def send(self, data: bytes, deadline: Deadline) -> None:
        self._port.drain()
        self._port.write(data, deadline)

    def receive(self, deadline: Deadline) -> bytes:
        return self._port.read_some(deadline)

    def resync(self) -> None:
        self._port.until_quiet(QUIET_SECONDS, Deadline.after(STREAM_SECONDS))


class KatapultEntry(SerialEntry):
    """By the touch, or by a text. Nothing resets the part."""

    resets = False

    def __init__(self, port: SerialPort, profile: KatapultUartProfile) -> None:
        entry = profile.entry
        super().__init__(
            port,
            text="" if entry.touch else KLIPPER_TEXT if profile.enter is None else profile.enter,
            text_seconds=profile.answer,
            settle=entry.settle,
            loader=LineSettings(profile.baudrate),
            application=LineSettings(profile.app_baudrate or port.baudrate),
        )
        self._always_leaves = entry.touch
        self._return_seconds = entry.touch_seconds

    @property
    def _leaves_usb(self) -> bool:
        return self._always_leaves or super()._leaves_usb

    @property
    def enters(self) -> bool:
        return self._always_leaves or super().enters

    def enter(self) -> bool:
        self.send_text()
        if self._always_leaves:
            self._has_left |= touch(self._port, self._return, self._return_seconds)
        self.use_loader_settings()
        return True

    def reset(self) -> bool:
        return False


class KatapultUartFlasher(SerialBootloader, KatapultMemory):
    """One part behind a serial port."""

    protocol = "katapult-uart"
    other_names = ("canboot", "flash_can", "flashtool")
    Address = KatapultUartAddress
    Profile: ClassVar[type[Settings]] = KatapultUartProfile

    _profile: KatapultUartProfile
    _entry: KatapultEntry
    _mute = (
        "CONNECT",
        "Are its wires, its rate and its profile's enter right? Without an application that starts it: reset it twice.",
    )

    def __init__(self, port: SerialPort, profile: KatapultUartProfile) -> None:
        super().__init__(port, profile)
        self._client = Client(UartLink(port), profile.answer)

    @classmethod
    def describer(cls, name: str, address: object, profile: object) -> Describer:
        from .describe import KatapultUartDescriber

        return KatapultUartDescriber(name)

    def _make_entry(self) -> KatapultEntry:
        return KatapultEntry(self._port, self._profile)

    def start_application(self) -> None:
        # A board that is its own USB device takes its port with it.
        with suppress(SerialGone):
            super().start_application()

    def _sync(self) -> bool:
        try:
            self._client.connect(GREET_SECONDS, tries=1)
        except (*LOST, SerialTimeout):
            return False
        return True

    def _identify(self) -> Identity:
        return self._identified(self._client.connect())

    def _accept(self, identity: Identity) -> None:
        self._judged(self._known)

    def _leave_as_found(self, error: Exception) -> None:
        if not isinstance(error, NoResponse | PartWrongMode):
            self.start_application()

    def _restarted(self) -> None:
        self._started()
