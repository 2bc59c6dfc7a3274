"""`xcp-uart`: XCP on a serial line, framed as OpenBLT does (rs232.c): the packet's length in a byte, the packet, and with some
builds a byte that is the sum of these.

An application with OpenBLT restarts into it at CONNECT; others take a text.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Self

from ...transports import clock
from ...transports.deadline import Deadline
from ...transports.errors import SerialTimeout
from ...transports.serial.port import SerialPort
from .. import flasher
from ..errors import ProtocolError
from ..flasher import Identity, ProbeResult
from ..keys.making import recorded_keys
from ..serial.bootloader import ENTRY_TRIES, SerialBootloader
from ..serial.entry import LineSettings, SerialEntry
from ..serial.exchange import QUIET_SECONDS, STREAM_SECONDS
from ..settings import Settings
from .client import Client, Link
from .flasher import RESET_IT, XcpMemory
from .profile import XcpUartAddress, XcpUartProfile

if TYPE_CHECKING:
    from ..describing import Describer

LONGEST = 255


class UartLink(Link):
    def __init__(self, port: SerialPort, profile: XcpUartProfile) -> None:
        self.name = port.name
        self._port = port
        self._more = 1 + profile.checksum
        """Bytes around a packet."""
        self._kept = bytearray()

    def seconds(self, count: int) -> float:
        return self._port.wire_seconds(count + self._more)

    def send(self, packet: bytes, deadline: Deadline) -> None:
        self._port.write(framed(packet, self._more), deadline)

    def receive(self, deadline: Deadline) -> bytes | None:
        kept = self._kept
        while True:
            if kept and not kept[0]:
                del kept[0]
                continue
            if kept and len(kept) >= kept[0] + self._more:
                frame = bytes(kept[: kept[0] + self._more])
                del kept[: len(frame)]
                packet = frame[1 : 1 + frame[0]]
                if framed(packet, self._more) != frame:
                    raise ProtocolError("a garbled answer")
                return packet
            if deadline.expired or not (data := self._port.read_some(deadline)):
                return None
            kept += data

    def drain(self) -> None:
        self._port.drain()
        self._kept.clear()

    def resync(self) -> None:
        """What is left of a packet is taken as such by the other end until nothing comes for a while."""
        self._port.until_quiet(QUIET_SECONDS, Deadline.after(STREAM_SECONDS))

    def close(self) -> None:
        """The port is the bus."""


def framed(packet: bytes, more: int) -> bytes:
    """`more`: 2 with the sum, 1 without."""
    frame = bytes((len(packet),)) + packet
    return frame + bytes((sum(frame) & 0xFF,)) * (more - 1)


class XcpEntry(SerialEntry):
    """By a text, or by CONNECT alone. Nothing resets the part."""

    resets = False

    def enter(self) -> bool:
        self.send_text()
        self.use_loader_settings()
        return True

    def reset(self) -> bool:
        return False


class XcpUartFlasher(XcpMemory, SerialBootloader):
    """One part behind a serial port."""

    protocol = "xcp-uart"
    other_names = ("xcp", "openblt", "bootcommander")
    probes_bootloader = False
    Address = XcpUartAddress
    Profile: ClassVar[type[Settings]] = XcpUartProfile

    _profile: XcpUartProfile
    _entry: XcpEntry
    _mute = ("CONNECT", "Are its wires, its rate, and checksum in its profile right? " + RESET_IT)

    def __init__(self, port: SerialPort, profile: XcpUartProfile) -> None:
        super().__init__(port, profile)
        self._client = Client(UartLink(port, profile), profile.timings.answer)

    @classmethod
    def attach(cls, bus: SerialPort, address: flasher.Address, profile: XcpUartProfile) -> Self:
        made = cls(bus, profile)
        made._take_keys()
        return made

    def _take_keys(self) -> None:
        """What is only probed needs none."""
        self._key = recorded_keys(self._profile.security, self._port.outside)

    @classmethod
    def probe(
        cls,
        bus: SerialPort,
        address: flasher.Address,
        profile: XcpUartProfile,
        *,
        active: bool,
        deadline: Deadline | float,
    ) -> ProbeResult | None:
        """Nothing is sent: CONNECT may restart an application into its bootloader."""
        return None

    @classmethod
    def describer(cls, name: str, address: object, profile: XcpUartProfile) -> Describer:
        from .describe import XcpUartDescriber

        return XcpUartDescriber(name, 1 + profile.checksum)

    def close(self) -> None:
        SerialBootloader.close(self)

    def leave(self) -> None:
        super().leave()
        self._entry.use_application_settings()

    def abandon(self) -> None:
        self._entry.use_loader_settings()
        super().abandon()
        self._entry.use_application_settings()

    def _make_entry(self) -> XcpEntry:
        profile = self._profile
        return XcpEntry(
            self._port,
            text=profile.enter,
            text_seconds=profile.timings.answer,
            settle=profile.settle,
            loader=LineSettings(profile.baudrate),
            application=LineSettings(profile.app_baudrate or self._port.baudrate),
        )

    def _is_found(self) -> bool:
        self._entry.use_loader_settings()
        return self._connects()

    def _sync(self) -> bool:
        timings = self._profile.timings
        deadline = Deadline.after(timings.start / ENTRY_TRIES)
        while not deadline.expired:
            began = Deadline.after(timings.connect)
            with suppress(SerialTimeout):
                if self._connects():
                    return True
            clock.sleep(began.remaining)
        return False

    def _identify(self) -> Identity:
        return self._identified()

    def _leave_as_found(self, error: Exception) -> None:
        if self._session is not None:
            self.leave()

    def _restarted(self) -> None:
        self._started()
