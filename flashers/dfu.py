"""USB Device Firmware Upgrade: DFU 1.1 (USB-IF, 2004-08-05) and ST's DfuSe (UM0391, AN3156).

DFU 1.1 takes one blob into one slot, in blocks from 0 on, and judges it itself at manifestation. DfuSe adds addresses:
commands in block 0, data in blocks from 2 on, memory as described by the alternate setting's name. The rule that keeps
this simple: after each request that makes the device work, `_settle` asks GETSTATUS until it says what came of it, and
waits as long as it says, never shorter.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Literal, Self

from pydantic import Field

from ..transports.deadline import Deadline
from ..transports.errors import ProxyflashError, TransportError, UsbAbsent, UsbGone, UsbStall, UsbTimeout
from ..transports.usb import UsbBus, UsbDevice, UsbInfo, UsbInterface, UsbMatch
from .base import Capability, Flasher, Identity, Settings, Sighting, State
from .dfu_codec import (
    APPLICATION_SPECIFIC,
    DFU_SUBCLASS,
    DFUSE_VERSION,
    FIRST_DATA_BLOCK,
    IN,
    LAST_BLOCK,
    OUT,
    PROTOCOL_DFU_MODE,
    DfuSeCommand,
    DfuState,
    DfuStatus,
    Functional,
    Request,
    Status,
    parse_functional,
    parse_status,
)
from .dfuse_layout import parse_layout
from .errors import (
    ImageWrongPart,
    PartConfused,
    PartFailed,
    PartMute,
    PartProtected,
    PartRefused,
    PartWrongFamily,
    PartWrongMode,
)
from .image import Segment
from .memory import EraseRun, MemoryMap, Range, Region

REQUEST_SECONDS = 5.0
"""How long a control request may take; a device that is at work answers GETSTATUS all the same."""
STATUS_TRIES = 3
"""How often a GETSTATUS that got lost is repeated: asking again changes nothing."""
IDLE_TRIES = 4

FAILURES: Mapping[DfuStatus, type[ProxyflashError]] = {
    DfuStatus.errTARGET: ImageWrongPart,
    DfuStatus.errFILE: ImageWrongPart,
    DfuStatus.errVENDOR: PartProtected,
    DfuStatus.errADDRESS: PartRefused,
    DfuStatus.errSTALLEDPKT: PartRefused,
    DfuStatus.errNOTDONE: PartRefused,
}
"""Which error a status means; the others are PartFailed."""
PROTECTED_REMEDY = (
    "The part is read-protected. Lifting the protection erases it whole; ST's own tools do that, proxyflash does not."
)


class DfuAddress(Settings):
    """Which device. The ids of DFU mode; those of the running application if they differ; serial or port path
    ("1-4.2") to tell two alike apart; `alt`: which alternate setting takes relocatable images."""

    vendor_id: int = Field(default=0x0483, ge=0, le=0xFFFF)
    product_id: int = Field(default=0xDF11, ge=0, le=0xFFFF)
    runtime_vendor_id: int | None = Field(default=None, ge=0, le=0xFFFF)
    runtime_product_id: int | None = Field(default=None, ge=0, le=0xFFFF)
    serial: str | None = None
    port: str | None = None
    alt: int = Field(default=0, ge=0, le=255)

    def dfu_mode(self, port: str | None = None) -> UsbMatch:
        serial = self.serial if port is None else None
        return UsbMatch(self.vendor_id, self.product_id, serial, port or self.port)

    def runtime(self) -> UsbMatch | None:
        if self.runtime_vendor_id is None and self.runtime_product_id is None:
            return None
        return UsbMatch(
            self.vendor_id if self.runtime_vendor_id is None else self.runtime_vendor_id,
            self.product_id if self.runtime_product_id is None else self.runtime_product_id,
            self.serial,
            self.port,
        )


class DfuProfile(Settings):
    """`part`: what the product string must be, "" for any. `flavour`: "auto" tells by the descriptors. `slot_size`: of
    a DFU 1.1 device, which doesn't tell it. `write_alignment`: in bytes, of a DfuSe device's flash. `mass_erase`: erase
    all at once where all of it is to be erased. `reenumerate`, `work`: seconds that the device may take to come back,
    and to finish one piece of work."""

    part: str = ""
    flavour: Literal["auto", "dfu", "dfuse"] = "auto"
    slot_size: int = Field(default=0x0100_0000, gt=0)
    write_alignment: int = Field(default=8, ge=1, le=1024)
    mass_erase: bool = True
    reenumerate: float = Field(default=10.0, gt=0, le=120)
    work: float = Field(default=60.0, gt=0, le=600)


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
        self._device: UsbDevice | None = None
        self._interface = 0
        self._functional = Functional(True, False, False, False, 0, 64, 0x0110)
        self._dfuse = False
        self._alternates: dict[int, UsbInterface] = {}
        self._regions: list[tuple[int, Region]] = []
        self._port = ""

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
            for info in bus.list(match) if match is not None else ():
                in_dfu_mode = any(_is_dfu(item) and item.protocol == PROTOCOL_DFU_MODE for item in info.interfaces)
                if in_dfu_mode or match == runtime or any(_is_dfu(item) for item in info.interfaces):
                    state = State.BOOTLOADER if in_dfu_mode else State.RUNNING
                    return Sighting(state, _identity(info, state))
        return None

    def connect(self) -> Identity:
        self.close()
        device = self._in_dfu_mode()
        info = device.info
        self._device = device
        self._port = info.port
        if self._profile.part and info.product != self._profile.part:
            raise PartWrongFamily(f"the device calls itself {info.product!r}, the profile wants {self._profile.part!r}")
        self._choose_interface(info)
        device.claim(self._interface, self._address.alt)
        self._become_idle()
        self.capabilities = Capability.BOOT
        if self._functional.can_upload and (self._dfuse or self._functional.manifestation_tolerant):
            self.capabilities |= Capability.READ
        elif not self._dfuse:
            self.capabilities |= Capability.CHECK
        return _identity(info, State.BOOTLOADER)

    def memory_map(self) -> MemoryMap:
        return MemoryMap(tuple(region for _, region in self._regions))

    def verify_target(self, target: Mapping[str, int | str]) -> None:
        info = self._open.info
        for key, actual in (("vendor_id", info.vendor_id), ("product_id", info.product_id)):
            wanted = target.get(key)
            if isinstance(wanted, int) and wanted not in (0xFFFF, actual):
                raise ImageWrongPart(
                    f"the file's suffix is for {key} 0x{wanted:04X}, the device has 0x{actual:04X}",
                    remedy="Is it the right file for this component?",
                )

    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        done = 0
        for alternate, region in self._regions:
            own = [item for item in ranges if region.start <= item.start < region.end]
            if not own:
                continue
            self._select(alternate)
            if self._profile.mass_erase and sum(item.size for item in own) == region.size and alternate == 0:
                self._command(bytes([DfuSeCommand.ERASE]), f"erase all of {region.name}")
                done += region.size
                yield done
                continue
            for item in own:
                payload = bytes([DfuSeCommand.ERASE]) + item.start.to_bytes(4, "little")
                self._command(payload, f"erase {item}")
                done += item.size
                yield done

    def write(self, segment: Segment) -> Iterator[int]:
        self._become_idle()
        return self._write_addressed(segment) if self._dfuse else self._write_blob(segment)

    def read(self, start: int, size: int) -> Iterator[bytes]:
        self._become_idle()
        return self._read_addressed(start, size) if self._dfuse else self._read_blob(start, size)

    def check(self, segments: Sequence[Segment]) -> str:
        # A DFU 1.1 device judges at manifestation, at the end of `write`: what it refuses has failed there.
        return "manifestation by the part"

    def boot(self) -> None:
        device = self._open
        if self._dfuse:
            self._leave()
        else:
            with suppress(TransportError):
                device.reset()
        self.close()
        self._wait_for_application()

    def close(self) -> None:
        if self._device is not None:
            self._device.close()
            self._device = None

    # Entering DFU mode.

    def _in_dfu_mode(self) -> UsbDevice:
        """The device in DFU mode; detached from its application if need be."""
        try:
            device = self._bus.open_device(self._address.dfu_mode())
        except UsbAbsent:
            runtime = self._address.runtime()
            if runtime is None:
                raise PartMute(self._absent()) from None
            try:
                device = self._bus.open_device(runtime)
            except UsbAbsent:
                raise PartMute(self._absent()) from None
        if any(_is_dfu(item) and item.protocol == PROTOCOL_DFU_MODE for item in device.info.interfaces):
            return device
        return self._detach(device)

    def _absent(self) -> str:
        address = self._address
        runtime = address.runtime()
        also = f" or {runtime.vendor_id:04x}:{runtime.product_id:04x}" if runtime else ""
        which = "".join(
            f", {key} {value}" for key, value in (("serial", address.serial), ("port", address.port)) if value
        )
        return f"no USB device {address.vendor_id:04x}:{address.product_id:04x}{also}{which}"

    def _detach(self, device: UsbDevice) -> UsbDevice:
        """DFU 1.1, 5.1: DETACH, then a USB reset unless the device detaches by itself; it comes back in DFU mode."""
        info = device.info
        interface = next((item for item in info.interfaces if _is_dfu(item)), None)
        if interface is None:
            device.close()
            raise PartWrongMode(
                f"{info.vendor_id:04x}:{info.product_id:04x} runs, and has no DFU interface to be detached by",
                remedy="Start its bootloader by hand (its button or boot pin), then run the command again.",
            )
        functional = parse_functional(interface.extra)
        try:
            device.claim(interface.number, interface.alternate)
            timeout = functional.detach_ms if functional else 1000
            with suppress(UsbGone, UsbTimeout):
                deadline = Deadline.after(REQUEST_SECONDS)
                device.control_out(OUT, Request.DETACH, timeout, interface.number, b"", deadline)
            if functional is None or not functional.will_detach:
                with suppress(TransportError):
                    device.reset()
        finally:
            device.close()
        deadline = Deadline.after(self._profile.reenumerate)
        while True:
            try:
                back = self._bus.wait_for([self._address.dfu_mode(info.port)], deadline)
            except UsbAbsent:
                raise PartWrongMode(
                    f"detached, but no {self._address.vendor_id:04x}:{self._address.product_id:04x} came back at port "
                    f"{info.port} within {self._profile.reenumerate:g} s",
                    remedy="Are vendor_id and product_id of its address those of its DFU mode?",
                ) from None
            if any(_is_dfu(item) and item.protocol == PROTOCOL_DFU_MODE for item in back.info.interfaces):
                return back
            # The same ids in both modes, and the application has not gone yet.
            back.close()
            self._bus.wait_gone(self._address.dfu_mode(info.port), deadline)

    def _choose_interface(self, info: UsbInfo) -> None:
        """The DFU interface with its alternate settings, and what memory they are."""
        found = [item for item in info.interfaces if _is_dfu(item) and item.protocol == PROTOCOL_DFU_MODE]
        if not found:
            raise PartWrongMode(f"{info.vendor_id:04x}:{info.product_id:04x} has no interface in DFU mode")
        self._interface = found[0].number
        self._alternates = {item.alternate: item for item in found if item.number == self._interface}
        if self._address.alt not in self._alternates:
            known = ", ".join(f"{item.alternate} {item.name!r}" for item in self._alternates.values())
            raise PartWrongMode(
                f"the device has no alternate setting {self._address.alt}; it has: {known}",
                remedy="Correct alt in the component's address.",
            )
        described = [parse_functional(item.extra) for item in self._alternates.values()]
        self._functional = next((item for item in described if item is not None), self._functional)
        if not self._functional.can_download or self._functional.transfer_size == 0:
            raise PartWrongMode("the device's DFU descriptor says that it takes no downloads")
        named = any(item.name.startswith("@") for item in self._alternates.values())
        self._dfuse = self._profile.flavour == "dfuse" or (
            self._profile.flavour == "auto" and (self._functional.version == DFUSE_VERSION or named)
        )
        self._regions = self._layout() if self._dfuse else [(self._address.alt, self._slot())]

    def _layout(self) -> list[tuple[int, Region]]:
        """The regions of the alternate settings' names, the chosen one's first."""
        found = []
        for number in sorted(self._alternates, key=lambda item: (item != self._address.alt, item)):
            name = self._alternates[number].name
            if name.startswith("@"):
                found += [(number, region) for region in parse_layout(name, self._profile.write_alignment)]
        if not found:
            raise PartConfused("the device says DfuSe, but no alternate setting's name tells its memory")
        return found

    def _slot(self) -> Region:
        size = self._profile.slot_size
        return Region("slot", 0, size, (EraseRun(1, size),), self_erasing=True, ordered=True)

    # Requests.

    @property
    def _open(self) -> UsbDevice:
        if self._device is None:
            raise PartWrongMode("the device is not connected")
        return self._device

    def _download(self, block: int, data: bytes) -> None:
        device = self._open
        taken = device.control_out(OUT, Request.DNLOAD, block, self._interface, data, Deadline.after(REQUEST_SECONDS))
        if taken != len(data):
            raise PartConfused(f"the device took {taken} of the {len(data)} bytes of block {block}")

    def _status(self) -> Status:
        for left in reversed(range(STATUS_TRIES)):
            try:
                deadline = Deadline.after(REQUEST_SECONDS)
                return parse_status(self._open.control_in(IN, Request.GETSTATUS, 0, self._interface, 6, deadline))
            except UsbTimeout:
                if not left:
                    raise
        raise AssertionError("unreachable: the last try returns or raises")

    def _settle(self, what: str, done: Sequence[DfuState]) -> Status:
        """Asks GETSTATUS until the device is in one of `done`, waiting as long as it says. Raises its failure."""
        deadline = Deadline.after(self._profile.work)
        while True:
            status = self._status()
            if status.state in done and status.status is DfuStatus.OK:
                return status
            if status.state is DfuState.dfuERROR or status.status is not DfuStatus.OK:
                self._fail(what, status)
            if deadline.expired:
                raise PartFailed(f"{what}: still in {status.state.name} after {self._profile.work:g} s")
            time.sleep(min(status.poll_ms / 1000, deadline.remaining))

    def _fail(self, what: str, status: Status) -> None:
        with suppress(TransportError):
            self._clear()
        kind = FAILURES.get(status.status, PartFailed)
        remedy = PROTECTED_REMEDY if kind is PartProtected else None
        raise kind(f"{what}: the device reports {status.status.name} in {status.state.name}", remedy=remedy)

    def _clear(self) -> None:
        self._open.control_out(OUT, Request.CLRSTATUS, 0, self._interface, b"", Deadline.after(REQUEST_SECONDS))

    def _abort(self) -> None:
        self._open.control_out(OUT, Request.ABORT, 0, self._interface, b"", Deadline.after(REQUEST_SECONDS))

    def _become_idle(self) -> None:
        """Brings the device to dfuIDLE from whatever an earlier transfer left it in."""
        status = self._status()
        for _ in range(IDLE_TRIES):
            if status.state is DfuState.dfuIDLE:
                return
            if status.state is DfuState.dfuERROR:
                self._clear()
            elif status.state in (DfuState.dfuDNBUSY, DfuState.dfuMANIFEST, DfuState.dfuMANIFEST_SYNC):
                time.sleep(min(status.poll_ms / 1000, self._profile.work))
            elif status.state is DfuState.dfuMANIFEST_WAIT_RESET:
                break
            else:
                with suppress(UsbStall):
                    self._abort()
            status = self._status()
        raise PartConfused(f"the device stays in {status.state.name} and does not become idle")

    def _command(self, payload: bytes, what: str) -> None:
        """A DfuSe command. It is carried out at the GETSTATUS that follows; the next one tells what came of it."""
        try:
            self._download(0, payload)
        except UsbStall as error:
            raise PartRefused(f"{what}: the device refuses the command 0x{payload[0]:02X}") from error
        self._settle(what, (DfuState.dfuDNLOAD_IDLE,))

    def _point(self, address: int) -> None:
        payload = bytes([DfuSeCommand.SET_ADDRESS_POINTER]) + address.to_bytes(4, "little")
        self._command(payload, f"set the address 0x{address:08X}")

    def _select(self, alternate: int) -> None:
        if len(self._alternates) > 1:
            self._open.claim(self._interface, alternate)
        self._become_idle()

    def _select_for(self, address: int) -> None:
        for alternate, region in self._regions:
            if region.start <= address < region.end:
                self._select(alternate)
                return

    # Moving data.

    def _write_addressed(self, segment: Segment) -> Iterator[int]:
        self._select_for(segment.address)
        view = memoryview(segment.data)
        size = self._functional.transfer_size
        block = LAST_BLOCK + 1
        for offset in range(0, len(view), size):
            if block > LAST_BLOCK:
                self._point(segment.address + offset)
                block = FIRST_DATA_BLOCK
            data = bytes(view[offset : offset + size])
            what = f"write 0x{segment.address + offset:08X}"
            try:
                self._download(block, data)
            except UsbStall:
                self._fail(what, self._status())
            self._settle(what, (DfuState.dfuDNLOAD_IDLE,))
            block += 1
            yield offset + len(data)

    def _write_blob(self, segment: Segment) -> Iterator[int]:
        view = memoryview(segment.data)
        size = self._functional.transfer_size
        for block, offset in enumerate(range(0, len(view), size)):
            data = bytes(view[offset : offset + size])
            what = f"write block {block}"
            try:
                self._download(block & LAST_BLOCK, data)
            except UsbStall:
                self._fail(what, self._status())
            self._settle(what, (DfuState.dfuDNLOAD_IDLE,))
            if offset + len(data) == len(view):
                self._manifest(block + 1)
            yield offset + len(data)

    def _manifest(self, block: int) -> None:
        """DFU 1.1, 7: an empty download ends the transfer; the device then puts the blob into place, and judges it."""
        self._download(block & LAST_BLOCK, b"")
        with suppress(UsbGone):
            # A device that is not manifestation tolerant may vanish here: it restarts.
            self._settle("manifestation", (DfuState.dfuIDLE, DfuState.dfuMANIFEST_WAIT_RESET))

    def _read_addressed(self, start: int, size: int) -> Iterator[bytes]:
        self._select_for(start)
        step = self._functional.transfer_size
        block = LAST_BLOCK + 1
        for offset in range(0, size, step):
            if block > LAST_BLOCK:
                self._become_idle()
                self._point(start + offset)
                self._abort()
                block = FIRST_DATA_BLOCK
            count = min(step, size - offset)
            yield self._upload(block, count, f"read 0x{start + offset:08X}")
            block += 1
        self._become_idle()

    def _upload(self, block: int, count: int, what: str) -> bytes:
        try:
            deadline = Deadline.after(REQUEST_SECONDS)
            data = self._open.control_in(IN, Request.UPLOAD, block, self._interface, count, deadline)
        except UsbStall:
            self._fail(what, self._status())
        if len(data) != count:
            raise PartConfused(f"{what}: the device sent {len(data)} of {count} bytes")
        return data

    def _read_blob(self, start: int, size: int) -> Iterator[bytes]:
        """DFU 1.1 uploads from the slot's start on; what lies before `start` is passed over."""
        step = self._functional.transfer_size
        position = block = 0
        while position < start + size:
            deadline = Deadline.after(REQUEST_SECONDS)
            try:
                data = self._open.control_in(IN, Request.UPLOAD, block & LAST_BLOCK, self._interface, step, deadline)
            except UsbStall:
                self._fail(f"read block {block}", self._status())
            wanted = data[max(0, start - position) : start + size - position]
            if wanted:
                yield wanted
            position += len(data)
            block += 1
            if len(data) < step:
                return
        self._become_idle()

    def _leave(self) -> None:
        """AN3156, 5.5 (leave DFU mode): set the address, an empty download, and GETSTATUS, at which the part goes."""
        start = self._regions[0][1].start
        self._select(self._regions[0][0])
        self._point(start)
        self._download(0, b"")
        with suppress(TransportError, PartConfused):
            self._status()

    def _wait_for_application(self) -> None:
        """Waits until the device is gone from DFU mode, and, where its running ids are known, back with those."""
        deadline = Deadline.after(self._profile.reenumerate)
        runtime = self._address.runtime()
        if runtime is None:
            self._bus.wait_gone(self._address.dfu_mode(self._port), deadline)
            return
        with suppress(UsbAbsent):
            self._bus.wait_for([runtime], deadline).close()


def _is_dfu(interface: UsbInterface) -> bool:
    return interface.class_code == APPLICATION_SPECIFIC and interface.subclass == DFU_SUBCLASS


def _identity(info: UsbInfo, state: State) -> Identity:
    version = f"{info.bcd_device >> 8:x}.{info.bcd_device >> 4 & 0xF:x}.{info.bcd_device & 0xF:x}"
    running = state is State.RUNNING
    return Identity(
        part=info.product,
        serial=info.serial,
        version=version if running else "",
        bootloader="" if running else version,
        manufacturer=info.manufacturer,
        details={"port": info.port, "usb": f"{info.vendor_id:04x}:{info.product_id:04x}"},
    )
