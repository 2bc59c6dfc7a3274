"""Emulated USB parts with a DFU bootloader: DFU 1.1 (USB-IF, 2004-08-05) and ST's DfuSe 1.1a (UM0391, AN2662, AN3156).

Written from the standards and sharing nothing with the flasher. Two stages: the running application, with ids and a
version of its own and a DFU interface to be detached by (states appIDLE and appDETACH, here), and DFU mode
(`states`), with a memory behind it (`memory`). A part whose application is not whole (application.find) stays
in DFU mode; one with DFU 1.1 says so by dfuERROR with errFIRMWARE (A.2.11).
"""

from __future__ import annotations

import struct
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, ClassVar, Literal, Self

from .. import application
from ..device import BadDevice, DeviceSpec, EmulatedDevice, factory_content
from ..flash import NorFlash
from ..keys import Range, Table
from ..supply import Supply
from ..usb.device import LONGEST_STRING, Descriptors, InterfaceDescriptor, Stall, UsbFunction
from ..usb.wire import TransferTimeout, UsbWire
from .memory import Area, DfuSeMemory, Slot
from .states import DETACH, GETSTATE, GETSTATUS, UPLOAD, DfuMemory, DfuStates, State, Status, Traits

OUT, IN = 0x21, 0xA1
"""bmRequestType of class requests to an interface (table 3.2)."""


@dataclass(frozen=True, kw_only=True)
class DfuOptions(Table):
    """The `emulated` table."""

    part: str = "stm32f405-dfu"
    """Which part it is, and which DFU bootloader is in it."""
    serial: str = "0001"
    """Serial number of the part."""
    firmware: str | None = None
    """Raw binary that the application's flash of a new part holds. A relative path starts at the bench file's folder. Default:
    the flash is erased."""
    vendor_id: Annotated[int, Range(0, 0xFFFF)] = 0x1209
    """USB vendor id of the running application. Default: `runtime_vendor_id` of the component's address, else its
    `vendor_id`, else 0x1209."""
    product_id: Annotated[int, Range(0, 0xFFFF)] = 0x0001
    """USB product id of the running application. Default: `runtime_product_id` of the component's address, else its
    `product_id`, else 0x0001."""
    product: str = ""
    """Product text of the running application. "": that of its firmware."""
    manufacturer: str = ""
    """Manufacturer text of the running application. "": that of its firmware."""
    boot: Literal["application", "dfu"] = "application"
    """What the part starts: its application, or DFU mode as with a held boot pin."""
    runtime_interface: Annotated[int, Range(0, 15)] = 0
    """Number of the application's DFU interface. It comes behind the interfaces of the sensor itself."""
    dfu_serial: str = ""
    """Serial number in DFU mode. "": the same as in the application. The ROM of an STM32 makes it from the chip's id, and an
    application may have another one."""
    rdp: bool = False
    """Whether read protection is active."""
    write_protected: tuple[Annotated[int, Range(0)], ...] = ()
    """Numbers of sectors that silently stay as they are."""
    early: Literal["busy", "stall"] = "busy"
    """What a GETSTATUS gets before the poll time-out is over: "busy" again, or a "stall" and the error state."""
    fail_at: Annotated[int, Range(0)] = 0
    """Which piece of work in DFU mode fails, counted from 1 since DFU mode was entered. 0: none."""
    fail_with: Annotated[int, Range(0, 15)] = 6
    """The status (bStatus) that the piece of work fails with. 6 is errPROG."""
    mute: bool = False
    """Whether class requests are never answered."""


@cache
def parts() -> dict[str, dict[str, Any]]:
    """The rows of parts.toml."""
    return tomllib.loads((files(__package__) / "parts.toml").read_text(encoding="utf-8"))


class DfuDevice(EmulatedDevice):
    """One part, on a port of its own."""

    keys = DfuOptions
    bus_kind: ClassVar[str] = "usb"

    def __init__(self, spec: DeviceSpec, wire: UsbWire) -> None:
        self._options = options = DfuOptions.of(_ids_of(spec.address) | dict(spec.settings), self.part_names())
        _check_texts(options)
        self._part = part = parts()[options.part]
        self.name = spec.name
        self.supply = Supply()
        fresh = spec.is_new
        erase_seconds = {size: seconds for _, size, seconds, _ in part["sectors"]}
        self.flash = NorFlash(
            part["base"],
            [(count, size) for count, size, _, _ in part["sectors"]],
            self.supply,
            program_unit=part["program_unit"],
            program_seconds=part["program_seconds"],
            erase_seconds=erase_seconds.__getitem__,
            path=spec.flash_path,
        )
        factory_content(spec, self.flash, fresh=fresh, start=self.application_start)
        self._wire = wire
        self._pace = spec.pace
        self._port = wire.new_port()
        self._closed = False
        self._detaches = 0
        self._running: application.Application | None = None
        self._app_state = State.APP_IDLE
        self._function: UsbFunction | None = None
        self._memory = self._make_memory()
        self._dfu = self._make_states()
        self.supply.listen(self._supply_changed)
        self._start(dfu=self._options.boot == "dfu")

    @classmethod
    def attach(cls, spec: DeviceSpec, wire: UsbWire) -> Self:
        return cls(spec, wire)

    @classmethod
    def part_names(cls) -> Sequence[str]:
        return tuple(parts())

    @property
    def application_version(self) -> str | None:
        return None if self._running is None else self._running.version

    @property
    def state(self) -> State:
        """bState, as the part has it now."""
        return self._dfu.state if self._running is None else self._app_state

    def close(self) -> None:
        self._closed = True
        self._wire.unplug(self._port)
        self.flash.close()

    # Stages.

    @property
    def _dfuse(self) -> bool:
        return bool(self._part["flavour"] == "dfuse")

    @property
    def application_start(self) -> int:
        return int(self._part.get("application", self._part["base"]))

    def _make_memory(self) -> DfuMemory:
        if not self._dfuse:
            return Slot(self.flash)
        letters: dict[int, str] = {}
        sectors = iter(range(self.flash.unit_count))
        for count, _, _, letter in self._part["sectors"]:
            letters |= {self.flash.unit(next(sectors))[0]: letter for _ in range(count)}
        for number in self._options.write_protected:
            if not 0 <= number < self.flash.unit_count:
                raise BadDevice("write_protected", f"the part's sectors are 0 to {self.flash.unit_count - 1}")
        areas = {
            alternate: Area(
                area["base"],
                bytearray(b"\xff" * sum(count * size for count, size in area["runs"])),
                area["letter"],
                area.get("resets", False),
            )
            for alternate, area in enumerate(self._part.get("areas", ()), 1)
        }
        return DfuSeMemory(
            self.flash,
            letters,
            areas,
            lambda: self._function.alternates.get(0, 0) if self._function else 0,
            self._part["transfer_size"],
            write_protected=frozenset(self.flash.unit(number)[0] for number in self._options.write_protected),
            read_protected=self._options.rdp,
        )

    def _make_states(self) -> DfuStates:
        part, options = self._part, self._options
        traits = Traits(
            transfer_size=part["transfer_size"],
            can_upload=part["upload"],
            tolerant=part["tolerant"],
            leaves=self._dfuse or part.get("leaves", False),
            empty_start=self._dfuse,
            early=options.early,
            fail_at=options.fail_at,
            fail_with=Status(options.fail_with),
        )
        return DfuStates(self._memory, traits, self._leave, self._pace)

    def _supply_changed(self, on: bool) -> None:
        if on:
            self._start(dfu=self._options.boot == "dfu")
        else:
            self._running = None
            self._wire.unplug(self._port)

    def _start(self, *, dfu: bool) -> None:
        """From reset: chooses the stage and appears on the bus."""
        if self._closed or not self.supply.is_on:
            return
        found = None if dfu else application.find(self.flash, self.application_start)
        self._running = found
        self._app_state = State.APP_IDLE
        self._dfu = self._make_states()
        if isinstance(self._memory, DfuSeMemory):
            self._memory.restarted()
        elif found is None and not dfu:
            self._dfu.fail(Status.ERR_FIRMWARE)
        descriptors = self._dfu_descriptors() if found is None else self._application_descriptors(found)
        self._function = UsbFunction(descriptors, self._request, self._bus_reset)
        self._wire.plug(self._port, self._function)

    def _restart(self, *, dfu: bool) -> None:
        """Leaves the bus, and comes back after its restart time."""
        self._wire.unplug(self._port)
        self._wire.later(self._part["restart"], lambda: self._start(dfu=dfu))

    def _leave(self, seconds: float) -> None:
        self._wire.later(seconds, lambda: self._restart(dfu=self._options.boot == "dfu"))

    def _bus_reset(self) -> None:
        if self._running is None:
            # ST's loader stays; a maker's own starts the application (A.2.3 and the following).
            self._restart(dfu=self._dfuse or self._options.boot == "dfu")
        elif self._app_state is State.APP_DETACH:
            self._restart(dfu=True)

    # Requests.

    def _request(self, kind: int, request: int, value: int, index: int, data: bytes, length: int) -> bytes:
        if self._options.mute:
            raise TransferTimeout
        own = 0 if self._running is None else self._options.runtime_interface
        if index != own or kind != (IN if request in (UPLOAD, GETSTATUS, GETSTATE) else OUT):
            # No request to this interface (table 3.2).
            raise Stall
        if self._running is not None:
            return self._in_application(request, value)
        return self._dfu.request(request, value, data, length)

    def _in_application(self, request: int, value: int) -> bytes:
        """States appIDLE and appDETACH (A.2.1, A.2.2)."""
        if request == GETSTATUS:
            return bytes([Status.OK, 0, 0, 0, self._app_state, 0])
        if request == GETSTATE:
            return bytes([self._app_state])
        if request != DETACH or self._app_state is State.APP_DETACH:
            self._app_state = State.APP_IDLE
            raise Stall
        self._detaches += 1
        if self._part["will_detach"]:
            self._restart(dfu=True)
        else:
            self._app_state = State.APP_DETACH
            if self._pace:
                # Without pace there is no time to wait out: the reset that must follow comes at once.
                number = self._detaches
                self._wire.later(min(value, self._part["detach_ms"]) / 1000, lambda: self._detach_expired(number))
        return b""

    def _detach_expired(self, number: int) -> None:
        if number == self._detaches:
            self._app_state = State.APP_IDLE

    # Descriptors.

    def _functional(self) -> bytes:
        """The DFU functional descriptor (table 4.2)."""
        part = self._part
        attributes = 1 | part["upload"] << 1 | part["tolerant"] << 2 | part["will_detach"] << 3
        version = 0x011A if self._dfuse else 0x0110
        return struct.pack("<BBBHHH", 9, 0x21, attributes, part["detach_ms"], part["transfer_size"], version)

    def _dfu_descriptors(self) -> Descriptors:
        part = self._part
        names = self._layouts() if self._dfuse else ["Slot"]
        # One functional descriptor for all alternate settings, behind the last of them (4.2.3, table 4.1).
        last = len(names) - 1
        interfaces = tuple(
            InterfaceDescriptor(0, number, 0xFE, 1, 2, name, self._functional() if number == last else b"")
            for number, name in enumerate(names)
        )
        return Descriptors(
            part["vendor_id"], part["product_id"], part["bcd_device"], part["manufacturer"], part["product"],
            self._options.dfu_serial or self._options.serial, interfaces,
        )  # fmt: skip

    def _layouts(self) -> list[str]:
        """The memories as UM0391, 10.3.2 writes them, by alternate setting."""
        runs = ",".join(f"{count:02d}*{size // 1024:03d}K{letter}" for count, size, _, letter in self._part["sectors"])
        names = [f"@Internal Flash  /0x{self.flash.base:08X}/{runs}"]
        for area in self._part.get("areas", ()):
            runs = ",".join(f"{count:02d}*{size:03d} {area['letter']}" for count, size in area["runs"])
            names.append(f"@{area['name']}/0x{area['base']:08X}/{runs}")
        names[0] = self._part.get("layout", names[0])
        return names

    def _application_descriptors(self, found: application.Application) -> Descriptors:
        options = self._options
        number = options.runtime_interface
        interfaces = (
            *(InterfaceDescriptor(other, 0, 0xFF, 0, 0) for other in range(number)),
            InterfaceDescriptor(number, 0, 0xFE, 1, 1, "Firmware update", self._functional()),
        )
        version = found.version or "0.0.0"
        return Descriptors(
            options.vendor_id, options.product_id, _bcd(version), options.manufacturer or found.manufacturer or "Acme",
            options.product or found.product or "Sensor", options.serial, interfaces, f"FW {version}",
        )  # fmt: skip


def _ids_of(address: Mapping[str, Any]) -> dict[str, Any]:
    """The ids under which the component's address looks for the running application."""
    wanted = {key: address.get(f"runtime_{key}", address.get(key)) for key in ("vendor_id", "product_id")}
    return {key: value for key, value in wanted.items() if value is not None and value != 0xFFFF}


def _check_texts(options: DfuOptions) -> None:
    """Raises BadDevice for a text that a string descriptor can't hold."""
    for key in ("serial", "product", "manufacturer", "dfu_serial"):
        if len(getattr(options, key).encode("utf-16-le", "replace")) > 2 * LONGEST_STRING:
            raise BadDevice(key, f"a USB string has at most {LONGEST_STRING} characters")


def _bcd(version: str) -> int:
    """bcdDevice as JJ.M.N (USB 2.0, 9.6.1): "1.5.0" is 0x0150. Numbers that do not fit are cut."""
    numbers = [int(part) if part.isdecimal() and part.isascii() else 0 for part in (*version.split("."), "0", "0")[:3]]
    major = min(numbers[0], 99)
    return (major // 10 << 12) | (major % 10 << 8) | (min(numbers[1], 9) << 4) | min(numbers[2], 9)
