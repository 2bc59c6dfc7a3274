"""`DfuSession`: a device that was brought into DFU mode, what its descriptors say, and how it is restarted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress

from ...transports import clock
from ...transports.deadline import Deadline
from ...transports.errors import ProxyflashError, TransportError, UsbGone, UsbStall, UsbTimeout
from ...transports.usb.bus import UsbBus, UsbInfo, UsbInterface
from ..errors import ImageWrongPart, NoResponse, PartWrongMode, ProtocolError, RebootFailed, WrongPart
from ..flasher import Identity, State, Target
from ..memory import Region
from . import layouts
from .codec import DFUSE_VERSION, Functional, parse_functional
from .dfuse_layout import FLASH_START, parse_layout
from .entry import LOOK_SECONDS, Came, came_back, detach, find, is_in_dfu_mode
from .identity import alternates, identity
from .link import DfuLink
from .profile import ANY, DfuAddress, DfuProfile

STAYS_SECONDS = 1.5
"""After a DETACH whose reset was not sent a device stays in its application: for as long as most have as wDetachTimeOut, and a
half."""
UNDESCRIBED = Functional(True, False, False, False, 0, 64, 0x0110)
"""Of a device without a functional descriptor: the least that every one can."""


class DfuSession:
    """`functional`, `is_dfuse` and `regions` are known once it is open."""

    def __init__(self, bus: UsbBus, address: DfuAddress, profile: DfuProfile) -> None:
        self._bus = bus
        self.address = address
        self.profile = profile
        self._link: DfuLink | None = None
        self.functional = UNDESCRIBED
        self.is_dfuse = False
        self.regions: list[tuple[int, Region]] = []
        """By alternate setting, as a DfuSe device describes them."""
        self.tells_its_layout = True
        """Whether the memories are as the device itself describes them."""
        self._alternate = 0
        self.wanted_alternate = 0
        """The alternate setting to read and write where several have an address."""
        self._ids: set[tuple[int, int]] = set()
        self._runs = False
        self.moved = False
        """Whether it was detached from its application, and has not run it since."""

    @property
    def link(self) -> DfuLink:
        """Raises PartWrongMode."""
        if self._link is None:
            raise PartWrongMode("the device is not connected")
        return self._link

    @property
    def block_size(self) -> int:
        """Bytes of one block. A host may send fewer than the wTransferSize of the device (DFU 1.1, 4.1.3)."""
        return min(self.functional.transfer_size, self.profile.transfer_size)

    def open(self) -> Identity:
        """Brings the device into DFU mode, idle. Raises NoResponse, WrongPart, PartWrongMode, ProtocolError."""
        self.close()
        self.wanted_alternate = self.address.alt
        detached = self._enter()
        try:
            if not self._is_idle():
                # It waits for the reset that an earlier session owes it (DFU 1.1, A.2.9), or hangs.
                self.reset()
                self._enter()
                if not self.link.become_idle():
                    raise ProtocolError("the device waits for a USB reset, and a reset does not help")
            return self._look_around()
        except ProxyflashError:
            if detached:
                # What was running, and is not what was wanted, runs on.
                with suppress(ProxyflashError):
                    self._restart()
            self.close()
            raise

    def close(self) -> None:
        if self._link is not None:
            self._link.device.close()
            self._link = None

    def check_target(self, target: Target) -> None:
        """A suffix's ids are those of DFU mode or of the application (DFU 1.1, appendix B, doesn't say which).

        Raises ImageWrongPart.
        """
        wanted = (target.get("vendor_id", ANY), target.get("product_id", ANY))
        if not any(all(a in (ANY, b) for a, b in zip(wanted, own, strict=True)) for own in self._ids):
            ids = " or ".join(f"{vendor:04x}:{product:04x}" for vendor, product in sorted(self._ids))
            named = ":".join(f"{value:04x}" if isinstance(value, int) else str(value) for value in wanted)
            raise ImageWrongPart(
                f"the file's suffix is for {named}, the device is {ids}",
                remedy="Is it the right file for this component?",
            )

    def take_alternate(self, target: Target, known: Sequence[int]) -> None:
        """Takes the alternate setting that a file names. Raises ImageWrongPart."""
        alternate = target.get("alt_setting")
        if not isinstance(alternate, int):
            return
        if alternate not in known:
            raise ImageWrongPart(
                f"the file is for alternate setting {alternate}, the device has "
                f"{', '.join(map(str, known))} to write to",
                remedy="Is it the right file for this component?",
            )
        self.wanted_alternate = alternate

    def select(self, alternate: int) -> None:
        if alternate != self._alternate:
            self.link.device.claim(self.link.interface, alternate)
            self._alternate = alternate
        self.become_idle()

    def become_idle(self) -> None:
        """Raises ProtocolError."""
        if not self.link.become_idle():
            raise ProtocolError("the device waits for a USB reset")

    def reset(self) -> Came:
        """A USB reset, after which the device is elsewhere: in its application, or in DFU mode again."""
        device = self.link.device
        others = self._bus.ports()
        with suppress(TransportError):
            device.reset()
        return self._gone(device.info, others)

    def start_application(self) -> None:
        """Raises RebootFailed when the device comes back in its bootloader."""
        if not self._runs and self._restart() is Came.DFU_MODE:
            raise RebootFailed(
                "the device was asked to start its application, and is in DFU mode again",
                remedy="Is its boot pin or button still held? Release it and restart the part. "
                "If it comes back in DFU mode then too, the image does not run: is it the right file?",
            ).answers()

    def abandon(self) -> None:
        """Has a device start its application that was detached, and may be on its way. A device that is still there after its
        detach time does not go. Raises NoResponse and what opening raises."""
        self.close()
        back, stays = Deadline.after(self.profile.reenumerate), Deadline.after(STAYS_SECONDS)
        while True:
            device = None
            with suppress(*(() if back.expired else (NoResponse, TransportError))):
                device = find(self._bus, self.address)
            if device is not None:
                device.close()
                if is_in_dfu_mode(device.info):
                    break
                if stays.expired:
                    return
            clock.sleep(LOOK_SECONDS)
        self._enter()
        self._restart()

    def _restart(self) -> Came:
        """Has the device start its application."""
        link = self.link
        if not self.is_dfuse or not link.become_idle():
            return self.reset()
        if self._alternate != 0:
            self.select(0)
        flash = (region.start for alternate, region in self.regions if alternate == 0 and region.writable)
        others = self._bus.ports()
        link.leave(next(flash, FLASH_START))
        return self._gone(link.device.info, others)

    def _gone(self, info: UsbInfo, others: Collection[str]) -> Came:
        self.close()
        came = came_back(self._bus, self.address, info, others, self.profile.reenumerate)
        self._runs = came is not Came.DFU_MODE
        self.moved &= not self._runs
        return came

    def _enter(self) -> bool:
        """Brings the device into DFU mode and claims it; whether it had to be detached from its application."""
        device = find(self._bus, self.address)
        self._runs = False
        self._ids = {(device.info.vendor_id, device.info.product_id)}
        running = not is_in_dfu_mode(device.info)
        if running:
            self.moved = True
            device = detach(self._bus, device, self.address, self.profile.reenumerate)
        info = device.info
        self._ids.add((info.vendor_id, info.product_id))
        runtime = self.address.runtime()
        if runtime is not None and runtime.vendor_id is not None and runtime.product_id is not None:
            self._ids.add((runtime.vendor_id, runtime.product_id))
        found = alternates(info)
        self._describe(info, found)
        self._link = DfuLink(device, found[0].number, dfuse=self.is_dfuse, work=self.profile.work)
        known = [item.alternate for item in found]
        self._alternate = self.wanted_alternate if self.wanted_alternate in known else known[0]
        device.claim(found[0].number, self._alternate)
        return running

    def _describe(self, info: UsbInfo, found: Sequence[UsbInterface]) -> None:
        """What the descriptors say: flavour, block size, memories; where they are wrong, what is known of the device or what
        its profile says. Raises ProtocolError."""
        described = [parse_functional(item.extra) for item in found]
        self.functional = next((item for item in described if item is not None), UNDESCRIBED)
        named = any(item.name.startswith("@") for item in found)
        known = [*layouts.of(info)]
        flavour = self.profile.flavour
        if flavour == "auto" and any(row.flavour for row in known):
            flavour = "dfu"
        self.is_dfuse = flavour == "dfuse" or (
            flavour == "auto" and (self.functional.version == DFUSE_VERSION or named or bool(self.profile.memory))
        )
        right = {row.alt: row.layout for row in known}
        self.regions = []
        self.tells_its_layout = True
        for item in found if self.is_dfuse else ():
            own = self.profile.own_regions(item.alternate)
            name = right.get(item.alternate, item.name)
            if not own and name.startswith("@"):
                own = parse_layout(name, self.profile.write_alignment)
            self.regions += [(item.alternate, region) for region in own]
            self.tells_its_layout &= not own or own == _told(item.name, self.profile.write_alignment)

    def _is_idle(self) -> bool:
        """Whether the device has become idle; False if it doesn't answer, says that it waits for a reset, or leaves: a
        manifestation that an earlier session began goes on as soon as it is asked."""
        try:
            return self.link.become_idle()
        except (UsbStall, UsbTimeout, UsbGone):
            return False

    def _look_around(self) -> Identity:
        """Whether it is the device that is meant. Raises WrongPart, PartWrongMode, ProtocolError."""
        info = self.link.device.info
        if self.profile.part and info.product != self.profile.part:
            raise WrongPart(f"the device calls itself {info.product!r}, the profile wants {self.profile.part!r}")
        found = alternates(info)
        if self.address.alt not in [item.alternate for item in found]:
            known = ", ".join(f"{item.alternate} {item.name!r}" for item in found)
            raise PartWrongMode(
                f"the device has no alternate setting {self.address.alt}; it has: {known}",
                remedy="Correct alt in the component's address.",
            )
        if not self.functional.can_download or self.functional.transfer_size == 0:
            raise PartWrongMode("the device's DFU descriptor says that it takes no downloads")
        if self.is_dfuse and not any(alternate == self.address.alt for alternate, _ in self.regions):
            raise ProtocolError(
                f"the device says DfuSe, but the name of its alternate setting {self.address.alt} describes no memory",
                remedy='If it is a DFU 1.1 device, put flavour = "dfu" into its profile.',
            )
        return identity(info, State.BOOTLOADER)


def _told(name: str, write_alignment: int) -> list[Region]:
    """The regions of a name; none where the name is not a layout."""
    with suppress(ProtocolError):
        return parse_layout(name, write_alignment)
    return []
