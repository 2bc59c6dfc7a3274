"""SMP's packets and framings.

Bytes come from a real part (Zephyr 4.4 on QEMU's microbit, as its line carried them) or are worked out by hand from
Zephyr's documentation, "SMP Protocol Specification" and the console's encoding; the CRC from crcmod's CRC-16/XMODEM.
"""

from __future__ import annotations

import base64
import struct
from itertools import pairwise

import cbor2
import crcmod.predefined
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers.smp.codec import (
    HEADER,
    ConsoleFraming,
    Op,
    Packet,
    RawFraming,
    SmpRefusal,
    decode,
    encode,
)

ZEPHYR_LINE = b"\x06\tACMJAAAZAAAJBr9oYnVmX3NpemUZAYBpYnVmX2NvdW50BP/BOQ==\n"
"""A part's reply to "MCUmgr parameters" under the number 9: buf_size 384, buf_count 4, a map of indefinite length."""
ZEPHYR_PACKET = bytes.fromhex("0900001900000906bf686275665f73697a651901806962 75665f636f756e7404ff".replace(" ", ""))

CRC = crcmod.predefined.mkPredefinedCrcFun("xmodem")


def line(packet: bytes) -> bytes:
    """One packet on one line, however long."""
    framed = struct.pack(">H", len(packet) + 2) + packet + struct.pack(">H", CRC(packet))
    return b"\x06\x09" + base64.b64encode(framed) + b"\n"


def reply(body: bytes, *, sequence: int = 1) -> bytes:
    return struct.pack(">BBHHBB", 0x09, 0, len(body), 1, sequence, 0) + body


class TestPackets:
    def test_a_request_s_bytes(self) -> None:
        # Version 2 in bits 3 and 4, op 0; flags; 1 byte of body; group 0; number 66; command 6; an empty map.
        assert encode(Packet(Op.READ, 0, 66, 6)) == bytes.fromhex("08 00 0001 0000 42 06 a0")
        # Op 2; group 1; {"off": 0}: a map of one, a text of 3, an unsigned 0.
        assert encode(Packet(Op.WRITE, 1, 255, 1, {"off": 0})) == bytes.fromhex("0a 00 0006 0001 ff 01 a1 63 6f6666 00")

    def test_a_zephyr_part_s_reply(self) -> None:
        packet = decode(ZEPHYR_PACKET)
        assert packet == Packet(Op.READ_RSP, 0, 9, 6, {"buf_size": 384, "buf_count": 4})

    @pytest.mark.parametrize(
        ("body", "refusal"),
        [
            (b"\xa1\x62rc\x08", SmpRefusal(None, 8)),
            (b"\xa2\x62rc\x06\x63rsn\x64busy", SmpRefusal(None, 6, "busy")),
            (b"\xa1\x63err\xa2\x65group\x01\x62rc\x18\x1e", SmpRefusal(1, 30)),
            (b"\xa1\x62rc\x00", None),
            (b"\xa2\x62rc\x00\x63off\x05", None),
            (b"\xa0", None),
            (b"\xa1\x63err\x01", None),
            (b"\xa1\x62rc\x61x", None),
        ],
    )
    def test_what_a_reply_says_against_the_request(self, body: bytes, refusal: SmpRefusal | None) -> None:
        packet = decode(reply(body))
        assert packet is not None
        assert packet.refusal == refusal

    def test_a_refusal_is_named(self) -> None:
        assert str(SmpRefusal(None, 8)) == "ENOTSUP (rc 8)"
        assert str(SmpRefusal(1, 9)) == "NO_FREE_SLOT (rc 9 of group 1)"
        assert str(SmpRefusal(64, 5)) == "rc 5 of group 64"
        assert SmpRefusal(None, 8).unsupported
        assert not SmpRefusal(1, 8).unsupported

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            bytes(7),
            reply(b"\xa0")[:-1],
            reply(b"\xa0") + b"\0",
            reply(b"\x01"),
            reply(b"\x80"),
            reply(b"\xa1\x01\x02"),
            reply(b"\xff"),
            reply(b"\xa1\x62rc"),
            reply(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"),
            reply(b"\xc1" * 5000),
            reply(b"\x81" * 5000),
        ],
        ids=str,
    )
    def test_no_packet(self, data: bytes) -> None:
        assert decode(data) is None

    def test_a_reply_without_a_body_is_one(self) -> None:
        assert decode(reply(b"")) == Packet(Op.READ_RSP, 1, 1, 0, {})

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=200))
    def test_whatever_a_body_holds(self, body: bytes) -> None:
        packet = decode(reply(body))
        if packet is not None:
            assert isinstance(packet.refusal, SmpRefusal | None)


class TestConsole:
    def test_a_zephyr_part_s_line(self) -> None:
        assert ConsoleFraming().feed(ZEPHYR_LINE) == [ZEPHYR_PACKET]

    def test_a_short_packet_is_one_line(self) -> None:
        packet = encode(Packet(Op.READ, 0, 66, 6))
        assert ConsoleFraming().wrap(packet) == [line(packet)]

    def test_a_long_one_is_cut(self) -> None:
        """Lines of 127 bytes at most: two marks, 124 of base64 (93 bytes), the end."""
        packet = bytes(range(256)) * 2
        lines = ConsoleFraming().wrap(packet)
        assert [one[:2] for one in lines] == [b"\x06\x09"] + [b"\x04\x14"] * 5
        assert [len(one) for one in lines[:-1]] == [127] * 5
        text = b"".join(one[2:-1] for one in lines)
        assert b"\x06\x09" + text + b"\n" == line(packet)
        assert base64.b64decode(lines[0][2:-1])[:2] == (514).to_bytes(2, "big")

    @given(st.lists(st.integers(0, 400), max_size=8))
    @settings(max_examples=100, deadline=None)
    def test_in_any_split(self, cuts: list[int]) -> None:
        packet = reply(b"\xa0" + bytes(250))
        stream = b"[00:00:01.000] <inf> boot\r\n" + b"".join(ConsoleFraming().wrap(packet)) + ZEPHYR_LINE
        framing = ConsoleFraming()
        found: list[bytes] = []
        edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
        for start, end in pairwise(edges):
            found += framing.feed(stream[start:end])
        assert found == [packet, ZEPHYR_PACKET]

    def test_amid_log_text(self) -> None:
        packet = reply(bytes(300))
        first, *others = ConsoleFraming().wrap(packet)
        log = b"\x1b[0m<wrn> adc: late\r\n"
        stream = log + b"uart:~$ " + first + log.join([b"", *others]) + log
        assert ConsoleFraming().feed(stream) == [packet]

    def test_ends_of_line_of_both_kinds(self) -> None:
        packet = reply(bytes(300))
        assert ConsoleFraming().feed(b"".join(ConsoleFraming().wrap(packet)).replace(b"\n", b"\r\n")) == [packet]

    @pytest.mark.parametrize(
        "damaged",
        [
            ZEPHYR_LINE.replace(b"NvdW", b"NvdX"),
            ZEPHYR_LINE.replace(b"==", b""),
            ZEPHYR_LINE.replace(b"Br", b"B\x00"),
            ZEPHYR_LINE[:20] + b"\n",
            ZEPHYR_LINE[:20],
            ZEPHYR_LINE[2:],
            b"\x04\x14" + ZEPHYR_LINE[2:],
            b"\x06\x09\n",
            b"\x06\x09AAAA\n",
            b"\x06\x09AAIAAA==\n",
            b"\x06\x09" * 300 + b"\n",
        ],
        ids=repr,
    )
    def test_what_is_damaged_hides_nothing_after_it(self, damaged: bytes) -> None:
        framing = ConsoleFraming()
        assert framing.feed(damaged + b"\n" + ZEPHYR_LINE) == [ZEPHYR_PACKET]

    def test_a_packet_that_was_broken_off_is_dropped(self) -> None:
        framing = ConsoleFraming()
        first = framing.wrap(reply(bytes(300)))[0]
        assert framing.feed(first + ZEPHYR_LINE) == [ZEPHYR_PACKET]
        framing.feed(first)
        framing.forget()
        assert framing.feed(b"\x04\x14" + b"AAAA" * 10 + b"\n") == []

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.one_of(st.binary(max_size=300), st.sampled_from([b"\x06\x09", b"\x04\x14", b"\n", b"//8A"]))))
    def test_whatever_comes(self, pieces: list[bytes]) -> None:
        framing = ConsoleFraming()
        for piece in pieces:
            for packet in framing.feed(piece):
                assert 8 <= len(packet) <= 0xFFFF
        assert framing.feed(b"\n" + ZEPHYR_LINE) == [ZEPHYR_PACKET]

    def test_a_line_without_an_end_is_not_kept(self) -> None:
        framing = ConsoleFraming()
        for _ in range(100):
            framing.feed(b"\x06\x09" + b"A" * 10_000)
        assert sum(len(value) for value in vars(framing).values() if isinstance(value, bytes)) < 0x1_0000

    def test_a_packet_that_never_ends_is_not_kept(self) -> None:
        framing = ConsoleFraming()
        framing.feed(b"\x06\x09//8A\n")
        for _ in range(2000):
            framing.feed(b"\x04\x14" + b"A" * 120 + b"\n")
        assert sum(len(value) for value in vars(framing).values() if isinstance(value, bytes)) < 0x2_0000


class TestRaw:
    def test_bare(self) -> None:
        assert RawFraming().wrap(ZEPHYR_PACKET) == [ZEPHYR_PACKET]
        assert RawFraming().feed(ZEPHYR_PACKET * 2) == [ZEPHYR_PACKET] * 2

    def test_byte_by_byte_after_a_boot_log(self) -> None:
        framing = RawFraming()
        stream = b"*** Booting MCUboot ***\r\nI:\tStarting\r\n" + ZEPHYR_PACKET
        assert [packet for byte in stream for packet in framing.feed(bytes([byte]))] == [ZEPHYR_PACKET]

    def test_half_a_packet_is_dropped_after_a_silence(self) -> None:
        framing = RawFraming()
        assert framing.feed(ZEPHYR_PACKET[:12]) == []
        framing.forget()
        assert framing.feed(ZEPHYR_PACKET) == [ZEPHYR_PACKET]

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.binary(max_size=60)))
    def test_whatever_comes(self, pieces: list[bytes]) -> None:
        framing = RawFraming()
        for piece in pieces:
            framing.feed(piece)
        framing.forget()
        assert framing.feed(ZEPHYR_PACKET) == [ZEPHYR_PACKET]


class TestBodiesThatNoPartSends:
    """What a CBOR decoder would spend time and memory on, before it is decoded."""

    @staticmethod
    def packet(body: bytes) -> bytes:
        return HEADER.pack(1, 0, len(body), 0, 0, 0) + body

    @pytest.fixture(autouse=True)
    def _no_decoder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cbor2, "loads", lambda data: pytest.fail("it was decoded"))

    @pytest.mark.parametrize(
        "value",
        [
            bytes.fromhex("d823 6161"),  # 35: a regular expression
            bytes.fromhex("d824 6161"),  # 36: a MIME message
            bytes.fromhex("c4 82 01 02"),  # 4: a decimal fraction
            bytes.fromhex("c5 82 01 02"),  # 5: a bigfloat
            bytes.fromhex("d81c 80"),  # 28: shared
            bytes.fromhex("d81d 00"),  # 29: a reference
            bytes.fromhex("c2 41 01"),  # 2: a bignum
            bytes.fromhex("c3 41 01"),  # 3: a negative bignum
            bytes.fromhex("81 d9d9f7 00"),  # 55799, in an array
            bytes.fromhex("9f c1 00 ff"),  # 1, in an array of indefinite length
        ],
    )
    def test_tags(self, value: bytes) -> None:
        assert decode(self.packet(b"\xa1\x62rc" + value)) is None

    @pytest.mark.parametrize("head", ["9b", "5b", "7b", "bb"])
    def test_4_gib_and_more_that_are_not_there(self, head: str) -> None:
        for size in (1 << 32, 1 << 63, (1 << 64) - 1):
            assert decode(self.packet(b"\xa1\x61a" + bytes.fromhex(head) + size.to_bytes(8, "big"))) is None

    @pytest.mark.parametrize("level", [b"\x81", b"\x9f", b"\xa1\x61a", b"\xbf\x61a"])
    def test_60_000_levels(self, level: bytes) -> None:
        assert decode(self.packet((b"\xa1\x61a" + level * 60_000)[:60_000])) is None

    @pytest.mark.parametrize("body", ["ff", "a1ff", "a16161ff", "bf6161", "1c", "3e", "fc", "5f", "a2616100"])
    def test_what_is_not_whole_or_no_item(self, body: str) -> None:
        assert decode(self.packet(bytes.fromhex(body))) is None


@pytest.mark.parametrize("rc", [1 << 32, 1 << 63, -(1 << 32), (1 << 64) - 1])
@pytest.mark.parametrize("version", [1, 2])
def test_a_code_beyond_32_bits_is_a_refusal_of_few_words(rc: int, version: int) -> None:
    body = {"rc": rc} if version == 1 else {"err": {"group": 1, "rc": rc}}
    data = cbor2.dumps(body)
    packet = decode(HEADER.pack(1, 0, len(data), 1, 0, 0) + data)
    assert packet is not None
    refusal = packet.refusal
    assert refusal is not None
    assert refusal.rc == 1
    assert len(str(refusal)) < 40


def test_a_code_that_is_a_bignum_is_no_packet() -> None:
    data = cbor2.dumps({"rc": 1 << 16000})
    assert decode(HEADER.pack(1, 0, len(data), 0, 0, 0) + data) is None


def test_raw_packets_are_found_behind_any_number_of_other_bytes() -> None:
    packet = HEADER.pack(1, 0, 1, 0, 7, 0) + b"\xa0"
    assert RawFraming().feed(b"\xff" * 100_000 + packet) == [packet]
