"""The STM32 loader's commands, byte for byte as AN3155 rev 20 has them, against a loader played by hand.

The hand holds the other end of an emulated line: it sees each write of the host separately and answers it, or doesn't.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import crcmod.predefined
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.emulators.serial.line import Line
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.flashers.errors import (
    OperationFailed,
    PartError,
    PartProtected,
    PartRefused,
    ProfileWrong,
    ProtocolError,
)
from proxyflash.flashers.stm32 import uart_commands as stm32_commands
from proxyflash.flashers.stm32.codec import MassErase, crc32_mpeg2
from proxyflash.flashers.stm32.profile import Stm32Profile
from proxyflash.flashers.stm32.uart import Stm32UartFlasher
from proxyflash.flashers.stm32.uart_commands import Stm32Commands
from proxyflash.tests.flashers.doing import Doing
from proxyflash.transports import clock
from proxyflash.transports.errors import SerialTimeout, TransportError
from proxyflash.transports.serial.port import SerialPort

ACK, NACK, GARBAGE, SILENCE = "79", "1f", "a5", ""
FLASH = 0x08000000
GET = {"00 ff": "79 0b 22 00 01 02 11 21 31 43 63 73 82 92 79"}
GET_VERSION = {"01 fe": "79 22 00 00 79"}
GET_ID = {"02 fd": "79 01 04 10 79"}
READ = {"11 ee": ACK, "08 00 04 00 0c": ACK, "03 fc": "79 de ad be ef"}
WRITE = {"31 ce": ACK, "08 00 04 00 0c": ACK, "03 de ad be ef 21": ACK}
GO = {"21 de": ACK, "08 00 00 00 08": ACK}
ERASE = {"43 bc": ACK, "01 00 03 02": ACK}
EXTENDED_ERASE = {"44 bb": ACK, "00 01 00 04 00 0b 0e": ACK}
GLOBAL_ERASE = {"43 bc": ACK, "ff 00": ACK}
CHECKSUM = {"a1 5e": ACK, "08 00 01 00 09": ACK, "00 00 00 01 01": ACK, "04 c1 1d b7 6f": ACK,
            "ff ff ff ff 00": "79 79 df 8a 8a 2b f4"}  # fmt: skip
"""The CRC unit's known answer: the word 0x12345678 gives 0xDF8A8A2B."""


class Hand:
    """Answers each of the host's writes by a table, and keeps what was written. What isn't in it gets no answer.

    A loader in step refuses filler, of which it is half a command or any number of whole ones, and 0x7F.
    """

    def __init__(self, wire: UartWire) -> None:
        self.answers: dict[str, str] = {}
        self.deviations: dict[str, list[str]] = {}
        """Answers that come before the table's, once each."""
        self.units: list[str] = []
        self.filled = 0
        self._device = wire.device
        wire.device.listener = self._heard

    def _heard(self) -> None:
        unit = self._device.take(self._device.available())
        if set(unit) <= {0xF5, 0xF6, 0xFA, 0xFF, 0x7F} and (len(unit) == 1 or len(unit) > 256):
            self.filled += 1
            self._device.send(b"\x1f")
            return
        self.units.append(unit.hex(" "))
        answer = self.answers.get(self.units[-1], SILENCE)
        if self.deviations.get(self.units[-1]):
            answer = self.deviations[self.units[-1]].pop(0)
        self._device.send(bytes.fromhex(answer))


class Bench:
    def __init__(self) -> None:
        self.wire = UartWire(uuid.uuid4().hex, pace=0)
        self.wire.device.line = Line(4_000_000, 8, "E", 1)
        self.hand = Hand(self.wire)
        self.port = SerialPort.open("imu", {**self.wire.host_settings(), "baudrate": 4_000_000, "parity": "E"})
        self.loader = Stm32Commands(self.port, answer=0.02)

    def close(self) -> None:
        self.port.close()
        self.wire.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def write(loader: Stm32Commands) -> None:
    loader.write_memory(FLASH + 0x400, bytes.fromhex("deadbeef"), blank=0xFF, seconds=0.01)


def erase(loader: Stm32Commands, *, extended: bool) -> None:
    loader.erase_pages([4, 11] if extended else [0, 3], extended=extended, seconds=0.01)


COMMANDS: dict[str, tuple[Mapping[str, str], Callable[[Stm32Commands], object], object]] = {
    "get 3.1": (GET, lambda loader: loader.get(), (0x22, frozenset(bytes.fromhex("0001021121314363738292")))),
    "get version 3.2": (GET_VERSION, lambda loader: loader.get_version(), (0x22, b"\0\0")),
    "get id 3.3": (GET_ID, lambda loader: loader.get_id(), 0x410),
    "read 3.4": (READ, lambda loader: loader.read_memory(FLASH + 0x400, 4), bytes.fromhex("deadbeef")),
    "go 3.5": (GO, lambda loader: loader.go(FLASH), None),
    "write 3.6": (WRITE, write, None),
    "erase 3.7": (ERASE, lambda loader: erase(loader, extended=False), None),
    "global erase 3.7": (
        GLOBAL_ERASE, lambda loader: loader.mass_erase(MassErase.ALL, extended=False, seconds=0.01), True,
    ),
    "extended erase 3.8": (EXTENDED_ERASE, lambda loader: erase(loader, extended=True), None),
    "get checksum 3.13": (CHECKSUM, lambda loader: loader.get_checksum(FLASH + 0x100, 4), 0xDF8A8A2B),
}  # fmt: skip
PLACES = [(name, unit) for name, (table, _, _) in COMMANDS.items() for unit in table]


@pytest.mark.parametrize("name", COMMANDS)
def test_what_goes_out_and_in_which_writes(bench: Bench, name: str) -> None:
    table, run, result = COMMANDS[name]
    bench.hand.answers = dict(table)
    assert run(bench.loader) == result
    assert bench.hand.units == list(table)
    assert bench.hand.filled == 0


@pytest.mark.parametrize(
    ("what", "sent"), [(MassErase.ALL, "ff ff 00"), (MassErase.BANK_1, "ff fe 01"), (MassErase.BANK_2, "ff fd 02")]
)
def test_special_erases_3_8(bench: Bench, what: MassErase, sent: str) -> None:
    bench.hand.answers = {"44 bb": ACK, sent: ACK}
    assert bench.loader.mass_erase(what, extended=True, seconds=0.01)
    assert bench.hand.units == ["44 bb", sent]
    bench.hand.answers[sent] = NACK
    assert not bench.loader.mass_erase(what, extended=True, seconds=0.01)


def test_a_whole_block_is_one_write(bench: Bench) -> None:
    """256 bytes 00 to FF XOR to 00: the XOR of the block is its count's, FF."""
    data = bytes(range(256))
    unit = f"ff {data.hex(' ')} ff"
    bench.hand.answers = {"31 ce": ACK, "08 00 00 00 08": ACK, unit: ACK}
    bench.loader.write_memory(FLASH, data, blank=0xFF, seconds=0.01)
    assert bench.hand.units == ["31 ce", "08 00 00 00 08", unit]


def test_a_whole_block_is_read_at_once(bench: Bench) -> None:
    data = bytes(range(256))
    bench.hand.answers = {"11 ee": ACK, "08 00 00 00 08": ACK, "ff 00": f"79 {data.hex()}"}
    assert bench.loader.read_memory(FLASH, 256) == data


# Answers that are not the right ones.

SENT_ONCE = {
    # A list of pages is sent once: whether they were erased, the engine finds out.
    ("erase 3.7", "01 00 03 02"),
    ("extended erase 3.8", "00 01 00 04 00 0b 0e"),
    ("global erase 3.7", "ff 00"),
}


@pytest.mark.parametrize("deviation", [NACK, GARBAGE, SILENCE], ids=["nack", "garbage", "silence"])
@pytest.mark.parametrize(("name", "unit"), [place for place in PLACES if place not in SENT_ONCE])
def test_one_wrong_answer_is_got_over(bench: Bench, name: str, unit: str, deviation: str) -> None:
    table, run, result = COMMANDS[name]
    bench.hand.answers = dict(table)
    bench.hand.deviations = {unit: [deviation]}
    if name == "write 3.6":
        # It looks whether the block is there before it writes again: blank.
        bench.hand.answers |= {"11 ee": ACK, "03 fc": "79 ff ff ff ff"}
    assert run(bench.loader) == result
    if (name, unit, deviation) == ("go 3.5", "08 00 00 00 08", SILENCE):
        assert bench.hand.units == ["21 de", unit, "21 de", unit]
    assert bench.hand.filled


FOREVER: dict[str, dict[str, type[Exception]]] = {
    "get 3.1": {NACK: PartRefused, GARBAGE: ProtocolError, SILENCE: SerialTimeout},
    "get version 3.2": {NACK: PartRefused, GARBAGE: ProtocolError, SILENCE: SerialTimeout},
    "get id 3.3": {NACK: PartRefused, GARBAGE: ProtocolError, SILENCE: SerialTimeout},
    "read 3.4": {NACK: PartRefused, GARBAGE: ProtocolError, SILENCE: SerialTimeout},
    "go 3.5": {NACK: PartRefused, GARBAGE: ProtocolError, SILENCE: SerialTimeout},
    "write 3.6": {NACK: PartRefused, GARBAGE: ProtocolError, SILENCE: SerialTimeout},
    "erase 3.7": {NACK: OperationFailed, GARBAGE: ProtocolError, SILENCE: SerialTimeout},
    "global erase 3.7": {GARBAGE: ProtocolError, SILENCE: SerialTimeout},
    "extended erase 3.8": {NACK: OperationFailed, GARBAGE: ProtocolError, SILENCE: SerialTimeout},
}
FORBIDDEN = ("11 ee", "31 ce", "21 de", "43 bc", "44 bb")
"""The commands that readout protection refuses (AN3155, table 2)."""


@pytest.mark.parametrize("deviation", [NACK, GARBAGE, SILENCE], ids=["nack", "garbage", "silence"])
@pytest.mark.parametrize(("name", "unit"), PLACES)
def test_wrong_answers_without_end(bench: Bench, name: str, unit: str, deviation: str) -> None:
    table, run, _ = COMMANDS[name]
    bench.hand.answers = {"11 ee": ACK, "03 fc": "79 ff ff ff ff", **table, unit: deviation}
    expected = FOREVER.get(name, {}).get(deviation)
    if deviation == NACK and unit in FORBIDDEN:
        expected = PartProtected
    if expected is None:
        assert run(bench.loader) in (None, False)
    else:
        with pytest.raises(expected):
            run(bench.loader)
    assert len(bench.hand.units) <= 60


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_read_that_ends_early(bench: Bench, cut: int) -> None:
    bench.hand.answers = dict(READ)
    bench.hand.deviations = {"03 fc": ["79 de ad be ef"[: 2 + 3 * (cut - 1)]]}
    assert bench.loader.read_memory(FLASH + 0x400, 4) == bytes.fromhex("deadbeef")


@pytest.mark.parametrize("answer", ["79 02 04 10 00 79", "79 ff", "79 00"])
def test_a_product_id_of_another_size(bench: Bench, answer: str) -> None:
    bench.hand.answers = {"02 fd": answer}
    with pytest.raises((ProtocolError, SerialTimeout)):
        bench.loader.get_id()


class TestWriting:
    def test_a_block_that_is_there_is_not_written_again(self, bench: Bench) -> None:
        bench.hand.answers = WRITE | READ
        bench.hand.deviations = {"03 de ad be ef 21": [SILENCE]}
        write(bench.loader)
        assert bench.hand.units.count("03 de ad be ef 21") == 1

    def test_a_block_that_is_half_there_is_not_written_over(self, bench: Bench) -> None:
        bench.hand.answers = WRITE | READ | {"03 fc": "79 de ad ff ff"}
        bench.hand.deviations = {"03 de ad be ef 21": [SILENCE]}
        with pytest.raises(OperationFailed, match="0x08000400 is half written"):
            write(bench.loader)
        assert bench.hand.units.count("03 de ad be ef 21") == 1

    def test_one_refused_command_is_no_protection(self, bench: Bench) -> None:
        bench.hand.answers = WRITE | {"11 ee": ACK, "03 fc": "79 ff ff ff ff"}
        bench.hand.deviations = {"31 ce": [NACK, NACK]}
        write(bench.loader)


class TestGo:
    def test_an_application_that_runs_is_left_alone(self, bench: Bench) -> None:
        """The last ACK is lost, and nobody answers 0x7F any more: it was started."""
        bench.hand.answers = dict(GO)
        bench.hand.deviations = {"08 00 00 00 08": [SILENCE]}
        gone = bench.wire.device

        def heard() -> None:
            unit = gone.take(gone.available()).hex(" ")
            bench.hand.units.append(unit)
            gone.send(bytes.fromhex(ACK) if unit == "21 de" else b"")

        gone.listener = heard
        bench.loader.go(FLASH)
        assert bench.hand.units == ["21 de", "08 00 00 00 08", "7f", "f5"]


class TestChecksum:
    @pytest.mark.parametrize(("size", "answer"), [
        ("00 00 00 01 01", "79 79 df 8a 8a 2b f4"), ("00 00 00 01 01", "79 df 8a 8a 2b f4"),
        ("00 00 00 04 04", "79 79 df 8a 8a 2b f4"), ("00 00 00 04 04", "79 df 8a 8a 2b f4"),
    ])  # fmt: skip
    def test_its_form_is_learnt(self, bench: Bench, size: str, answer: str) -> None:
        bench.hand.answers = CHECKSUM | {"00 00 00 01 01": NACK, "ff ff ff ff 00": answer} | {size: ACK}
        assert bench.loader.learn_checksum(FLASH + 0x100, bytes.fromhex("78563412"))
        bench.hand.units.clear()
        assert bench.loader.get_checksum(FLASH + 0x100, 4) == 0xDF8A8A2B
        assert size in bench.hand.units
        assert len(bench.hand.units) == 5

    @pytest.mark.parametrize("answer", ["79 79 11 22 33 44 44", "79 1f", "79", "1f"])
    def test_a_wrong_one_is_not_trusted(self, bench: Bench, answer: str) -> None:
        bench.hand.answers = CHECKSUM | {"00 00 00 04 04": ACK, "ff ff ff ff 00": answer}
        assert not bench.loader.learn_checksum(FLASH + 0x100, bytes.fromhex("78563412"))

    @pytest.mark.parametrize("answer", ["79 79 df 8a 8a 2b f5", "79 79 df 8a"])
    def test_its_own_checksum_counts(self, bench: Bench, answer: str) -> None:
        bench.hand.answers = CHECKSUM | {"ff ff ff ff 00": answer}
        assert bench.loader.get_checksum(FLASH + 0x100, 4) is None

    def test_crc_32_mpeg_2(self) -> None:
        """Against crcmod's predefined function, which has the catalogue's check value (reveng.sourceforge.io).

        The CRC unit takes each word highest byte first: the bytes of "12345678" in memory are the words of "43218765".
        """
        catalogued = crcmod.predefined.mkCrcFun("crc-32-mpeg")
        assert catalogued(b"123456789") == 0x0376E6E7
        assert crc32_mpeg2(b"43218765") == catalogued(b"12345678")
        assert crc32_mpeg2(bytes.fromhex("78563412")) == 0xDF8A8A2B
        assert crc32_mpeg2(b"") == 0xFFFFFFFF
        with pytest.raises(ValueError, match="multiple"):
            crc32_mpeg2(b"12345")


def test_a_line_that_never_falls_silent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that sends on and on, whatever it is asked, ends with an error and not with a hang."""
    monkeypatch.setattr(stm32_commands, "STREAM_SECONDS", 0.05)
    ended = clock.Event()

    def stream() -> None:
        while not ended.is_set():
            bench.wire.device.send(b"x" * 64)
            ended.wait(1e-4)

    bench.wire.device.listener = lambda: None
    streaming = Doing(stream)
    try:
        with pytest.raises(ProtocolError):
            bench.loader.read_memory(FLASH, 4)
    finally:
        ended.set()
        streaming.result()


ANSWERS = st.one_of(
    st.sampled_from([b"\x79", b"\x1f", b"", b"\x79\x79", b"\x79\x01\x04\x10\x79", b"\x79\x22\x00\x00\x79",
                     b"\x79\x0b\x22\x00\x01\x02\x11\x21\x31\x43\x63\x73\x82\x92\x79", b"\x79\xff\xff\xff\xff",
                     b"\x79\x03\x33\x01\x02\xa1\x44\x79"]),
    st.binary(max_size=40),
)  # fmt: skip


DOCUMENTED = (TransportError, PartError, ProfileWrong)


@settings(max_examples=70, deadline=None)
@given(answers=st.lists(ANSWERS, max_size=40))
def test_no_answers_break_the_flasher(answers: list[bytes]) -> None:
    """Whatever comes back, it ends: with what was asked for or with one of the project's errors."""
    bench = Bench()
    device = bench.wire.device
    left = list(answers)

    def heard() -> None:
        if device.take(device.available()) and left:
            device.send(left.pop(0))

    device.listener = heard
    profile = Stm32Profile.model_validate(
        {"answer": 0.001, "entry": {"reset": "dtr", "boot0": "rts", "hold": 1e-6, "settle": 0}}
    )
    flasher = Stm32UartFlasher(bench.port, profile)
    with suppress(*DOCUMENTED):
        flasher.connect()
        list(flasher.erase(list(flasher.memory_map().regions[0].erase_units(FLASH, FLASH + 5000))))
    with suppress(*DOCUMENTED):
        write(bench.loader)
    with suppress(*DOCUMENTED):
        bench.loader.go(FLASH)
    with suppress(*DOCUMENTED):
        bench.loader.learn_checksum(FLASH, bytes(32))
        bench.loader.get_checksum(FLASH, 64)
    flasher.close()
    bench.close()
