"""The STM32 flasher over every emulated part: flash, verify, read back, erase, boot; entry, protections, families."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from proxyflash.emulators import application
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.serial.board import Stage
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.emulators.stm32 import device as stm32_uart
from proxyflash.emulators.stm32.device import Stm32UartDevice
from proxyflash.emulators.stm32.part import parts
from proxyflash.enumerators.benchfile.schema import VersionQuestion
from proxyflash.enumerators.probers.serial import ask
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import (
    NoResponse,
    PartProtected,
    ProfileWrong,
    Unsupported,
    VerifyMismatch,
    WrongLayout,
    WrongPart,
)
from proxyflash.flashers.events import RunContext
from proxyflash.flashers.flasher import Capability, ProbeResult, State
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.memory import Range
from proxyflash.flashers.programmer import FlashResult, Programmer
from proxyflash.flashers.stm32.profile import Stm32Address, Stm32Pins, Stm32Profile
from proxyflash.flashers.stm32.uart import Stm32UartFlasher
from proxyflash.flashers.stm32.uart_commands import Stm32Commands
from proxyflash.tests.rigs import rigs
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import ExitStatus
from proxyflash.transports.serial.port import SerialPort
from pydantic import ValidationError

BASE = 0x08000000
PARTS = tuple(parts())
MASS_ERASE = b"\xff\xff\x00"
QUESTION = {"send": "VER?\r", "match": "FW ([0-9.]+)"}
LINES = {"reset": "dtr", "boot0": "rts", "hold": 1e-4, "settle": 1e-3}
OLD = application.make("1.4.2", "imu", "Acme", 1200)
NEW = application.make("1.5.0", "imu", "Acme", 3001)


class Rig:
    """A part that runs 1.4.2, and the host's port; `sent`: each of the host's writes."""

    def __init__(self, part: str = "stm32l476xg", profile: dict[str, Any] | None = None, **table: Any) -> None:
        self.wire = UartWire(uuid.uuid4().hex, pace=0)
        self.sent: list[bytes] = []
        self._spy()
        settings = {"part": part, "wiring": "dtr-reset,!rts-boot0", "app_baudrate": 1_000_000, **table}
        self.device = Stm32UartDevice.attach(DeviceSpec("imu", settings=settings, pace=0, version=QUESTION), self.wire)
        self.flash_memory = self.device.flash
        self.flash_memory.load(BASE, OLD)
        self.device.board.reset()
        url = self.wire.host_settings()["url"]
        self.port = SerialPort.open("imu", {"url": url, "baudrate": 1_000_000, "dtr": False, "rts": False})
        self.profile = Stm32Profile.model_validate({"answer": 0.1, "entry": LINES, **(profile or {})})

    def _spy(self) -> None:
        send = self.wire.host.send

        def spied(data: bytes, at: float | None = None) -> None:
            self.sent.append(data)
            send(data, at)

        self.wire.host.send = spied  # type: ignore[method-assign]

    @property
    def second_unit(self) -> int:
        """An address of an erase unit in which nothing lies that the part starts by."""
        return BASE + max(0x4000, self.device.memory.part.units[0][1])

    def flasher(self) -> Stm32UartFlasher:
        return Stm32UartFlasher.attach(self.port, Stm32Address(), self.profile)

    def programmer(self, **keys: Any) -> Programmer:
        return Programmer(self.flasher(), "imu", **keys)

    def flash(self, data: bytes, at: int = BASE, **keys: Any) -> FlashResult:
        """As the command line does: plan, flash, verify, boot, ask for the version."""
        programmer = self.programmer(**keys)
        try:
            plan = programmer.plan(FirmwareImage((Segment(at, data),), "bin"))
            result = programmer.flash(plan)
            return replace(
                result, version=self.version(Deadline.after(10)) if at == BASE and len(data) > 1000 else None
            )
        finally:
            programmer.bootloader.close()

    def version(self, deadline: Deadline) -> str | None:
        return ask(self.port, VersionQuestion(send=QUESTION["send"], match=QUESTION["match"]), deadline)

    def probe(self, *, active: bool) -> ProbeResult | None:
        return Stm32UartFlasher.probe(
            self.port, Stm32Address(), self.profile, active=active, deadline=Deadline.after(5)
        )

    def holds(self, data: bytes, at: int = BASE) -> bool:
        return self.flash_memory.read(at, len(data)) == data

    def runs(self, version: str | None) -> bool:
        """Whether the part runs this application in the end; None: its loader."""
        with self.device.board.changed:
            return self.device.board.changed.wait_for(
                lambda: (
                    self.device.application_version == version
                    and self.device.board.stage is (Stage.LOADER if version is None else Stage.APPLICATION)
                ),
                5,
            )

    def close(self) -> None:
        self.port.close()
        self.device.close()
        self.wire.close()
        assert self.device.board.fault is None


make_rig = rigs(Rig)


@pytest.fixture(params=PARTS)
def rig(request: pytest.FixtureRequest, make_rig: Callable[..., Rig]) -> Rig:
    return make_rig(request.param)


class TestEachPart:
    def test_flash_verify_boot_and_version(self, rig: Rig) -> None:
        result = rig.flash(NEW)
        assert result.version == "1.5.0"
        assert result.verified == ("CRC-32 by the part" if rig.device.memory.part.checksum else "read back")
        assert rig.holds(NEW)
        assert rig.runs("1.5.0")

    def test_read_back_and_erase(self, rig: Rig) -> None:
        flash = rig.flash_memory
        programmer = rig.programmer()
        assert programmer.read([Range(BASE + 3, 1001)])[0].data == OLD[3:1004]
        last_start, last_size = flash.unit(flash.unit_count - 1)
        flash.load(last_start, b"\x5a" * last_size)
        programmer.erase([Range(last_start, last_size)])
        assert flash.read(last_start, last_size) == bytes([flash.erased]) * last_size
        assert rig.holds(OLD)
        programmer.erase([Range(BASE, flash.size)])
        assert flash.read(BASE, flash.size) == bytes([flash.erased]) * flash.size

    def test_who_it_is(self, rig: Rig) -> None:
        identity = rig.flasher().connect()
        part = rig.device.memory.part
        assert identity.details["product_id"] == f"0x{part.product_id:03X}"
        assert identity.details["flash"] == f"{rig.flash_memory.size // 1024} KiB"
        assert identity.details["readout_protection"] == "off"
        assert identity.details["option_bytes"] == "00 00"
        protocol = 0x33 if part.checksum else part.protocol_version
        assert identity.bootloader == f"{protocol >> 4}.{protocol & 15}"
        assert identity.serial == rig.device.memory.read(part.uid[0], 4).hex() + "".join(
            rig.device.memory.read(word, 4).hex() for word in part.uid[1:]
        )

    def test_images_of_any_size(self, rig: Rig) -> None:
        start = rig.second_unit
        for size in (1, 3, 6, 7):
            rig.flash(bytes(range(1, size + 1)), at=start)
            assert rig.holds(bytes(range(1, size + 1)), start)
        for size in (1001, 1022, 1025):
            image = application.make(f"2.{size}", "imu", "Acme", size)
            assert rig.flash(image).version == f"2.{size}"
            assert rig.holds(image)

    def test_unaligned_starts(self, rig: Rig) -> None:
        for offset in (1, 2, 6):
            data = bytes(range(1, 100))
            rig.flash(data, at=rig.second_unit + offset)
            assert rig.holds(data, rig.second_unit + offset)

    def test_a_second_flash_of_the_same_does_nothing(self, rig: Rig) -> None:
        rig.flash(NEW)
        counts = (rig.flash_memory.erases, rig.flash_memory.programs)
        result = rig.flash(NEW)
        assert (result.erased_bytes, result.written_bytes) == (0, 0)
        assert (rig.flash_memory.erases, rig.flash_memory.programs) == counts
        assert rig.runs("1.5.0")

    def test_readout_protection(self, rig: Rig) -> None:
        rig.device.memory.protect_readout()
        with pytest.raises(PartProtected, match="readout protection of this STM32"):
            rig.flash(NEW)
        assert rig.holds(OLD)
        assert rig.runs("1.4.2")

    def test_write_protection_of_the_start_is_seen_before_anything_changed(self, rig: Rig) -> None:
        before = rig.flash_memory.read(BASE, rig.flash_memory.size)
        rig.device.memory.protect([0])
        with pytest.raises(PartProtected, match="is write-protected") as caught:
            rig.flash(NEW)
        assert "stm32flash -u" in caught.value.remedy
        assert rig.flash_memory.read(BASE, rig.flash_memory.size) == before

    def test_write_protection_of_a_blank_part_is_seen_in_the_second_attempt(self, rig: Rig) -> None:
        """What the loader acknowledged and did not do, verifying sees; then each step is looked at."""
        rig.flash_memory.load(BASE, bytes([rig.flash_memory.erased]) * rig.flash_memory.size)
        rig.device.memory.protect([0])
        told: list[str] = []
        with pytest.raises(PartProtected, match="nothing was written: it is write-protected"):
            rig.flash(
                NEW,
                context=RunContext(lambda event: told.append(event.code) if isinstance(event, ev.Retrying) else None),
            )
        assert told == [VerifyMismatch.code]


def wiring(line: str, pin: str, inverted: bool) -> str:
    return f"{'!' if inverted else ''}{line}-{pin}"


class TestEntry:
    @pytest.mark.parametrize("reset_inverted", [False, True])
    @pytest.mark.parametrize("boot0_inverted", [False, True])
    @pytest.mark.parametrize(("reset", "boot0"), [("dtr", "rts"), ("rts", "dtr")])
    def test_both_lines(
        self, make_rig: Callable[..., Rig], reset: str, boot0: str, reset_inverted: bool, boot0_inverted: bool
    ) -> None:
        """Wired directly an asserted line is low: it resets, and BOOT0 is high while it is not asserted."""
        rig = make_rig(
            profile={"entry": LINES | {"reset": reset, "boot0": boot0, "reset_asserted": not reset_inverted,
                                       "boot0_asserted": boot0_inverted}},
            wiring=f"{wiring(reset, 'reset', reset_inverted)},{wiring(boot0, 'boot0', boot0_inverted)}",
        )  # fmt: skip
        assert rig.flash(NEW).version == "1.5.0"
        assert b"\x21\xde" not in rig.sent, "a reset starts the application, not Go"

    @pytest.mark.parametrize("inverted", [False, True])
    @pytest.mark.parametrize("reset", ["dtr", "rts"])
    def test_reset_alone_with_boot0_held(self, make_rig: Callable[..., Rig], reset: str, inverted: bool) -> None:
        """A reset would lead into the loader again: Go starts the application."""
        rig = make_rig(
            profile={"entry": LINES | {"reset": reset, "boot0": "none", "reset_asserted": not inverted}},
            wiring=wiring(reset, "reset", inverted), boot0=True,
        )  # fmt: skip
        assert rig.flash(NEW).version == "1.5.0"
        assert b"\x21\xde" in rig.sent

    def test_no_lines(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(profile={"entry": {}}, wiring="none", boot0=True)
        assert rig.flash(NEW).version == "1.5.0"
        rig.device.board.reset()
        assert rig.flash(OLD).version == "1.4.2"

    def test_a_running_application_without_lines_is_no_loader(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(profile={"entry": {}, "answer": 0.01})
        with pytest.raises(
            NoResponse, match=r"to the loader's 0x7F at 1,000,000 bit/s.*at another rate, it needs a reset"
        ):
            rig.flash(NEW)
        assert rig.holds(OLD)

    def test_the_wrong_lines(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(profile={"entry": LINES | {"reset": "rts", "boot0": "dtr"}, "answer": 0.01})
        with pytest.raises(NoResponse):
            rig.flash(NEW)
        assert rig.holds(OLD)

    def test_a_mute_part(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(profile={"answer": 0.01}, mute=True)
        with pytest.raises(NoResponse):
            rig.flash(NEW)

    def test_one_line_can_not_drive_both(self) -> None:
        with pytest.raises(ValidationError, match="dtr, can't both reset"):
            Stm32Pins(reset="dtr", boot0="dtr")

    def test_a_part_that_could_not_be_reached_starts_its_application(self, make_rig: Callable[..., Rig]) -> None:
        """Its supply is off meanwhile: the lines must not go on to select the loader."""
        rig = make_rig(profile={"answer": 0.01})
        rig.device.supply.off()
        with pytest.raises(NoResponse):
            rig.flash(NEW)
        rig.device.supply.on()
        assert rig.runs("1.4.2")

    @pytest.mark.parametrize("how", ["go", "reset"])
    def test_boot_as_the_profile_says(self, make_rig: Callable[..., Rig], how: str) -> None:
        rig = make_rig(profile={"boot": how})
        assert rig.flash(NEW).version == "1.5.0"
        assert (b"\x21\xde" in rig.sent) == (how == "go")

    def test_the_loaders_own_settings_and_the_applications(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(profile={"baudrate": 250_000, "app_baudrate": 57_600, "app_parity": "O"},
                       app_baudrate=57_600, app_parity="O")  # fmt: skip
        assert rig.flash(NEW).version == "1.5.0"
        assert (rig.port.baudrate, rig.port.parity) == (57_600, "O")

    def test_the_buss_own_settings_come_back(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(profile={"baudrate": 250_000})
        assert rig.flash(NEW).version == "1.5.0"
        assert (rig.port.baudrate, rig.port.parity) == (1_000_000, "N")

    def test_what_makes_the_application_jump_is_sent_at_its_settings(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(profile={"entry": {"settle": 0.001}, "enter": "BOOT\r", "baudrate": 250_000})
        heard: list[int] = []
        spied = rig.wire.host.send

        def jumping(data: bytes, at: float | None = None) -> None:
            spied(data, at)
            if data == b"BOOT\r":
                heard.append(rig.wire.host.line.baudrate)
                rig.wire.set_modem(rts=True)
                rig.device.board.reset()
                assert rig.runs(None)

        rig.wire.host.send = jumping  # type: ignore[method-assign]
        flasher = rig.flasher()
        flasher.connect()
        flasher.connect()
        assert heard == [1_000_000, 1_000_000]
        flasher.close()


class TestSight:
    def test_it_asks_only_where_it_may_and_finds_the_loader(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(wiring="none", boot0=True)
        assert rig.probe(active=False) is None
        assert rig.sent == []
        sighting = rig.probe(active=True)
        assert sighting is not None
        assert sighting.state is State.BOOTLOADER
        assert sighting.identity.part == "STM32L475/L476/L486"
        assert (rig.port.baudrate, rig.port.parity) == (1_000_000, "N")

    def test_readout_protection_and_strangers_are_told(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(profile={"part": "STM32F4"}, wiring="none", boot0=True, rdp=1)
        sighting = rig.probe(active=True)
        assert sighting is not None
        assert sighting.identity.details["readout_protection"] == "on"

    def test_a_running_application_is_not_disturbed(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(profile={"answer": 0.01})
        assert rig.probe(active=True) is None
        assert rig.sent == [b"\x7f", b"\xf5"]
        assert rig.version(Deadline.after(5)) == "1.4.2"


class TestFamilies:
    @pytest.mark.parametrize("wanted", ["F4", "STM32H7", 0x410, "contoso"])
    def test_another_family(self, make_rig: Callable[..., Rig], wanted: str | int) -> None:
        rig = make_rig(profile={"part": wanted})
        with pytest.raises(WrongPart, match=r"STM32L475/L476/L486 \(0x415\)"):
            rig.flash(NEW)
        assert rig.holds(OLD)
        assert rig.runs("1.4.2")

    @pytest.mark.parametrize("wanted", ["l476", "STM32L4", 0x415])
    def test_the_right_family(self, make_rig: Callable[..., Rig], wanted: str | int) -> None:
        assert make_rig(profile={"part": wanted}).flash(NEW).version == "1.5.0"

    @pytest.fixture
    def stranger(self, monkeypatch: pytest.MonkeyPatch) -> str:
        known = dict(parts())
        known["stranger"] = replace(known["stm32g071xb"], name="stranger", product_id=0x7FE)
        monkeypatch.setattr(stm32_uart, "parts", lambda: known)
        return "stranger"

    def test_an_unknown_product_id(self, make_rig: Callable[..., Rig], stranger: str) -> None:
        rig = make_rig(stranger)
        with pytest.raises(ProfileWrong, match="0x7FE") as caught:
            rig.flash(NEW)
        assert "memory = [{start" in caught.value.remedy
        assert rig.runs("1.4.2")

    def test_an_unknown_product_id_with_its_memory_given(self, make_rig: Callable[..., Rig], stranger: str) -> None:
        rig = make_rig(stranger, {"memory": [{"start": BASE, "size": 0x20000, "erase_unit": 2048}]})
        assert rig.flash(NEW).version == "1.5.0"
        assert rig.holds(NEW)
        rig.programmer().erase([Range(BASE, 0x20000)])
        assert MASS_ERASE not in rig.sent, "what a person has described is erased unit by unit"

    def test_an_unknown_product_id_with_a_mass_erase(self, make_rig: Callable[..., Rig], stranger: str) -> None:
        memory = [{"start": BASE, "size": 0x20000, "erase_unit": 2048}]
        rig = make_rig(stranger, {"memory": memory, "mass_erase": True})
        rig.programmer().erase([Range(BASE, 0x20000)])
        assert MASS_ERASE in rig.sent

    def test_no_mass_erase_where_more_lies_beyond(self, make_rig: Callable[..., Rig], stranger: str) -> None:
        """Parts are sold with more flash than they say, and people use it."""
        memory = [{"start": BASE, "size": 0x10000, "erase_unit": 2048}]
        rig = make_rig(stranger, {"memory": memory, "mass_erase": True})
        rig.flash_memory.load(BASE + 0x10000, b"CALIBRATION DATA")
        rig.programmer().erase([Range(BASE, 0x10000)])
        assert MASS_ERASE not in rig.sent
        assert rig.flash_memory.read(BASE + 0x10000, 16) == b"CALIBRATION DATA"

    def test_a_smaller_part_of_the_family(self, make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
        known = dict(parts())
        sectors = ({"count": 128, "size": 2048, "erase_seconds": 0.02},)
        known["small"] = replace(known["stm32l476xg"], sectors=sectors)
        monkeypatch.setattr(stm32_uart, "parts", lambda: known)
        rig = make_rig("small")
        flasher = rig.flasher()
        assert flasher.connect().details["flash"] == "256 KiB"
        assert [(region.start, region.size) for region in flasher.memory_map().regions] == [(BASE, 0x40000)]


class TestWrongMemory:
    """An STM32F413 (RM0430, table 5: 4 x 16 KiB, 64 KiB, 11 x 128 KiB) that nobody knows, and what a person says of it."""

    size = 0x18_0000
    units = (*[0x4000] * 4, 0x1_0000, *[0x2_0000] * 11)
    image = FirmwareImage((Segment(BASE, application.make("1.5.0", "imu", "Acme", 0x2_0400)),), "bin")

    @pytest.fixture
    def unknown(self, monkeypatch: pytest.MonkeyPatch) -> str:
        known = dict(parts())
        sectors = tuple(
            {"count": count, "size": size, "erase_seconds": 1.0}
            for count, size in ((4, 0x4000), (1, 0x1_0000), (11, 0x2_0000))
        )
        known["unknown"] = replace(known["stm32f405xg"], name="unknown", product_id=0x7FE, sectors=sectors)
        monkeypatch.setattr(stm32_uart, "parts", lambda: known)
        return "unknown"

    def rig(self, make_rig: Callable[..., Rig], unknown: str, *runs: tuple[int, int, int], **keys: Any) -> Rig:
        memory = [dict(zip(("start", "size", "erase_unit"), run, strict=True)) for run in runs]
        rig = make_rig(unknown, {"memory": memory, **keys})
        for start in range(0x4000, self.size, 0x4000):
            rig.flash_memory.load(BASE + start, start.to_bytes(4, "big") * 8)
        return rig

    def erased(self, rig: Rig) -> list[int]:
        """The real sectors that hold nothing any more of what lay there at each 16 KiB."""
        found, start = [], self.units[0]
        for number, size in enumerate(self.units[1:], 1):
            places = range(start, start + size, 0x4000)
            if not any(rig.flash_memory.read(BASE + place, 32) == place.to_bytes(4, "big") * 8 for place in places):
                found.append(number)
            start += size
        return found

    def test_the_right_one(self, make_rig: Callable[..., Rig], unknown: str) -> None:
        rig = self.rig(
            make_rig, unknown, (BASE, 0x1_0000, 0x4000), (BASE + 0x1_0000, 0x1_0000, 0x1_0000),
            (BASE + 0x2_0000, 0x16_0000, 0x2_0000),
        )  # fmt: skip
        programmer = rig.programmer()
        programmer.flash(programmer.plan(self.image), boot=False)
        assert rig.holds(bytes(self.image.segments[0].data))
        assert self.erased(rig) == [1, 2, 3, 4, 5]

    @pytest.mark.parametrize(
        ("unit", "why", "gone"),
        [
            (0x800, "has also erased what lay at 0x08000800", []),
            (0x2000, "has also erased what lay at 0x08002000", []),
            (0x4000, "erasing 0x08010000..0x08013FFF has also erased what lay at 0x08014000", [1, 2, 3, 4]),
            (0x8000, "has left a part of it as it was", []),
            (0x2_0000, "has left a part of it as it was", []),
            (0x8_0000, "has left a part of it as it was", []),
        ],
    )
    def test_units_of_one_size(
        self, make_rig: Callable[..., Rig], unknown: str, unit: int, why: str, gone: list[int]
    ) -> None:
        """The image reaches into the real sector 5; none is erased beyond it, and nothing is written."""
        rig = self.rig(make_rig, unknown, (BASE, self.size, unit))
        rig.flash_memory.load(BASE, bytes(range(1, 255)) * 64)
        programmer = rig.programmer()
        plan = programmer.plan(self.image)
        with pytest.raises(WrongLayout, match=why) as caught:
            programmer.flash(plan)
        assert (caught.value.code, caught.value.component) == ("E-PART-LAYOUT", "imu")
        # Not 10: the same command again would see nothing of it, and erase on.
        assert caught.value.exit_status is ExitStatus.BAD_FILE
        assert "before anything was written" not in str(caught.value)
        assert programmer.touched
        assert self.erased(rig) == gone
        assert rig.flash_memory.read(BASE, 0x2000) in (b"\xff" * 0x2000, (bytes(range(1, 255)) * 64)[:0x2000])

    def test_a_number_that_is_another_place(self, make_rig: Callable[..., Rig], unknown: str) -> None:
        """It must not look write-protected, as a unit does that stays as it was."""
        rig = self.rig(make_rig, unknown, (BASE, 0x1_0000, 0x4000))
        runs = [{"start": BASE + 0x8000, "size": 0x8_0000, "erase_unit": 0x4000, "number": 7}]
        rig.profile = Stm32Profile.model_validate({"answer": 0.1, "entry": LINES, "memory": runs})
        with pytest.raises(
            WrongLayout, match=r"erasing 0x08008000\.\.0x0800BFFF has also erased what lay at 0x08060000"
        ):
            rig.programmer().erase([Range(BASE + 0x8000, 0x4000)])
        assert self.erased(rig) == [7]

    def test_a_table_that_is_wrong(
        self, make_rig: Callable[..., Rig], unknown: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """RM0440: a G474 with DBANK = 0 has pages of 4 KiB. Its option bytes say two banks of 2 KiB all the same."""
        known = dict(parts())
        sectors = ({"count": 128, "size": 4096, "erase_seconds": 0.02},)
        known["unknown"] = replace(known["stm32g474xe"], name="unknown", sectors=sectors)
        monkeypatch.setattr(stm32_uart, "parts", lambda: known)
        rig = make_rig(unknown, {})
        rig.flash_memory.load(BASE, b"\x5a" * 0x4000)
        with pytest.raises(
            WrongLayout, match=r"erasing 0x08000000\.\.0x080007FF has also erased what lay at 0x08000800"
        ):
            rig.flash(NEW)
        assert rig.flash_memory.read(BASE + 0x1000, 0x3000) == b"\x5a" * 0x3000


class TestErasing:
    def erases(self, rig: Rig) -> list[str]:
        """What followed each Erase or Extended Erase command."""
        return [
            unit.hex(" ")
            for command, unit in zip(rig.sent, rig.sent[1:], strict=False)
            if command in (b"\x44\xbb", b"\x43\xbc")
        ]

    def test_pages_where_not_all_is_touched(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("stm32f103xb")
        rig.flash(NEW)
        # Three pages of 1 KiB: the image's first alone.
        assert self.erases(rig) == ["00 00 00", "01 01 02 02"]

    @pytest.mark.parametrize(
        ("part", "sent"), [("stm32f103xb", "ff 00"), ("stm32f405xg", "ff ff 00"), ("stm32g071xb", "ff ff 00")]
    )
    def test_all_at_once_where_all_is_touched(self, make_rig: Callable[..., Rig], part: str, sent: str) -> None:
        rig = make_rig(part)
        rig.programmer().erase([Range(BASE, rig.flash_memory.size)])
        assert self.erases(rig) == [sent]

    def test_page_by_page_where_there_is_no_mass_erase(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("stm32l073xz")
        rig.programmer().erase([Range(BASE, rig.flash_memory.size)])
        assert rig.flash_memory.erases == 1536
        assert not {"ff ff 00", "ff fe 01", "ff fd 02"} & set(self.erases(rig))

    @pytest.mark.parametrize("part", ["stm32l476xg", "stm32g474xe", "stm32h743xi"])
    @pytest.mark.parametrize(("number", "sent"), [(1, "ff fe 01"), (2, "ff fd 02")])
    def test_a_bank_at_once(self, make_rig: Callable[..., Rig], part: str, number: int, sent: str) -> None:
        rig = make_rig(part)
        half = rig.flash_memory.size // 2
        rig.flash_memory.load(BASE, b"\x5a" * rig.flash_memory.size)
        rig.programmer().erase([Range(BASE + (number - 1) * half, half)])
        assert self.erases(rig) == [sent]
        halves = [rig.flash_memory.read(BASE + index * half, half) for index in range(2)]
        assert halves[number - 1] == b"\xff" * half
        assert halves[2 - number] == b"\x5a" * half

    def test_a_bank_and_pages_of_the_other(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("stm32h743xi")
        rig.flash_memory.load(BASE, b"\x5a" * rig.flash_memory.size)
        rig.programmer().erase([Range(BASE, 0x20000), Range(BASE + 0x60000, 1), Range(BASE + 0x100000, 0x100000)])
        # Sectors 0 and 3, and bank 2.
        assert self.erases(rig) == ["00 00 00 00 00", "00 00 00 03 03", "ff fd 02"]
        assert rig.holds(b"\x5a" * 0x40000, BASE + 0x20000)
        assert rig.holds(b"\xff" * 0x100000, BASE + 0x100000)

    def test_a_loader_that_refuses_a_bank_gets_pages(
        self, make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = dict(parts())
        known["one"] = replace(known["stm32g474xe"], banks=1)
        monkeypatch.setattr(stm32_uart, "parts", lambda: known)
        rig = make_rig("one")
        rig.flash_memory.load(BASE, b"\x5a" * rig.flash_memory.size)
        rig.programmer().erase([Range(BASE + 0x40000, 0x40000)])
        assert self.erases(rig)[0] == "ff fd 02"
        assert rig.holds(b"\x5a" * 0x40000)
        assert rig.holds(b"\xff" * 0x40000, BASE + 0x40000)

    def test_a_page_that_erase_has_no_byte_for(self, make_rig: Callable[..., Rig]) -> None:
        """AN3155, 3.7: Erase takes page numbers of one byte. Page 256 is refused before page 0 is erased."""
        run = {"start": BASE, "size": 0x2_0000, "erase_unit": 0x100}
        rig = make_rig("stm32f103xb", {"memory": [run]})
        programmer = rig.programmer()
        with pytest.raises(Unsupported, match=r"0x08010000\.\.0x080100FF is the erase unit 256") as caught:
            programmer.erase([Range(BASE, 0x400), Range(BASE + 0xFF00, 0x200)])
        assert "mass_erase = true" in caught.value.remedy
        assert caught.value.left is not None
        assert not caught.value.left.touched
        # A dry run says so too.
        with pytest.raises(Unsupported, match=r"0x08010000\.\.0x080100FF is the erase unit 256"):
            programmer.plan(FirmwareImage((Segment(BASE + 0xFF00, b"\x5a" * 0x200),), "bin"))
        programmer.plan(FirmwareImage((Segment(BASE + 0xFF00, b"\x5a" * 0x100),), "bin"))
        assert self.erases(rig) == []
        assert rig.holds(OLD)
        # All of them go at once where the profile says so.
        rig.profile = Stm32Profile.model_validate({"answer": 0.1, "entry": LINES, "memory": [run], "mass_erase": True})
        rig.programmer().erase([Range(BASE, 0x2_0000)])
        assert self.erases(rig) == ["ff 00"]

    def test_a_refused_mass_erase_where_erase_has_no_byte_for_a_page(
        self, make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Stm32Commands, "mass_erase", lambda *args, **keys: False)
        run = {"start": BASE, "size": 0x2_0000, "erase_unit": 0x100}
        rig = make_rig("stm32f103xb", {"memory": [run], "mass_erase": True})
        with pytest.raises(Unsupported, match="is the erase unit 256"):
            rig.programmer().erase([Range(BASE, 0x2_0000)])
        assert self.erases(rig) == []

    def test_write_protection_in_the_middle_of_an_erase(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("stm32f405xg", write_protected=[1])
        rig.flash_memory.load(BASE + 0x4000, b"\x5a" * 0x4000)
        with pytest.raises(PartProtected, match=r"0x08004000\.\.0x08007FFF.* write-protected"):
            rig.programmer().erase([Range(BASE, 0x8000)])

    def test_write_protection_behind_pages_that_were_erased_as_planned(self, make_rig: Callable[..., Rig]) -> None:
        """The part is looked at for collateral damage; the pages of the commands before are none."""
        rig = make_rig("stm32g071xb")
        rig.flash_memory.load(BASE, b"\x5a" * rig.flash_memory.size)
        rig.device.memory.protect([11])
        with pytest.raises(PartProtected, match=r"0x08005800\.\.0x08005FFF.* write-protected"):
            rig.programmer().erase([Range(BASE, 20 * 0x800)])
        # The first page alone, then ten at a time.
        assert rig.holds(b"\xff" * 11 * 0x800)

    def test_a_protected_part_refuses_a_mass_erase_by_doing_nothing(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("stm32f405xg", write_protected=[5])
        with pytest.raises(PartProtected):
            rig.programmer().erase([Range(BASE, rig.flash_memory.size)])
        assert rig.holds(OLD)


class TestChecksum:
    @pytest.mark.parametrize("unit", [1, 4])
    @pytest.mark.parametrize("announced", [True, False])
    def test_in_whichever_form_the_loader_has_it(
        self, make_rig: Callable[..., Rig], unit: int, announced: bool
    ) -> None:
        rig = make_rig("stm32g474xe", checksum_unit=unit, checksum_announced=announced)
        assert rig.flash(NEW).version == "1.5.0"
        flasher = rig.flasher()
        flasher.connect()
        assert Capability.DIGEST in flasher.capabilities
        for first, size in ((0, 2000), (0, 2001), (1, 7), (3, 1001), (2, 8)):
            digest = flasher.digest(BASE + first, size)
            assert digest is not None
            wanted = NEW[first : first + size]
            assert digest.value == digest.compute(wanted)
            for place in (0, size // 2, size - 1):
                other = wanted[:place] + bytes([wanted[place] ^ 1]) + wanted[place + 1 :]
                assert digest.value != digest.compute(other)
        assert flasher.digest(BASE + 1, 6) is None, "no whole word"

    def test_a_loader_that_computes_something_else_is_read_back(
        self, make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rig = make_rig("stm32g474xe")
        monkeypatch.setattr(rig.device.memory, "crc", lambda *arguments: 0x12345678)
        assert rig.flash(NEW).verified == "read back"
