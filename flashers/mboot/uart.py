"""`mboot-uart`: MBoot on a serial line. It measures the bit rate by the first ping."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...transports.deadline import Deadline
from ...transports.serial.port import SerialPort
from ..flasher import Identity
from ..serial.boot_pins import BootPins
from ..serial.bootloader import SerialBootloader
from ..serial.entry import LineSettings
from .client import Client, Link
from .flasher import MbootMemory
from .profile import MbootUartAddress, MbootUartProfile

if TYPE_CHECKING:
    from ..describing import Describer

FOUND_SECONDS = 0.1
"""How long a bootloader is pinged that may run already: the part is brought into it if none answers."""


class UartLink(Link):
    def __init__(self, port: SerialPort) -> None:
        self.name = port.name
        self._port = port

    def seconds(self, count: int) -> float:
        return self._port.wire_seconds(count)

    def send(self, data: bytes, deadline: Deadline) -> None:
        self._port.write(data, deadline)

    def receive(self, deadline: Deadline) -> bytes:
        return self._port.read_some(deadline)


class MbootUartFlasher(SerialBootloader, MbootMemory):
    """One part behind a serial port."""

    protocol = "mboot-uart"
    other_names = ("mboot", "blhost", "kboot")
    Address = MbootUartAddress
    Profile = MbootUartProfile

    _profile: MbootUartProfile
    _entry: BootPins
    _mute = (
        "pings",
        "Are its wires and its profile's entry right? Reset it, and try again at once: it waits for a ping for a few seconds.",
    )

    def __init__(self, port: SerialPort, profile: MbootUartProfile) -> None:
        super().__init__(port, profile)
        self._client = Client(UartLink(port), profile.answer)

    @classmethod
    def describer(cls, name: str, address: object, profile: object) -> Describer:
        from .describe import MbootUartDescriber

        return MbootUartDescriber(name)

    def _make_entry(self) -> BootPins:
        port, profile = self._port, self._profile
        return BootPins(
            port,
            profile.entry,
            text=profile.enter,
            text_seconds=profile.answer,
            loader=LineSettings(profile.baudrate, "N"),
            application=LineSettings(profile.app_baudrate or port.baudrate, port.parity),
        )

    def start_application(self) -> None:
        self._let_go()
        super().start_application()

    def _let_go(self) -> None:
        self._entry.let_go()

    def _sync(self) -> bool:
        return self._client.sync()

    def _answers(self) -> bool:
        return self._client.sync(FOUND_SECONDS)

    def _find(self, deadline: Deadline) -> Identity | None:
        return self.ask() if self._client.sync(FOUND_SECONDS) else None

    def _identify(self) -> Identity:
        return self.ask()

    def _accept(self, identity: Identity) -> None:
        self._judged(identity)

    def _restarted(self) -> None:
        self._started()
