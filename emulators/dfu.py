"""Emulated USB parts with a DFU bootloader: DFU 1.1 (USB-IF, 2004-08-05) and ST's DfuSe 1.1a (UM0391, AN3156).

Written from the standards and sharing nothing with the flasher. The device is the state machine of DFU 1.1, annex A:
what a request does is in `_in_dfu_mode`'s table by state. Work (an erase, a program) begins at the GETSTATUS after its
download and takes its time; until then GETSTATUS says dfuDNBUSY and how long to wait.

Two stages: the running application, with ids and a version of its own and a DFU interface to be detached by, and DFU
mode. A part whose application is not whole (application.find) stays in DFU mode.
"""

from __future__ import annotations

import struct
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar, Self

from . import application
from .device import BadDevice, DeviceSpec, EmulatedDevice, factory_content
from .flash import FlashRefused, NorFlash
from .supply import Supply
from .usb_device import Descriptors, InterfaceDescriptor, Stall, UsbFunction
from .usb_wire import UsbWire


class State(IntEnum):
    """bState (6.1.2)."""

    APP_IDLE = 0
    APP_DETACH = 1
    IDLE = 2
    DNLOAD_SYNC = 3
    DNBUSY = 4
    DNLOAD_IDLE = 5
    MANIFEST_SYNC = 6
    MANIFEST = 7
    MANIFEST_WAIT_RESET = 8
    UPLOAD_IDLE = 9
    ERROR = 10


class Status(IntEnum):
    """bStatus (6.1.2), as far as these parts give them."""

    OK = 0x00
    ERR_WRITE = 0x03
    ERR_ERASE = 0x04
    ERR_PROG = 0x06
    ERR_VERIFY = 0x07
    ERR_ADDRESS = 0x08
    ERR_NOTDONE = 0x09
    ERR_FIRMWARE = 0x0A
    ERR_VENDOR = 0x0B
    ERR_STALLEDPKT = 0x0F


DETACH, DNLOAD, UPLOAD, GETSTATUS, CLRSTATUS, GETSTATE, ABORT = range(7)
"""bRequest (table 3.2)."""
GET_COMMANDS, SET_ADDRESS, ERASE, READ_UNPROTECT = 0x00, 0x21, 0x41, 0x92
"""DfuSe commands (UM0391, 5.2)."""
STATUS_OF = {"range": Status.ERR_ADDRESS, "alignment": Status.ERR_WRITE, "not erased": Status.ERR_PROG}


@dataclass(frozen=True, slots=True)
class Options:
    """Keys of the `emulated` table beside part, firmware, serial.

    `vendor_id`, `product_id`, `product`, `manufacturer`: of the running application. `boot`: "application", or "dfu" as
    with a held boot pin. `rdp`: read protection is active. `early`: what a GETSTATUS gets that comes
    before the poll time-out is over: "busy" again, or a "stall" and the error state. `mute`: class requests are never answered.
    """

    vendor_id: int = 0x1209
    product_id: int = 0x0001
    product: str = ""
    manufacturer: str = ""
    boot: str = "application"
    rdp: bool = False
    early: str = "busy"
    mute: bool = False


@cache
def _parts() -> dict[str, dict[str, Any]]:
    return tomllib.loads((files(__package__) / "parts" / "dfu.toml").read_text(encoding="utf-8"))


class DfuDevice(EmulatedDevice):
    """Keys of the `emulated` table: `part` (of parts/dfu.toml), `serial`, `firmware`, and those of Options."""

    bus_kind: ClassVar[str] = "usb"

    def __init__(self, spec: DeviceSpec, wire: UsbWire) -> None:
        settings = dict(spec.settings)
        name = settings.pop("part", "stm32f405-dfu")
        if name not in _parts():
            raise BadDevice("part", f"{name!r} is none of {', '.join(_parts())}")
        part = _parts()[name]
        self.name = spec.name
        self.supply = Supply()
        serial = str(settings.pop("serial", "0001"))
        settings.pop("firmware", None)
        options = _options(settings)
        path = spec.folder / f"{spec.name}.flash" if spec.folder else None
        fresh = path is None or not path.exists()
        erase_seconds = {size: seconds for _, size, seconds, _ in part["sectors"]}
        self.flash = NorFlash(
            part["base"],
            [(count, size) for count, size, _, _ in part["sectors"]],
            self.supply,
            program_unit=part["program_unit"],
            program_seconds=part["program_seconds"],
            erase_seconds=erase_seconds.__getitem__,
            path=path,
        )
        factory_content(spec, self.flash, fresh=fresh)
        self._machine = Machine(part, serial, options, self.flash, self.supply, wire, spec.pace)

    @classmethod
    def attach(cls, spec: DeviceSpec, wire: UsbWire) -> Self:
        return cls(spec, wire)

    @property
    def application_version(self) -> str | None:
        running = self._machine.running
        return None if running is None else running.version

    @property
    def state(self) -> State:
        return self._machine.state

    def close(self) -> None:
        self._machine.close()
        self.flash.close()


def _options(settings: Mapping[str, Any]) -> Options:
    known = {name: type(getattr(Options(), name)) for name in Options.__slots__}
    for key, value in settings.items():
        if key not in known:
            raise BadDevice(
                key, f"no key of an emulated DFU part; there are: part, serial, firmware, {', '.join(known)}"
            )
        if not isinstance(value, known[key]):
            raise BadDevice(key, f"{value!r} is no {known[key].__name__}")
    options = Options(**settings)
    for key, choices in (("boot", ("application", "dfu")), ("early", ("busy", "stall"))):
        if getattr(options, key) not in choices:
            raise BadDevice(key, f"{getattr(options, key)!r} is none of {', '.join(choices)}")
    return options


class Machine:
    """The part: its stage, its DFU state, its flash."""

    def __init__(
        self,
        part: Mapping[str, Any],
        serial: str,
        options: Options,
        flash: NorFlash,
        supply: Supply,
        wire: UsbWire,
        pace: float,
    ) -> None:
        self._part = part
        self._serial = serial
        self._options = options
        self._flash = flash
        self._wire = wire
        self._pace = pace
        self._port = wire.new_port()
        self._dfuse = part["flavour"] == "dfuse"
        self._protected = options.rdp
        self._closed = False
        self.running: application.Application | None = None
        self.state = State.IDLE
        self.status = Status.OK
        self._work_seconds = 0.0
        flash.busy = self._work
        supply.listen(self._supply_changed)
        self._supply = supply
        self._start(dfu=options.boot == "dfu")

    def close(self) -> None:
        self._closed = True
        self._wire.unplug(self._port)

    # Stages.

    def _supply_changed(self, on: bool) -> None:
        if on:
            self._start(dfu=self._options.boot == "dfu")
        else:
            self.running = None
            self._wire.unplug(self._port)

    def _start(self, *, dfu: bool) -> None:
        """From reset: chooses the stage and appears on the bus."""
        if self._closed or not self._supply.is_on:
            return
        found = None if dfu else application.find(self._flash, self._flash.base)
        self.running = found
        self.status = Status.OK
        self.state = State.IDLE if found is None else State.APP_IDLE
        self._pointer = self._flash.base
        self._pending: tuple[int, bytes] | None = None
        self._busy_until = 0.0
        self._next_block = 0
        self._position = 0
        self._leaving = False
        descriptors = self._dfu_descriptors() if found is None else self._application_descriptors(found)
        self._wire.plug(self._port, UsbFunction(descriptors, self._request, self._bus_reset))

    def _restart(self, *, dfu: bool) -> None:
        """Leaves the bus, and comes back after its restart time."""
        self._wire.unplug(self._port)
        self._wire.later(self._part["restart"], lambda: self._start(dfu=dfu))

    def _bus_reset(self) -> None:
        if self.state is State.APP_DETACH:
            self._restart(dfu=True)
        elif self.running is None:
            self._restart(dfu=self._dfuse)  # ST's loader stays; a maker's own starts the application.

    def _functional(self) -> bytes:
        """The DFU functional descriptor (table 4.2)."""
        part = self._part
        attributes = 1 | part["upload"] << 1 | part["tolerant"] << 2 | part["will_detach"] << 3
        version = 0x011A if self._dfuse else 0x0110
        return struct.pack("<BBBHHH", 9, 0x21, attributes, part["detach_ms"], part["transfer_size"], version)

    def _dfu_descriptors(self) -> Descriptors:
        part = self._part
        name = self._layout() if self._dfuse else "Slot"
        interface = InterfaceDescriptor(0, 0, 0xFE, 1, 2, name, self._functional())
        vendor = "STMicroelectronics" if self._dfuse else "Acme"
        return Descriptors(
            part["vendor_id"], part["product_id"], 0x2200, vendor, part["product"], self._serial, (interface,)
        )

    def _layout(self) -> str:
        """The memory as UM0391, 10.3.2 writes it."""
        runs = ",".join(f"{count:02d}*{size // 1024:03d}K{letter}" for count, size, _, letter in self._part["sectors"])
        return f"@Internal Flash  /0x{self._flash.base:08X}/{runs}"

    def _application_descriptors(self, found: application.Application) -> Descriptors:
        options = self._options
        interface = InterfaceDescriptor(0, 0, 0xFE, 1, 1, "Firmware update", self._functional())
        version = found.version or "0.0.0"
        return Descriptors(
            options.vendor_id, options.product_id, _bcd(version), options.manufacturer or found.manufacturer or "Acme",
            options.product or found.product or "Sensor", self._serial, (interface,), f"FW {version}",
        )  # fmt: skip

    # Requests.

    def _request(self, kind: int, request: int, value: int, index: int, data: bytes, length: int) -> bytes:
        if self._options.mute:
            raise Stall
        outward = bool(kind & 0x80)
        if outward != (request in (UPLOAD, GETSTATUS, GETSTATE)):
            raise Stall
        if self.running is not None:
            return self._in_application(request)
        try:
            return self._in_dfu_mode(request, value, data, length)
        except Stall:
            if self.state is not State.ERROR:
                self.state, self.status = State.ERROR, Status.ERR_STALLEDPKT
            raise

    def _in_application(self, request: int) -> bytes:
        """States appIDLE and appDETACH (A.2.1, A.2.2)."""
        match request:
            case _ if request == DETACH and self.state is State.APP_IDLE:
                if self._part["will_detach"]:
                    self._restart(dfu=True)
                else:
                    self.state = State.APP_DETACH
                    self._wire.later(self._part["detach_ms"] / 1000 + 1, self._detach_expired)
                return b""
            case _ if request == GETSTATUS:
                return self._status_bytes(0)
            case _ if request == GETSTATE:
                return bytes([self.state])
            case _:
                raise Stall

    def _detach_expired(self) -> None:
        # Without pace there is no time to wait out: the reset that must follow comes at once.
        if self.state is State.APP_DETACH and self._pace:
            self.state = State.APP_IDLE

    def _in_dfu_mode(self, request: int, value: int, data: bytes, length: int) -> bytes:
        """Annex A.2.3 to A.2.11: which request is taken in which state."""
        if self.state in (State.DNBUSY, State.MANIFEST) and time.monotonic() >= self._busy_until:
            self._finish_work()
        state = self.state
        if request == GETSTATE and state not in (State.DNBUSY, State.MANIFEST, State.MANIFEST_WAIT_RESET):
            return bytes([state])
        if request == GETSTATUS and state not in (State.MANIFEST, State.MANIFEST_WAIT_RESET):
            return self._get_status()
        if request == CLRSTATUS and state is State.ERROR:
            self.state, self.status = State.IDLE, Status.OK
            return b""
        if request == ABORT and state in (
            State.IDLE, State.DNLOAD_SYNC, State.DNLOAD_IDLE, State.MANIFEST_SYNC, State.UPLOAD_IDLE
        ):  # fmt: skip
            self.state = State.IDLE
            self._pending = None
            return b""
        if request == DNLOAD and state in (State.IDLE, State.DNLOAD_IDLE):
            return self._download(value, data)
        if request == UPLOAD and state in (State.IDLE, State.UPLOAD_IDLE) and self._part["upload"]:
            return self._upload(value, length)
        raise Stall

    def _download(self, block: int, data: bytes) -> bytes:
        if len(data) > self._part["transfer_size"]:
            raise Stall
        if self.state is State.IDLE:
            if not data and not self._dfuse:
                raise Stall
            self._next_block = self._position = 0
        if not data:
            self.state = State.MANIFEST_SYNC
            return b""
        self._pending = (block, data)
        self.state = State.DNLOAD_SYNC
        return b""

    def _get_status(self) -> bytes:
        if self.state is State.DNLOAD_SYNC and self._pending is not None:
            return self._begin_work()
        if self.state is State.DNBUSY:
            if self._options.early == "stall":
                raise Stall
            return self._status_bytes(self._left())
        if self.state is State.MANIFEST_SYNC:
            return self._begin_manifestation()
        if self.state is State.DNLOAD_SYNC:
            self.state = State.DNLOAD_IDLE
        return self._status_bytes(0)

    def _begin_work(self) -> bytes:
        """Carries out what was downloaded; it is done once its time is over."""
        assert self._pending is not None
        block, data = self._pending
        self._pending = None
        self._work_seconds = 0.0
        try:
            failed = self._carry_out(block, data)
        except FlashRefused as refused:
            failed = STATUS_OF[refused.reason]
        if failed is not Status.OK:
            self.state, self.status = State.ERROR, failed
            return self._status_bytes(0)
        self._busy_until = time.monotonic() + self._work_seconds * self._pace
        self.state = State.DNBUSY
        return self._status_bytes(self._left())

    def _finish_work(self) -> None:
        self.state = State.DNLOAD_SYNC if self.state is State.DNBUSY else State.MANIFEST_SYNC

    def _left(self) -> int:
        """Milliseconds until the work is done, rounded up."""
        return max(0, -int(-(self._busy_until - time.monotonic()) * 1000 // 1)) if self._pace else 0

    def _work(self, seconds: float) -> None:
        self._work_seconds += seconds

    def _carry_out(self, block: int, data: bytes) -> Status:
        if not self._dfuse:
            return self._store(block, data)
        if block == 0:
            return self._command(data)
        if self._protected:
            return Status.ERR_VENDOR
        if block < 2:
            return Status.ERR_STALLEDPKT
        address = self._pointer + (block - 2) * self._part["transfer_size"]
        self._flash.program(address, data + b"\xff" * (-len(data) % self._flash.program_unit))
        return Status.OK

    def _command(self, data: bytes) -> Status:
        code, argument = data[0], data[1:]
        if code == READ_UNPROTECT and not argument:
            self._erase_all()
            self._protected = False
            return Status.OK
        if code == SET_ADDRESS and len(argument) == 4:
            address = int.from_bytes(argument, "little")
            if not self._flash.base <= address < self._flash.end:
                return Status.ERR_ADDRESS
            self._pointer = address
            return Status.OK
        if code == ERASE and len(argument) in (0, 4):
            if self._protected:
                return Status.ERR_VENDOR
            if argument:
                self._flash.erase(int.from_bytes(argument, "little"))
            else:
                self._erase_all()
            return Status.OK
        return Status.ERR_STALLEDPKT

    def _erase_all(self) -> None:
        for number in range(self._flash.unit_count):
            self._flash.erase(self._flash.unit(number)[0])

    def _store(self, block: int, data: bytes) -> Status:
        """DFU 1.1: blocks follow each other; a sector is erased when the first byte for it comes."""
        if block != self._next_block & 0xFFFF:
            return Status.ERR_NOTDONE
        address = self._flash.base + self._position
        start, _ = self._flash.unit_of(address)
        while start < address + len(data):
            if start >= address:
                self._flash.erase(start)
            start += self._flash.unit_of(start)[1]
        self._flash.program(address, data + b"\xff" * (-len(data) % self._flash.program_unit))
        self._next_block += 1
        self._position += len(data)
        return Status.OK

    def _begin_manifestation(self) -> bytes:
        if self._leaving:
            self._leaving = False
            tolerant = self._part["tolerant"]
            self.state = State.IDLE if tolerant else State.MANIFEST_WAIT_RESET
            return self._status_bytes(0)
        if self._dfuse:
            answer = struct.pack("<BHBBB", Status.OK, 0, 0, State.MANIFEST, 0)
            self._restart(dfu=False)
            return answer
        if application.find(self._flash, self._flash.base) is None:
            self.state, self.status = State.ERROR, Status.ERR_FIRMWARE
            return self._status_bytes(0)
        self._leaving = True
        if not self._part["tolerant"]:
            self.state = State.MANIFEST_WAIT_RESET
            answer = self._status_bytes(0)
            if self._part["will_detach"]:
                self._restart(dfu=False)
            return answer
        self._busy_until = time.monotonic() + 0.01 * self._pace
        self.state = State.MANIFEST
        return self._status_bytes(self._left())

    def _upload(self, block: int, length: int) -> bytes:
        if self._protected:
            self.state, self.status = State.ERROR, Status.ERR_VENDOR
            raise Stall
        if not self._dfuse:
            return self._upload_slot(block, length)
        if block == 0:
            self.state = State.IDLE
            return bytes([GET_COMMANDS, SET_ADDRESS, ERASE, READ_UNPROTECT])[:length]
        address = self._pointer + (block - 2) * self._part["transfer_size"]
        try:
            data = self._flash.read(address, min(length, max(0, self._flash.end - address)))
        except FlashRefused:
            raise Stall from None
        self.state = State.UPLOAD_IDLE if len(data) == length else State.IDLE
        return data

    def _upload_slot(self, block: int, length: int) -> bytes:
        if self.state is State.IDLE:
            self._position = 0
        address = self._flash.base + self._position
        data = self._flash.read(address, min(length, self._flash.end - address))
        self._position += len(data)
        self.state = State.UPLOAD_IDLE if len(data) == length else State.IDLE
        return data

    def _status_bytes(self, poll_ms: int) -> bytes:
        return bytes([self.status]) + poll_ms.to_bytes(3, "little") + bytes([self.state, 0])


def _bcd(version: str) -> int:
    """bcdDevice as JJ.M.N (USB 2.0, 9.6.1): "1.5.0" is 0x0150. Numbers that do not fit are cut."""
    numbers = [int(part) if part.isdigit() else 0 for part in (*version.split("."), "0", "0")[:3]]
    major = min(numbers[0], 99)
    return (major // 10 << 12) | (major % 10 << 8) | (min(numbers[1], 9) << 4) | min(numbers[2], 9)
