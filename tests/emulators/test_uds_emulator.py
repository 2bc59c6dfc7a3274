"""The emulated ECU: what ISO 14229-1:2020 makes an ECU refuse and answer, and a plain udsoncan script that flashes it."""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import can
import isotp
import pytest
import udsoncan
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxyflash.emulators import application
from proxyflash.emulators.can import isotp as isotp_node
from proxyflash.emulators.can.server import serve_can
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.device import BadDevice, DeviceSpec
from proxyflash.emulators.uds.device import UdsDevice
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.programmer import Programmer
from proxyflash.flashers.uds.flasher import UdsFlasher
from proxyflash.flashers.uds.profile import UdsAddress, UdsProfile
from proxyflash.tests.emulators.isotp_stack import IsoTpStack
from proxyflash.transports import clock
from proxyflash.transports.can.bus import CanBus
from udsoncan.client import Client
from udsoncan.connections import PythonIsoTpConnection

SECONDS = 300.0
QUIET = 5.0
"""After so long without a message the ECU has said all."""
BASE = 0x10000
OLD = application.make("1.4.2", "radar", "Acme", 2000, start=BASE)
SECRET = bytes.fromhex("5a5a5a5a")


class Peer:
    """can-isotp on the emulated wire: a request in hexadecimal, its final response in hexadecimal."""

    def __init__(self, channel: str, fd: bool = False) -> None:
        self.bus = can.Bus(interface="proxyflash", channel=channel, fd=fd)
        params = {"tx_padding": 0xCC, "can_fd": fd, "tx_data_length": 64 if fd else 8}
        address = isotp.Address(isotp.AddressingMode.Normal_11bits, txid=0x7E0, rxid=0x7E8)
        self.stack = IsoTpStack(self.bus, address, params)
        self.pending = 0

    def ask(self, request: str) -> str:
        self.stack.send(bytes.fromhex(request))
        while True:
            answer = self.next()
            if not (answer.startswith("7F") and answer.endswith("78")):
                return answer
            self.pending += 1

    def next(self) -> str:
        received = self.stack.recv(SECONDS)
        assert received is not None, "no answer"
        return received.hex(" ").upper()

    def to_all(self, request: str) -> None:
        data = bytes.fromhex(request)
        self.bus.send(can.Message(arbitration_id=0x7DF, is_extended_id=False, data=bytes([len(data)]) + data))

    def frame(self, data: str) -> None:
        self.bus.send(can.Message(arbitration_id=0x7E0, is_extended_id=False, data=bytes.fromhex(data)))

    def unlock(self) -> None:
        """Into the programming session, with its key."""
        assert self.ask("10 03").startswith("50 03")
        assert self.ask("10 02").startswith("50 02")
        assert self.ask("27 02" + key(self.ask("27 01"))) == "67 02"

    def close(self) -> None:
        self.stack.stop()
        self.bus.shutdown()


def key(seed_answer: str) -> str:
    seed = bytes.fromhex(seed_answer)[2:]
    return bytes(a ^ b for a, b in zip(seed, SECRET, strict=True)).hex()


class Bench:
    def __init__(self, folder: Path, *, fd: bool = False, pace: float = 0, **table: Any) -> None:
        (folder / "old.bin").write_bytes(OLD)
        self.wire = CanWire(uuid.uuid4().hex, pace=0, data_bitrate=2_000_000 if fd else None)
        self.spec = DeviceSpec(
            "radar", address={"request": 0x7E0}, settings={"firmware": "old.bin", **table}, folder=folder / "state",
            firmware_folder=folder, pace=pace,
        )  # fmt: skip
        self.device = UdsDevice.attach(self.spec, self.wire)
        self.device.settle()
        self.tester = Peer(self.wire.channel, fd)

    def close(self) -> None:
        self.tester.close()
        self.device.close()
        self.wire.close()
        assert self.device.board.fault is None


Make = Callable[..., Bench]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def make(**table: Any) -> Bench:
        made.append(Bench(tmp_path, **table))
        return made[-1]

    yield make
    for item in made:
        item.close()


@pytest.fixture
def one(bench: Make) -> Bench:
    return bench()


APPLICATION = [
    ("10 01", "50 01 00 32 01 F4"),  # 10.2: P2 50 ms, P2* 5000 ms in units of 10 ms
    ("10", "7F 10 13"),
    ("10 55", "7F 10 12"),
    ("10 55 00", "7F 10 12"),  # figure 6: the sub-function is looked at before the whole length
    ("10 03 00", "7F 10 13"),
    ("3E 00", "7E 00"),
    ("3E 01", "7F 3E 12"),
    ("22 F1 89", "62 F1 89 " + b"1.4.2".hex(" ").upper()),
    ("22 F1 97 F1 8A", "62 F1 97 52 37 37 F1 8A 41 63 6D 65"),  # 11.2: several identifiers in one request
    ("22 F1 86", "62 F1 86 01"),
    ("22 12 34", "7F 22 31"),
    ("22 F1", "7F 22 13"),
    ("27 01", "7F 27 7F"),  # table 23: not in the default session
    ("28 03 01", "7F 28 7F"),
    ("85 02", "7F 85 7F"),
    ("2E F1 5A 00", "7F 2E 7F"),
    ("23 24 00 01 00 00 00 10", "7F 23 7F"),
    ("34 00 44 00 01 00 00 00 00 10 00", "7F 34 7F"),
    ("36 01 00", "7F 36 7F"),
    ("37", "7F 37 7F"),
    ("31 01 FF 00 44 00 01 00 00 00 00 10 00", "7F 31 31"),  # 14.2.5: no such routine in this session
    ("31 01 02 03", "71 01 02 03 00"),
    ("31 03 02 03", "7F 31 12"),
    ("31 01 02", "7F 31 13"),
    ("BA 00", "7F BA 11"),
]
UNLOCKED = [
    ("22 F1 86", "62 F1 86 02"),
    ("22 F1 89", "7F 22 31"),  # the application's
    ("27 01", "67 01 00 00 00 00"),  # 10.4: unlocked already
    ("28 03 01", "68 03"),
    ("28 03 00", "7F 28 31"),  # annex B.1: no messages at all
    ("28 05 01", "7F 28 12"),
    ("28 03", "7F 28 13"),
    ("85 02", "C5 02"),
    ("85 03", "7F 85 12"),
    ("2E F1 5A 01 02 03", "6E F1 5A"),
    ("2E F1 90 01", "7F 2E 31"),
    ("2E F1 5A", "7F 2E 13"),
    ("31 01 FF 00", "7F 31 13"),
    ("31 01 FF 00 00", "7F 31 31"),  # annex H: no address, no size
    ("31 01 FF 00 44 00 00 00 00 00 00 10 00", "7F 31 31"),  # below the memory
    ("31 01 FF 00 44 00 07 F0 00 00 00 20 00", "7F 31 31"),  # beyond it
    ("31 01 FF 00 44 00 01 00 00 00 00 10", "7F 31 13"),
    ("31 02 FF 00 44 00 01 00 00 00 00 10 00", "7F 31 12"),
    ("31 01 12 34", "7F 31 31"),
    ("34 00", "7F 34 13"),
    ("34 11 44 00 01 00 00 00 00 10 00", "7F 34 31"),  # no compression, no encryption here
    ("34 00 44 00 01 00 00 00 00 00 00", "7F 34 31"),  # nothing
    ("34 00 66 00 01 00 00 00 00 10 00", "7F 34 31"),
    ("35 00 44 00 01 00 00 00 00 10 00", "7F 35 11"),
    ("36 01 00", "7F 36 24"),  # 15.4.5: no transfer
    ("37", "7F 37 24"),
]


class TestServices:
    def test_the_application(self, bench: Make) -> None:
        tester = bench().tester
        assert {request: tester.ask(request) for request, _ in APPLICATION} == dict(APPLICATION)

    def test_the_bootloader(self, bench: Make) -> None:
        tester = bench().tester
        tester.unlock()
        assert {request: tester.ask(request) for request, _ in UNLOCKED} == dict(UNLOCKED)

    @pytest.mark.parametrize(
        "request_",
        ["34 00 44 00 01 00 00 00 00 10 00", "31 01 FF 00 44 00 01 00 00 00 00 10 00", "31 01 FF 01", "2E F1 5A 00"],
    )
    def test_nothing_without_a_key(self, bench: Make, request_: str) -> None:
        made = bench()
        assert made.tester.ask("10 02").startswith("50 02")
        assert made.tester.ask(request_) == f"7F {request_[:2]} 33"
        assert made.device.flash.read(BASE, len(OLD)) == OLD

    def test_positive_responses_are_suppressed_negative_ones_are_not(self, bench: Make) -> None:
        """8.2.2; and 8.7.3 for requests to all."""
        tester = bench().tester
        tester.stack.send(bytes.fromhex("3E 80"))
        assert tester.ask("10 03").startswith("50 03")
        tester.stack.send(bytes.fromhex("28 83 01"))
        assert tester.ask("28 85 01") == "7F 28 12"
        for silent in ("28 05 01", "BA 00", "22 12 34", "31 01 12 34", "36 01 00", "3E 80"):
            tester.to_all(silent)
        tester.to_all("10")
        assert tester.next() == "7F 10 13"
        tester.to_all("3E 00")
        assert tester.next() == "7E 00"

    def test_a_session_ends_without_requests(self, bench: Make) -> None:
        """ISO 14229-2, S3: the key is forgotten with it."""
        tester = bench(s3=0.5).tester
        tester.unlock()
        clock.sleep(1.0)
        assert tester.ask("22 F1 86") == "62 F1 86 01"
        assert tester.ask("34 00 44 00 01 00 00 00 00 10 00") == "7F 34 7F"

    def test_a_session_is_kept_while_a_request_comes_in(self, bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """ISO 14229-2, S3: it is stopped by the first frame of a request, however long the others take."""
        monkeypatch.setattr(isotp_node, "N_CR_SECONDS", SECONDS)
        tester = bench(s3=1.0).tester
        assert tester.ask("10 03").startswith("50 03")
        tester.frame("10 09 22 12 34 12 34 12")
        clock.sleep(2.5)
        tester.frame("21 34 12 34")
        assert tester.next() == "7F 22 31"
        assert tester.ask("22 F1 86") == "62 F1 86 03"

    def test_a_session_ends_when_a_request_breaks_off(self, bench: Make) -> None:
        tester = bench(s3=0.5).tester
        assert tester.ask("10 03").startswith("50 03")
        tester.frame("10 09 22 12 34 12 34 12")
        clock.sleep(2.5)
        assert tester.ask("22 F1 86") == "62 F1 86 01"

    def test_a_session_is_kept_by_requests_to_all(self, bench: Make) -> None:
        tester = bench(s3=1.5).tester
        assert tester.ask("10 03").startswith("50 03")
        for _ in range(10):
            clock.sleep(0.2)
            tester.to_all("3E 80")
        assert tester.ask("22 F1 86") == "62 F1 86 03"

    def test_a_reset(self, bench: Make) -> None:
        made = bench()
        made.tester.unlock()
        assert made.device.application_version is None
        assert made.tester.ask("11 55") == "7F 11 12"
        assert made.tester.ask("11 01") == "51 01"
        made.device.settle()
        assert made.tester.ask("22 F1 86") == "62 F1 86 01"
        assert made.device.application_version == "1.4.2"

    @given(st.lists(st.binary(min_size=1, max_size=40), max_size=8))
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    def test_any_requests_are_answered_or_passed_over(self, one: Bench, requests: list[bytes]) -> None:
        for request in requests:
            one.tester.stack.send(request)
        while one.tester.stack.recv(QUIET) is not None:
            pass
        one.device.settle()
        assert one.tester.ask("22 F1 8C") == "62 F1 8C 30 30 30 31"


class TestSecurity:
    def test_a_wrong_key(self, bench: Make) -> None:
        tester = bench().tester
        assert tester.ask("10 03").startswith("50 03")
        assert tester.ask("27 02 00 00 00 00") == "7F 27 24"  # 10.4: no seed was asked for
        seed = tester.ask("27 01")
        assert tester.ask("27 02 00") == "7F 27 13"
        assert tester.ask("27 01") == seed  # Annex I: the seed stays until a key was tried
        assert tester.ask("27 02" + "00" * 4) == "7F 27 35"
        assert tester.ask("27 02" + key(seed)) == "7F 27 24"
        assert tester.ask("27 03") == "7F 27 12"

    def test_three_attempts_then_a_delay(self, bench: Make) -> None:
        """Annex I. Neither a new session, nor a reset, nor a cut shortens it."""
        made = bench(key_delay=1.0)
        tester = made.tester
        answers = []
        for _ in range(3):
            assert tester.ask("10 03").startswith("50 03")
            assert tester.ask("27 01").startswith("67 01")
            answers.append(tester.ask("27 02" + "00" * 4))
        assert answers == ["7F 27 35", "7F 27 35", "7F 27 36"]
        began = clock.monotonic()
        assert tester.ask("27 01") == "7F 27 37"
        made.device.supply.off()
        made.device.supply.on()
        made.device.settle()
        assert tester.ask("10 03").startswith("50 03")
        while tester.ask("27 01") == "7F 27 37":
            assert tester.ask("3E 00") == "7E 00"
            clock.sleep(0.02)
        assert clock.monotonic() - began >= 1.0
        assert tester.ask("27 02" + key(tester.ask("27 01"))) == "67 02"

    def test_no_seed_is_given_for_a_while_after_each_start(self, bench: Make) -> None:
        """10.4: requiredTimeDelayNotExpired, whoever asks."""
        tester = bench(seed_delay=1.0).tester
        assert tester.ask("10 03").startswith("50 03")
        assert tester.ask("27 01") == "7F 27 37"
        clock.sleep(1.0)
        assert tester.ask("27 01").startswith("67 01")
        assert tester.ask("10 02").startswith("50 02")
        assert tester.ask("27 01") == "7F 27 37"

    def test_no_level(self, bench: Make) -> None:
        tester = bench(security_level=0).tester
        assert tester.ask("10 02").startswith("50 02")
        assert tester.ask("27 01") == "7F 27 11"
        assert tester.ask("31 01 FF 00 44 00 01 00 00 00 00 10 00") == "71 01 FF 00 00"


ERASE = "31 01 FF 00 44 00 01 00 00 00 00 10 00"
DOWNLOAD = "34 00 44 00 01 00 00 00 00 00 10"
"""16 bytes to 0x10000."""
BLOCK = "11" * 8


class TestTransfer:
    @pytest.fixture
    def erased(self, bench: Make) -> Bench:
        made = bench()
        made.tester.unlock()
        assert made.tester.ask(ERASE) == "71 01 FF 00 00"
        return made

    def test_a_download(self, erased: Bench) -> None:
        ask = erased.tester.ask
        assert ask(DOWNLOAD) == "74 20 04 02"
        assert ask("36 01" + BLOCK) == "76 01"
        assert ask("36 01" + BLOCK) == "76 01"  # 15.4.1: a repetition is acknowledged, and not written again
        assert ask("36 03" + BLOCK) == "7F 36 73"
        assert ask("37") == "7F 37 24"  # not all of it is there
        assert ask("36 02" + "22" * 9) == "7F 36 71"
        assert ask("36 02" + "22" * 8) == "76 02"
        assert ask("36 03" + BLOCK) == "7F 36 24"  # 15.4.5: it has all
        assert ask("37") == "77"
        assert ask("37") == "7F 37 24"
        assert erased.device.flash.read(BASE, 16) == b"\x11" * 8 + b"\x22" * 8
        assert erased.device.flash.programs == 2

    def test_only_one_at_a_time(self, erased: Bench) -> None:
        """15.2.5: conditionsNotCorrect while one is under way. A session that begins again ends it."""
        ask = erased.tester.ask
        assert ask(DOWNLOAD) == "74 20 04 02"
        assert ask(DOWNLOAD) == "7F 34 22"
        erased.tester.unlock()
        assert ask("36 01" + BLOCK) == "7F 36 24"
        assert ask(DOWNLOAD) == "74 20 04 02"

    @pytest.mark.parametrize("ending", ["exit", "reset", "s3", "power"])
    def test_what_ends_a_download_that_is_not_complete(self, bench: Make, ending: str) -> None:
        """ISO 14229-1 lets the ECU choose; until then 15.2.5 has it refuse the next one."""
        made = bench(download_ends=ending, s3=1.0)
        ask = made.tester.ask

        def asked_anew(by: str, unlock: bool = True) -> None:
            if unlock:
                made.tester.unlock()
            assert ask(DOWNLOAD) == ("74 20 04 02" if by == ending else "7F 34 22"), by

        made.tester.unlock()
        assert ask(ERASE) == "71 01 FF 00 00"
        assert ask(DOWNLOAD) == "74 20 04 02"
        asked_anew("session")
        assert ask("37") == "7F 37 24"
        asked_anew("exit", unlock=False)
        assert ask("11 01") == "51 01"
        made.device.settle()
        asked_anew("reset")
        clock.sleep(1.5)
        asked_anew("s3")
        made.device.supply.off()
        made.device.supply.on()
        made.device.settle()
        made.tester.unlock()
        assert ask(DOWNLOAD) == "74 20 04 02"

    def test_an_ecu_that_refuses_a_block_that_comes_again(self, bench: Make) -> None:
        made = bench(repeats=False)
        made.tester.unlock()
        assert made.tester.ask(ERASE) == "71 01 FF 00 00"
        assert made.tester.ask(DOWNLOAD) == "74 20 04 02"
        assert made.tester.ask("36 01" + BLOCK) == "76 01"
        assert made.tester.ask("36 01" + BLOCK) == "7F 36 73"

    def test_the_first_block_is_number_one(self, erased: Bench) -> None:
        assert erased.tester.ask(DOWNLOAD) == "74 20 04 02"
        assert erased.tester.ask("36 00" + BLOCK) == "7F 36 73"
        assert erased.tester.ask("36 02" + BLOCK) == "7F 36 73"

    def test_the_counter_wraps_to_zero(self, erased: Bench) -> None:
        ask = erased.tester.ask
        assert ask("34 00 44 00 01 00 00 00 00 08 10") == "74 20 04 02"
        for number in range(1, 259):
            assert ask(f"36 {number & 0xFF:02X}" + BLOCK) == f"76 {number & 0xFF:02X}"
        assert ask("37") == "77"

    def test_the_checksum_at_the_end(self, erased: Bench) -> None:
        ask = erased.tester.ask
        assert ask("34 00 44 00 01 00 00 00 00 00 08") == "74 20 04 02"
        assert ask("36 01" + BLOCK) == "76 01"
        assert ask("37 00 00 00 00") == "7F 37 72"
        assert ask("37 00") == "7F 37 13"
        assert ask("37" + zlib.crc32(b"\x11" * 8).to_bytes(4, "big").hex()) == "77"

    @pytest.mark.parametrize(
        "format_",
        ["13 01 00 00 10", "24 00 01 00 00 00 10", "35 00 00 01 00 00 00 00 10", "44 00 01 00 00 00 00 00 10"],
    )
    def test_widths_of_address_and_size(self, erased: Bench, format_: str) -> None:
        """Annex H: the high nibble is the size's, the low one the address's."""
        assert erased.tester.ask(f"34 00 {format_}") == "74 20 04 02"

    def test_what_is_not_erased_is_not_programmed(self, bench: Make) -> None:
        made = bench()
        made.tester.unlock()
        assert made.tester.ask(DOWNLOAD) == "74 20 04 02"
        assert made.tester.ask("36 01" + BLOCK) == "7F 36 72"
        assert made.device.flash.read(BASE, len(OLD)) == OLD

    def test_locked(self, bench: Make) -> None:
        made = bench(locked=True)
        made.tester.unlock()
        assert made.tester.ask(DOWNLOAD) == "7F 34 70"

    def test_reading_back(self, bench: Make) -> None:
        made = bench(part="acme-r88")
        made.device.flash.load(0x20000, bytes(range(256)) * 32)
        tester = made.tester
        tester.unlock()
        ask = tester.ask
        assert ask("23 14 00 02 00 10 04") == "63 10 11 12 13"  # 11.3
        assert ask("23 24 00 02 00 00 0F FF") == "7F 23 31"  # 11.3.5: longer than its answers
        assert ask("35 00 44 00 02 00 00 00 00 10 00") == "75 20 0F FF"
        first = ask("36 01")
        assert first == "76 01 " + (bytes(range(256)) * 16)[:4093].hex(" ").upper()
        assert ask("36 01") == first  # 15.4.1
        assert ask("36 02") == "76 02 FD FE FF"
        assert ask("36 03") == "7F 36 24"
        assert ask("37") == "77"

    def test_a_check_needs_all_that_was_written(self, erased: Bench) -> None:
        ask = erased.tester.ask
        assert ask("31 01 02 02 12 34 56 78") == "71 01 02 02 01"
        assert ask(DOWNLOAD) == "74 20 04 02"
        assert ask("36 01" + BLOCK + BLOCK) == "76 01"
        assert ask("37") == "77"
        crc = zlib.crc32(b"\x11" * 16).to_bytes(4, "big").hex()
        assert ask("31 01 02 02" + crc) == "71 01 02 02 00"
        assert ask("31 01 02 02 44 00 01 00 00 00 00 00 10" + crc) == "71 01 02 02 00"
        assert ask("31 01 02 02 44 00 01 00 00 00 00 00 0F" + crc) == "71 01 02 02 01"
        assert ask("31 01 02 02" + crc[:6]) == "7F 31 31"
        assert ask("31 01 FF 01") == "71 01 FF 01 01"  # no application
        assert ask("31 01 FF 01 00") == "7F 31 13"


class TestStages:
    def test_an_application_whose_programming_was_not_declared_complete_is_not_booted(self, bench: Make) -> None:
        made = bench()
        made.tester.unlock()
        assert made.tester.ask("31 01 FF 00 44 00 01 F0 00 00 00 10 00") == "71 01 FF 00 00"
        assert made.tester.ask("11 01") == "51 01"
        made.device.settle()
        assert made.device.application_version is None
        assert made.tester.ask("22 F1 86") == "62 F1 86 01"
        made.tester.unlock()
        assert made.tester.ask("31 01 FF 01") == "71 01 FF 01 00"
        assert made.tester.ask("11 01") == "51 01"
        made.device.settle()
        assert made.device.application_version == "1.4.2"

    @pytest.mark.parametrize("end", ["default session", "s3"])
    def test_a_bootloader_whose_session_ends_starts_an_application_that_is_whole(self, bench: Make, end: str) -> None:
        made = bench(s3=0.5)
        made.tester.unlock()
        assert made.device.application_version is None
        if end == "s3":
            clock.sleep(1.0)
        else:
            assert made.tester.ask("10 01") == "50 01 00 32 01 F4"
        made.device.settle()
        assert made.device.application_version == "1.4.2"

    def test_what_it_noted_outlives_the_process(self, bench: Make) -> None:
        first = bench()
        first.tester.unlock()
        assert first.tester.ask("31 01 FF 00 44 00 01 F0 00 00 00 10 00") == "71 01 FF 00 00"
        first.device.close()
        first.device = UdsDevice.attach(first.spec, first.wire)
        first.device.settle()
        assert first.device.application_version is None

    def test_a_window_at_start(self, bench: Make) -> None:
        made = bench(boot_window=1.5)
        assert made.device.application_version is None
        assert made.tester.ask("10 02").startswith("50 02")
        assert made.device.application_version is None
        assert made.tester.ask("11 01") == "51 01"
        until = clock.monotonic() + SECONDS
        while made.device.application_version is None:
            assert clock.monotonic() < until
            clock.sleep(0.01)
        assert made.tester.ask("10 02") == "7F 10 12"

    def test_silent_resets(self, bench: Make) -> None:
        made = bench(silent_resets=True)
        made.tester.stack.send(bytes.fromhex("10 02"))
        until = clock.monotonic() + SECONDS
        while made.device.application_version is not None:
            assert clock.monotonic() < until
            clock.sleep(0.01)
        made.device.settle()
        assert made.tester.ask("22 F1 86") == "62 F1 86 02"

    @pytest.mark.parametrize(
        ("table", "request_", "answer"),
        [
            ({"refuse": 0x93}, "10 02", "7F 10 93"),
            ({"preconditions": 3}, "31 01 02 03", "71 01 02 03 03"),
            ({"routine_preconditions": 0xF00A}, "31 01 02 03", "7F 31 31"),
        ],
    )
    def test_variations(self, bench: Make, table: dict[str, Any], request_: str, answer: str) -> None:
        assert bench(**table).tester.ask(request_) == answer

    def test_mute(self, bench: Make) -> None:
        made = bench(mute=True)
        made.tester.stack.send(bytes.fromhex("3E 00"))
        assert made.tester.stack.recv(0.2) is None

    def test_long_work_is_told_ahead_of_p2(self, bench: Make) -> None:
        """8.7: erasing 20 sectors takes 0.24 s, and P2 is 0.05 s; after a 0x78, P2* holds."""
        made = bench(pace=1)
        made.tester.unlock()
        made.tester.pending = 0
        began = clock.monotonic()
        assert made.tester.ask("31 01 FF 00 44 00 01 00 00 00 01 40 00") == "71 01 FF 00 00"
        assert clock.monotonic() - began >= 0.24
        assert made.tester.pending == 1

    @pytest.mark.parametrize(
        ("table", "told"),
        [
            ({"part": "acme"}, "part: 'acme' is none of acme-r77"),
            ({"colour": 1}, "colour: unknown key; there are: "),
            ({"mute": 1}, "mute: 1 is neither true nor false"),
            ({"s3": "5"}, "s3: '5' is not a number"),
            ({"security_level": 2}, "security_level: 2 is not an odd number"),
            ({"secret": "5g"}, "secret: '5g' is not hexadecimal"),
            ({"secret": ""}, "secret: '' is not hexadecimal"),
            ({"download_ends": "never"}, "download_ends: 'never' is none of session, exit"),
            ({"firmware": "none.bin"}, "firmware: "),
        ],
    )
    def test_a_key_that_does_not_hold(self, tmp_path: Path, table: dict[str, Any], told: str) -> None:
        wire = CanWire(uuid.uuid4().hex, pace=0)
        try:
            with pytest.raises(BadDevice, match=told):
                UdsDevice.attach(
                    DeviceSpec("a", address={"request": 1}, settings=table, firmware_folder=tmp_path), wire
                )
        finally:
            wire.close()

    @pytest.mark.parametrize("address", [{}, {"addressing": "normal-fixed"}, {"addressing": "extended", "request": 1}])
    def test_an_address_that_does_not_hold(self, address: dict[str, Any]) -> None:
        wire = CanWire(uuid.uuid4().hex, pace=0)
        try:
            with pytest.raises(BadDevice, match="address"):
                UdsDevice.attach(DeviceSpec("a", address=address), wire)
        finally:
            wire.close()


def udsoncan_script(bus: can.BusABC, fd: bool, segments: list[tuple[int, bytes]]) -> None:
    """Flashing as users of udsoncan and can-isotp write it."""
    notifier = can.Notifier(bus, [], timeout=0.05)
    params = {"tx_padding": 0xCC, "can_fd": fd, "tx_data_length": 64 if fd else 8, "bitrate_switch": fd}
    address = isotp.Address(isotp.AddressingMode.Normal_11bits, txid=0x7E0, rxid=0x7E8)
    stack = isotp.NotifierBasedCanStack(bus, notifier, address=address, params=params)

    def algorithm(level: int, seed: bytes, params: object) -> bytes:
        return bytes(a ^ b for a, b in zip(seed, SECRET, strict=True))

    config = udsoncan.configs.default_client_config.copy()
    config |= {"request_timeout": SECONDS, "security_algo": algorithm, "use_server_timing": False, "p2_timeout": 5}
    with Client(PythonIsoTpConnection(stack), config=config) as client:
        client.change_session(3)
        client.change_session(2)
        client.unlock_security_access(1)
        for start, data in segments:
            client.start_routine(0xFF00, b"\x44" + start.to_bytes(4, "big") + len(data).to_bytes(4, "big"))
        for start, data in segments:
            place = udsoncan.MemoryLocation(start, len(data), address_format=32, memorysize_format=32)
            answer = client.request_download(place)
            assert answer is not None
            size = answer.service_data.max_length - 2
            for number, offset in enumerate(range(0, len(data), size), 1):
                client.transfer_data(number & 0xFF, data[offset : offset + size])
            client.request_transfer_exit()
        whole = b"".join(data for _, data in segments)
        checked = client.start_routine(0x0202, zlib.crc32(whole).to_bytes(4, "big"))
        assert checked is not None
        assert checked.service_data.routine_status_record == b"\x00"
        client.start_routine(0xFF01)
        client.ecu_reset(1)
    notifier.stop()


PROFILE = UdsProfile.model_validate(
    {
        "memory": [{"start": BASE, "size": 0x70000, "erase_unit": 4096, "write_alignment": 8}],
        "security": {"key": "xor", "secret": "5a5a5a5a"},
        "timings": {"latency": 1.0},
    }
)


@pytest.mark.real_time("threads of can-isotp's own")
@pytest.mark.parametrize("served", [False, True], ids=["in process", "served"])
@pytest.mark.parametrize("fd", [False, True], ids=["classic", "fd"])
def test_udsoncan_and_this_flasher_leave_the_same_bytes(tmp_path: Path, fd: bool, served: bool) -> None:
    """300 blocks, beyond the wrap of their counter, and a second segment after a gap."""
    size = 300 * 1024 if not served else 10_000
    program = application.make("1.5.0", "radar", "Acme", size, start=BASE)
    segments = [(BASE, program), (BASE + 0x50000, bytes(range(256)) * 17)]
    held = []
    for theirs in (True, False):
        folder = tmp_path / str(theirs)
        folder.mkdir()
        made = Bench(folder, fd=fd)
        close = serve_can(made.wire, folder / "can.sock") if served else None
        channel = f"unix:{folder / 'can.sock'}" if served else made.wire.channel
        made.tester.close()
        if theirs:
            bus = can.Bus(interface="proxyflash", channel=channel, fd=fd)
            udsoncan_script(bus, fd, segments)
            bus.shutdown()
        else:
            options = {"tx_dl": 64} if fd else {}
            profile = PROFILE.model_validate(PROFILE.model_dump() | {"iso_tp": options})
            with CanBus.open("b", {"interface": "proxyflash", "channel": channel, "fd": fd}) as opened:
                flasher = UdsFlasher.attach(opened, UdsAddress(request=0x7E0), profile)
                programmer = Programmer(flasher, "radar")
                image = FirmwareImage(tuple(Segment(start, data) for start, data in segments), "bin")
                programmer.flash(programmer.plan(image))
                flasher.close()
        made.device.settle()
        assert made.device.application_version == "1.5.0"
        held.append(made.device.flash.read(BASE, 0x70000))
        if close is not None:
            close()
        made.tester = Peer(made.wire.channel)
        made.close()
    assert held[0] == held[1]
    assert held[0][: len(program)] == program
    assert held[0][0x50000 : 0x50000 + 256 * 17] == segments[1][1]
