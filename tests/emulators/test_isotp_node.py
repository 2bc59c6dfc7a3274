"""The ECU's end of ISO-TP: frames as ISO 15765-2:2016 has them, worked out by hand, and can-isotp as its peer."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import can
import isotp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxyflash.emulators.board import Board
from proxyflash.emulators.can import isotp as isotp_node
from proxyflash.emulators.can.isotp import EcuAddress, IsoTpNode
from proxyflash.emulators.can.wire import CanNode, CanWire
from proxyflash.emulators.supply import Supply
from proxyflash.tests.emulators.isotp_stack import IsoTpStack
from proxyflash.transports import clock

SECONDS = 300.0
NORMAL = EcuAddress(0x7E0, 0x7DF, 0x7E8, False)
FIXED = EcuAddress(0x18DA10F1, 0x18DB33F1, 0x18DAF110, True)
EXTENDED = EcuAddress(0x600, 0x7DF, 0x601, False, own=0x12, tester=0xF1)


class EchoBoard(Board):
    """Sends back what it gets, behind a byte that says whether it was addressed to all."""

    link: IsoTpNode

    def firmware(self) -> None:
        self.link.forget()
        while True:
            request = self.link.receive(None)
            if request is not None:
                self.link.send(bytes([request.functional]) + request.data)


class Rig:
    """An echoing node on a wire without pace, and a tester that sees and sends bare frames."""

    def __init__(self, address: EcuAddress, *, fd: bool = False, **options: int) -> None:
        self.wire = CanWire(uuid.uuid4().hex, pace=0, data_bitrate=2_000_000 if fd else None)
        self.address = address
        self.fd = fd
        self.board = EchoBoard("echo", Supply())
        self.board.link = IsoTpNode(self.board, self.wire, address, fd=fd, **options)
        self.board.start()
        self.board.settle()
        self.frames: clock.SomeQueue[can.Message] = clock.Queue()
        self.tester: CanNode = self.wire.attach("tester", self.frames.put)

    def send(self, text: str, *, to_all: bool = False, fd: bool = False) -> None:
        identifier = self.address.functional if to_all else self.address.request
        self.tester.send(
            can.Message(
                arbitration_id=identifier, is_extended_id=self.address.extended_ids, data=bytes.fromhex(text), is_fd=fd
            ),
            SECONDS,
        )

    def next(self) -> str:
        message = self.frames.get(timeout=SECONDS)
        assert message.arbitration_id == self.address.response
        assert message.is_extended_id == self.address.extended_ids
        assert message.is_fd == self.fd
        return bytes(message.data).hex(" ").upper()

    def close(self) -> None:
        self.board.close()
        self.wire.close()
        assert self.board.fault is None


@pytest.fixture
def rig() -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(address: EcuAddress = NORMAL, *, fd: bool = False, **options: int) -> Rig:
        rigs.append(Rig(address, fd=fd, **options))
        return rigs[-1]

    yield make
    for made in rigs:
        made.close()


def still_there(rig: Rig) -> None:
    """What went before was ignored: the next thing that comes back is the answer to this."""
    rig.send("02 3E 00")
    assert rig.next() == "03 00 3E 00 CC CC CC CC"


class TestReception:
    def test_a_single_frame(self, rig: Callable[..., Rig]) -> None:
        made = rig()
        made.send("03 22 F1 90 00 00 00 00")
        assert made.next() == "04 00 22 F1 90 CC CC CC"

    def test_a_single_frame_to_all(self, rig: Callable[..., Rig]) -> None:
        made = rig()
        made.send("02 3E 00", to_all=True)
        assert made.next() == "03 01 3E 00 CC CC CC CC"

    def test_a_first_frame_is_answered_by_flow_control(self, rig: Callable[..., Rig]) -> None:
        """9.6.3 to 9.6.5: 20 bytes are 6 in the first frame, then 7 and 7."""
        made = rig(block_size=8, st_min=0x14)
        made.send("10 14 01 02 03 04 05 06")
        assert made.next() == "30 08 14 CC CC CC CC CC"
        made.send("21 07 08 09 0A 0B 0C 0D")
        made.send("22 0E 0F 10 11 12 13 14")
        assert made.next() == "10 15 00 01 02 03 04 05"
        made.send("30 00 00")
        assert made.next() == "21 06 07 08 09 0A 0B 0C"
        assert made.next() == "22 0D 0E 0F 10 11 12 13"
        assert made.next() == "23 14 CC CC CC CC CC CC"

    def test_a_block_is_ended_by_flow_control(self, rig: Callable[..., Rig]) -> None:
        made = rig(block_size=2)
        made.send("10 22 01 02 03 04 05 06")  # 34 bytes: 6, then 4 times 7.
        assert made.next().startswith("30 02 00")
        made.send("21 00 00 00 00 00 00 00")
        made.send("22 00 00 00 00 00 00 00")
        assert made.next().startswith("30 02 00")
        made.send("23 00 00 00 00 00 00 00")
        made.send("24 00 00 00 00 00 00 00")
        assert made.next().startswith("10 23 00 01 02 03")

    def test_the_sequence_number_wraps_to_0(self, rig: Callable[..., Rig]) -> None:
        made = rig()
        made.send("10 7D 00 00 00 00 00 00")  # 125 bytes: 6, then 17 times 7.
        assert made.next().startswith("30")
        for number in range(1, 18):
            made.send(f"2{number & 15:X} 00 00 00 00 00 00 00")
        assert made.next().startswith("10 7E")

    def test_too_long_a_message_is_an_overflow(self, rig: Callable[..., Rig]) -> None:
        """9.6.5.1: flow status 2. Also with the 32 bits of length of 9.6.3.2."""
        made = rig(max_length=20)
        made.send("10 15 01 02 03 04 05 06")
        assert made.next().startswith("32")
        made.send("10 00 00 00 10 00 05 06")
        assert made.next().startswith("32")
        made.send("21 07 08 09 0A 0B 0C 0D")
        still_there(made)

    def test_a_length_of_32_bits(self, rig: Callable[..., Rig]) -> None:
        made = rig(max_length=5000)
        made.send("10 00 00 00 10 00 AA BB")  # 4096 bytes: 2, then 584 times 7, then 6.
        assert made.next().startswith("30")
        for number in range(1, 586):
            made.send(f"2{number & 15:X} 00 00 00 00 00 00 00")
        # The echo has 4097 bytes, 0x1001.
        assert made.next() == "10 00 00 00 10 01 00 AA"

    @pytest.mark.parametrize(
        "frame",
        [
            "00",  # 9.6.2: a length of 0 is the escape of longer frames
            "08 01 02 03 04 05 06 07",  # does not fit
            "03 22 F1",  # cut off
            "10 07 01 02 03 04 05 06",  # 9.6.3, table 14: would have fitted a single frame
            "10 00 00 00 0F FF 05 06",  # 32 bits for what 12 can say
            "10 14 01 02",  # a first frame is full
            "21 01 02 03 04 05 06 07",  # nothing has begun
            "30 00 00",  # nothing is being sent
            "40 00 00 00",  # a reserved type
            "F3 00 00 00",
        ],
    )
    def test_what_is_ignored(self, rig: Callable[..., Rig], frame: str) -> None:
        made = rig()
        made.send(frame)
        still_there(made)

    @pytest.mark.parametrize(
        ("frame", "why"),
        [
            ("22 07 08 09 0A 0B 0C 0D", "wrong sequence number"),
            ("02 3E 00", "a single frame from the same sender (9.8.3)"),
        ],
    )
    def test_what_ends_a_reception(self, rig: Callable[..., Rig], frame: str, why: str) -> None:
        made = rig()
        made.send("10 0D 01 02 03 04 05 06")
        assert made.next().startswith("30")
        made.send(frame)
        made.send("21 07 08 09 0A 0B 0C 0D")
        if frame.startswith("02"):
            assert made.next() == "03 00 3E 00 CC CC CC CC"
        still_there(made)

    def test_a_request_to_all_ends_none(self, rig: Callable[..., Rig]) -> None:
        """Its address is another one (9.8.3 is about one N_AI)."""
        made = rig()
        made.send("10 0D 01 02 03 04 05 06")
        assert made.next().startswith("30")
        made.send("02 3E 80", to_all=True)
        assert made.next() == "03 01 3E 80 CC CC CC CC"
        made.send("21 07 08 09 0A 0B 0C 0D")
        assert made.next() == "10 0E 00 01 02 03 04 05"

    def test_a_first_frame_begins_anew(self, rig: Callable[..., Rig]) -> None:
        made = rig()
        for _ in range(2):
            made.send("10 0D 01 02 03 04 05 06")
            assert made.next().startswith("30")
        made.send("21 07 08 09 0A 0B 0C 0D")
        assert made.next() == "10 0E 00 01 02 03 04 05"

    def test_a_consecutive_frame_after_n_cr_comes_too_late(
        self, rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(isotp_node, "N_CR_SECONDS", -1.0)
        made = rig()
        made.send("10 0D 01 02 03 04 05 06")
        assert made.next().startswith("30")
        made.send("21 07 08 09 0A 0B 0C 0D")
        still_there(made)

    def test_first_frames_to_all_are_ignored(self, rig: Callable[..., Rig]) -> None:
        made = rig()
        made.send("10 0D 01 02 03 04 05 06", to_all=True)
        still_there(made)

    def test_ids_of_another_length_are_others(self, rig: Callable[..., Rig]) -> None:
        made = rig()
        made.tester.send(can.Message(arbitration_id=0x7E0, is_extended_id=True, data=bytes.fromhex("023E01")), SECONDS)
        made.tester.send(can.Message(arbitration_id=0x7E1, is_extended_id=False, data=bytes.fromhex("023E01")), SECONDS)
        still_there(made)

    def test_extended_addressing(self, rig: Callable[..., Rig]) -> None:
        """10.3.3: the first byte of data is the target's address; a message has one byte less."""
        made = rig(EXTENDED)
        made.send("13 02 3E 00")  # to somebody else
        made.send("12 02 3E 00")
        assert made.next() == "F1 03 00 3E 00 CC CC CC"
        made.send("12 10 07 01 02 03 04 05")  # Table 14: 7 bytes don't fit a single frame here.
        assert made.next() == "F1 30 00 00 CC CC CC CC"
        made.send("12 21 06 07")
        assert made.next() == "F1 10 08 00 01 02 03 04"

    def test_can_fd(self, rig: Callable[..., Rig]) -> None:
        """9.6.2, table 10: beyond 8 bytes of frame the length follows in a byte of its own. 10.4.2.3: padded to a DLC."""
        made = rig(fd=True)
        made.send("00 0A 01 02 03 04 05 06 07 08 09 0A", fd=True)
        assert made.next() == "00 0B 00 01 02 03 04 05 06 07 08 09 0A CC CC CC"
        made.send("06 01 02 03 04 05 06", fd=True)
        assert made.next() == "07 00 01 02 03 04 05 06"
        made.send("07 01 02 03 04 05 06 07 00 00 00 00", fd=True)  # the nibble must be 0 beyond 8 bytes
        made.send("00 06 01 02 03 04 05 06 00 00 00 00", fd=True)  # the nibble would do
        made.send("02 3E 00", fd=True)
        assert made.next() == "03 00 3E 00 CC CC CC CC"

    @given(st.lists(st.binary(max_size=8), max_size=12))
    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    def test_any_frames_are_survived(self, noise: list[bytes]) -> None:
        rig = Rig(NORMAL)
        try:
            for data in noise:
                rig.send(data.hex())
            marker = "03 00 A5 5A CC CC CC CC"
            rig.send("02 A5 5A")
            found = False
            while not found:
                answer = rig.next()
                found = answer == marker
                if answer.startswith("1"):
                    rig.send("32 00 00")
        finally:
            rig.close()


class TestSending:
    def request(self, made: Rig, size: int) -> None:
        """Has it send `size` bytes: its answer has one more than the request."""
        made.board.link.inbox.append(isotp_node.Request(bytes(range(1, size)), False))
        with made.board.changed:
            made.board.changed.notify_all()

    def test_the_block_size_of_the_tester(self, rig: Callable[..., Rig]) -> None:
        made = rig()
        self.request(made, 30)
        assert made.next() == "10 1E 00 01 02 03 04 05"
        made.send("30 02 00")
        assert made.next().startswith("21")
        assert made.next().startswith("22")
        made.send("30 00 00")
        assert made.next().startswith("23")
        assert made.next() == "24 1B 1C 1D CC CC CC CC"

    def test_it_waits_when_told_so(self, rig: Callable[..., Rig]) -> None:
        made = rig()
        self.request(made, 10)
        assert made.next().startswith("10 0A")
        made.send("31 00 00")
        made.send("31 00 00")
        made.send("30 00 00")
        assert made.next() == "21 06 07 08 09 CC CC CC"

    @pytest.mark.parametrize("flow", ["32 00 00", "3F 00 00"])
    def test_overflow_and_reserved_status_end_it(self, rig: Callable[..., Rig], flow: str) -> None:
        made = rig()
        self.request(made, 10)
        assert made.next().startswith("10 0A")
        made.send(flow)
        still_there(made)

    def test_no_flow_control_ends_it(self, rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(isotp_node, "N_BS_SECONDS", 0.02)
        made = rig()
        self.request(made, 10)
        assert made.next().startswith("10 0A")
        still_there(made)

    @pytest.mark.parametrize(
        ("st_min", "seconds"),
        [(0, 0), (0x7F, 0.127), (0xF1, 0.0001), (0xF9, 0.0009), (0x80, 0.127), (0xF0, 0.127), (0xFA, 0.127)],
    )
    def test_separation_times(self, st_min: int, seconds: float) -> None:
        """9.6.5.4, table 20, and 9.6.5.5: reserved values are the longest."""
        assert isotp_node._separation(st_min) == pytest.approx(seconds)


ISOTP_ADDRESSES = {
    "normal": (NORMAL, isotp.Address(isotp.AddressingMode.Normal_11bits, txid=0x7E0, rxid=0x7E8)),
    "normal-fixed": (
        FIXED,
        isotp.Address(isotp.AddressingMode.NormalFixed_29bits, target_address=0x10, source_address=0xF1),
    ),
    "extended": (
        EXTENDED,
        isotp.Address(
            isotp.AddressingMode.Extended_11bits, txid=0x600, rxid=0x601, target_address=0x12, source_address=0xF1
        ),
    ),
}
SIZES = (1, 5, 6, 7, 8, 11, 12, 13, 60, 61, 62, 63, 64, 100, 1000, 4094)


@pytest.mark.parametrize("fd", [False, True], ids=["classic", "fd"])
@pytest.mark.parametrize("kind", ISOTP_ADDRESSES)
def test_can_isotp_is_its_peer(rig: Callable[..., Rig], kind: str, fd: bool) -> None:
    """Each size around each boundary, there and back."""
    address, theirs = ISOTP_ADDRESSES[kind]
    made = rig(address, fd=fd, block_size=7)
    bus = can.Bus(interface="proxyflash", channel=made.wire.channel, fd=fd)
    params = {"blocksize": 5, "tx_padding": 0x55, "can_fd": fd, "tx_data_length": 64 if fd else 8}
    stack = IsoTpStack(bus, theirs, params)
    try:
        for size in SIZES:
            data = bytes(index * 7 & 0xFF for index in range(size))
            stack.send(data)
            assert stack.recv(SECONDS) == b"\x00" + data, size
    finally:
        stack.stop()
        bus.shutdown()
