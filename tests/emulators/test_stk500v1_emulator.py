"""The emulated Optiboot and ATmegaBOOT, byte for byte as Atmel's AVR061 (STK500 communication protocol) has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxyflash.emulators.device import BadDevice
from proxyflash.emulators.serial.board import Stage
from proxyflash.tests.emulators.avr_lab import ATMEGABOOT, IN_LOADER, OPTIBOOT, Rig, firmware
from proxyflash.tests.rigs import rigs

PAGE = bytes(range(128))
OTHER = bytes(range(255, 127, -1))


make_rig = rigs(Rig)


@pytest.fixture(params=[OPTIBOOT, ATMEGABOOT])
def rig(request: pytest.FixtureRequest, make_rig: Callable[..., Rig]) -> Rig:
    """Either, in its loader."""
    return make_rig(request.param, **IN_LOADER)


@pytest.fixture
def optiboot(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig(OPTIBOOT, **IN_LOADER)


@pytest.fixture
def atmegaboot(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig(ATMEGABOOT, **IN_LOADER)


def write(rig: Rig, word: int, data: bytes, memory: bytes = b"F") -> None:
    rig.ask(b"\x55" + word.to_bytes(2, "little") + b"\x20", "14 10")
    rig.ask(b"\x64" + len(data).to_bytes(2, "big") + memory + data + b"\x20", "14 10")


def entries(rig: Rig) -> list[Stage]:
    """The stages that it enters from now on, and the stage that it is in."""
    enter = rig.board._enter
    entered = [rig.board.stage]

    def entering(stage: Stage) -> None:
        entered.append(stage)
        enter(stage)

    rig.board._enter = entering  # type: ignore[method-assign]
    return entered


class TestVectors:
    """AVR061, "Commands"."""

    def test_get_synchronization(self, rig: Rig) -> None:
        rig.ask("30 20", "14 10")

    def test_get_sign_on(self, atmegaboot: Rig) -> None:
        atmegaboot.ask("31 20", b"\x14AVR ISP\x10")

    @pytest.mark.parametrize(("part", "major", "minor"), [(OPTIBOOT, 4, 4), (ATMEGABOOT, 1, 16)])
    def test_get_parameter_value(self, make_rig: Callable[..., Rig], part: str, major: int, minor: int) -> None:
        rig = make_rig(part, **IN_LOADER)
        rig.ask("41 81 20", bytes([0x14, major, 0x10]))
        rig.ask("41 82 20", bytes([0x14, minor, 0x10]))

    def test_set_device_programming_parameters(self, rig: Rig) -> None:
        """As a program sends them for an ATmega328P; the extended ones begin with their count."""
        rig.ask("42 86 00 00 01 01 01 01 03 ff ff ff ff 00 80 04 00 00 00 80 00 20", "14 10")
        rig.ask("45 05 04 d7 c2 00 20", "14 10")

    def test_enter_and_leave_program_mode(self, rig: Rig) -> None:
        rig.ask("50 20", "14 10")
        rig.ask("51 20", "14 10")

    def test_load_address_program_page_read_page(self, rig: Rig) -> None:
        """The address is in words, least significant byte first; the size in bytes, most significant first."""
        write(rig, 0x0140, PAGE)
        assert rig.flash.read(0x0280, 128) == PAGE
        assert rig.flash.read(0x0200, 128) == rig.flash.read(0x0300, 128) == b"\xff" * 128
        rig.ask("55 44 01 20", "14 10")
        rig.ask("74 00 04 46 20", "14 08 09 0a 0b 10")

    def test_read_signature(self, rig: Rig) -> None:
        rig.ask("75 20", "14 1e 95 0f 10")

    def test_universal_command(self, optiboot: Rig) -> None:
        """Extended fuse of the serial programming instructions; it answers nothing but 0."""
        optiboot.ask("56 50 08 00 00 20", "14 00 10")

    @pytest.mark.parametrize(("place", "answer"), [("00", "1e"), ("01", "95"), ("02", "0f")])
    def test_universal_command_with_read_signature_byte(self, atmegaboot: Rig, place: str, answer: str) -> None:
        atmegaboot.ask(f"56 30 00 {place} 00 20", f"14 {answer} 10")
        atmegaboot.ask("56 50 00 00 00 20", "14 00 10")

    def test_read_oscillator_calibration(self, atmegaboot: Rig) -> None:
        atmegaboot.ask("76 20", "14 00 10")

    def test_set_parameter_value(self, atmegaboot: Rig) -> None:
        atmegaboot.ask("40 84 20", "14 10")
        atmegaboot.ask("40 86 01 20", "14 10")

    def test_chip_erase_is_acknowledged_and_erases_nothing(self, rig: Rig) -> None:
        rig.flash.load(0, PAGE)
        rig.ask("52 20", "14 10")
        assert rig.flash.read(0, 128) == PAGE


class TestMemory:
    def test_a_page_is_erased_before_it_is_written(self, rig: Rig) -> None:
        write(rig, 0, PAGE)
        write(rig, 0, OTHER)
        assert rig.flash.read(0, 256) == OTHER + b"\xff" * 128

    def test_the_boot_section_is_locked_and_says_nothing(self, rig: Rig) -> None:
        for start in range(rig.boot, rig.flash.size, 128):
            write(rig, start // 2, PAGE)
        assert rig.boot_section_is_whole

    def test_an_application_section_that_is_locked(self, make_rig: Callable[..., Rig]) -> None:
        """BLB01 programmed: "SPM is not allowed to write to the Application section" (datasheet)."""
        rig = make_rig(OPTIBOOT, lock=0xFB, **IN_LOADER)
        rig.flash.load(0, PAGE)
        write(rig, 0, OTHER)
        assert rig.flash.read(0, 128) == PAGE

    def test_without_lock_bits_the_loader_overwrites_itself(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(OPTIBOOT, lock=0xFF, **IN_LOADER)
        write(rig, 0x7E00 // 2, PAGE)
        assert rig.flash.read(0x7E00, 128) == PAGE

    def test_optiboot_has_no_eeprom_and_writes_into_the_flash(self, optiboot: Rig) -> None:
        write(optiboot, 0, PAGE, b"E")
        assert optiboot.flash.read(0, 128) == PAGE
        assert optiboot.device.memory.read_eeprom(0, 4) == b"\xff" * 4

    def test_optiboot_writes_whole_pages_from_its_buffer(self, optiboot: Rig) -> None:
        write(optiboot, 0, PAGE)
        write(optiboot, 0x40, b"abcd")
        assert optiboot.flash.read(128, 128) == b"abcd" + PAGE[4:]

    def test_atmegaboot_writes_two_pages_at_once(self, atmegaboot: Rig) -> None:
        write(atmegaboot, 0x40, PAGE + OTHER[:101])
        assert atmegaboot.flash.read(128, 256) == PAGE + OTHER[:101] + b"\xff" * 27

    def test_atmegaboots_eeprom(self, atmegaboot: Rig) -> None:
        """Its addresses are words there too."""
        write(atmegaboot, 0x10, b"calibration", b"E")
        assert atmegaboot.device.memory.read_eeprom(0x20, 11) == b"calibration"
        atmegaboot.ask("55 10 00 20", "14 10")
        atmegaboot.ask("74 00 0b 45 20", b"\x14calibration\x10")
        assert atmegaboot.flash.programs == 0

    def test_eeprom_and_lock_bits_outlive_the_device(self, tmp_path: Path) -> None:
        for turn in range(2):
            rig = Rig(ATMEGABOOT, folder=tmp_path, lock=0xCF if turn == 0 else 0xFF, **IN_LOADER)
            if turn == 0:
                write(rig, 0, b"abc", b"E")
                rig.device.memory.set_lock(0xEF)
            assert rig.device.memory.read_eeprom(0, 3) == b"abc"
            assert rig.device.memory.lock == 0xCF
            rig.close()

    def test_the_factorys_firmware_leaves_the_boot_section(self, tmp_path: Path) -> None:
        with pytest.raises(BadDevice) as caught:
            Rig(OPTIBOOT, folder=tmp_path, holds=bytes(0x7E01))
        assert caught.value.key == "firmware"

    def test_a_block_that_is_too_long_for_atmegaboot(self, atmegaboot: Rig) -> None:
        atmegaboot.port.write(b"\x64\x01\x01F" + bytes(257) + b"\x20")
        atmegaboot.reach(Stage.HUNG)
        atmegaboot.board.reset()
        atmegaboot.reach(Stage.LOADER)
        atmegaboot.ask("30 20", "14 10")


class TestStages:
    def test_optiboot_serves_after_a_reset_from_outside_alone(self, tmp_path: Path) -> None:
        rig = Rig(OPTIBOOT, folder=tmp_path, holds=firmware("1.4.2", 3000), boot_window=20)
        rig.reach(Stage.APPLICATION)
        assert rig.device.application_version == "1.4.2"
        rig.ask(b"VER?\r", b"FW 1.4.2\r\n")
        rig.pulse()
        rig.ask("30 20", "14 10")
        assert rig.device.application_version is None
        rig.device.supply.off()
        rig.device.supply.on()
        rig.reach(Stage.APPLICATION)
        rig.close()

    def test_it_starts_the_application_when_nothing_comes(self, tmp_path: Path) -> None:
        for part in (OPTIBOOT, ATMEGABOOT):
            folder = tmp_path / part
            folder.mkdir()
            rig = Rig(part, folder=folder, holds=firmware("1.4.2", 3000), power_on=True, boot_window=0.05)
            rig.reach(Stage.APPLICATION)
            assert rig.device.application_version == "1.4.2"
            rig.close()

    def test_half_a_command_and_silence_start_the_application(self, make_rig: Callable[..., Rig]) -> None:
        for part in (OPTIBOOT, ATMEGABOOT):
            rig = make_rig(part, power_on=True, boot_window=0.3)
            rig.reach(Stage.LOADER)
            rig.flash.load(0, firmware("1.4.2", 3000))
            rig.port.write(b"\x74\x00")
            rig.reach(Stage.APPLICATION)

    def test_half_a_page_and_silence_have_erased_it_in_optiboot(self, make_rig: Callable[..., Rig]) -> None:
        for part, stage in ((OPTIBOOT, Stage.HUNG), (ATMEGABOOT, Stage.APPLICATION)):
            rig = make_rig(part, power_on=True, boot_window=0.3)
            rig.reach(Stage.LOADER)
            rig.flash.load(0, firmware("1.4.2", 3000))
            rig.port.write(b"\x64\x00\x80F" + bytes(50))
            rig.reach(stage)

    def test_leaving_optiboots_program_mode_starts_the_application(self, optiboot: Rig) -> None:
        optiboot.flash.load(0, firmware("1.5.0", 3000))
        optiboot.ask("51 20", "14 10")
        optiboot.reach(Stage.APPLICATION)
        optiboot.ask(b"VER?\r", b"FW 1.5.0\r\n")

    def test_atmegaboot_waits_on_after_leaving(self, atmegaboot: Rig) -> None:
        atmegaboot.ask("51 20", "14 10")
        atmegaboot.ask("30 20", "14 10")

    def test_a_wrong_end_resets_optiboot(self, optiboot: Rig) -> None:
        optiboot.flash.load(0, firmware("1.5.0", 3000))
        optiboot.port.write(b"\x75\x21")
        optiboot.reach(Stage.APPLICATION)
        assert optiboot.port.in_waiting == 0

    def test_atmegaboot_takes_four_errors(self, atmegaboot: Rig) -> None:
        atmegaboot.flash.load(0, firmware("1.5.0", 3000))
        for _ in range(4):
            atmegaboot.port.write(b"\x75\x21")
            atmegaboot.ask("30 20", "14 10")
        atmegaboot.port.write(b"\x00")
        atmegaboot.reach(Stage.APPLICATION)

    def test_an_unknown_command_of_optiboot_is_one_without_arguments(self, optiboot: Rig) -> None:
        optiboot.ask("73 20", "14 10")

    def test_a_torn_image_hangs_until_it_is_reset(self, tmp_path: Path) -> None:
        image = bytearray(firmware("1.4.2", 3000))
        image[2000:2100] = b"\xff" * 100
        rig = Rig(OPTIBOOT, folder=tmp_path, holds=bytes(image), boot_window=20)
        rig.reach(Stage.HUNG)
        assert rig.device.application_version is None
        rig.pulse()
        rig.ask("75 20", "14 1e 95 0f 10")
        rig.close()

    def test_blank_flash_runs_into_atmegaboot_again(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(ATMEGABOOT, boot_window=0.02)
        rig.reach(Stage.LOADER)
        entered = entries(rig)
        with rig.board.changed:
            rig.board.changed.wait_for(lambda: len(entered) > 3, 20)
        assert set(entered[1:]) == {Stage.LOADER}
        assert rig.device.application_version is None

    @pytest.mark.parametrize(
        ("part", "code", "stage"),
        [
            (ATMEGABOOT, "0c 94 00 3c", Stage.LOADER),  # JMP 0x7800
            (ATMEGABOOT, "ff ff 0c 94 10 3c", Stage.LOADER),
            (ATMEGABOOT, "ff cb", Stage.LOADER),  # RJMP .-2050, from 0 back to 0x7800
            (ATMEGABOOT, "0c 94 ff 3b", Stage.HUNG),
            (OPTIBOOT, "0c 94 00 3f", Stage.HUNG),  # To the loader and back for ever: no reset was the cause.
        ],
    )
    def test_a_reset_vector_that_leads_into_the_loader(
        self, tmp_path: Path, part: str, code: str, stage: Stage
    ) -> None:
        rig = Rig(part, folder=tmp_path, holds=bytes.fromhex(code), boot_window=0.05)
        entered = entries(rig)
        with rig.board.changed:
            rig.board.changed.wait_for(lambda: entered[-2:] == [stage] * 2 or Stage.HUNG in entered, 20)
        assert (Stage.HUNG in entered) is (stage is Stage.HUNG)
        rig.pulse()
        rig.close()

    def test_a_firmware_without_a_descriptor_answers_nothing(self, tmp_path: Path) -> None:
        rig = Rig(OPTIBOOT, folder=tmp_path, holds=bytes.fromhex("0c 94 34 00") + bytes(100))
        rig.reach(Stage.HUNG)
        assert rig.device.application_version is None
        rig.close()

    @pytest.mark.parametrize(
        ("wiring", "moves", "resets"),
        [
            ("dtr-reset", {"dtr": True}, True),
            ("dtr-reset", {"rts": True}, False),
            ("rts-reset", {"rts": True}, True),
            ("!dtr-reset", {"dtr": True}, False),
            ("none", {"dtr": True, "rts": True}, False),
        ],
    )
    def test_modem_lines(self, tmp_path: Path, wiring: str, moves: dict[str, bool], resets: bool) -> None:
        rig = Rig(OPTIBOOT, folder=tmp_path, holds=firmware("1.4.2", 3000), boot_window=0, wiring=wiring)
        rig.reach(Stage.APPLICATION)
        for line, state in moves.items():
            setattr(rig.port, line, state)
        rig.device.settle()
        assert rig.board.stage is (Stage.LOADER if resets else Stage.APPLICATION)
        if wiring == "!dtr-reset":
            rig.port.dtr = False
            rig.reach(Stage.LOADER)
        rig.close()

    def test_a_held_line_resets_once(self, tmp_path: Path) -> None:
        """It is coupled by a capacitor."""
        rig = Rig(OPTIBOOT, folder=tmp_path, holds=firmware("1.4.2", 3000), boot_window=20)
        rig.port.dtr = True
        rig.reach(Stage.LOADER)
        rig.ask("51 20", "14 10")
        rig.reach(Stage.APPLICATION)
        rig.close()

    def test_mute(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(mute=True, **IN_LOADER)
        rig.port.timeout = 0.1
        rig.port.write(b"\x30\x20")
        assert rig.port.read(1) == b""


class TestCut:
    def test_in_any_operation_and_flashed_again(self) -> None:
        image = firmware("1.5.0", 640)
        operation = 0
        while True:
            operation += 1
            rig = Rig(OPTIBOOT, boot_window=0)
            rig.flash.load(0, firmware("1.4.2", 640))
            rig.device.supply.cut_at(operation)
            rig.pulse()
            rig.device.supply.listen(lambda on, port=rig.port: None if on else port.cancel_read())  # type: ignore[misc]
            for offset in range(0, 640, 128):
                rig.port.write(b"\x55" + (offset // 2).to_bytes(2, "little") + b"\x20")
                rig.port.write(b"\x64\x00\x80F" + image[offset : offset + 128] + b"\x20")
                if rig.port.read(4) != b"\x14\x10\x14\x10":
                    break
            was_cut = not rig.device.supply.is_on
            if was_cut:
                rig.device.supply.on()
                rig.reach(Stage.APPLICATION, Stage.HUNG)
                assert rig.device.application_version in (None, "1.5.0")
            rig.device.supply.cut_at(None)
            rig.pulse()
            for offset in range(0, 640, 128):
                write(rig, offset // 2, image[offset : offset + 128])
            rig.ask("51 20", "14 10")
            rig.reach(Stage.APPLICATION)
            assert rig.device.application_version == "1.5.0"
            assert rig.boot_section_is_whole
            rig.close()
            if not was_cut:
                break
        assert operation == 11, "five pages, each erased and written"


class TestTime:
    def test_it_has_settled_when_it_has_started(self, tmp_path: Path) -> None:
        rig = Rig(OPTIBOOT, pace=1.0, folder=tmp_path, holds=firmware("1.4.2", 3000))
        rig.device.settle()
        assert rig.device.application_version == "1.4.2"
        rig.device.supply.off()
        rig.device.supply.on()
        rig.device.settle()
        assert rig.device.application_version == "1.4.2"
        rig.close()

    def test_the_line_limits_it_and_so_does_the_flash(self) -> None:
        """A page of 128 bytes at 115200 bit/s, whose write takes 4 ms and whose erase is done meanwhile."""
        rig = Rig(OPTIBOOT, pace=1.0, **IN_LOADER)
        rig.reach(Stage.LOADER)
        rig.ask("30 20", "14 10")
        began = rig.board.clock
        for _ in range(4):
            write(rig, 0, PAGE)
        took = rig.board.clock - began
        assert took >= 4 * (137 * 10 / 115_200 + 4e-3)
        rig.close()

    def test_while_its_light_blinks_it_keeps_three_bytes(self) -> None:
        rig = Rig(OPTIBOOT, pace=1.0, boot_window=0)
        rig.port.dtr = True
        rig.reach(Stage.RESET)
        rig.reach(Stage.LOADER)
        rig.port.reset_input_buffer()
        rig.port.write(b"\x30\x20" * 10)
        assert rig.port.read(2) == b"\x14\x10"
        rig.port.timeout = 0.2
        assert rig.port.read(20) == b""
        rig.close()


class TestSettings:
    @pytest.mark.parametrize(
        ("table", "key"),
        [
            ({"part": "atmega2560-wiring"}, "part"),
            ({"wiring": "cts-reset"}, "wiring"),
            ({"lock": 256}, "lock"),
            ({"lock": "cf"}, "lock"),
            ({"boot_window": -1}, "boot_window"),
            ({"reenumerate": 1}, "reenumerate"),
            ({"nonsense": 1}, "nonsense"),
            ({"firmware": "absent.bin"}, "firmware"),
        ],
    )
    def test_bad(self, make_rig: Callable[..., Rig], table: dict[str, Any], key: str) -> None:
        from proxyflash.emulators.avr.stk500v1 import Stk500v1Device
        from proxyflash.emulators.device import DeviceSpec
        from proxyflash.emulators.serial.wire import UartWire

        wire = UartWire("bad")
        with pytest.raises(BadDevice) as caught:
            Stk500v1Device.attach(DeviceSpec("imu", settings={"part": OPTIBOOT, **table}), wire)
        wire.close()
        assert caught.value.key == key


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40) | st.sampled_from([b"\x30\x20", b"\x64\x00\x80F", b"\x75\x20"]))
)
@pytest.mark.parametrize("part", [OPTIBOOT, ATMEGABOOT])
def test_no_bytes_kill_the_firmware_or_the_boot_section(part: str, pieces: list[bytes]) -> None:
    rig = Rig(part, boot_window=0)
    rig.board.reset()
    for piece in pieces:
        rig.port.write(piece)
    rig.device.settle()
    assert rig.board.fault is None
    rig.pulse()
    rig.ask("75 20", "14 1e 95 0f 10")
    assert rig.boot_section_is_whole
    rig.close()
