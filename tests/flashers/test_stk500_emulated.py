"""The AVR flashers over the emulated bootloaders: clean lines, faulty ones, and what a loader should not say.

After any of it: the right image, or an error of the documented kind and a second run, on a line that is whole again, that
ends with the right image. The boot section, and what the image has nothing in, are never changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from proxyflash.emulators.avr.part import parts
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.faults import FaultPlan, Faults
from proxyflash.emulators.serial.board import Stage
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.flashers.avr.identity import EEPROM_START
from proxyflash.flashers.errors import (
    ImageError,
    NoResponse,
    PartError,
    PartProtected,
    ProfileWrong,
    Unsupported,
    WrongLayout,
    WrongPart,
)
from proxyflash.flashers.flasher import Bootloader, State
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.programmer import Programmer
from proxyflash.flashers.serial import usb_return
from proxyflash.tests.emulators.avr_lab import ATMEGABOOT, CATERINA, DEVICES, OPTIBOOT, WIRING, firmware
from proxyflash.tests.flashers.wire_faults import FAULTS, faults
from proxyflash.transports import plugins
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import TransportError
from proxyflash.transports.serial.port import SerialPort

PROTOCOL = {OPTIBOOT: "stk500v1", ATMEGABOOT: "stk500v1", WIRING: "stk500v2", CATERINA: "avr109"}
LINED = [OPTIBOOT, ATMEGABOOT, WIRING]
"""Those whose reset a modem line drives."""
OLD = firmware("1.4.2", 3000)
NEW = firmware("1.5.0", 2200)
IMAGE = FirmwareImage((Segment(0, NEW),), "bin")
QUICK = {"discharge": 1e-3, "settle": 1e-3}


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    # A part that is in its loader already doesn't leave its bus.
    monkeypatch.setattr(usb_return, "LEAVE_SECONDS", 1.0)


class Rig:
    """A part that runs the old application, and the host's port."""

    def __init__(
        self, part: str, *, plan: FaultPlan | None = None, holds: bytes = OLD, lines: bool = True, **table: Any
    ) -> None:
        self.faults = Faults(plan)
        self.wire = UartWire(uuid.uuid4().hex, faults=self.faults, pace=0)
        self.rate = parts()[part].baudrate or 57_600
        self.boot = parts()[part].boot
        settings: dict[str, Any] = {"part": part, "app_baudrate": self.rate, "boot_window": 60}
        if part == CATERINA:
            settings["reenumerate"] = 0.02
        elif not lines:
            settings |= {"wiring": "none", "power_on": True, "boot_window": 0}
        self.device = DEVICES[parts()[part].loader].attach(
            DeviceSpec("imu", settings=settings | table, pace=0), self.wire
        )
        self.memory = self.device.flash
        self.memory.load(0, holds)
        # The far end of the application section, which nothing has to do with, and the boot section.
        self.memory.load(self.far, b"\xc3" * 64)
        self.untouched = self.memory.read(self.far, self.memory.size - self.far)
        self.device.supply.off()
        self.device.supply.on()
        self.device.board.settle()
        self.port = self.opened()
        self.flasher_class: type[Bootloader] = plugins.load(plugins.FLASHERS, PROTOCOL[part])
        entry: dict[str, Any] = QUICK if lines else {"reset": "none"}
        if part == CATERINA:
            entry = {"touch_seconds": 5}  # The rest is as the protocol has it.
        self.profile = self.flasher_class.Profile.model_validate({"answer": 0.1, "entry": entry})

    @property
    def far(self) -> int:
        return self.boot - 64

    def opened(self) -> SerialPort:
        url = self.wire.host_settings()["url"]
        return SerialPort.open("imu", {"url": url, "baudrate": self.rate, "dtr": False, "rts": False})

    def flasher(self) -> Bootloader:
        return self.flasher_class.attach(self.port, self.flasher_class.Address(), self.profile)

    def flash(self, image: FirmwareImage = IMAGE, **keys: Any) -> None:
        programmer = Programmer(self.flasher(), "imu", **keys)
        try:
            programmer.flash(programmer.plan(image))
        finally:
            programmer.bootloader.close()

    def whole_again(self) -> None:
        """No more faults from here on, and all the time that an answer needs on a busy machine."""
        self.faults.plan = FaultPlan()
        self.profile = self.profile.model_copy(update={"answer": 2.0})

    def runs(self, version: str) -> bool:
        with self.device.board.changed:
            return self.device.board.changed.wait_for(lambda: self.device.application_version == version, 20)

    def holds_new(self) -> bool:
        return self.memory.read(0, len(NEW)) == NEW

    def close(self) -> None:
        self.port.close()
        self.device.close()
        self.wire.close()
        assert self.device.board.fault is None
        assert self.untouched == b"\xc3" * 64 + parts()[self.device.memory.part.name].loader_code


def close(rig: Rig) -> None:
    """With a look at what must not have changed."""
    assert rig.memory.read(rig.far, rig.memory.size - rig.far) == rig.untouched
    rig.close()


def ends_well(rig: Rig) -> None:
    """Flashes on the faulty line, then, if that ended with an error, on a whole one."""
    try:
        rig.flash()
    except (TransportError, PartError, ProfileWrong, ImageError):
        rig.whole_again()
        rig.flash()
    assert rig.holds_new()
    close(rig)


class TestClean:
    @pytest.mark.parametrize("part", PROTOCOL)
    def test_flash_verify_and_boot(self, part: str) -> None:
        rig = Rig(part)
        rig.whole_again()
        rig.flash()
        assert rig.holds_new()
        if part != ATMEGABOOT:  # It waits until its time is over.
            assert rig.runs("1.5.0")
        close(rig)

    @pytest.mark.parametrize("part", PROTOCOL)
    def test_a_shorter_image_and_an_older_one(self, part: str) -> None:
        """A downgrade is the caller's to refuse; the part takes it, and what it had before is not what runs."""
        rig = Rig(part, holds=firmware("2.0.0", 6000))
        rig.whole_again()
        rig.flash()
        assert rig.holds_new()
        close(rig)

    def test_a_page_that_is_given_too_small(self) -> None:
        """The pages of an ATmega328P have 128 bytes (DS40001984): writing the first 64 erases them all."""
        rig = Rig(OPTIBOOT)
        rig.whole_again()
        app, boot = {"start": 0, "size": 0x7E00}, {"start": 0x7E00, "size": 512, "boot": True}
        memory = [run | {"erase_unit": 64} for run in (app, boot)]
        rig.profile = type(rig.profile).model_validate(rig.profile.model_dump() | {"memory": memory})
        with pytest.raises(WrongLayout, match="has also erased what lay at 0x00000040"):
            rig.flash()
        assert rig.memory.read(128, len(OLD) - 128) == OLD[128:]
        close(rig)

    @pytest.mark.parametrize("part", PROTOCOL)
    def test_the_boot_section_is_refused_before_anything_is_erased(self, part: str) -> None:
        rig = Rig(part, lock=0xFF)
        rig.whole_again()
        operations = rig.device.supply.operations
        for start in (rig.boot - 128, rig.boot, rig.memory.size - 256):
            with pytest.raises(ImageError):
                rig.flash(FirmwareImage((Segment(0, NEW), Segment(start, b"\x01" * 256)), "bin"))
        assert rig.device.supply.operations == operations
        assert rig.memory.read(0, len(OLD)) == OLD
        close(rig)

    def test_what_the_loader_never_erases_is_refused_before_anything_is_erased(self) -> None:
        """The Mega 2560's loader stops to erase at twice its boot section before the flash's end; a page before that is
        updated as often as one likes."""
        rig = Rig(WIRING)
        rig.whole_again()
        end = 0x3_C000
        operations = rig.device.supply.operations
        with pytest.raises(ImageError):
            rig.flash(FirmwareImage((Segment(0, NEW), Segment(end, b"\x01")), "bin"))
        assert rig.device.supply.operations == operations
        for last in (b"\x55" * 256, b"\xaa" * 256):
            rig.flash(FirmwareImage((Segment(0, NEW), Segment(end - 256, last)), "bin"))
            assert rig.memory.read(end - 256, 256) == last
        close(rig)

    def test_a_plan_says_that_a_loader_erases_from_the_first_page_on(self) -> None:
        rig = Rig(WIRING)
        programmer = Programmer(rig.flasher(), "imu")
        with pytest.raises(Unsupported, match="erases from the first page on"):
            programmer.plan(FirmwareImage((Segment(0x1000, b"\x5a" * 256),), "bin"))
        assert rig.memory.read(0, len(OLD)) == OLD
        close(rig)

    @pytest.mark.parametrize("part", PROTOCOL)
    def test_a_part_with_a_blank_flash(self, part: str) -> None:
        rig = Rig(part, holds=b"")
        rig.whole_again()
        rig.flash()
        assert rig.holds_new()
        close(rig)

    @pytest.mark.parametrize("part", PROTOCOL)
    def test_another_part_is_left_running_what_it_ran(self, part: str) -> None:
        rig = Rig(part)
        rig.whole_again()
        rig.profile = rig.profile.model_copy(update={"part": "ATmega8"})
        operations = rig.device.supply.operations
        with pytest.raises(WrongPart):
            rig.flash()
        assert rig.device.supply.operations == operations
        close(rig)

    @pytest.mark.parametrize(
        ("part", "fuses"),
        [
            (WIRING, {"low_fuse": "0xFF", "high_fuse": "0xD8", "extended_fuse": "0xFD", "lock_bits": "0xCF"}),
            (CATERINA, {"low_fuse": "0xFF", "high_fuse": "0xD8", "extended_fuse": "0xCB", "lock_bits": "0xEF"}),
            (OPTIBOOT, {}),
        ],
    )
    def test_fuses_and_lock_bits_are_told_where_the_loader_tells_them(self, part: str, fuses: dict[str, str]) -> None:
        """As boards.txt has them (Debian's arduino-core-avr; its lock bits without those that are none)."""
        rig = Rig(part)
        rig.whole_again()
        flasher = rig.flasher()
        details = flasher.connect().details
        assert {key: value for key, value in details.items() if key.endswith(("_fuse", "_bits"))} == fuses
        flasher.close()
        close(rig)

    @pytest.mark.parametrize("part", [WIRING, CATERINA])
    def test_lock_bits_that_forbid_writing_are_seen(self, part: str) -> None:
        rig = Rig(part, lock=0xCB)
        rig.whole_again()
        with pytest.raises(PartProtected):
            rig.flash()
        assert rig.memory.read(0, len(OLD)) == OLD
        close(rig)

    @pytest.mark.parametrize("part", [OPTIBOOT, ATMEGABOOT])
    def test_lock_bits_that_can_not_be_read_fail_the_verify(self, part: str) -> None:
        rig = Rig(part, lock=0xCB)
        rig.whole_again()
        with pytest.raises(PartError):
            rig.flash()
        assert rig.memory.read(0, len(OLD)) == OLD
        close(rig)

    @pytest.mark.parametrize("part", [ATMEGABOOT, WIRING, CATERINA])
    def test_eeprom(self, part: str) -> None:
        rig = Rig(part)
        rig.whole_again()
        content = bytes(range(1, 201))
        rig.device.memory.write_eeprom(300, b"keep")
        rig.flash(FirmwareImage((Segment(0, NEW), Segment(EEPROM_START + 8, content)), "hex"))
        assert rig.holds_new()
        assert rig.device.memory.read_eeprom(0, 208) == b"\xff" * 8 + content
        assert rig.device.memory.read_eeprom(300, 4) == b"keep"
        close(rig)

    def test_optiboots_eeprom_is_refused(self) -> None:
        """It would go into the flash."""
        rig = Rig(OPTIBOOT)
        rig.whole_again()
        with pytest.raises(ImageError):
            rig.flash(FirmwareImage((Segment(EEPROM_START, b"calibration"),), "hex"))
        assert rig.memory.read(0, len(OLD)) == OLD
        close(rig)

    @pytest.mark.parametrize("part", LINED)
    def test_without_lines_a_part_that_waits_in_its_loader(self, part: str) -> None:
        rig = Rig(part, lines=False)
        rig.whole_again()
        rig.flash()
        assert rig.holds_new()
        close(rig)

    @pytest.mark.parametrize(
        ("wiring", "entry"),
        [
            ("rts-reset", {"reset": "rts"}),
            ("dtr-reset", {"reset": "both"}),
            ("rts-reset", {"reset": "both"}),
            ("!dtr-reset", {"asserted": False}),
            ("!rts-reset", {"reset": "rts", "asserted": False}),
            ("dtr-reset", {"wiring": "direct", "hold": 1e-3}),
            ("!dtr-reset", {"wiring": "direct", "hold": 1e-3, "asserted": False}),
        ],
    )
    def test_each_wiring_of_the_reset(self, wiring: str, entry: dict[str, Any]) -> None:
        rig = Rig(OPTIBOOT, wiring=wiring)
        rig.profile = rig.flasher_class.Profile.model_validate({"answer": 2.0, "entry": {**QUICK, **entry}})
        rig.flash()
        assert rig.holds_new()
        assert rig.runs("1.5.0")
        close(rig)

    def test_the_other_line_resets_nothing(self) -> None:
        rig = Rig(OPTIBOOT, wiring="rts-reset")
        assert rig.runs("1.4.2")
        with pytest.raises(NoResponse):
            rig.flash()
        assert rig.runs("1.4.2")
        close(rig)

    @pytest.mark.parametrize("part", [OPTIBOOT, CATERINA])
    def test_without_a_way_in_a_running_application_is_no_loader(self, part: str) -> None:
        rig = Rig(part, wiring="none")
        rig.profile = rig.flasher_class.Profile.model_validate(
            {"answer": 0.1, "entry": {"reset": "none", "touch": False}}
        )
        with pytest.raises(NoResponse):
            rig.flash()
        assert rig.runs("1.4.2")
        close(rig)

    @pytest.mark.parametrize("part", PROTOCOL)
    def test_mute(self, part: str) -> None:
        rig = Rig(part, mute=True)
        rig.profile = rig.profile.model_copy(update={"entry": rig.profile.entry.model_copy(update={"touch": False})})
        with pytest.raises(NoResponse):
            rig.flash()
        close(rig)


class TestSight:
    @pytest.mark.parametrize("part", PROTOCOL)
    def test_a_loader_is_seen_where_asking_is_allowed(self, part: str) -> None:
        rig = Rig(part, holds=b"", power_on=True, boot_window=0)
        rig.whole_again()
        sent: list[bytes] = []
        send = rig.wire.host.send

        def sending(data: bytes, at: float | None = None) -> None:
            sent.append(data)
            send(data, at)

        rig.wire.host.send = sending  # type: ignore[method-assign]
        address, limit = rig.flasher_class.Address(), Deadline.after(20)
        assert rig.flasher_class.probe(rig.port, address, rig.profile, active=False, deadline=limit) is None
        assert sent == []
        sighting = rig.flasher_class.probe(rig.port, address, rig.profile, active=True, deadline=limit)
        assert sighting is not None
        assert sighting.state is State.BOOTLOADER
        assert sighting.identity.details["signature"] == f"0x{parts()[part].signature:06X}"
        close(rig)

    @pytest.mark.parametrize("part", PROTOCOL)
    def test_a_running_application_is_not_disturbed(self, part: str) -> None:
        rig = Rig(part, boot_window=0.05)
        assert rig.runs("1.4.2")
        address = rig.flasher_class.Address()
        assert rig.flasher_class.probe(rig.port, address, rig.profile, active=True, deadline=Deadline.after(20)) is None
        assert rig.device.board.stage is Stage.APPLICATION
        close(rig)


FAULTY = [*((ATMEGABOOT, kind) for kind in FAULTS), (CATERINA, "corrupt")]
"""What the contract kit leaves out: a part, and a fault of its wire."""


def units_of_one_flash(part: str) -> int:
    rig = Rig(part)
    rig.whole_again()
    rig.flash()
    close(rig)
    return rig.faults.units


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("part", "kind"), FAULTY)
class TestFaults:
    def test_one_fault_at_any_byte(self, part: str, kind: str) -> None:
        """Some 20 of them, spread over the flash; each kind begins elsewhere."""
        units = units_of_one_flash(part)
        for unit in range(1 + 13 * FAULTS.index(kind), units, units // 20):
            ends_well(Rig(part, plan=faults(kind, 1.0, first=unit, last=unit, seed=unit)))

    def test_faults_all_along(self, part: str, kind: str) -> None:
        for seed in range(3):
            ends_well(Rig(part, plan=faults(kind, 0.001, seed=seed)))


AS_READ = {b"S": 7, b"s": 3, b"V": 2}
"""Bytes of AVR109's answers to what is asked first."""


class TestStrangers:
    """A device that is not such a loader: each ends with an error, and with nothing but greetings sent to it."""

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(lambda heard: b"\x79\x1f" * 3, id="another protocol's bytes"),
            pytest.param(lambda heard: b"\x1b[0m\x14\x00\xff" * 20, id="garbage"),
            pytest.param(lambda heard: b"\x14", id="half an answer and silence"),
            pytest.param(lambda heard: b"[00:00:01.234] uart: overrun\r\n", id="log text"),
            pytest.param(lambda heard: heard, id="an echo"),
            pytest.param(lambda heard: b"", id="silence"),
            pytest.param(lambda heard: b"U" * AS_READ.get(heard, 1), id="one byte again and again, as it is read"),
            pytest.param(lambda heard: b"\x14\x10\x14\x10", id="always in step"),
            pytest.param(
                lambda heard: b"\x1b\x01\x00\x02\x0e\x01\x00\x17", id="half of a message, with another number"
            ),
        ],
    )
    @pytest.mark.parametrize("protocol", ["stk500v1", "stk500v2", "avr109"])
    def test_it_is_refused(self, protocol: str, answer: Callable[[bytes], bytes]) -> None:
        wire = UartWire(uuid.uuid4().hex, pace=0)
        heard: list[bytes] = []

        def listening() -> None:
            device = wire.device
            data = device.take(device.available())
            heard.append(data)
            device.send(answer(data))

        wire.device.listener = listening
        wire.device.line = replace(wire.device.line, baudrate=57_600)
        url = wire.host_settings()["url"]
        port = SerialPort.open("imu", {"url": url, "baudrate": 57_600, "dtr": False, "rts": False})
        flasher_class: type[Bootloader] = plugins.load(plugins.FLASHERS, protocol)
        profile = flasher_class.Profile.model_validate({"answer": 0.05, "entry": {**QUICK, "touch": False}})
        flasher = flasher_class.attach(port, flasher_class.Address(), profile)
        with pytest.raises((TransportError, PartError, ProfileWrong)):
            Programmer(flasher, "imu").plan(IMAGE)
        assert (
            flasher_class.probe(port, flasher_class.Address(), profile, active=True, deadline=Deadline.after(5)) is None
        )
        sent = b"".join(heard)
        assert b"\x64\x00\x80" not in sent, "a page was sent"
        assert NEW[:64] not in sent
        flasher.close()
        port.close()
        wire.close()
