"""USB Device Firmware Upgrade: DFU 1.1 (USB-IF, 2004-08-05) and ST's DfuSe (UM0391, AN2662, AN3156).

A device of DFU 1.1 takes one blob into one slot (slot.py), one of DfuSe has addressed memory (dfuse.py). Only the connected
device shows which of the two it is, unless the profile says it. The requests are in link.py, coming and going in entry.py
and session.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from ...transports.deadline import Deadline
from ...transports.usb.bus import UsbBus
from ..errors import PartWrongMode
from ..flasher import Bootloader, Capability, Identity, MemoryAccess, ProbeResult, SlotAccess
from .codec import SILENCES
from .dfuse import DfuSeMemory
from .entry import is_in_dfu_mode
from .identity import common, has_dfu, probed
from .profile import DfuAddress, DfuProfile
from .session import DfuSession
from .slot import DfuSlot

if TYPE_CHECKING:
    from ..describing import Describer


class DfuFlasher(Bootloader):
    """One device, in its running application or in DFU mode."""

    protocol = "dfu"
    other_names = ("dfuse", "dfu-util", "stm32", "stm32-dfu")
    bus_kind = "usb"
    silences = SILENCES
    Address = DfuAddress
    Profile = DfuProfile

    def __init__(self, bus: UsbBus, address: DfuAddress, profile: DfuProfile) -> None:
        self._session = DfuSession(bus, address, profile)
        self._access: MemoryAccess | SlotAccess | None = None

    @classmethod
    def describer(cls, name: str, address: object, profile: object) -> Describer:
        from .describe import DfuDescriber

        return DfuDescriber(name)

    @classmethod
    def attach(cls, bus: UsbBus, address: DfuAddress, profile: DfuProfile) -> Self:
        return cls(bus, address, profile)

    @classmethod
    def probe(
        cls, bus: UsbBus, address: DfuAddress, profile: DfuProfile, *, active: bool, deadline: Deadline
    ) -> ProbeResult | None:
        """From the descriptors alone. The version is the running application's bcdDevice, JJ.M.N (USB 2.0, 9.6.1)."""
        runtime = address.runtime()
        for match in (address.dfu_mode(), runtime):
            if match is None:
                continue
            found = [
                probed(info)
                for info in bus.list(match)
                if is_in_dfu_mode(info) or match == runtime or (match.vendor_id is not None and has_dfu(info))
            ]
            if found:
                return common(found)
        return None

    @classmethod
    def can_tell(cls, address: DfuAddress) -> bool:
        """A running application is recognised by its own ids."""
        return address.runtime() is not None

    @classmethod
    def readback_unavailable_reason(cls, profile: DfuProfile) -> str:
        return "a DFU 1.1 device does not tell how long its present image is" if profile.flavour == "dfu" else ""

    def connect(self) -> Identity:
        session = self._session
        identity = session.open()
        self._access = DfuSeMemory(session) if session.is_dfuse else DfuSlot(session)
        self.capabilities = Capability.BOOT
        if session.functional.can_upload and (session.is_dfuse or session.functional.manifestation_tolerant):
            self.capabilities |= Capability.READ
        elif not session.is_dfuse:
            self.capabilities |= Capability.CHECK
        return identity

    def access(self) -> MemoryAccess | SlotAccess:
        if self._access is None:
            raise PartWrongMode("the device is not connected")
        return self._access

    def start_application(self) -> None:
        """Raises RebootFailed when the device comes back in its bootloader."""
        self._session.start_application()

    def leave(self) -> None:
        """A device that was found in DFU mode stays there, idle."""
        if self._session.moved:
            self._session.start_application()
        else:
            self._session.become_idle()

    def abandon(self) -> None:
        if self._session.moved:
            self._session.abandon()
        else:
            self.leave()

    def close(self) -> None:
        self._session.close()
