"""USB Device Firmware Upgrade: DFU 1.1 (USB-IF, 2004-08-05) and ST's DfuSe (UM0391, AN2662, AN3156).

DFU 1.1 takes one blob into one slot, in blocks from 0 on, and judges it itself at manifestation. DfuSe adds addresses:
commands in block 0, data in blocks from 2 on, memory as described by the alternate settings' names. Here is what they
have in common and where they part; the requests are in `link`, coming and going in `entry`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Self

from ...transports.deadline import Deadline
from ...transports.errors import ProxyflashError, TransportError, UsbGone, UsbStall, UsbTimeout
from ...transports.usb.bus import UsbBus, UsbInfo, UsbInterface
from ..errors import ImageWrongPart, NotBack, PartConfused, PartWrongFamily, PartWrongMode, VerifyMismatch
from ..flasher import Capability, Flasher, Identity, Sighting, State
from ..image import Segment
from ..memory import EraseRun, MemoryMap, Range, Region
from .codec import (
    DFUSE_VERSION,
    FIRST_DATA_BLOCK,
    LAST_BLOCK,
    DfuSeCommand,
    DfuState,
    Functional,
    parse_functional,
)
from .dfuse_layout import FLASH_START, parse_layout
from .entry import Came, came_back, detach, find, is_in_dfu_mode
from .identity import alternates, common, has_dfu, identity, sighting
from .link import DfuLink
from .profile import ANY, DfuAddress, DfuProfile

UNDESCRIBED = Functional(True, False, False, False, 0, 64, 0x0110)
"""Of a device without a functional descriptor: the least that every one can."""


class DfuFlasher(Flasher):
    """One device, in its running application or in DFU mode."""

    protocol = "dfu"
    bus_kind = "usb"
    Address = DfuAddress
    Profile = DfuProfile

    def __init__(self, bus: UsbBus, address: DfuAddress, profile: DfuProfile) -> None:
        self._bus = bus
        self._address = address
        self._profile = profile
        self._link: DfuLink | None = None
        self._functional = UNDESCRIBED
        self._dfuse = False
        self._regions: list[tuple[int, Region]] = []
        """By alternate setting, as the device describes them."""
        self._alternate = 0
        self._wanted_alternate = 0
        self._ids: set[tuple[int, int]] = set()
        self._runs = False

    @classmethod
    def attach(cls, bus: UsbBus, address: DfuAddress, profile: DfuProfile) -> Self:
        return cls(bus, address, profile)

    @classmethod
    def sight(
        cls, bus: UsbBus, address: DfuAddress, profile: DfuProfile, *, active: bool, deadline: Deadline
    ) -> Sighting | None:
        """From the descriptors alone. The version is the running application's bcdDevice, JJ.M.N (USB 2.0, 9.6.1)."""
        runtime = address.runtime()
        for match in (address.dfu_mode(), runtime):
            if match is None:
                continue
            found = [
                sighting(info)
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
    def unreadable(cls, profile: DfuProfile) -> str:
        return "a DFU 1.1 device does not tell how long its present image is" if profile.flavour == "dfu" else ""

    def connect(self) -> Identity:
        self.close()
        self._wanted_alternate = self._address.alt
        detached = self._enter()
        try:
            if not self._is_idle():
                # It waits for the reset that an earlier session owes it (DFU 1.1, A.2.9), or hangs.
                self._reset()
                self._enter()
                if not self._connected.become_idle():
                    raise PartConfused("the device waits for a USB reset, and a reset does not help")
            return self._look_around()
        except ProxyflashError:
            if detached:
                # What was running, and is not what was wanted, runs on.
                with suppress(ProxyflashError):
                    self._restart()
            self.close()
            raise

    def memory_map(self) -> MemoryMap:
        """The memories of one alternate setting: the address's, or the one that the image file names."""
        return MemoryMap(tuple(region for alternate, region in self._regions if alternate == self._wanted_alternate))

    def verify_target(self, target: Mapping[str, int | str]) -> None:
        """A suffix's ids are those of DFU mode or of the application (DFU 1.1, appendix B, tells not which)."""
        wanted = (target.get("vendor_id", ANY), target.get("product_id", ANY))
        if not any(all(a in (ANY, b) for a, b in zip(wanted, own, strict=True)) for own in self._ids):
            ids = " or ".join(f"{vendor:04x}:{product:04x}" for vendor, product in sorted(self._ids))
            named = ":".join(f"{value:04x}" if isinstance(value, int) else str(value) for value in wanted)
            raise ImageWrongPart(
                f"the file's suffix is for {named}, the device is {ids}",
                remedy="Is it the right file for this component?",
            )
        alternate = target.get("alt_setting")
        if isinstance(alternate, int):
            known = sorted({number for number, _ in self._regions})
            if alternate not in known:
                raise ImageWrongPart(
                    f"the file is for alternate setting {alternate}, the device has "
                    f"{', '.join(map(str, known))} to write to",
                    remedy="Is it the right file for this component?",
                )
            self._wanted_alternate = alternate

    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        done = 0
        if self._is_everything(ranges):
            self._select(0)
            self._connected.command(bytes([DfuSeCommand.ERASE]), "erase all of the flash")
            yield sum(item.size for item in ranges)
            return
        for item in ranges:
            self._select_for(item.start)
            payload = bytes([DfuSeCommand.ERASE]) + item.start.to_bytes(4, "little")
            self._connected.command(payload, f"erase {item}")
            done += item.size
            yield done

    def write(self, segment: Segment) -> Iterator[int]:
        return self._write_addressed(segment) if self._dfuse else self._write_blob(segment)

    def read(self, start: int, size: int) -> Iterator[bytes]:
        return self._read_addressed(start, size) if self._dfuse else self._read_blob(start, size)

    def check(self, segments: Sequence[Segment]) -> str:
        # A DFU 1.1 device judges at manifestation, at the end of `write`: what it refuses has failed there.
        return "manifestation by the part"

    def boot(self) -> None:
        """Raises NotBack when the device comes back in its bootloader."""
        if self._runs:
            return
        if self._restart() is Came.DFU_MODE:
            raise NotBack("the device was told to start its application, and is in DFU mode again")

    def close(self) -> None:
        if self._link is not None:
            self._link.device.close()
            self._link = None

    # Connecting.

    @property
    def _connected(self) -> DfuLink:
        if self._link is None:
            raise PartWrongMode("the device is not connected")
        return self._link

    def _enter(self) -> bool:
        """Brings the device into DFU mode and claims it; whether it had to be detached from its application."""
        device = find(self._bus, self._address)
        self._runs = False
        self._ids = {(device.info.vendor_id, device.info.product_id)}
        running = not is_in_dfu_mode(device.info)
        if running:
            device = detach(self._bus, device, self._address, self._profile.reenumerate)
        info = device.info
        self._ids.add((info.vendor_id, info.product_id))
        runtime = self._address.runtime()
        if runtime is not None and runtime.vendor_id is not None and runtime.product_id is not None:
            self._ids.add((runtime.vendor_id, runtime.product_id))
        found = alternates(info)
        self._describe(found)
        self._link = DfuLink(device, found[0].number, dfuse=self._dfuse, work=self._profile.work)
        known = [item.alternate for item in found]
        self._alternate = self._wanted_alternate if self._wanted_alternate in known else known[0]
        device.claim(found[0].number, self._alternate)
        return running

    def _describe(self, found: Sequence[UsbInterface]) -> None:
        """What the descriptors say: flavour, block size, memories. Raises PartConfused."""
        described = [parse_functional(item.extra) for item in found]
        self._functional = next((item for item in described if item is not None), UNDESCRIBED)
        named = any(item.name.startswith("@") for item in found)
        self._dfuse = self._profile.flavour == "dfuse" or (
            self._profile.flavour == "auto" and (self._functional.version == DFUSE_VERSION or named)
        )
        if not self._dfuse:
            size = self._profile.slot_size
            slot = Region("slot", 0, size, (EraseRun(1, size),), self_erasing=True, ordered=True)
            self._regions = [(self._address.alt, slot)]
            return
        self._regions = [
            (item.alternate, region)
            for item in found
            if item.name.startswith("@")
            for region in parse_layout(item.name, self._profile.write_alignment)
        ]

    def _is_idle(self) -> bool:
        """Whether the device has become idle; False if it doesn't answer, says that it waits for a reset, or leaves: a
        manifestation that an earlier session began goes on as soon as it is asked."""
        try:
            return self._connected.become_idle()
        except (UsbStall, UsbTimeout, UsbGone):
            return False

    def _look_around(self) -> Identity:
        """Whether it is the device that is meant. Raises PartWrongFamily, PartWrongMode, PartConfused."""
        info = self._connected.device.info
        if self._profile.part and info.product != self._profile.part:
            raise PartWrongFamily(f"the device calls itself {info.product!r}, the profile wants {self._profile.part!r}")
        found = alternates(info)
        if self._address.alt not in [item.alternate for item in found]:
            known = ", ".join(f"{item.alternate} {item.name!r}" for item in found)
            raise PartWrongMode(
                f"the device has no alternate setting {self._address.alt}; it has: {known}",
                remedy="Correct alt in the component's address.",
            )
        if not self._functional.can_download or self._functional.transfer_size == 0:
            raise PartWrongMode("the device's DFU descriptor says that it takes no downloads")
        if not any(alternate == self._address.alt for alternate, _ in self._regions):
            raise PartConfused(
                f"the device says DfuSe, but the name of its alternate setting {self._address.alt} tells no memory",
                remedy='If it is a DFU 1.1 device, put flavour = "dfu" into its profile.',
            )
        self.capabilities = Capability.BOOT
        if self._functional.can_upload and (self._dfuse or self._functional.manifestation_tolerant):
            self.capabilities |= Capability.READ
        elif not self._dfuse:
            self.capabilities |= Capability.CHECK
        return identity(info, State.BOOTLOADER)

    # Restarting.

    def _reset(self) -> Came:
        """A USB reset, after which the device is elsewhere: in its application, or in DFU mode again."""
        device = self._connected.device
        with suppress(TransportError):
            device.reset()
        return self._gone(device.info)

    def _restart(self) -> Came:
        """Has the device start its application."""
        link = self._connected
        if not self._dfuse:
            return self._reset()
        if not link.become_idle():
            return self._reset()
        if self._alternate != 0:
            self._select(0)
        flash = (region.start for alternate, region in self._regions if alternate == 0 and region.writable)
        link.leave(next(flash, FLASH_START))
        return self._gone(link.device.info)

    def _gone(self, info: UsbInfo) -> Came:
        self.close()
        came = came_back(self._bus, self._address, info, self._profile.reenumerate)
        self._runs = came is not Came.DFU_MODE
        return came

    # Memories.

    def _is_everything(self, ranges: Sequence[Range]) -> bool:
        """Whether to erase these is to erase all of the flash, by one command."""
        flash = [region for alternate, region in self._regions if alternate == 0]
        if not self._profile.mass_erase or any(region.self_erasing or not region.writable for region in flash):
            return False
        inside = all(any(region.start <= item.start < region.end for region in flash) for item in ranges)
        return inside and sum(item.size for item in ranges) == sum(region.size for region in flash)

    def _select(self, alternate: int) -> None:
        if alternate != self._alternate:
            self._connected.device.claim(self._connected.interface, alternate)
            self._alternate = alternate
        self._become_idle()

    def _select_for(self, address: int) -> None:
        """The alternate setting whose memory holds an address; the wanted one if several do."""
        found = [alternate for alternate, region in self._regions if region.start <= address < region.end]
        if not found:
            raise PartConfused(f"no memory of the device holds 0x{address:08X}")
        self._select(self._wanted_alternate if self._wanted_alternate in found else found[0])

    def _become_idle(self) -> None:
        if not self._connected.become_idle():
            raise PartConfused("the device waits for a USB reset")

    # Moving data.

    def _write_addressed(self, segment: Segment) -> Iterator[int]:
        self._select_for(segment.address)
        link = self._connected
        view = memoryview(segment.data)
        size = self._functional.transfer_size
        block = LAST_BLOCK + 1
        for offset in range(0, len(view), size):
            data = bytes(view[offset : offset + size])
            if self._needs_pointing(block, len(data)):
                link.point(segment.address + offset)
                block = FIRST_DATA_BLOCK
            what = f"write 0x{segment.address + offset:08X}"
            link.download(block, data, what)
            link.settle(what, (DfuState.dfuDNLOAD_IDLE,))
            block += 1
            yield offset + len(data)

    def _read_addressed(self, start: int, size: int) -> Iterator[bytes]:
        self._select_for(start)
        link = self._connected
        step = self._functional.transfer_size
        block = LAST_BLOCK + 1
        for offset in range(0, size, step):
            count = min(step, size - offset)
            if self._needs_pointing(block, count):
                self._become_idle()
                link.point(start + offset)
                link.abort()
                block = FIRST_DATA_BLOCK
            what = f"read 0x{start + offset:08X}"
            data = link.upload(block, count, what)
            if len(data) != count:
                raise PartConfused(f"{what}: the device sent {len(data)} of {count} bytes")
            yield data
            block += 1
        self._become_idle()

    def _needs_pointing(self, block: int, size: int) -> bool:
        """Block numbers end, and count in blocks of this one's own size (AN2662, 4.4.1): a short one needs a pointer."""
        return block > LAST_BLOCK or (block > FIRST_DATA_BLOCK and size < self._functional.transfer_size)

    def _write_blob(self, segment: Segment) -> Iterator[int]:
        self._become_idle()
        link = self._connected
        view = memoryview(segment.data)
        size = self._functional.transfer_size
        for block, offset in enumerate(range(0, len(view), size)):
            data = bytes(view[offset : offset + size])
            what = f"write block {block}"
            link.download(block, data, what)
            link.settle(what, (DfuState.dfuDNLOAD_IDLE,))
            if offset + len(data) == len(view):
                self._manifest(block + 1)
            yield offset + len(data)

    def _manifest(self, block: int) -> None:
        """DFU 1.1, 7: an empty download ends the transfer; the device then puts the blob into place, and judges it."""
        link = self._connected
        link.download(block, b"", "manifestation")
        if self._functional.manifestation_tolerant:
            link.settle("manifestation", (DfuState.dfuIDLE,))
            return
        # Such a device answers no more once it is done: it waits for a reset, or restarts on its own.
        with suppress(UsbGone, UsbStall, UsbTimeout):
            link.settle("manifestation", (DfuState.dfuIDLE, DfuState.dfuMANIFEST_WAIT_RESET), tries=1)
        came = self._reset()
        if came is Came.DFU_MODE:
            raise VerifyMismatch(
                "after manifestation the device is in DFU mode again: it does not take what it was given for whole",
                remedy="Is it the right file for this component?",
            )
        if came is Came.NOTHING and self._address.runtime() is not None:
            raise NotBack(f"after manifestation nothing came back within {self._profile.reenumerate:g} s")

    def _read_blob(self, start: int, size: int) -> Iterator[bytes]:
        """DFU 1.1 uploads from the slot's start on; what lies before `start` is passed over. Raises PartConfused."""
        self._become_idle()
        step = self._functional.transfer_size
        position = block = 0
        while position < start + size:
            data = self._connected.upload(block, step, f"read block {block}")
            wanted = data[max(0, start - position) : start + size - position]
            if wanted:
                yield wanted
            position += len(data)
            block += 1
            if len(data) < step and position < start + size:
                raise PartConfused(f"the device's upload ends after {position} bytes, {start + size} were wanted")
        self._become_idle()
