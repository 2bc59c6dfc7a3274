"""Which ECUs are on a bus: those that answer a functional request at ISO 15765-4's ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...transports.can.bus import CanBus, CanId
from ...transports.deadline import Deadline
from ...transports.isotp.opening import IsoTpAddress, IsoTpChannel
from ..errors import PartError
from ..flasher import Discovered, Discovery
from ..settings import Settings
from .client import LOST
from .codec import NegativeResponse
from .functional import single_frame
from .identity import read_identifier, text
from .profile import IsoTp, UdsAddress, UdsProfile
from .session import ALIVE, client_over

if TYPE_CHECKING:
    from ..describing import Describer

OBD_FUNCTIONAL = CanId(0x7DF)
FIXED_FUNCTIONAL = CanId(0x18DB33F1, True)
_OBD_IDS = {CanId(number): CanId(number - 8) for number in range(0x7E8, 0x7F0)}
_FIXED_IDS = {CanId(0x18DAF100 | ecu, True): CanId(0x18DA00F1 | ecu << 8, True) for ecu in range(0x100)}
"""ISO 15765-4:2021, tables 8 and 9: the ids that ECUs answer functional requests under, and those they listen to."""
FD = IsoTp(tx_dl=64)
"""Of an ECU that answers CAN FD frames only."""

SIGHT_RUN_ON = 3.0
"""Seconds for which an answer to a scan may run beyond the scan's time for the ECU. ISO 15765-2 lets 0.9 s pass between
two frames at most (N_Cs), and an identification number of a vehicle has three frames."""
DISCOVER_RUN_ON = 10.0
"""Seconds for which the answers of all ECUs that the bench file does not list may run beyond the scan's time for them."""


@dataclass(frozen=True, slots=True)
class Found:
    """An ECU that answered a functional request. `serial` is "" where it doesn't tell. `fd`: it answers CAN FD frames only."""

    request: CanId
    response: CanId
    serial: str
    fd: bool = False

    def as_discovered(self) -> Discovered:
        ecu = self.response.value & 0xFF
        if self.response.extended:
            name, address = f"ecu-{ecu:02x}", f'addressing = "normal-fixed", target = 0x{ecu:02X}'
        else:
            name = f"ecu-{self.response.value:03x}"
            address = f"request = 0x{self.response.value - 8:03X}, response = {self.response}"
        title = f"{self.request}/{self.response}"
        profile = f"iso_tp = {{tx_dl = {FD.tx_dl}}}" if self.fd else ""
        return Discovered(f"{title}  serial {self.serial}" if self.serial else title, name, address, profile)


def discover(bus: CanBus, *, deadline: Deadline) -> list[Found]:
    """The ECUs at ISO 15765-4's ids, of 11 and 29 bits, that answer a functional TesterPresent, in order of id; on a CAN FD
    bus those that answer it in a classic frame, then those that answer it in a CAN FD frame only.

    It changes nothing in an ECU, and its answer fits one frame. Then each that answered is asked for its serial number.
    """
    answered: dict[tuple[CanId, CanId], bool] = {}
    for fd in (False, True) if bus.fd else (False,):
        for functional in (OBD_FUNCTIONAL, FIXED_FUNCTIONAL):
            for pair in _present(bus, functional, deadline, fd=fd):
                answered.setdefault(pair, fd)
    latest = Deadline(deadline.at + DISCOVER_RUN_ON)
    return [
        Found(request, response, _serial_of(bus, request, response, deadline, latest, fd=fd), fd)
        for (request, response), fd in answered.items()
    ]


def _present(bus: CanBus, functional: CanId, deadline: Deadline, *, fd: bool) -> list[tuple[CanId, CanId]]:
    """The ids that each ECU which answers listens to and answers under."""
    listened = _FIXED_IDS if functional.extended else _OBD_IDS
    profile = UdsProfile()
    channel = bus.channel(functional, tuple(listened), fd=fd)
    answered: set[int] = set()
    try:
        channel.send(single_frame(ALIVE, profile.iso_tp.padding_byte), deadline)
        window = deadline.sooner(profile.timings.p2 + profile.timings.latency)
        while (frame := channel.recv(window)) is not None:
            answered.add(frame.arbitration_id)
    finally:
        channel.close()
    return [(request, response) for response, request in listened.items() if response.value in answered]


def _serial_of(bus: CanBus, request: CanId, response: CanId, deadline: Deadline, latest: Deadline, *, fd: bool) -> str:
    profile = UdsProfile(iso_tp=FD) if fd else UdsProfile()
    channel = IsoTpChannel.open(bus, IsoTpAddress(request=request, response=response), profile.iso_tp.options())
    channel.latest = latest.sooner(SIGHT_RUN_ON)
    client = client_over(channel, profile)
    try:
        value = read_identifier(client, profile.identifiers.serial, limit=deadline.remaining)
    except (*LOST, PartError):
        return ""
    finally:
        client.close()
    return "" if isinstance(value, NegativeResponse) else text(value)


class UdsDiscovery(Discovery):
    protocol: ClassVar[str] = "uds"

    @classmethod
    def describer(cls) -> Describer:
        from .describe import ListeningDescriber

        return ListeningDescriber()

    @classmethod
    def discover(
        cls, bus: CanBus, listed: Sequence[Settings], *, active: bool, deadline: Deadline
    ) -> Sequence[Discovered]:
        """By functional requests, where they may be sent."""
        if not active:
            return []
        known = {
            item.response for address in listed if isinstance(address, UdsAddress) for item in address.every_isotp()
        }
        return [ecu.as_discovered() for ecu in discover(bus, deadline=deadline) if ecu.response not in known]

    @classmethod
    def asked(cls, bus: CanBus, *, active: bool, found: int) -> str:
        if not active:
            return ""
        frames = "classic and CAN FD frames" if bus.fd else "classic frames"
        said = f"asked every ECU by a UDS TesterPresent to {OBD_FUNCTIONAL} and {FIXED_FUNCTIONAL}, in {frames}"
        return (
            said
            if found
            else (
                f"{said}: no other ECU answers at ISO 15765-4's ids; one with other ids is asked by its request id: "
                "uds:...?request=ID"
            )
        )
