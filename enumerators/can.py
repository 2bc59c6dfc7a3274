"""Components on CAN: asked by UDS identifiers in the default session (ISO 14229-1, ReadDataByIdentifier)."""

from __future__ import annotations

from collections.abc import Sequence

from ..flashers.uds import flasher as uds
from ..transports.can import CanId
from ..transports.deadline import Deadline
from .benchfile import Entry
from .component import Unlisted
from .probers import Prober


class CanProber(Prober):
    """Finds ECUs that the file doesn't name by functional requests, where the bus's `probe` allows it."""

    def unlisted(self, entries: Sequence[Entry], deadline: Deadline) -> list[Unlisted]:
        if not self.spec.probe:
            return []
        listed = {getattr(entry.address, "response", None) for entry in entries}
        return [
            self._found(ecu)
            for ecu in uds.discover(self.transport, deadline=deadline)
            if ecu.response.value not in listed
        ]

    def _found(self, ecu: uds.Found) -> Unlisted:
        name, address = _named(ecu.response)
        body = f'bus = "{self.name}"\nprotocol = "uds"\naddress = {{{address}}}'
        title = f"uds {ecu.request}/{ecu.response}"
        return Unlisted(self.name, f"{title}  serial {ecu.serial}" if ecu.serial else title, name, body)


def _named(response: CanId) -> tuple[str, str]:
    """A name for the ECU that answers under this id, and the keys of its address."""
    if response.extended:
        ecu = response.value & 0xFF
        return f"ecu-{ecu:02x}", f'addressing = "normal-fixed", target = 0x{ecu:02X}'
    return f"ecu-{response.value:03x}", f"request = 0x{response.value - 8:03X}, response = {response}"
