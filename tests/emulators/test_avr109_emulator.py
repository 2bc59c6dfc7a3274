"""The emulated Caterina, byte for byte as Atmel's AVR109 (Self-programming) has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import serial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxyflash.emulators.serial.board import Stage
from proxyflash.tests.emulators.avr_lab import CATERINA, IN_LOADER, Rig, firmware
from proxyflash.tests.rigs import rigs
from proxyflash.transports import clock

PAGE = bytes(range(128))


make_rig = rigs(partial(Rig, CATERINA))


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig(**IN_LOADER)


def write(rig: Rig, word: int, data: bytes, memory: bytes = b"F") -> None:
    rig.ask(b"A" + word.to_bytes(2, "big"), b"\r")
    rig.ask(b"B" + len(data).to_bytes(2, "big") + memory + data, b"\r")


class TestVectors:
    """AVR109, the table of commands."""

    @pytest.mark.parametrize(
        ("sent", "answer"),
        [
            pytest.param(b"S", b"CATERIN", id="return software identifier"),
            pytest.param(b"V", b"10", id="return software version"),
            pytest.param(b"p", b"S", id="return programmer type"),
            pytest.param(b"s", b"\x87\x95\x1e", id="read signature bytes"),
            pytest.param(b"t", b"\x44\x00", id="return supported device codes"),
            pytest.param(b"T\x44", b"\r", id="set device type"),
            pytest.param(b"a", b"Y", id="auto increment address"),
            pytest.param(b"b", b"Y\x00\x80", id="check block support"),
            pytest.param(b"P", b"\r", id="enter programming mode"),
            pytest.param(b"L", b"\r", id="leave programming mode"),
            pytest.param(b"r", b"\xef", id="read lock bits"),
            pytest.param(b"F", b"\xff", id="read fuse bits"),
            pytest.param(b"N", b"\xd8", id="read high fuse bits"),
            pytest.param(b"Q", b"\xcb", id="read extended fuse bits"),
            pytest.param(b"z", b"?", id="unknown"),
            pytest.param(b"\x1bS", b"CATERIN", id="escape"),
        ],
    )
    def test_what_is_asked(self, rig: Rig, sent: bytes, answer: bytes) -> None:
        rig.ask(sent, answer)
        rig.ask(b"V", b"10")
        assert rig.port.in_waiting == 0

    def test_set_address_block_load_block_read(self, rig: Rig) -> None:
        """The address is in words, the size in bytes, both most significant byte first."""
        write(rig, 0x0140, PAGE)
        assert rig.flash.read(0x0280, 128) == PAGE
        rig.ask(b"A\x01\x44", b"\r")
        rig.ask(b"g\x00\x04F", b"\x08\x09\x0a\x0b")
        rig.ask(b"g\x00\x02F", b"\x0c\x0d")

    def test_blocks_of_the_eeprom(self, rig: Rig) -> None:
        write(rig, 0x20, b"calibration", b"E")
        assert rig.device.memory.read_eeprom(0x20, 11) == b"calibration"
        rig.ask(b"A\x00\x20", b"\r")
        rig.ask(b"g\x00\x0bE", b"calibration")

    def test_a_block_of_something_else(self, rig: Rig) -> None:
        rig.ask(b"B\x00\x04X", b"?")

    def test_chip_erase(self, rig: Rig) -> None:
        rig.flash.load(0, bytes(rig.boot))
        rig.ask(b"e", b"\r")
        assert rig.flash.read(0, rig.boot) == b"\xff" * rig.boot
        assert rig.boot_section_is_whole

    def test_words_and_bytes(self, rig: Rig) -> None:
        rig.ask(b"A\x00\x00", b"\r")
        rig.ask(b"c\x34", b"\r")
        rig.ask(b"C\x12", b"\r")
        rig.ask(b"A\x00\x00", b"\r")
        rig.ask(b"m", b"\r")
        assert rig.flash.read(0, 4) == b"\x34\x12\xff\xff"
        rig.ask(b"R", b"\x12\x34")
        rig.ask(b"D\x5a", b"\r")
        rig.ask(b"A\x00\x00", b"\r")
        rig.ask(b"d", b"\x5a")

    def test_set_lock_bits(self, rig: Rig) -> None:
        rig.ask(b"l\xfb", b"\r")
        rig.ask(b"r", b"\xeb")
        write(rig, 0, PAGE)
        assert rig.flash.read(0, 128) == b"\xff" * 128

    def test_exit_bootloader(self, rig: Rig) -> None:
        rig.flash.load(0, firmware("1.5.0", 3000))
        rig.ask(b"E", b"\r")
        rig.reach(Stage.APPLICATION)
        assert rig.device.application_version == "1.5.0"


class TestItsOwnWays:
    def test_what_the_host_sends_while_a_page_is_erased_waits(self) -> None:
        """USB has a host wait; a line would lose it."""
        rig = Rig(CATERINA, pace=1.0, **IN_LOADER)
        rig.reach(Stage.LOADER)
        rig.ask(b"A\x00\x00", b"\r")
        rig.ask(b"B\x00\x80F" + PAGE, b"\r")
        assert rig.flash.read(0, 128) == PAGE
        rig.close()

    def test_the_boot_section_is_locked_and_says_nothing(self, rig: Rig) -> None:
        for start in range(rig.boot, rig.flash.size, 128):
            write(rig, start // 2, PAGE)
        assert rig.boot_section_is_whole

    def test_half_a_block_takes_what_follows_for_its_rest(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(power_on=True, boot_window=0.1)
        rig.reach(Stage.LOADER)
        rig.flash.load(0, firmware("1.4.2", 3000))
        rig.port.write(b"B\x00\x80F" + PAGE[:-3])
        rig.port.timeout = 0.5
        assert rig.port.read(1) == b"", "and it waits beyond its window"
        rig.port.timeout = 20
        rig.ask(b"SSS", b"\r")
        assert rig.flash.read(0, 128) == PAGE[:-3] + b"SSS"

    def test_there_is_no_rate(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(**IN_LOADER)
        for rate in (1200, 9600, 57_600, 1_000_000):
            rig.port.baudrate = rate
            rig.ask(b"S", b"CATERIN")


class TestStages:
    @pytest.fixture
    def running(self, tmp_path: Path) -> Iterator[Rig]:
        rig = Rig(CATERINA, folder=tmp_path, holds=firmware("1.4.2", 3000))
        rig.reach(Stage.APPLICATION)
        yield rig
        rig.close()

    def touch(self, rig: Rig) -> None:
        rig.port.dtr = True
        rig.port.baudrate = 1200
        rig.port.dtr = False

    def test_power_on_starts_the_application_and_a_reset_the_loader(self, running: Rig) -> None:
        running.ask(b"VER?\r", b"FW 1.4.2\r\n")
        running.board.reset()
        running.reach(Stage.LOADER)
        running.device.supply.off()
        running.device.supply.on()
        running.reach(Stage.APPLICATION)

    def test_blank_flash_starts_the_loader_and_keeps_it(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(boot_window=0.02)
        rig.reach(Stage.LOADER)
        clock.sleep(0.1)
        rig.ask(b"S", b"CATERIN")

    def test_the_touch(self, running: Rig) -> None:
        self.touch(running)
        running.reach(Stage.LOADER)
        running.port.baudrate = 57_600
        running.ask(b"S", b"CATERIN")

    def test_the_touch_of_a_port_whose_dtr_was_never_asserted(self, running: Rig) -> None:
        running.port.baudrate = 1200
        running.reach(Stage.LOADER)

    def test_1200_bits_with_dtr_asserted_are_a_rate_as_others(self, running: Rig) -> None:
        running.port.dtr = True
        running.port.baudrate = 1200
        running.ask(b"VER?\r", b"FW 1.4.2\r\n")

    def test_another_rate_is_no_touch_and_dtr_no_reset(self, running: Rig) -> None:
        for rate in (9600, 115_200):
            running.port.baudrate = rate
            running.port.dtr = True
            running.port.dtr = False
            running.ask(b"VER?\r", b"FW 1.4.2\r\n")

    def test_closing_the_port_touches_it_too(self, running: Rig) -> None:
        running.port.dtr = True
        running.port.baudrate = 1200
        running.port.close()
        running.reach(Stage.LOADER)

    def test_it_leaves_when_its_time_is_over(self, tmp_path: Path) -> None:
        rig = Rig(CATERINA, folder=tmp_path, holds=firmware("1.4.2", 3000), boot_window=0.05)
        rig.board.reset()
        rig.reach(Stage.APPLICATION)
        rig.close()

    def test_a_part_that_was_unplugged_has_its_port_again_with_its_supply(self, tmp_path: Path) -> None:
        """Its loader waits without an application, and never leaves the bus of its own accord."""
        rig = Rig(CATERINA, folder=tmp_path, reenumerate=0.2)
        rig.reach(Stage.LOADER)
        rig.device.supply.off()
        rig.wire.unplug()
        rig.port.close()
        rig.device.supply.on()
        rig.port = rig.opened(baudrate=57_600, timeout=20)
        rig.ask(b"S", b"CATERIN")
        rig.close()

    def test_a_port_without_a_supply_is_not_touched(self, tmp_path: Path) -> None:
        rig = Rig(CATERINA, folder=tmp_path, holds=firmware("1.4.2", 3000), reenumerate=0.2)
        rig.reach(Stage.APPLICATION)
        rig.device.supply.off()
        self.touch(rig)
        assert rig.port.in_waiting == 0
        rig.device.supply.on()
        rig.reach(Stage.APPLICATION)
        rig.close()

    def test_the_port_goes_and_comes_back(self, tmp_path: Path) -> None:
        rig = Rig(CATERINA, folder=tmp_path, holds=firmware("1.4.2", 3000), reenumerate=0.2)
        rig.reach(Stage.APPLICATION)
        self.touch(rig)
        rig.reach(Stage.LOADER)
        with pytest.raises(OSError, match="error"):
            rig.port.in_waiting  # noqa: B018 - it is the question that fails
        deadline = clock.monotonic() + 300
        while True:
            try:
                again = rig.opened(baudrate=57_600, timeout=20)
                break
            except serial.SerialException:
                assert clock.monotonic() < deadline
                clock.sleep(0.01)
        with pytest.raises(OSError, match="error"):
            rig.port.in_waiting  # noqa: B018 - what was opened before is gone for good
        rig.port.close()
        rig.port = again
        rig.ask(b"S", b"CATERIN")
        rig.close()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40) | st.sampled_from([b"B\x00\x80F", b"g\x00\x80F", b"e", b"m"]))
)
def test_no_bytes_kill_the_firmware_or_the_boot_section(pieces: list[bytes]) -> None:
    rig = Rig(CATERINA, **IN_LOADER)
    for piece in pieces:
        rig.port.write(piece)
    rig.device.settle()
    rig.board.reset()
    rig.device.settle()
    rig.port.reset_input_buffer()
    rig.ask(b"S", b"CATERIN")
    assert rig.boot_section_is_whole
    rig.close()
