"""The emulated STM32 loader, byte for byte as AN3155 rev 20 (USART protocol used in the STM32 bootloader) has it."""

from __future__ import annotations

import functools
import json
import operator
import struct
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import serial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxyflash.emulators import application
from proxyflash.emulators.device import BadDevice, DeviceSpec
from proxyflash.emulators.serial.board import Stage
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.emulators.stm32.device import Stm32UartDevice
from proxyflash.emulators.stm32.part import parts
from proxyflash.tests.emulators.line_lab import ByteRig
from proxyflash.tests.rigs import rigs

ACK, NACK = b"\x79", b"\x1f"
BASE = 0x08000000
QUESTION = {"send": "VER?\r", "match": "FW ([0-9.]+)"}


class Rig(ByteRig):
    """One part on a line without pace, and the host's port."""

    device: Stm32UartDevice

    def __init__(self, part: str = "stm32f103xb", *, folder: Path | None = None, **table: Any) -> None:
        self.wire = UartWire(uuid.uuid4().hex, pace=0)
        spec = DeviceSpec("imu", settings={"part": part, "boot0": True, **table}, folder=folder, pace=0,
                          version=QUESTION)  # fmt: skip
        self.device = Stm32UartDevice.attach(spec, self.wire)
        self.board = self.device.board
        self.flash = self.device.flash
        self.port = self.opened(baudrate=115200, parity="E", timeout=5)

    def sync(self) -> None:
        self.ask("7f", ACK)

    def write(self, address: int, data: bytes) -> None:
        """Write Memory, all of it in one go."""
        frame = bytes([len(data) - 1]) + data
        self.ask("31 ce", ACK)
        self.ask(word(address), ACK)
        self.ask(frame + bytes([xor(frame)]), ACK)

    def read(self, address: int, size: int) -> bytes:
        self.ask("11 ee", ACK)
        self.ask(word(address), ACK)
        self.ask(bytes([size - 1, 256 - size]), ACK)
        return self.port.read(size)

    def nothing_more(self) -> None:
        """The loader has sent nothing beyond what was read: what comes next is the answer to the next command."""
        self.ask("01 fe", ACK)
        assert len(self.port.read(4)) == 4
        assert self.port.in_waiting == 0


def xor(data: bytes) -> int:
    return functools.reduce(operator.xor, data)


def word(value: int) -> bytes:
    data = struct.pack(">I", value)
    return data + bytes([xor(data)])


make_rig = rigs(Rig)


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """An STM32F103, synchronised."""
    made = make_rig()
    made.sync()
    return made


class TestVectors:
    """Section 3 of AN3155: what each command sends and gets."""

    def test_get_3_1(self, rig: Rig) -> None:
        rig.ask("00 ff", "79 0b 22 00 01 02 11 21 31 43 63 73 82 92 79")

    def test_get_3_1_extended_erase(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("stm32l476xg")
        rig.sync()
        rig.ask("00 ff", "79 0b 31 00 01 02 11 21 31 44 63 73 82 92 79")

    def test_get_3_1_with_checksum(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("stm32g474xe")
        rig.sync()
        rig.ask("00 ff", "79 0c 33 00 01 02 11 21 31 44 63 73 82 92 a1 79")

    def test_get_version_3_2(self, rig: Rig) -> None:
        rig.ask("01 fe", "79 22 00 00 79")

    @pytest.mark.parametrize(
        ("part", "product"),
        [
            # AN2606, "Bootloader device-dependent parameters".
            ("stm32f103xb", "04 10"),
            ("stm32f405xg", "04 13"),
            ("stm32l073xz", "04 47"),
            ("stm32l476xg", "04 15"),
            ("stm32g071xb", "04 60"),
            ("stm32g474xe", "04 69"),
            ("stm32h743xi", "04 50"),
        ],
    )
    def test_get_id_3_3(self, make_rig: Callable[..., Rig], part: str, product: str) -> None:
        rig = make_rig(part)
        rig.sync()
        rig.ask("02 fd", f"79 01 {product} 79")

    def test_read_memory_3_4(self, rig: Rig) -> None:
        rig.flash.load(BASE, bytes.fromhex("00 20 00 20 41 01 00 08"))
        rig.ask("11 ee", "79")
        rig.ask("08 00 00 04 0c", "79")
        rig.ask("03 fc", "79 41 01 00 08")

    def test_go_3_5(self, rig: Rig) -> None:
        rig.flash.load(BASE, application.make("2.0.1", "imu", "acme", 2000))
        rig.ask("21 de", "79")
        rig.ask("08 00 00 00 08", "79")
        rig.reach(Stage.APPLICATION)
        assert rig.device.application_version == "2.0.1"

    def test_write_memory_3_6(self, rig: Rig) -> None:
        rig.ask("31 ce", "79")
        rig.ask("08 00 04 00 0c", "79")
        rig.ask("03 de ad be ef 21", "79")
        assert rig.flash.read(BASE + 0x400, 8) == bytes.fromhex("de ad be ef ff ff ff ff")

    def test_erase_pages_3_7(self, rig: Rig) -> None:
        rig.flash.load(BASE, bytes(5 * 1024))
        rig.ask("43 bc", "79")
        rig.ask("01 00 03 02", "79")
        assert [rig.flash.read(BASE + 1024 * page, 1)[0] for page in range(5)] == [0xFF, 0, 0, 0xFF, 0]

    def test_global_erase_3_7(self, rig: Rig) -> None:
        rig.flash.load(BASE, bytes(rig.flash.size))
        rig.ask("43 bc", "79")
        rig.ask("ff 00", "79")
        assert rig.flash.read(BASE, rig.flash.size) == b"\xff" * rig.flash.size

    def test_extended_erase_pages_3_8(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("stm32f405xg")
        rig.sync()
        rig.flash.load(BASE, bytes(rig.flash.size))
        rig.ask("44 bb", "79")
        rig.ask("00 01 00 04 00 0b 0e", "79")
        # RM0090, table "Flash module organization": sector 4 is at 0x08010000, sector 11 at 0x080E0000.
        erased = bytearray(rig.flash.size)
        erased[0x10000:0x20000] = b"\xff" * 0x10000
        erased[0xE0000:0x100000] = b"\xff" * 0x20000
        assert rig.flash.read(BASE, rig.flash.size) == bytes(erased)

    @pytest.mark.parametrize(
        ("sent", "first", "last"),
        [("ff ff 00", 0xFF, 0xFF), ("ff fe 01", 0xFF, 0x00), ("ff fd 02", 0x00, 0xFF)],
    )
    def test_extended_erase_special_3_8(self, make_rig: Callable[..., Rig], sent: str, first: int, last: int) -> None:
        rig = make_rig("stm32h743xi")
        rig.sync()
        rig.flash.load(BASE, bytes(rig.flash.size))
        rig.ask("44 bb", "79")
        rig.ask(sent, "79")
        half = rig.flash.size // 2
        assert rig.flash.read(BASE, half) == bytes([first]) * half
        assert rig.flash.read(BASE + half, half) == bytes([last]) * half

    def test_write_protect_3_9_and_unprotect_3_10(self, rig: Rig) -> None:
        rig.ask("63 9c", "79")
        rig.ask("00 01 01", "79")
        rig.sync()  # After a system reset.
        rig.write(BASE + 0x1000, b"abcd")
        rig.write(BASE + 0x0FFC, b"efgh")
        assert rig.flash.read(BASE + 0x0FFC, 8) == b"efgh\xff\xff\xff\xff"
        rig.ask("73 8c", "79 79")
        rig.sync()
        rig.write(BASE + 0x1000, b"abcd")
        assert rig.flash.read(BASE + 0x1000, 4) == b"abcd"

    def test_readout_protect_3_11_and_unprotect_3_12(self, rig: Rig) -> None:
        rig.flash.load(BASE, b"secret")
        rig.ask("82 7d", "79 79")
        rig.sync()
        for refused in ("11 ee", "21 de", "31 ce", "43 bc", "63 9c", "73 8c", "82 7d"):
            rig.ask(refused, "1f")
        rig.ask("02 fd", "79 01 04 10 79")
        rig.ask("01 fe", "79 22 00 00 79")
        rig.ask("92 6d", "79 79")
        rig.sync()
        assert rig.read(BASE, 8) == b"\xff" * 8

    def test_get_checksum_3_13(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("stm32g474xe")
        rig.sync()
        # The CRC unit's known answer: the word 0x12345678 gives 0xDF8A8A2B.
        rig.flash.load(BASE + 0x100, bytes.fromhex("78 56 34 12"))
        rig.ask("a1 5e", "79")
        rig.ask("08 00 01 00 09", "79")
        rig.ask("00 00 00 01 01", "79")
        rig.ask("04 c1 1d b7 6f", "79")
        rig.ask("ff ff ff ff 00", "79 79 df 8a 8a 2b f4")

    @pytest.mark.parametrize(
        ("unit", "announced", "size", "answer"),
        [
            (1, False, "00 00 00 04 04", "79 df 8a 8a 2b f4"),
            (1, True, "00 00 00 04 04", "79 79 df 8a 8a 2b f4"),
            (4, False, "00 00 00 01 01", "79 df 8a 8a 2b f4"),
        ],
    )
    def test_other_forms_of_get_checksum(
        self, make_rig: Callable[..., Rig], unit: int, announced: bool, size: str, answer: str
    ) -> None:
        rig = make_rig("stm32g474xe", checksum_unit=unit, checksum_announced=announced)
        rig.sync()
        rig.flash.load(BASE + 0x100, bytes.fromhex("78 56 34 12"))
        for sent, back in [("a1 5e", "79"), ("08 00 01 00 09", "79"), (size, "79"), ("04 c1 1d b7 6f", "79"),
                           ("ff ff ff ff 00", answer)]:  # fmt: skip
            rig.ask(sent, back)

    @pytest.mark.parametrize("size", ["00 00 00 00 00", "00 00 80 01 81", "00 00 00 04 05"])
    def test_get_checksum_3_13_sizes_refused(self, make_rig: Callable[..., Rig], size: str) -> None:
        rig = make_rig("stm32f103xb", checksum=True)
        rig.sync()
        rig.ask("a1 5e", "79")
        rig.ask("08 00 00 00 08", "79")
        rig.ask(size, "1f")
        rig.nothing_more()


class TestRefusals:
    @pytest.mark.parametrize(
        "steps",
        [
            pytest.param([("00 fe", "1f")], id="complement"),
            pytest.param([("a1 5e", "1f")], id="command that the part has not"),
            pytest.param([("44 bb", "1f")], id="the other erase"),
            pytest.param([("11 ee", "79"), ("08 00 00 00 09", "1f")], id="address checksum"),
            pytest.param([("11 ee", "79"), ("07 ff ff ff f8", "1f")], id="address below flash"),
            pytest.param([("11 ee", "79"), ("08 02 00 00 0a", "1f")], id="address above flash"),
            pytest.param([("11 ee", "79"), ("08 00 00 00 08", "79"), ("03 03", "1f")], id="length complement"),
            pytest.param([("11 ee", "79"), ("08 01 ff fc 0a", "79"), ("07 f8", "1f")], id="read over the end"),
            pytest.param([("31 ce", "79"), ("1f ff f0 00 10", "1f")], id="write to system memory"),
            pytest.param([("31 ce", "79"), ("08 00 04 00 0c", "79"), ("03 01 02 03 04 06", "1f")], id="data checksum"),
            pytest.param([("31 ce", "79"), ("08 00 04 00 0c", "79"), ("02 01 02 03 02", "1f")], id="three bytes"),
            pytest.param([("31 ce", "79"), ("08 00 04 01 0d", "79"), ("03 01 02 03 04 07", "1f")], id="odd address"),
            pytest.param([("43 bc", "79"), ("00 80 80", "1f")], id="page that is not there"),
            pytest.param([("43 bc", "79"), ("00 01 00", "1f")], id="page checksum"),
            pytest.param([("43 bc", "79"), ("ff ff", "1f")], id="global erase checksum"),
            pytest.param([("21 de", "79"), ("1f ff f0 00 10", "1f")], id="go to system memory"),
        ],
    )
    def test_nack_ends_the_command(self, rig: Rig, steps: list[tuple[str, str]]) -> None:
        rig.flash.load(BASE, b"\x12\x34")
        for sent, answer in steps:
            rig.ask(sent, answer)
        rig.nothing_more()
        assert rig.flash.read(BASE, 8) == b"\x12\x34" + b"\xff" * 6
        assert (rig.flash.erases, rig.flash.programs) == (0, 0)

    @pytest.mark.parametrize("sent", ["ff fc 03", "ff f0 0f"])
    def test_reserved_special_erases(self, make_rig: Callable[..., Rig], sent: str) -> None:
        rig = make_rig("stm32l476xg")
        rig.sync()
        rig.ask("44 bb", "79")
        rig.ask(sent, "1f")
        rig.nothing_more()

    @pytest.mark.parametrize("sent", ["ff fe 01", "ff fd 02"])
    def test_one_bank_has_no_bank_two(self, make_rig: Callable[..., Rig], sent: str) -> None:
        rig = make_rig("stm32g071xb")
        rig.sync()
        rig.ask("44 bb", "79")
        rig.ask(sent, ACK if sent.startswith("ff fe") else NACK)
        rig.nothing_more()

    def test_programming_what_is_not_erased(self, rig: Rig) -> None:
        rig.write(BASE, b"abcd")
        rig.ask("31 ce", "79")
        rig.ask(word(BASE), ACK)
        rig.ask("03 61 62 63 64 07", "1f")

    def test_write_protected_pages_take_no_erase_and_say_nothing(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("stm32f103xb", write_protected=[0])
        rig.flash.load(BASE, bytes(8192))
        rig.sync()
        rig.ask("43 bc", "79")
        rig.ask("01 03 04 06", "79")
        assert rig.flash.read(BASE + 3 * 1024, 1025) == bytes(1024) + b"\xff"
        rig.ask("43 bc", "79")
        rig.ask("ff 00", "79")
        assert rig.flash.read(BASE + 5 * 1024, 4) == bytes(4)


class TestParts:
    def test_l0_erases_to_zero_page_by_page_and_has_no_mass_erase(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("stm32l073xz")
        rig.flash.load(BASE, b"\xa5" * 512)
        rig.sync()
        rig.ask("44 bb", "79")
        rig.ask("ff ff 00", "1f")
        rig.ask("44 bb", "79")
        rig.ask("00 00 00 01 01", "79")
        assert rig.read(BASE, 256) == b"\xa5" * 128 + bytes(128)
        rig.write(BASE + 128, bytes(range(128)))
        assert rig.read(BASE + 128, 128) == bytes(range(128))

    @pytest.mark.parametrize(("part", "unit"), [("stm32l476xg", 8), ("stm32h743xi", 32), ("stm32l073xz", 64)])
    def test_a_short_block_is_filled_up_to_the_program_unit(
        self, make_rig: Callable[..., Rig], part: str, unit: int
    ) -> None:
        rig = make_rig(part)
        rig.sync()
        rig.write(BASE, b"abcd")
        erased = parts()[part].erased
        assert rig.read(BASE, unit) == b"abcd" + bytes([erased]) * (unit - 4)
        rig.ask("31 ce", "79")
        rig.ask(word(BASE + 4), ACK)
        rig.ask("03 65 66 67 68 0f", "1f")

    @pytest.mark.parametrize(
        ("part", "size_at", "size_kib", "uid_at", "version_at", "version"),
        [
            # The families' reference manuals, "Device electronic signature"; AN2606 for the version.
            ("stm32f103xb", 0x1FFFF7E0, 128, 0x1FFFF7E8, 0x1FFFF7D6, 0x22),
            ("stm32l476xg", 0x1FFF75E0, 1024, 0x1FFF7590, 0x1FFF6FFE, 0x92),
            ("stm32g071xb", 0x1FFF75E0, 128, 0x1FFF7590, 0x1FFF6FFE, 0xB2),
            ("stm32g474xe", 0x1FFF75E0, 512, 0x1FFF7590, 0x1FFF6FFE, 0xD5),
            ("stm32h743xi", 0x1FF1E880, 2048, 0x1FF1E800, 0x1FF1E7FE, 0x91),
        ],
    )
    def test_identity(
        self, make_rig: Callable[..., Rig], part: str, size_at: int, size_kib: int, uid_at: int, version_at: int,
        version: int,
    ) -> None:  # fmt: skip
        uid = bytes(range(0x10, 0x1C))
        rig = make_rig(part, serial=uid.hex())
        rig.sync()
        assert struct.unpack("<H", rig.read(size_at, 2)) == (size_kib,)
        assert rig.read(uid_at, 12) == uid
        assert rig.read(version_at, 1) == bytes([version])

    @pytest.mark.parametrize(
        ("part", "block", "size_at", "size_kib", "uid"),
        [
            ("stm32f405xg", 0x1FFF7A00, 0x22, 1024, [0x10, 0x14, 0x18]),
            ("stm32l073xz", 0x1FF80000, 0x7C, 192, [0x50, 0x54, 0x64]),  # RM0367: the third word lies apart.
        ],
    )
    def test_identity_in_whole_blocks_only(
        self, make_rig: Callable[..., Rig], part: str, block: int, size_at: int, size_kib: int, uid: list[int]
    ) -> None:
        rig = make_rig(part, serial="000102030405060708090a0b")
        rig.sync()
        data = rig.read(block, 256)
        assert struct.unpack_from("<H", data, size_at) == (size_kib,)
        assert b"".join(data[at : at + 4] for at in uid) == bytes(range(12))
        rig.ask("11 ee", "79")
        rig.ask(word(block + uid[0]), NACK)

    def test_ram_holds_what_is_written_until_the_supply_goes(self, rig: Rig) -> None:
        rig.write(0x20001000, b"stub")
        assert rig.read(0x20001000, 4) == b"stub"
        rig.device.supply.off()
        rig.reach(Stage.OFF)
        rig.device.supply.on()
        rig.reach(Stage.LOADER)
        rig.sync()
        assert rig.read(0x20001000, 4) == bytes(4)

    def test_a_whole_image_through_each_part(self, make_rig: Callable[..., Rig]) -> None:
        image = application.make("1.0.0", "imu", "acme", 1000)
        for part in parts():
            rig = make_rig(part)
            rig.sync()
            for at in range(0, len(image), 256):
                rig.write(BASE + at, image[at : at + 256])
            assert b"".join(rig.read(BASE + at, 256) for at in range(0, 1024, 256))[:1000] == image, part


class TestSynchronisation:
    def test_the_rate_is_the_hosts(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig()
        rig.port.baudrate = 1_000_000
        rig.sync()
        assert rig.wire.device.line.baudrate == 1_000_000
        rig.port.baudrate = 115200
        rig.port.write(b"\x02\xfd")
        rig.port.baudrate = 1_000_000
        # The slow bytes were no command to it; whatever they were, another byte or two complete it.
        rig.port.timeout = 0.05
        assert b"\x04\x10" not in rig.port.read(100)

    def test_a_wrong_first_byte_leaves_it_deaf_until_reset(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig()
        rig.port.write(b"\x00")
        rig.reach(Stage.HUNG)
        rig.port.write(b"\x7f\x7f\x00\xff")
        rig.board.reset()
        rig.sync()
        rig.nothing_more()

    def test_no_parity_is_enough_for_7f_but_not_for_a_command(self, make_rig: Callable[..., Rig]) -> None:
        """7F and 79 look the same in 8N1 and 8E1; of 00 FF the 8E1 end loses both (even numbers of ones)."""
        rig = make_rig()
        rig.port.parity = "N"
        rig.sync()
        rig.port.write(b"\x00\xff")
        rig.port.parity = "E"
        rig.nothing_more()

    def test_once_synchronised_7f_is_half_a_command(self, rig: Rig) -> None:
        rig.ask("7f 7f", NACK)
        rig.nothing_more()
        rig.port.write(b"\x7f")
        rig.ask("7f", NACK)
        rig.nothing_more()

    def test_resynchronising_inside_a_write_by_filling_it(self, rig: Rig) -> None:
        rig.ask("31 ce", "79")
        rig.ask(word(BASE), ACK)
        rig.port.write(b"\xff" + bytes(100))
        rig.ask(b"\x01" + bytes(156), NACK)
        rig.nothing_more()
        assert rig.flash.programs == 0

    def test_a_loader_with_a_byte_timeout_gives_a_command_up(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(byte_timeout=0.02)
        rig.sync()
        rig.ask("31", NACK)
        rig.ask("11 ee", "79")
        rig.ask("08 00", NACK)
        rig.nothing_more()

    def test_mute(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(mute=True)
        rig.reach(Stage.HUNG)
        rig.port.write(b"\x7f\x7f")
        assert rig.port.in_waiting == 0


class TestStages:
    def load(self, rig: Rig, version: str = "1.5.0") -> None:
        rig.flash.load(BASE, application.make(version, "imu", "acme", 2000))

    def test_the_application_answers_its_question_and_nothing_else(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(boot0=False)
        assert rig.board.stage is not Stage.APPLICATION
        self.load(rig)
        rig.board.reset()
        rig.reach(Stage.APPLICATION)
        rig.port.parity = "N"
        rig.ask(b"\x7fnoise VER?VER?\r", b"FW 1.5.0\r\n")
        rig.ask(b"VER?\rVER?\r", b"FW 1.5.0\r\nFW 1.5.0\r\n")
        assert rig.device.application_version == "1.5.0"

    def test_the_applications_line(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(boot0=False, app_baudrate=38400, app_parity="O")
        self.load(rig)
        rig.board.reset()
        rig.reach(Stage.APPLICATION)
        rig.port.baudrate, rig.port.parity = 38400, "O"
        rig.ask(b"VER?\r", b"FW 1.5.0\r\n")

    def test_boot0_starts_the_loader_before_the_application(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig()
        self.load(rig)
        rig.board.reset()
        rig.reach(Stage.LOADER)
        assert rig.device.application_version is None
        rig.sync()

    def test_without_a_whole_application_it_starts_the_loader(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(boot0=False)
        self.load(rig)
        rig.flash.load(BASE + 1500, b"\xff\xff")
        rig.board.reset()
        rig.reach(Stage.LOADER)
        rig.sync()

    def test_go_without_an_application_hangs(self, rig: Rig) -> None:
        rig.ask("21 de", "79")
        rig.ask("08 00 00 00 08", "79")
        rig.reach(Stage.HUNG)

    @pytest.mark.parametrize(
        ("wiring", "reset", "boot0", "inverted"),
        [
            ("dtr-reset,rts-boot0", "dtr", "rts", (False, False)),
            ("rts-reset,dtr-boot0", "rts", "dtr", (False, False)),
            ("!dtr-reset,rts-boot0", "dtr", "rts", (True, False)),
            ("dtr-reset,!rts-boot0", "dtr", "rts", (False, True)),
            ("!rts-reset,!dtr-boot0", "rts", "dtr", (True, True)),
        ],
    )
    def test_modem_lines(
        self, make_rig: Callable[..., Rig], wiring: str, reset: str, boot0: str, inverted: tuple[bool, bool]
    ) -> None:
        rig = make_rig(boot0=False, wiring=wiring)
        self.load(rig)

        def set_pins(nrst_high: bool, boot0_high: bool) -> None:
            # Asserted is low on a TTL adapter's pin.
            setattr(rig.port, boot0, boot0_high == inverted[1])
            setattr(rig.port, reset, nrst_high == inverted[0])

        set_pins(False, True)
        rig.reach(Stage.RESET)
        set_pins(True, True)
        rig.sync()
        assert rig.board.stage is Stage.LOADER
        set_pins(False, False)
        rig.reach(Stage.RESET)
        set_pins(True, False)
        rig.reach(Stage.APPLICATION)

    def test_boot0_counts_only_at_reset(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(boot0=False, wiring="dtr-reset,rts-boot0")
        rig.reach(Stage.LOADER)
        rig.port.rts = True
        rig.sync()
        rig.nothing_more()

    def test_what_it_was_sent_in_reset_is_lost(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(wiring="dtr-reset")
        rig.port.dtr = True
        rig.port.write(b"\x00\x00\x00")
        rig.port.dtr = False
        rig.sync()


class TestKept:
    def test_protections_and_contents_outlive_the_device(self, tmp_path: Path) -> None:
        rig = Rig("stm32f103xb", folder=tmp_path)
        rig.sync()
        rig.write(BASE, b"kept")
        rig.ask("63 9c", "79")
        rig.ask("01 02 05 06", "79")
        rig.sync()
        rig.ask("82 7d", "79 79")
        rig.close()
        assert json.loads((tmp_path / "imu.options.json").read_text()) == {"rdp": 1, "write_protected": [2, 5]}
        rig = Rig("stm32f103xb", folder=tmp_path, rdp=0)
        assert rig.flash.read(BASE, 4) == b"kept"
        rig.sync()
        rig.ask("11 ee", NACK)
        rig.close()

    def test_a_new_part_holds_the_factorys_firmware(self, tmp_path: Path) -> None:
        firmware = tmp_path / "factory.bin"
        firmware.write_bytes(application.make("0.9", "imu", "acme", 1024))
        rig = Rig("stm32g071xb", folder=tmp_path, firmware=str(firmware), boot0=False)
        rig.reach(Stage.APPLICATION)
        assert rig.device.application_version == "0.9"
        rig.close()

    def test_cut_in_any_operation_and_flashed_again(self) -> None:
        """Two pages and 512 bytes: 2 erases and 256 half-words, cut at some of them."""
        image = application.make("1.0.0", "imu", "acme", 512)
        blank = bytes([1]) * 2048

        def flash(rig: Rig) -> None:
            rig.sync()
            rig.ask("43 bc", "79")
            rig.ask("01 00 01 00", "79")
            for at in (0, 256):
                rig.write(BASE + at, image[at : at + 256])

        for operation in (1, 2, 3, 4, 100, 130, 131, 257, 258):
            rig = Rig("stm32f103xb")
            rig.flash.load(BASE, blank)
            # Listened to before the cut, so that the host need not wait for its time-out.
            rig.device.supply.listen(lambda on, rig=rig: None if on else rig.port.cancel_read())  # type: ignore[misc]
            rig.device.supply.cut_at(operation)
            with pytest.raises(AssertionError):
                flash(rig)
            rig.reach(Stage.OFF)
            assert rig.flash.read(BASE, 512) != image
            rig.device.supply.on()
            rig.reach(Stage.LOADER)
            rig.port.reset_input_buffer()
            flash(rig)
            assert rig.flash.read(BASE, 2048) == image + b"\xff" * 1536
            rig.close()

    def test_cut_while_unprotecting_leaves_it_protected(self) -> None:
        rig = Rig("stm32f103xb", rdp=1)
        rig.flash.load(BASE, bytes(rig.flash.size))
        rig.device.supply.cut_at(40)
        rig.sync()
        rig.ask("92 6d", ACK)
        rig.reach(Stage.OFF)
        rig.device.supply.on()
        rig.sync()
        rig.ask("11 ee", NACK)
        rig.ask("92 6d", "79 79")
        rig.sync()
        assert rig.read(BASE, 4) == b"\xff" * 4
        rig.close()


class TestTime:
    def test_erasing_and_programming_take_their_time_and_the_receiver_is_deaf_meanwhile(self) -> None:
        """An F405 sector of 16 KiB: 250 ms at pace 1 (DS8626), 25 ms at a tenth."""
        wire = UartWire(uuid.uuid4().hex, pace=0.1)
        spec = DeviceSpec("imu", settings={"part": "stm32f405xg", "boot0": True}, pace=0.1)
        device = Stm32UartDevice.attach(spec, wire)
        with serial.serial_for_url(wire.host_settings()["url"], 115200, parity="E", timeout=5) as port:
            for sent in ("7f", "44 bb"):
                port.write(bytes.fromhex(sent))
                assert port.read(1) == ACK
            port.write(bytes.fromhex("00 00 00 00 00"))
            asked = wire.host.free_at
            port.write(bytes.fromhex("02 fd 02 fd"))
            assert port.read(1) == ACK
            assert wire.host.arrived_at - asked == pytest.approx(0.025 + 0.1 * 11 / 115200)
            # Of the four bytes it kept the first; with the next one it is a command again.
            port.write(b"\xfd")
            assert port.read(5) == bytes.fromhex("79 01 04 13 79")
        device.close()
        wire.close()
        assert device.board.fault is None


class TestSettings:
    @pytest.mark.parametrize(
        ("table", "key"),
        [
            ({}, "part"),
            ({"part": "stm8"}, "part"),
            ({"part": "stm32f103xb", "serial": "12"}, "serial"),
            ({"part": "stm32f103xb", "wiring": "dtr"}, "wiring"),
            ({"part": "stm32f103xb", "wiring": "dtr-reset,dtr-boot0"}, "wiring"),
            ({"part": "stm32f103xb", "rdp": 2}, "rdp"),
            ({"part": "stm32f103xb", "boot0": "yes"}, "boot0"),
            ({"part": "stm32f103xb", "app_parity": "X"}, "app_parity"),
            ({"part": "stm32f103xb", "app_baudrate": 0}, "app_baudrate"),
            ({"part": "stm32f103xb", "byte_timeout": -1}, "byte_timeout"),
            ({"part": "stm32f103xb", "write_protected": ["a"]}, "write_protected"),
            ({"part": "stm32f103xb", "checksum_unit": 2}, "checksum_unit"),
            ({"part": "stm32f103xb", "checksum_announced": 1}, "checksum_announced"),
            ({"part": "stm32f103xb", "colour": "blue"}, "colour"),
        ],
    )
    def test_bad(self, table: dict[str, Any], key: str) -> None:
        wire = UartWire(uuid.uuid4().hex)
        with pytest.raises(BadDevice) as caught:
            Stm32UartDevice.attach(DeviceSpec("imu", settings=table), wire)
        assert caught.value.key == key
        wire.close()

    def test_a_version_pattern_that_no_answer_can_be_made_for(self) -> None:
        wire = UartWire(uuid.uuid4().hex)
        with pytest.raises(BadDevice):
            Stm32UartDevice.attach(
                DeviceSpec("imu", settings={"part": "stm32f103xb"}, version={"send": "V", "match": r"[A-Z]{3} (\d+)"}),
                wire,
            )
        wire.close()


COMMANDS = [bytes([code, code ^ 0xFF]) for code in (0, 1, 2, 0x11, 0x21, 0x31, 0x44, 0x63, 0x73, 0x82, 0x92, 0xA1)]
PIECES = st.one_of(
    st.sampled_from([*COMMANDS, b"\x7f", b"\x03\x01\x02\x03\x04\x07", b"\xff\xff\x00", b"\x00\x00\x00\x01\x01"]),
    st.sampled_from([BASE, BASE + 2, BASE + 0x7FFFC, 0x20004000, 0x1FFF75E0, 4, 0x04C11DB7, 0xFFFFFFFF]).map(word),
    st.binary(max_size=20),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(pieces=st.lists(PIECES, max_size=25), synchronised=st.booleans())
def test_no_bytes_kill_the_firmware(pieces: list[bytes], synchronised: bool) -> None:
    rig = Rig("stm32g474xe", wiring="dtr-reset")
    if synchronised:
        rig.sync()
    for piece in pieces:
        rig.port.write(piece)
    rig.port.dtr = True
    rig.reach(Stage.RESET)
    rig.port.reset_input_buffer()
    rig.port.dtr = False
    rig.sync()
    assert rig.board.fault is None
    rig.close()
