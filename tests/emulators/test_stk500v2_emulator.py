"""The emulated stk500v2 loader, byte for byte as Atmel's AVR068 (STK500 communication protocol, version 2) has it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxyflash.emulators.serial.board import Stage
from proxyflash.tests.emulators.avr_lab import IN_LOADER, WIRING, Rig, firmware
from proxyflash.tests.rigs import rigs

PAGE = bytes(range(256))
OK, FAILED = "00", "c0"


make_rig = rigs(partial(Rig, WIRING))


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig(**IN_LOADER)


def message(body: bytes, sequence: int = 1) -> bytes:
    """AVR068, "Message Format": start, sequence number, size, token, body, and the XOR of them all."""
    whole = bytes([0x1B, sequence, len(body) >> 8, len(body) & 0xFF, 0x0E]) + body
    return whole + bytes([functools.reduce(operator.xor, whole)])


def ask(rig: Rig, body: str | bytes, answer: str | bytes, sequence: int = 1) -> None:
    body, answer = (bytes.fromhex(text) if isinstance(text, str) else text for text in (body, answer))
    rig.ask(message(body, sequence), message(answer, sequence))


def program(rig: Rig, word: int, data: bytes, command: int = 0x13) -> None:
    ask(rig, b"\x06" + word.to_bytes(4, "big"), "06 00")
    head = bytes([command]) + len(data).to_bytes(2, "big") + bytes.fromhex("c1 0a 40 4c 20 00 00")
    ask(rig, head + data, bytes([command, 0]))


class TestVectors:
    """AVR068, "Command Definitions"."""

    def test_sign_on_as_it_is_on_the_wire(self, rig: Rig) -> None:
        """Checksums worked out by hand."""
        rig.ask("1b 01 00 01 0e 01 14", "1b 01 00 0b 0e 01 00 08 41 56 52 49 53 50 5f 32 74")

    def test_the_sequence_number_comes_back(self, rig: Rig) -> None:
        for sequence in (0, 7, 255):
            ask(rig, "01", b"\x01\x00\x08AVRISP_2", sequence)

    @pytest.mark.parametrize(("which", "value"), [("90", "0f"), ("91", "02"), ("92", "0a"), ("98", "00")])
    def test_get_parameter(self, rig: Rig, which: str, value: str) -> None:
        ask(rig, f"03 {which}", f"03 00 {value}")

    def test_set_parameter(self, rig: Rig) -> None:
        ask(rig, "02 98 01", "02 00")

    def test_enter_progmode(self, rig: Rig) -> None:
        ask(rig, "10 c8 64 19 20 00 53 03 ac 53 00 00", "10 00")

    @pytest.mark.parametrize(("place", "value"), [("00", "1e"), ("01", "98"), ("02", "01")])
    def test_read_signature(self, rig: Rig, place: str, value: str) -> None:
        ask(rig, f"1b 04 30 00 {place} 00", f"1b 00 {value} 00")
        ask(rig, f"1d 04 04 00 30 00 {place} 00", f"1d 00 00 30 00 {value} 00")

    def test_read_fuses_and_lock_bits(self, rig: Rig) -> None:
        """Serial programming instructions 50 00, 58 08, 50 08, 58 00 (datasheet of the ATmega2560)."""
        ask(rig, "18 04 50 00 00 00", "18 00 ff 00")
        ask(rig, "18 04 58 08 00 00", "18 00 d8 00")
        ask(rig, "18 04 50 08 00 00", "18 00 fd 00")
        ask(rig, "1a 04 58 00 00 00", "1a 00 cf 00")
        ask(rig, "1d 04 04 00 50 00 00 00", "1d 00 00 50 00 ff 00")
        ask(rig, "1d 04 04 00 58 08 00 00", "1d 00 00 58 00 d8 00")

    def test_program_lock(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(lock=0xFF, **IN_LOADER)
        ask(rig, "19 ac e0 00 cf", "19 00 00")
        ask(rig, "1a 04 58 00 00 00", "1a 00 cf 00")

    def test_load_address_program_flash_read_flash(self, rig: Rig) -> None:
        program(rig, 0, PAGE)
        assert rig.flash.read(0, 257) == PAGE + b"\xff"
        ask(rig, "06 00 00 00 10", "06 00")
        ask(rig, "14 00 04 20", "14 00 20 21 22 23 00")

    def test_an_extended_address(self, rig: Rig) -> None:
        """The highest bit says that the address goes beyond 64 K words."""
        program(rig, 0x8001_0080, PAGE)
        assert rig.flash.read(0x20100, 256) == PAGE

    def test_program_eeprom(self, rig: Rig) -> None:
        program(rig, 0x20, b"calibration", 0x15)
        assert rig.device.memory.read_eeprom(0x20, 11) == b"calibration"

    def test_an_unknown_command(self, rig: Rig) -> None:
        ask(rig, "05 00", "05 c0")

    def test_leave_progmode_starts_the_application(self, rig: Rig) -> None:
        rig.flash.load(0, firmware("1.5.0", 3000))
        ask(rig, "11 01 01", "11 00")
        rig.reach(Stage.APPLICATION)
        assert rig.device.application_version == "1.5.0"


class TestItsOwnWays:
    def test_it_erases_one_page_after_the_other_wherever_it_writes(self, rig: Rig) -> None:
        rig.flash.load(0, bytes(1024))
        program(rig, 0x100, PAGE)
        assert rig.flash.read(0, 768) == b"\xff" * 256 + bytes(512), "page 0 was erased, page 2 was not"
        program(rig, 0, PAGE)
        assert rig.flash.read(0, 512) == PAGE + b"\xff" * 256
        ask(rig, "12 2d 00 ac 80 00 00", "12 c0")
        program(rig, 0, PAGE[::-1])
        assert rig.flash.read(0, 256) == PAGE[::-1], "a chip erase begins at page 0 again"

    def test_reading_the_eeprom_takes_the_double_of_an_address(self, rig: Rig) -> None:
        program(rig, 0, PAGE, 0x15)
        ask(rig, "06 00 00 00 08", "06 00")
        ask(rig, "16 00 04 a0", "16 00 10 11 12 13 00")

    def test_the_boot_section_is_locked_and_says_nothing(self, rig: Rig) -> None:
        for start in range(rig.boot, rig.flash.size, 256):
            program(rig, start // 2, PAGE)
        assert rig.boot_section_is_whole

    def test_garbage_before_a_message(self, rig: Rig) -> None:
        rig.port.write(b"\x00\xff0 \x1b\x01\x00\x01\x0f")
        ask(rig, "01", b"\x01\x00\x08AVRISP_2")

    def test_a_wrong_checksum_is_not_answered(self, rig: Rig) -> None:
        rig.port.write(bytes.fromhex("1b 01 00 01 0e 01 15"))
        ask(rig, "01", b"\x01\x00\x08AVRISP_2", 2)

    def test_half_a_message_takes_what_follows_for_its_rest(self, rig: Rig) -> None:
        rig.port.write(message(b"\x01", 1)[:4])
        rig.port.write(message(b"\x01", 2))
        ask(rig, "01", b"\x01\x00\x08AVRISP_2", 3)

    def test_a_message_beyond_its_buffer(self, rig: Rig) -> None:
        rig.port.write(bytes.fromhex("1b 01 ff ff 0e"))
        rig.reach(Stage.HUNG)
        rig.pulse()
        ask(rig, "01", b"\x01\x00\x08AVRISP_2")


class TestStages:
    def test_it_serves_after_every_reset_and_waits_for_a_byte(self, tmp_path: Path) -> None:
        rig = Rig(WIRING, folder=tmp_path, holds=firmware("1.4.2", 3000), boot_window=1)
        rig.device.settle()
        assert rig.board.stage is Stage.APPLICATION
        rig.ask(b"VER?\r", b"FW 1.4.2\r\n")
        rig.pulse()
        ask(rig, "01", b"\x01\x00\x08AVRISP_2")
        rig.close()

    def test_any_byte_keeps_it(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(boot_window=0.5)
        rig.reach(Stage.LOADER)
        rig.port.write(b"\xaa")
        ask(rig, "01", b"\x01\x00\x08AVRISP_2")

    def test_blank_flash_keeps_it(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(boot_window=0.02)
        rig.reach(Stage.LOADER)
        ask(rig, "01", b"\x01\x00\x08AVRISP_2")


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pieces=st.lists(
        st.binary(min_size=1, max_size=40)
        | st.binary(max_size=40).map(message)
        | st.just(bytes.fromhex("1b 01 01 0a 0e 13")),
        max_size=8,
    )
)
def test_no_bytes_kill_the_firmware_or_the_boot_section(pieces: list[bytes]) -> None:
    rig = Rig(WIRING, **IN_LOADER)
    for piece in pieces:
        rig.port.write(piece)
    rig.device.settle()
    rig.pulse()
    ask(rig, "01", b"\x01\x00\x08AVRISP_2")
    assert rig.boot_section_is_whole
    rig.close()
