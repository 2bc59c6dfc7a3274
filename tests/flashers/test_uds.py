"""The UDS flasher, against a server of a page on can-isotp that fails as asked.

Its memory, its P2 and its key are its own: seed 3657 and key C9A9 are the example of ISO 14229-1:2020, 10.4.
"""

from __future__ import annotations

import uuid
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import can
import isotp
import pytest
from proxyflash.emulators.can.wire import CanWire
from proxyflash.flashers.errors import (
    NoResponse,
    OperationFailed,
    PartRefused,
    PartWrongMode,
    ProfileWrong,
    ProtocolError,
    RebootFailed,
    SecurityDenied,
    Unsupported,
    VerifyMismatch,
    WrongPart,
)
from proxyflash.flashers.events import Event, Retrying, RunContext
from proxyflash.flashers.flasher import Capability, ProbeResult, State
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.programmer import FlashResult, Programmer
from proxyflash.flashers.uds import session as uds_session
from proxyflash.flashers.uds.flasher import UdsFlasher
from proxyflash.flashers.uds.profile import UdsAddress, UdsProfile
from proxyflash.transports import clock
from proxyflash.transports.can.bus import CanBus
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import ExitStatus, ProxyflashError
from proxyflash.transports.isotp.user import ClockedLogic
from proxyflash.transports.simulated_clock import SimulatedClock
from udsoncan import AddressAndLengthFormatIdentifier, CommunicationType, DataFormatIdentifier, MemoryLocation
from udsoncan.Request import Request
from udsoncan.services.CommunicationControl import CommunicationControl
from udsoncan.services.ControlDTCSetting import ControlDTCSetting
from udsoncan.services.DiagnosticSessionControl import DiagnosticSessionControl
from udsoncan.services.ECUReset import ECUReset
from udsoncan.services.RequestDownload import RequestDownload
from udsoncan.services.RequestTransferExit import RequestTransferExit
from udsoncan.services.RoutineControl import RoutineControl
from udsoncan.services.SecurityAccess import SecurityAccess
from udsoncan.services.TransferData import TransferData

START, SIZE, UNIT = 0x10000, 0x8000, 0x1000
BLOCK = 128
DATA = bytes(range(1, 251)) * 4
"""1000 bytes: seven blocks of 128 and one of 104."""
TABLE: dict[str, Any] = {
    "memory": [{"start": START, "size": SIZE, "erase_unit": UNIT}],
    "security": {"key": "xor", "secret": "FF FE"},
    "timings": {
        "p2": 0.05, "p2_star": 0.3, "latency": 0.4, "reset_gap": 0.5, "erase": 1.5, "pending": 1.5, "retries": 2, "s3": 30,
    },
}  # fmt: skip

Reply = Sequence[str | float]
"""Responses in hexadecimal, "=" for the response that is due, "forget" before one of an ECU that lost its session,
pauses in seconds between them; nothing: silence."""


class ScriptedEcu:
    """Serves requests as an ECU does, but for those that it has a script for.

    `requests`, `functional`: all that came in. `on`: what to reply to the next requests that begin so, instead. `lose`:
    serve the next request that begins so, and let the response get lost.
    """

    def __init__(self, channel: str) -> None:
        self.memory = bytearray(b"\xff" * SIZE)
        self.session = 1
        self.unlocked = False
        self.version = b"1.4.2"
        self.requests: list[bytes] = []
        self.functional: list[bytes] = []
        self._scripts: list[tuple[bytes, deque[Reply]]] = []
        self._place = 0
        self._counter = 0
        self._ended = False
        self._bus = can.Bus(interface="proxyflash", channel=channel)
        self._patience = 0.0
        address = isotp.Address(isotp.AddressingMode.Normal_11bits, txid=0x7E8, rxid=0x7E0)
        self._stack = ClockedLogic(
            self._rx, self._tx, address, params={"tx_padding": 0xCC, "max_frame_size": 5000, "wait_func": clock.sleep}
        )
        self._thread = clock.Thread(target=self._run, name="scripted ecu")
        self._thread.start()

    def on(self, request: str, *replies: Reply) -> None:
        self._scripts.append((bytes.fromhex(request), deque(replies)))

    def lose(self, request: str) -> None:
        self.on(request, ["lost"])

    def forget(self, request: str, reply: str) -> None:
        """Lose session and unlock when the next request that begins so comes, and refuse it so."""
        self.on(request, ["forget", reply])

    def asked(self, *services: int) -> list[str]:
        """The requests for these services; all but those for identifiers if none is named."""
        wanted = [item for item in self.requests if (item[0] in services if services else item[0] != 0x22)]
        return [item.hex().upper() for item in wanted]

    def close(self) -> None:
        self._ended = True
        self._thread.join()
        self._bus.shutdown()

    def _rx(self, timeout: float) -> isotp.CanMessage | None:
        """One frame for each turn of can-isotp's state machine is waited for."""
        message, self._patience = self._bus.recv(self._patience), 0.0
        if message is None:
            return None
        if message.arbitration_id == 0x7DF:
            self.functional.append(bytes(message.data[1 : 1 + message.data[0]]))
        return isotp.CanMessage(arbitration_id=message.arbitration_id, data=bytes(message.data))

    def _tx(self, message: isotp.CanMessage) -> None:
        self._bus.send(can.Message(arbitration_id=message.arbitration_id, data=message.data, is_extended_id=False))

    def _turn(self, seconds: float) -> None:
        self._patience = seconds
        self._stack.process()

    def _send(self, data: bytes) -> None:
        self._stack.send(data)
        self._turn(0.0)
        while self._stack.transmitting():
            self._turn(0.001)

    def _run(self) -> None:
        while not self._ended:
            self._turn(0.05)
            received = self._stack.recv()
            if received is None:
                continue
            request = bytes(received)
            self.requests.append(request)
            for item in self._replies(request):
                if self._ended:
                    return
                if isinstance(item, float):
                    clock.sleep(item)
                elif item == "forget":
                    self.session, self.unlocked = 1, False
                elif item in ("=", "lost"):
                    response = self.serve(request)
                    if item == "=" and response:
                        self._send(response)
                else:
                    self._send(bytes.fromhex(item))

    def _replies(self, request: bytes) -> Reply:
        for prefix, replies in self._scripts:
            if replies and request.startswith(prefix):
                return replies.popleft()
        return ["="]

    def serve(self, request: bytes) -> bytes:
        service, rest = request[0], request[1:]
        head = bytes([service + 0x40])
        match service:
            case 0x10:
                self.session, self.unlocked = rest[0], False
                return head + rest + bytes.fromhex("0032 001E")  # P2 50 ms, P2* 300 ms
            case 0x11:
                self.session, self.unlocked = 1, False
                return head + rest
            case 0x22:
                known = {0xF186: bytes([self.session]), 0xF189: self.version, 0xF197: b"R77", 0xF18C: b"S-1"}
                value = known.get(int.from_bytes(rest, "big"))
                return head + rest + value if value is not None else b"\x7f\x22\x31"
            case 0x27 if rest[0] == 1:
                return head + bytes.fromhex("01 3657")
            case 0x27:
                self.unlocked = rest[1:] == bytes.fromhex("C9A9")
                return head + b"\x02" if self.unlocked else b"\x7f\x27\x35"
            case 0x28 | 0x85:
                return head + rest[:1]
            case 0x3E:
                return b"" if rest[0] & 0x80 else head + b"\x00"
            case 0x2E:
                return head + rest[:2]
            case 0x31:
                if rest[1:3] == b"\xff\x00":
                    start, size = int.from_bytes(rest[4:8], "big") - START, int.from_bytes(rest[8:12], "big")
                    self.memory[start : start + size] = b"\xff" * size
                return head + rest[:3] + b"\x00"
            case 0x23:
                start, size = int.from_bytes(rest[1:5], "big") - START, int.from_bytes(rest[5:9], "big")
                return head + self.memory[start : start + size]
            case 0x34:
                self._place, self._counter = int.from_bytes(rest[2:6], "big") - START, 0
                return head + b"\x20" + (BLOCK + 2).to_bytes(2, "big")
            case 0x36:
                if rest[0] == (self._counter + 1) & 0xFF:
                    self.memory[self._place : self._place + len(rest) - 1] = rest[1:]
                    self._place += len(rest) - 1
                    self._counter = rest[0]
                elif rest[0] != self._counter:
                    return b"\x7f\x36\x73"
                return head + rest[:1]
            case 0x37:
                return head
        return bytes([0x7F, service, 0x11])


class Rig:
    def __init__(self) -> None:
        self.wire = CanWire(uuid.uuid4().hex, pace=0)
        self.ecu = ScriptedEcu(self.wire.channel)
        self.bus = CanBus.open("b", {"interface": "proxyflash", "channel": self.wire.channel})
        self.flashers: list[UdsFlasher] = []

    def flasher(self, **keys: Any) -> UdsFlasher:
        table = TABLE | keys
        for name in ("timings", "security"):
            table[name] = TABLE[name] | keys.get(name, {})
        profile = UdsProfile.model_validate(table)
        flasher = UdsFlasher.attach(self.bus, UdsAddress(request=0x7E0), profile)
        self.flashers.append(flasher)
        return flasher

    def flash(
        self, data: bytes = DATA, *, attempts: int = 1, told: list[str] | None = None, **keys: Any
    ) -> FlashResult:
        """`told`: gets the codes of the failures after which it was tried again."""

        def hear(event: Event) -> None:
            if isinstance(event, Retrying) and told is not None:
                told.append(event.code)

        programmer = Programmer(self.flasher(**keys), "ecu", RunContext(hear), attempts=attempts)
        return programmer.flash(programmer.plan(FirmwareImage((Segment(START, data),), "bin")))

    def probe(self) -> ProbeResult | None:
        profile = UdsProfile.model_validate(TABLE)
        return UdsFlasher.probe(self.bus, UdsAddress(request=0x7E0), profile, active=False, deadline=Deadline.after(10))

    def close(self) -> None:
        for flasher in self.flashers:
            flasher.close()
        self.bus.close()
        self.ecu.close()
        self.wire.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def payload(request: Request, suffix: bytes = b"") -> str:
    built = request.get_payload()
    assert built is not None
    return (built + suffix).hex().upper()


class TestSequence:
    def test_each_request_is_the_one_that_udsoncan_makes(self, rig: Rig) -> None:
        """Clause 16: pre-programming, programming, post-programming."""
        result = rig.flash(fingerprint={"data": "20 26 11 25"})
        place = MemoryLocation(START, len(DATA), address_format=32, memorysize_format=32)
        alfi = AddressAndLengthFormatIdentifier(memorysize_format=32, address_format=32).get_byte()
        routine = RoutineControl.make_request
        normal = CommunicationType(subnet=0, normal_msg=True)
        assert rig.ecu.asked() == [
            payload(DiagnosticSessionControl.make_request(3)),
            payload(routine(0x0203, RoutineControl.ControlType.startRoutine)),
            payload(ControlDTCSetting.make_request(ControlDTCSetting.SettingType.off)),
            payload(CommunicationControl.make_request(CommunicationControl.ControlType.disableRxAndTx, normal)),
            payload(DiagnosticSessionControl.make_request(2)),
            payload(SecurityAccess.make_request(1, SecurityAccess.Mode.RequestSeed)),
            payload(SecurityAccess.make_request(1, SecurityAccess.Mode.SendKey, bytes.fromhex("C9A9"))),
            "2EF15A20261125",
            payload(routine(0xFF00, 1, alfi + START.to_bytes(4, "big") + UNIT.to_bytes(4, "big"))),
            payload(RequestDownload.make_request(place, DataFormatIdentifier())),
            *(
                payload(TransferData.make_request(number + 1, DATA[number * BLOCK : (number + 1) * BLOCK]))
                for number in range(8)
            ),
            payload(RequestTransferExit.make_request()),
            payload(routine(0x0202, 1, zlib.crc32(DATA).to_bytes(4, "big"))),
            payload(routine(0xFF01, 1)),
            payload(ECUReset.make_request(1)),
            payload(DiagnosticSessionControl.make_request(3)),
            payload(CommunicationControl.make_request(CommunicationControl.ControlType.enableRxAndTx, normal)),
            payload(ControlDTCSetting.make_request(ControlDTCSetting.SettingType.on)),
            payload(DiagnosticSessionControl.make_request(1)),
        ]
        assert rig.ecu.memory[: len(DATA)] == DATA
        assert rig.ecu.functional == []
        assert (result.identity.part, result.identity.serial, result.identity.version) == ("R77", "S-1", "1.4.2")
        assert result.verified == "routine 0x0202 by the part, dependencies by 0xFF01"

    def test_the_profile_says_what_is_left_out(self, rig: Rig) -> None:
        rig.flash(
            security={"key": "none"}, dtc_control=False, communication_control=False,
            routines={"preconditions": "none", "dependencies": "none", "erase": 0xF00A, "check": 0x0301,
                      "erase_parameters": ["address", "size"], "check_parameters": ["alfi", "address", "size", "crc32"]},
            sessions={"default": 0x41, "programming": 0x42, "extended": 0x43}, address_length=3, size_length=2,
            transfer_exit=["crc32"], data_format=0x11,
        )  # fmt: skip
        crc = f"{zlib.crc32(DATA):08X}"
        blocks = [item for item in rig.ecu.asked() if item.startswith("36")]
        assert [item for item in rig.ecu.asked() if not item.startswith("36")] == [
            "1043", "1042", "3101F00A0100001000", "34112301000003E8", "37" + crc, "3101030123" + "01000003E8" + crc,
            "1101", "1043", "1041",
        ]  # fmt: skip
        assert len(blocks) == 8

    def test_routines_whose_results_are_asked_for(self, rig: Rig) -> None:
        """ISO 14229-1:2020, 14.2: requestRoutineResults, 0x03. The ECU answers the start at once, and works on."""
        rig.ecu.on("31 01 FF 00", ["lost", "71 01 FF 00"])
        rig.ecu.on("31 03 FF 00", ["71 03 FF 00 01"], ["71 03 FF 00 01"], ["71 03 FF 00 00"])
        rig.ecu.on("31 01 02 02", ["71 01 02 02 01"])
        rig.ecu.on("31 03 02 02", ["71 03 02 02 01"], ["71 03 02 02 00"])
        rig.ecu.on("31 03 FF 01", ["71 03 FF 01"])
        rig.flash(routines={"poll": True})
        assert rig.ecu.memory[: len(DATA)] == DATA
        asked = [item[:8] for item in rig.ecu.asked(0x31)]
        assert asked == [
            "31010203",
            "3101FF00",
            *["3103FF00"] * 3,
            "31010202",
            *["31030202"] * 2,
            "3101FF01",
            "3103FF01",
        ]

    @pytest.mark.parametrize(
        ("status", "kind", "told"),
        [("02", OperationFailed, "erasing .* failed .*02"), ("01", OperationFailed, "still runs after 1.5 s")],
    )
    def test_a_routine_that_ends_badly_or_not_at_all(
        self, rig: Rig, status: str, kind: type[ProxyflashError], told: str
    ) -> None:
        rig.ecu.on("31 03 FF 00", *[[f"71 03 FF 00 {status}"]] * 99)
        with pytest.raises(kind, match=told):
            rig.flash(routines={"poll": True})
        assert rig.ecu.asked(0x34) == []

    def test_a_part_that_is_in_its_bootloader_needs_no_preparation(self, rig: Rig) -> None:
        rig.ecu.session = 2
        rig.flash()
        assert rig.ecu.asked()[:3] == ["1002", "2701", "2702C9A9"]

    def test_a_seed_of_zeros_asks_for_no_key(self, rig: Rig) -> None:
        rig.ecu.on("27 01", ["67 01 00 00"])
        rig.flash()
        assert rig.ecu.asked(0x27) == ["2701"]

    def test_what_the_ecu_lacks_of_the_courtesies_is_left_out(self, rig: Rig) -> None:
        for request in ("10 03", "31 01 02 03", "85 02", "28 03 01", "28 00 01", "85 01"):
            rig.ecu.on(request, [f"7F {request[:2]} 11"], [f"7F {request[:2]} 7F"])
        rig.flash()
        assert rig.ecu.memory[: len(DATA)] == DATA

    def test_nonsense_to_a_courtesy_is_not_heeded(self, rig: Rig) -> None:
        rig.ecu.on("85 02", ["C5 01"])
        rig.flash()
        assert rig.ecu.memory[: len(DATA)] == DATA

    def test_the_counter_wraps_to_zero(self, rig: Rig) -> None:
        data = DATA * 33  # 33,000 bytes: 258 blocks
        rig.ecu.memory.extend(b"\xff" * SIZE)
        rig.ecu.lose("36 FF")
        rig.ecu.lose("36 00")
        rig.flash(data, memory=[{"start": START, "size": 2 * SIZE, "erase_unit": UNIT}])
        counters = [int(item[2:4], 16) for item in rig.ecu.asked(0x36)]
        assert counters == [*range(1, 256), 255, 0, 0, 1, 2]
        assert rig.ecu.memory[: len(data)] == data

    @pytest.mark.parametrize(
        ("told", "sizes"),
        [
            ("10 12", [16] * 62 + [8]),  # 18 bytes with service and counter
            ("40 00 00 01 02", [256] * 3 + [232]),
            ("20 10 00", [1000]),
        ],
    )
    def test_blocks_are_as_long_as_the_ecu_says(self, rig: Rig, told: str, sizes: list[int]) -> None:
        rig.ecu.on("34", [f"74 {told}"])
        rig.flash()
        assert [len(item) // 2 - 2 for item in rig.ecu.asked(0x36)] == sizes

    def test_blocks_end_on_the_write_alignment(self, rig: Rig) -> None:
        rig.ecu.on("34", ["74 10 2A"])  # 40 bytes of data
        memory = [{"start": START, "size": SIZE, "erase_unit": UNIT, "write_alignment": 32}]
        rig.flash(DATA[:100], memory=memory)
        assert [len(item) // 2 - 2 for item in rig.ecu.asked(0x36)] == [32, 32, 32, 32]
        assert rig.ecu.memory[:128] == DATA[:100] + b"\xff" * 28

    def test_no_block_is_longer_than_the_profile_allows(self, rig: Rig) -> None:
        rig.ecu.on("34", ["74 20 FF FF"])
        rig.flash(DATA * 8)
        assert [len(item) // 2 for item in rig.ecu.asked(0x36)] == [4095, 8000 - 4093 + 2]

    def test_segments_with_gaps_are_downloaded_each(self, rig: Rig) -> None:
        segments = (
            Segment(START, b"\x01" * 7),
            Segment(START + 0x100, b"\x02" * 130),
            Segment(START + 0x1FFF, b"\x03"),
        )
        programmer = Programmer(rig.flasher(), "ecu")
        programmer.flash(programmer.plan(FirmwareImage(segments, "hex")))
        assert [item[6:] for item in rig.ecu.asked(0x34)] == [
            "0001000000000007", "0001010000000082", "00011FFF00000001",
        ]  # fmt: skip
        assert [item[:4] for item in rig.ecu.asked(0x36, 0x37)] == ["3601", "37", "3601", "3602", "37", "3601", "37"]
        erased = [item[8:] for item in rig.ecu.asked(0x31) if item.startswith("3101FF00")]
        assert erased == ["440001000000001000", "440001100000001000"]
        checked = b"\x01" * 7 + b"\x02" * 130 + b"\x03"
        assert f"31010202{zlib.crc32(checked):08X}" in rig.ecu.asked(0x31)

    def test_one_call_erases_units_that_lie_side_by_side(self, rig: Rig) -> None:
        segments = (Segment(START, b"\x01" * 0x1800), Segment(START + 0x4000, b"\x02" * 0x1001))
        programmer = Programmer(rig.flasher(routines={"merge_erase": True}), "ecu")
        programmer.flash(programmer.plan(FirmwareImage(segments, "hex")))
        erased = [item[10:] for item in rig.ecu.asked(0x31) if item.startswith("3101FF00")]
        assert erased == ["0001000000002000", "0001400000002000"]


class TestLoss:
    @pytest.mark.parametrize(
        "request_",
        ["10 03", "31 01 02 03", "10 02", "27 01", "27 02", "2E", "31 01 FF 00", "34", "36 01", "36 03", "36 08", "37",
         "31 01 02 02", "31 01 FF 01", "11 01", "10 01", "22 F1 86", "22 F1 89"],
    )  # fmt: skip
    @pytest.mark.parametrize("what", ["request", "response"])
    def test_a_lost_request_or_response_is_made_up_for(self, rig: Rig, request_: str, what: str) -> None:
        if what == "request":
            rig.ecu.on(request_, [])
        else:
            rig.ecu.lose(request_)
        rig.flash(fingerprint={"data": "01"}, timings={"reset_gap": 10.0})
        assert rig.ecu.memory[: len(DATA)] == DATA
        assert rig.ecu.session == 1

    def test_a_block_that_was_perhaps_received_begins_the_download_anew(self, rig: Rig) -> None:
        """An ECU that does not acknowledge repetitions (15.4.1) has the block, or a part of it: nobody can tell."""
        rig.ecu.lose("36 04")
        rig.ecu.on("36 04", ["7F 36 73"])
        rig.flash(attempts=2)
        assert rig.ecu.memory[: len(DATA)] == DATA
        erases = [item for item in rig.ecu.asked(0x31) if item.startswith("3101FF00")]
        assert (len(erases), len(rig.ecu.asked(0x34))) == (2, 2)

    def test_a_transfer_exit_that_is_refused_the_second_time_was_carried_out(self, rig: Rig) -> None:
        rig.ecu.lose("37")
        rig.ecu.on("37", ["7F 37 24"])
        rig.flash()
        assert rig.ecu.memory[: len(DATA)] == DATA

    @pytest.mark.parametrize("nrc", ["7F", "7E", "33", "34", "24", "71", "11", "31"])
    def test_an_ecu_that_lost_its_session_amid_a_transfer(self, rig: Rig, nrc: str) -> None:
        """ISO 14229-2, S3; a reset; a driver of the ECU's that gave up: it forgot session and unlock, and is asked again."""
        told: list[str] = []
        rig.ecu.forget("36 03", f"7F 36 {nrc}")
        rig.flash(attempts=2, told=told)
        assert rig.ecu.memory[: len(DATA)] == DATA
        assert len(told) == 1
        assert len(rig.ecu.asked(0x34)) == 2

    @pytest.mark.parametrize("request_", ["31 01 FF 00", "34", "36 01", "37", "31 01 02 02", "31 01 FF 01", "2E"])
    def test_one_that_lost_it_before_any_request(self, rig: Rig, request_: str) -> None:
        rig.ecu.forget(request_, f"7F {request_[:2]} 7F")
        rig.flash(attempts=2, fingerprint={"data": "01"})
        assert rig.ecu.memory[: len(DATA)] == DATA

    def test_one_that_lost_it_before_its_check_is_checked_though_it_holds_all(self, rig: Rig) -> None:
        told: list[str] = []
        rig.ecu.forget("31 01 02 02", "7F 31 7F")
        result = rig.flash(attempts=2, told=told, read="memory")
        assert (len(told), result.written_bytes) == (1, len(DATA))
        routines = [item[4:8] for item in rig.ecu.asked(0x31)]
        assert routines == ["0203", "FF00", "0202", "0203", "0202", "FF01"]

    @pytest.mark.parametrize(
        ("request_", "nrc", "erases"),
        [
            ("34", 0x31, 1), ("36 01", 0x31, 1), ("36 03", 0x93, 1), ("34", 0x13, 1), ("31 01 02 02", 0x31, 1),
            ("34", 0x7F, 1), ("34", 0x33, 2), ("36 01", 0x72, 3),
        ],
    )  # fmt: skip
    def test_what_is_refused_for_good_erases_nothing_more(self, rig: Rig, request_: str, nrc: int, erases: int) -> None:
        """A service that the programming session has not; a level that does not unlock it; but a program that failed
        may do better."""
        rig.ecu.on(request_, *[[f"7F {request_[:2]} {nrc:02X}"]] * 9)
        with pytest.raises(ProxyflashError, match=f"NRC 0x{nrc:02X}"):
            rig.flash(attempts=3)
        assert len([item for item in rig.ecu.asked(0x31) if item.startswith("3101FF00")]) == erases

    @pytest.mark.parametrize(
        ("request_", "nrc"), [("34", 0x31), ("36 01", 0x31), ("36 02", 0x7F), ("36 02", 0x33), ("31 01 02 02", 0x31)]
    )
    def test_nor_where_the_ecu_does_not_tell_its_session(self, rig: Rig, request_: str, nrc: int) -> None:
        """10.4.2: a seed of zeros says that it is unlocked, and so in the session that it was unlocked in."""
        rig.ecu.on("22 F1 86", *[["7F 22 31"]] * 99)
        rig.ecu.on("27 01", ["="], *[["67 01 00 00"]] * 9)
        rig.ecu.on(request_, *[[f"7F {request_[:2]} {nrc:02X}"]] * 9)
        with pytest.raises(ProxyflashError, match=f"NRC 0x{nrc:02X}"):
            rig.flash(attempts=3)
        assert len([item for item in rig.ecu.asked(0x31) if item.startswith("3101FF00")]) == 1

    @pytest.mark.parametrize("key", ["xor", "none"])
    @pytest.mark.parametrize("nrc", ["7F", "33", "31"])
    def test_a_loss_is_seen_where_the_ecu_does_not_tell_its_session(self, rig: Rig, nrc: str, key: str) -> None:
        told: list[str] = []
        rig.ecu.on("22 F1 86", *[["7F 22 31"]] * 99)
        rig.ecu.forget("36 03", f"7F 36 {nrc}")
        rig.flash(attempts=2, told=told, security={"key": key})
        assert rig.ecu.memory[: len(DATA)] == DATA
        assert len(told) == 1

    @pytest.mark.parametrize(("refusals", "ended_by"), [(1, "37"), (2, "1101"), (3, "")])
    @pytest.mark.parametrize("nrc", ["22", "24", "70"])
    def test_a_download_that_is_open_is_ended_as_the_ecu_lets_it(
        self, rig: Rig, refusals: int, ended_by: str, nrc: str
    ) -> None:
        rig.ecu.on("34", *[[f"7F 34 {nrc}"]] * refusals)
        began = clock.monotonic()
        rig.flash(timings={"s3": 4})
        asked = rig.ecu.asked()
        assert rig.ecu.memory[: len(DATA)] == DATA
        last = max(index for index, item in enumerate(asked) if item.startswith("34"))
        assert not ended_by or ended_by in asked[:last]
        assert (clock.monotonic() - began > 4) == (not ended_by)

    def test_an_ecu_that_was_reset_may_want_to_be_erased_again(self, rig: Rig) -> None:
        rig.ecu.on("34", ["7F 34 22"], ["7F 34 22"], ["7F 34 31"])
        rig.flash(attempts=2)
        assert rig.ecu.memory[: len(DATA)] == DATA

    def test_one_that_holds_a_download_open_for_ever(self, rig: Rig) -> None:
        rig.ecu.on("34", *[["7F 34 22"]] * 99)
        with pytest.raises(PartRefused, match="0x22") as raised:
            rig.flash(attempts=3, timings={"s3": 4})
        assert "cut its supply" in raised.value.remedy
        assert len([item for item in rig.ecu.asked(0x31) if item.startswith("3101FF00")]) == 2

    def test_the_same_refusals_of_a_first_request_are_failures(self, rig: Rig) -> None:
        rig.ecu.on("36 04", ["7F 36 73"])
        with pytest.raises(OperationFailed, match="wrongBlockSequenceCounter"):
            rig.flash()

    def test_a_download_that_can_not_be_asked_for_twice_begins_anew(self, rig: Rig) -> None:
        """15.2.5: conditionsNotCorrect while the first one is under way, which RequestTransferExit ends."""
        rig.ecu.lose("34")
        rig.ecu.on("34", ["7F 34 22"])
        rig.flash()
        assert rig.ecu.memory[: len(DATA)] == DATA
        assert [item[:2] for item in rig.ecu.asked(0x34, 0x37)] == ["34", "34", "37", "34", "37"]

    def test_retries_are_bounded(self, rig: Rig) -> None:
        rig.ecu.on("36 02", *[[]] * 20)
        with pytest.raises(NoResponse, match="TransferData"):
            rig.flash()
        assert [item[:4] for item in rig.ecu.asked(0x36)] == ["3601", "3602", "3602", "3602"]

    def test_a_late_response_is_not_taken_for_the_next_one(self, rig: Rig) -> None:
        """The first erase is answered twice, the second one is refused: that must not get lost."""
        rig.ecu.on("31 01 FF 00", [0.6, "71 01 FF 00 00"], ["71 01 FF 00 00"], ["7F 31 72"])
        with pytest.raises(OperationFailed, match="generalProgrammingFailure"):
            rig.flash(DATA * 5)

    def test_a_late_response_to_a_block(self, rig: Rig) -> None:
        rig.ecu.lose("36 02")
        rig.ecu.on("36 02", ["=", "="])
        rig.flash()
        assert rig.ecu.memory[: len(DATA)] == DATA

    def test_responses_to_others_are_passed_over(self, rig: Rig) -> None:
        rig.ecu.on("36 02", ["76 01", "7F 22 31", "62 F1 90 00", "7F 36", "51 01", "="])
        rig.ecu.on("31 01 FF 00", ["7E 00", "7F 31 78", "71 01 FF 01 00", "="])
        rig.flash()
        assert rig.ecu.memory[: len(DATA)] == DATA
        assert len(rig.ecu.asked(0x36)) == 8

    @pytest.mark.parametrize("request_", ["10 02", "27 01", "27 02", "11 01", "10 01", "22 F1 86"])
    def test_a_response_to_the_request_before_and_none_to_this(self, rig: Rig, request_: str) -> None:
        rig.ecu.on(request_, ["71 01 FF 01 00"])
        rig.flash()
        assert rig.ecu.memory[: len(DATA)] == DATA
        assert rig.ecu.session == 1

    def test_nothing_but_responses_to_others(self, rig: Rig) -> None:
        rig.ecu.on("36 01", *[["76 07"]] * 3)
        with pytest.raises(ProtocolError, match="76 07, which is not an answer to it"):
            rig.flash()

    def test_nothing_but_answers_that_come_late(self, rig: Rig) -> None:
        """They are no sign of another tester or protocol."""
        rig.ecu.on("36 02", *[["76 01"]] * 3)
        with pytest.raises(NoResponse, match="answers to earlier requests came late") as caught:
            rig.flash()
        assert "timings.latency" in caught.value.remedy

    def test_a_flood_of_responses_to_others(self, rig: Rig) -> None:
        rig.ecu.on("31 01 FF 00", *[["7F 31 78", *["7E 00"] * 40]] * 3)
        with pytest.raises(ProtocolError, match="7E 00, which is not an answer to it"):
            rig.flash()


class TestPending:
    def test_a_chain_is_waited_for(self, rig: Rig) -> None:
        rig.ecu.on("31 01 FF 00", ["7F 31 78", 0.2, "7F 31 78", 0.2, "7F 31 78", 0.2, "71 01 FF 00 00"])
        rig.ecu.on("36 01", ["7F 36 78", "7F 36 78", "="])
        rig.flash()
        assert len(rig.ecu.asked(0x31)) == 4
        assert len(rig.ecu.asked(0x36)) == 8

    def test_each_step_may_be_pending(self, rig: Rig) -> None:
        replies = {
            "10 03": "50 03 00 32 00 1E", "31 01 02 03": "71 01 02 03 00", "85 02": "C5 02", "28 03": "68 03",
            "27 01": "67 01 36 57", "34": "74 20 00 82", "37": "77", "31 01 02 02": "71 01 02 02 00",
            "31 01 FF 01": "71 01 FF 01 00",
        }  # fmt: skip
        for request, answer in replies.items():
            rig.ecu.on(request, [f"7F {request[:2]} 78", answer])
        rig.flash()

    def test_for_ever_is_too_long(self, rig: Rig) -> None:
        rig.ecu.on("31 01 FF 00", [item for _ in range(600) for item in ("7F 31 78", 0.1)])
        began = clock.monotonic()
        with pytest.raises(OperationFailed, match=r"kept RoutineControl .* pending \(NRC 0x78, .* times\)") as raised:
            rig.flash(timings={"erase": 0.5})
        assert clock.monotonic() - began < 40
        assert "timings.erase" in raised.value.remedy

    def test_then_silence(self, rig: Rig) -> None:
        rig.ecu.on("31 01 FF 00", *[["7F 31 78"]] * 3)
        with pytest.raises(NoResponse, match=r"works on RoutineControl .* then fell silent for 0\.3 s"):
            rig.flash()

    def test_busy_is_asked_again(self, rig: Rig) -> None:
        rig.ecu.on("34", ["7F 34 21"], ["7F 34 21"])
        rig.flash()
        assert len(rig.ecu.asked(0x34)) == 3

    def test_busy_for_ever(self, rig: Rig) -> None:
        rig.ecu.on("34", *[["7F 34 21"]] * 200)
        with pytest.raises(PartRefused, match="busyRepeatRequest"):
            rig.flash()

    def test_the_longer_times_hold(self, rig: Rig) -> None:
        """10.2.3: P2 in ms, P2* in 10 ms. An ECU that announces longer ones than the profile gets them."""
        rig.ecu.on("10 02", ["50 02 03 E8 00 C8"])  # 1 s, 2 s
        rig.ecu.session = 2
        rig.ecu.on("34", [0.8, "74 20 00 82"])
        rig.flash()
        assert len(rig.ecu.asked(0x34)) == 1


BEFORE = [
    ("10 02", 0x22, PartRefused),
    ("10 02", 0x93, PartRefused),
    ("10 02", 0x12, PartWrongMode),
    ("10 02", 0x7E, PartWrongMode),
    ("10 02", 0x33, SecurityDenied),
    ("31 01 02 03", 0x22, PartRefused),
    ("31 01 02 03", 0x92, PartRefused),
    ("27 02", 0x35, SecurityDenied),
    ("27 02", 0x36, SecurityDenied),
    ("27 02", 0x13, SecurityDenied),
    ("27 02", 0x31, SecurityDenied),
    ("2E", 0x33, SecurityDenied),
    ("31 01 FF 00", 0x31, PartRefused),
    ("31 01 FF 00", 0x33, SecurityDenied),
    ("31 01 FF 00", 0x22, PartRefused),
]
AFTER = [
    ("34", 0x31, PartRefused),
    ("34", 0x33, SecurityDenied),
    ("36 01", 0x72, OperationFailed),
    ("36 01", 0x71, OperationFailed),
    ("36 01", 0x93, PartRefused),
    ("37", 0x72, OperationFailed),
    ("37", 0x24, PartRefused),
    ("31 01 02 02", 0x72, VerifyMismatch),
    ("31 01 02 02", 0x22, VerifyMismatch),
    ("31 01 02 02", 0x31, PartRefused),
    ("31 01 02 02", 0x93, PartRefused),
    ("31 01 02 02", 0x33, SecurityDenied),
    ("31 01 FF 01", 0x10, VerifyMismatch),
    ("11 01", 0x22, PartRefused),
]


class TestRefusals:
    @pytest.mark.parametrize(("request_", "nrc", "error"), BEFORE)
    def test_before_the_first_erase_nothing_is_changed(
        self, rig: Rig, request_: str, nrc: int, error: type[ProxyflashError]
    ) -> None:
        rig.ecu.memory[:] = b"\x5a" * SIZE
        rig.ecu.on(request_, [f"7F {request_[:2]} {nrc:02X}"])
        with pytest.raises(error, match=f"NRC 0x{nrc:02X}") as raised:
            rig.flash(fingerprint={"data": "01"})
        assert type(raised.value) is error
        assert raised.value.component == "ecu"
        assert rig.ecu.memory == b"\x5a" * SIZE
        if request_ == "2E" or request_.startswith("31 01 FF"):
            return
        # The part works as before: out of its sessions, and its bus too, if that had been silenced.
        assert rig.ecu.session == 1
        if "280301" in rig.ecu.asked():
            assert rig.ecu.asked().index("280001") > rig.ecu.asked().index("280301")

    @pytest.mark.parametrize(
        ("replies", "changed"), [(["7F 31 22"], False), (["71 01 03 04 01"], True), (["="], True), ([], True)]
    )
    def test_a_step_of_the_maker_s_may_erase(self, rig: Rig, replies: Reply, changed: bool) -> None:
        """So once it was sent and not refused, whatever fails then leaves a part that may be without its application."""
        rig.ecu.on("31 01 03 04", *[replies] * 9)
        rig.ecu.on("34", *[["7F 34 31"]] * 9)
        with pytest.raises(ProxyflashError) as raised:
            rig.flash(
                order=["programming", "key", "wipe", "download", "check"], steps=[{"name": "wipe", "routine": 0x0304}],
                routines={"erase": "none"}, fingerprint=None,
            )  # fmt: skip
        left = raised.value.left
        assert left is not None
        assert left.touched == changed
        assert left.boots is None
        assert (raised.value.exit_status is ExitStatus.RESUMABLE) == changed
        assert (rig.ecu.session == 1) == (not changed)

    @pytest.mark.parametrize(("request_", "nrc", "error"), AFTER)
    def test_after_it(self, rig: Rig, request_: str, nrc: int, error: type[ProxyflashError]) -> None:
        rig.ecu.on(request_, [f"7F {request_[:2]} {nrc:02X}"])
        with pytest.raises(error, match=f"NRC 0x{nrc:02X}") as raised:
            rig.flash()
        assert type(raised.value) is error

    @pytest.mark.parametrize(
        ("request_", "answer", "error", "told"),
        [
            ("31 01 02 03", "71 01 02 03 05", PartRefused, "may not be programmed now .*: 05"),
            ("31 01 FF 00", "71 01 FF 00 01", OperationFailed, "erasing 0x00010000..0x00010FFF failed"),
            ("31 01 02 02", "71 01 02 02 01", VerifyMismatch, "routine 0x0202 .* does not hold the image"),
            ("31 01 FF 01", "71 01 FF 01 10 01", VerifyMismatch, "routine 0xFF01"),
        ],
    )
    def test_a_status_record_that_says_no(
        self, rig: Rig, request_: str, answer: str, error: type[ProxyflashError], told: str
    ) -> None:
        rig.ecu.on(request_, [answer])
        with pytest.raises(error, match=told):
            rig.flash()

    def test_a_response_without_a_status_record_says_yes(self, rig: Rig) -> None:
        for request in ("31 01 02 03", "31 01 FF 00", "31 01 02 02", "31 01 FF 01"):
            rig.ecu.on(request, ["71" + request[2:]])
        rig.flash()

    def test_another_status_may_mean_yes(self, rig: Rig) -> None:
        for request in ("31 01 02 03", "31 01 FF 00", "31 01 02 02", "31 01 FF 01"):
            rig.ecu.on(request, ["71" + request[2:] + "10"])
        rig.flash(routines={"passed": 0x10})

    @pytest.mark.parametrize(
        "answer", ["74", "74 00", "74 20", "74 20 00", "74 20 00 00", "74 20 00 02", "74 F0 01 02"]
    )
    def test_no_usable_block_length(self, rig: Rig, answer: str) -> None:
        rig.ecu.on("34", [answer])
        with pytest.raises(ProtocolError, match="maxNumberOfBlockLength"):
            rig.flash()

    def test_a_failed_check_is_a_verdict(self, rig: Rig) -> None:
        """Each block was acknowledged when it was sent first: nothing is erased and downloaded again for the same verdict."""
        rig.ecu.on("31 01 02 02", ["71 01 02 02 01"])
        with pytest.raises(VerifyMismatch):
            rig.flash(attempts=3)
        assert len(rig.ecu.asked(0x34)) == 1

    @pytest.mark.parametrize(
        ("nrc", "keys"), [(0x10, 1), (0x22, 1), (0x25, 1), (0x26, 1), (0x35, 1), (0x70, 1), (0x72, 1), (0x24, 3)]
    )
    def test_a_key_that_was_refused_is_not_sent_again(self, rig: Rig, nrc: int, keys: int) -> None:
        """10.4: an ECU counts the keys, and locks itself after some. Only requestSequenceError says that it took none."""
        rig.ecu.on("27 02", *[[f"7F 27 {nrc:02X}"]] * 9)
        with pytest.raises(ProxyflashError, match=f"NRC 0x{nrc:02X}"):
            rig.flash(attempts=3)
        assert rig.ecu.asked(0x27).count("2702C9A9") == keys

    def test_a_waiting_time_after_a_start_is_waited_out(self, rig: Rig) -> None:
        """10.4: requiredTimeDelayNotExpired. Many ECUs have 10 s after each start."""
        rig.ecu.on("27 01", *[["7F 27 37"]] * 20)
        rig.flash()
        assert rig.ecu.asked(0x27) == ["2701"] * 21 + ["2702C9A9"]
        assert rig.ecu.asked(0x11) == ["1101"]

    def test_one_that_is_longer_is_reported_with_the_key_of_the_profile(self, rig: Rig) -> None:
        rig.ecu.on("27 01", *[["7F 27 37"]] * 200)
        with pytest.raises(SecurityDenied, match="NRC 0x37") as raised:
            rig.flash(attempts=3)
        assert "security.wait" in raised.value.remedy

    def test_a_waiting_time_is_waited_out_if_the_profile_says_so(self, rig: Rig) -> None:
        rig.ecu.on("27 01", ["7F 27 37"], ["7F 27 37"])
        rig.flash(security={"wait": 20})
        assert rig.ecu.asked(0x27) == ["2701", "2701", "2701", "2702C9A9"]

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            ("raise RuntimeError('no dongle')", "RuntimeError: no dongle"),
            ("raise SystemExit(0)", "SystemExit: 0"),
            ("return 'C9A9'", "returned no bytes, but str"),
            ("return 2", "returned no bytes, but int"),
            ("return None", "returned no bytes, but NoneType"),
        ],
    )
    def test_a_key_function_that_fails(
        self, rig: Rig, body: str, told: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path_factory.mktemp("keys")
        name = f"keys_{uuid.uuid4().hex}"
        (folder / f"{name}.py").write_text(f"def key(seed, secret, level):\n    {body}\n")
        monkeypatch.syspath_prepend(folder)
        with pytest.raises(ProfileWrong, match=told):
            rig.flash(security={"key": f"{name}:key"})
        assert rig.ecu.asked(0x34) == []

    def test_another_part(self, rig: Rig) -> None:
        with pytest.raises(WrongPart, match="for R88, but the part says that it is R77"):
            rig.flash(part="R88")
        assert rig.ecu.session == 1


class TestSilence:
    def test_a_part_that_has_answered_is_not_absent(self, rig: Rig) -> None:
        """On a full bus, or a busy host, a seed may come too late: it is tried again as a garbled answer is."""
        rig.ecu.on("27 01", *[[]] * 4)
        told: list[str] = []
        rig.flash(attempts=2, told=told)
        assert told == ["E-PART-MUTE"]
        assert rig.ecu.memory[: len(DATA)] == DATA

    def test_a_version_that_comes_late_is_not_one_that_is_not_told(self, rig: Rig) -> None:
        rig.ecu.on("22 F1 89", [1.2, "62 F1 89 31 2E 34 2E 32"])
        found = rig.probe()
        assert found is not None
        assert (found.state, found.identity.version) == (State.RUNNING, "1.4.2")

    @pytest.mark.parametrize(("reply", "state"), [([], State.RUNNING), (["7F 22 31"], State.BOOTLOADER)])
    def test_silence_about_a_version_is_no_refusal(self, rig: Rig, reply: Reply, state: State) -> None:
        """Only a bootloader refuses to tell it: requestOutOfRange (11.2.5)."""
        for identifier in ("22 F1 89", "22 F1 95"):
            rig.ecu.on(identifier, *[reply] * 9)
        found = rig.probe()
        assert found is not None
        assert found.state is state

    def test_a_part_that_must_tell_who_it_is_and_does_not_answer_is_not_programmed(self, rig: Rig) -> None:
        for identifier in ("22 F1 97", "22 F1 91"):
            rig.ecu.on(identifier, *[[]] * 99)
        with pytest.raises(NoResponse, match="whether it is R77"):
            rig.flash(part="R77")
        assert rig.ecu.asked(0x10) == []

    def test_a_mute_part(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not tried again; that it is asked for longer than an ECU may be deaf is tried elsewhere."""
        monkeypatch.setattr(uds_session, "DEAF_SECONDS", 0)
        monkeypatch.setattr(uds_session, "FIRST_SECONDS", 0)
        rig.ecu.on("", *[[]] * 100)
        with pytest.raises(NoResponse):
            rig.flash(attempts=3)
        assert len(rig.ecu.requests) == 2

    def test_it_does_not_come_into_its_programming_session(self, rig: Rig) -> None:
        rig.ecu.on("10 02", *[[]] * 100)
        with pytest.raises(PartWrongMode, match=r"programming session within 0\.5 s"):
            rig.flash()

    def test_a_part_that_refuses_to_be_programmed_is_not_reset(self, rig: Rig) -> None:
        """It may be at work: an engine that runs, a vehicle that moves."""
        rig.ecu.on("10 02", ["7F 10 22"])
        with pytest.raises(PartRefused):
            rig.flash()
        assert rig.ecu.asked(0x11) == []
        assert rig.ecu.asked()[-3:] == ["280001", "8501", "1001"]

    def test_an_application_that_agreed_and_stayed(self, rig: Rig) -> None:
        rig.ecu.on("10 02", *[["50 02 00 32 00 1E"]] * 100)
        with pytest.raises(PartWrongMode):
            rig.flash()

    def test_a_promise_that_the_reset_swallows(self, rig: Rig) -> None:
        """0x78, then a reset: P2* is as long as the gap, and the bootloader is up, and asked again."""
        rig.ecu.on("10 02", ["7F 10 78"])
        rig.flash(timings={"p2_star": 0.5, "reset_gap": 0.5})

    def test_after_the_reset(self, rig: Rig) -> None:
        rig.ecu.lose("11 01")
        rig.ecu.on("22 F1 86", ["62 F1 86 01"], ["62 F1 86 01"], ["62 F1 86 02"], *[[]] * 100)
        with pytest.raises(RebootFailed, match=r"did not answer within 0\.5 s"):
            rig.flash()

    def test_it_comes_back_to_its_programming_session(self, rig: Rig) -> None:
        rig.ecu.on("11 01", ["51 01"])
        with pytest.raises(RebootFailed, match="the ECU is in its programming session"):
            rig.flash()

    def test_a_part_that_does_not_tell_its_session(self, rig: Rig) -> None:
        rig.ecu.on("22 F1 86", *[["7F 22 31"]] * 100)
        rig.flash()
        assert rig.ecu.session == 1


class TestFunctional:
    def test_what_goes_to_all(self, rig: Rig) -> None:
        """ISO 14229-3: all are kept quiet, and kept so, until the end."""
        flasher = rig.flasher(functional=True, timings={"s3": 0.4, "latency": 0.05})
        flasher.connect()
        until = clock.monotonic() + 20
        while b"\x3e\x80" not in rig.ecu.functional:
            assert clock.monotonic() < until
            clock.sleep(0.02)
        flasher.start_application()
        said = [item.hex() for item in rig.ecu.functional]
        assert [item for item in said if item != "3e80"] == ["1003", "8502", "280301", "1003", "280001", "8501", "1001"]
        # The ECU itself does not answer to all here, so it is asked itself too.
        assert rig.ecu.asked()[:5] == ["1003", "31010203", "8502", "280301", "1002"]

    def test_without_an_id_for_all(self, rig: Rig) -> None:
        profile = UdsProfile.model_validate(TABLE | {"functional": True})
        with pytest.raises(ProfileWrong, match="functional id"):
            UdsFlasher.attach(rig.bus, UdsAddress(request=0x18DA00F1, response=0x18DAF100), profile)


class TestSession:
    def test_it_is_kept_while_nothing_is_asked(self, rig: Rig) -> None:
        flasher = rig.flasher(timings={"s3": 0.2})
        flasher.connect()
        until = clock.monotonic() + 20
        while rig.ecu.asked(0x3E).count("3E80") < 3:
            assert clock.monotonic() < until
            clock.sleep(0.02)
        flasher.start_application()
        count = len(rig.ecu.asked(0x3E))
        clock.sleep(0.4)
        assert len(rig.ecu.asked(0x3E)) == count

    def test_one_whose_key_was_refused_is_not_kept(self, rig: Rig, simulated_clock: SimulatedClock) -> None:
        rig.ecu.session = 2
        rig.ecu.on("27 02", ["7F 27 35"])
        with pytest.raises(SecurityDenied):
            rig.flasher().connect()
        assert "uds tester present" not in [thread.name for thread in simulated_clock.threads()]

    def test_no_thread_is_left(self, rig: Rig, simulated_clock: SimulatedClock) -> None:
        flasher = rig.flasher()
        flasher.connect()
        assert "uds tester present" in [thread.name for thread in simulated_clock.threads()]
        flasher.close()
        assert "uds tester present" not in [thread.name for thread in simulated_clock.threads()]


class TestLooking:
    def test_a_plan_asks_a_running_application_who_it_is_and_nothing_more(self, rig: Rig) -> None:
        with Programmer(rig.flasher(), "ecu") as programmer:
            identity = programmer.look()
            plan = programmer.plan(FirmwareImage((Segment(START, DATA),), "bin"))
            assert programmer.memory_map().regions[0].size == SIZE
            assert programmer.bootloader.capabilities == Capability.BOOT | Capability.CHECK
        assert (identity.part, identity.version) == ("R77", "1.4.2")
        assert plan.erase_bytes == UNIT
        assert {item[0] for item in rig.ecu.requests} == {0x22}

    def test_the_plan_is_carried_out_afterwards(self, rig: Rig) -> None:
        programmer = Programmer(rig.flasher(), "ecu")
        plan = programmer.plan(FirmwareImage((Segment(START, DATA),), "bin"))
        clock.sleep(60)
        programmer.flash(plan)
        assert rig.ecu.memory[: len(DATA)] == DATA

    def test_another_part_is_seen_without_its_bootloader(self, rig: Rig) -> None:
        with pytest.raises(WrongPart), Programmer(rig.flasher(part="R88"), "ecu") as programmer:
            programmer.plan(FirmwareImage((Segment(START, DATA),), "bin"))
        assert rig.ecu.asked() == []

    def test_a_part_that_was_found_in_its_bootloader_is_left_there(self, rig: Rig) -> None:
        rig.ecu.session = 2
        with Programmer(rig.flasher(), "ecu") as programmer:
            programmer.connect()
        assert rig.ecu.asked(0x11) == []
        assert rig.ecu.session == 2

    def test_verifying_reads_back_where_that_can_be_done(self, rig: Rig) -> None:
        """Many ECUs refuse the routine without a download in the session; then the application runs again."""
        rig.ecu.memory[: len(DATA)] = DATA
        with Programmer(rig.flasher(read="memory"), "ecu") as programmer:
            assert programmer.verify(FirmwareImage((Segment(START, DATA),), "bin")) == "read back"
        assert not [item for item in rig.ecu.asked(0x31) if item.startswith("31010202")]
        assert rig.ecu.session == 1

    def test_verifying_does_none_of_the_steps_that_change_something(self, rig: Rig) -> None:
        """No fingerprint and no step of the maker's at the order's end, but for an entering step; a flash does them."""
        keys: dict[str, Any] = {
            "order": [
                "programming",
                "key",
                "erase",
                "download",
                "late",
                "check",
                "fingerprint",
                "activate",
                "dependencies",
            ],
            "steps": [{"name": "late", "session": 3}, {"name": "activate", "routine": 0x0304}],
            "fingerprint": {"data": "01"},
        }
        image = FirmwareImage((Segment(START, DATA),), "bin")
        with Programmer(rig.flasher(**keys), "ecu") as programmer:
            assert programmer.verify(image) == "routine 0x0202 by the part, dependencies by 0xFF01"
        assert [item[:8] for item in rig.ecu.asked(0x31, 0x2E, 0x10)] == [
            "1002",
            "1003",
            "31010202",
            "3101FF01",
            "1003",
            "1001",
        ]
        rig.ecu.requests.clear()
        programmer = Programmer(rig.flasher(**keys), "ecu")
        programmer.flash(programmer.plan(image), boot=False)
        programmer.verify(image)
        steps = [item[:8] for item in rig.ecu.asked(0x31, 0x2E)]
        assert steps == ["3101FF00", "31010202", "2EF15A01", "31010304", "3101FF01", "31010202", "3101FF01"]

    @pytest.mark.parametrize("nrc", ["22", "24"])
    def test_a_check_that_wants_a_download_before_it_is_no_mismatch(self, rig: Rig, nrc: str) -> None:
        rig.ecu.on("31 01 02 02", [f"7F 31 {nrc}"])
        with pytest.raises(Unsupported, match="just downloaded"), Programmer(rig.flasher(), "ecu") as programmer:
            programmer.verify(FirmwareImage((Segment(START, DATA),), "bin"))
        assert rig.ecu.session == 1


class TestStop:
    def test_a_part_that_was_only_looked_at_runs_its_application(self, rig: Rig) -> None:
        programmer = Programmer(rig.flasher(), "ecu")
        programmer.connect()
        assert rig.ecu.session == 2
        programmer.release()
        assert rig.ecu.session == 1

    def test_a_download_that_was_given_up_is_not_judged(self, rig: Rig) -> None:
        flasher = rig.flasher()
        flasher.connect()
        next(iter(flasher.write(Segment(START, DATA))))
        flasher.connect()
        rig.ecu.requests.clear()
        flasher.start_application()
        assert [item for item in rig.ecu.asked(0x31) if item.startswith("31010202")] == []

    def test_an_application_that_runs_and_is_whole_gets_no_fingerprint(self, rig: Rig) -> None:
        rig.ecu.memory[: len(DATA)] = DATA
        result = rig.flash(
            read="memory", fingerprint={"data": "01"},
            order=["programming", "key", "erase", "download", "check", "fingerprint", "dependencies"],
        )  # fmt: skip
        assert (result.erased_bytes, result.written_bytes) == (0, 0)
        assert [item[:8] for item in rig.ecu.asked(0x31, 0x2E)] == ["3101FF01"]

    def test_a_download_is_judged_before_the_boot_if_verifying_was_turned_off(self, rig: Rig) -> None:
        programmer = Programmer(rig.flasher(), "ecu")
        programmer.flash(programmer.plan(FirmwareImage((Segment(START, DATA),), "bin")), verify=False)
        routines = [item[4:8] for item in rig.ecu.asked(0x31)]
        assert routines == ["0203", "FF00", "0202", "FF01"]
