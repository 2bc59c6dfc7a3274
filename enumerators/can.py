"""Components on CAN: asked by UDS identifiers in the default session (ISO 14229-1, ReadDataByIdentifier)."""

from __future__ import annotations

from collections.abc import Sequence

from ..flashers import uds
from ..transports.deadline import Deadline
from .benchfile import Entry
from .component import Unlisted
from .probers import Prober


class CanProber(Prober):
    """Finds ECUs that the file doesn't name by one functional request, where the bus's `probe` allows it."""

    def unlisted(self, entries: Sequence[Entry], deadline: Deadline) -> list[Unlisted]:
        if not self.spec.probe:
            return []
        listed = {int(getattr(entry.address, "response", None) or -1) for entry in entries}
        found = []
        for ecu in uds.discover(self.transport, deadline=deadline):
            if ecu.response in listed:
                continue
            request = ecu.response - 8
            lines = (
                "[[component]]\n"
                f'name = "ecu-{ecu.response:03x}"\n'
                f'bus = "{self.name}"\n'
                'protocol = "uds"\n'
                f"address = {{request = 0x{request:03X}, response = 0x{ecu.response:03X}}}"
            )
            title = f"uds 0x{request:03X}/0x{ecu.response:03X}"
            found.append(Unlisted(self.name, f"{title}  serial {ecu.serial}" if ecu.serial else title, lines))
        return found
