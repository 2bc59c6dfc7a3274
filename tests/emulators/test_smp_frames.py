"""SMP packets on consoles and raw lines, by Zephyr's "SMP Transport Specification"."""

from __future__ import annotations

import base64
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.emulators.smp.frames import Console, Framing, Packet, Raw
from proxyflash.emulators.smp.server import Handler, Server
from proxyflash.tests.emulators.smp_lab import framed, packet

CHECK = b"\x06\x09AAsxMjM0NTY3ODkxww==\n"
"""Length 11, "123456789" and its CRC-16/XMODEM, for which the catalogue of CRCs gives 0x31C3 as the check value."""


def fed(framing: Framing, *pieces: bytes) -> list[bytes]:
    return [found for piece in pieces for found in framing.feed(piece)]


class TestConsole:
    def test_vector(self) -> None:
        assert base64.b64decode(CHECK[2:-1]) == b"\x00\x0b123456789\x31\xc3"
        assert b"".join(Console(384).lines(b"123456789")) == CHECK
        assert fed(Console(384), CHECK) == [b"123456789"]

    def test_lines_of_127_bytes(self) -> None:
        """124 base64 characters carry 93 bytes: the first has two for the length, the last two for the CRC."""
        lines = list(Console(384).lines(bytes(200)))
        assert [len(line) for line in lines] == [127, 127, 27]
        assert [line[:2] for line in lines] == [b"\x06\x09", b"\x04\x14", b"\x04\x14"]

    @pytest.mark.parametrize("size", range(85, 96))
    def test_the_crc_lies_in_one_line(self, size: int) -> None:
        data = bytes(range(1, size + 1))
        lines = list(Console(384).lines(data))
        assert len(base64.b64decode(lines[-1][2:-1])) >= 2
        assert fed(Console(384), b"".join(lines)) == [data]

    @given(st.binary(min_size=1, max_size=300), st.lists(st.integers(0, 500), max_size=8), st.integers(4, 124))
    @settings(max_examples=200, deadline=None)
    def test_any_split_and_any_line_length(self, data: bytes, cuts: list[int], line: int) -> None:
        stream = framed(data, line // 4 * 4)
        bounds = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
        pieces = [stream[start:end] for start, end in itertools.pairwise(bounds)]
        assert fed(Console(384), *pieces) == [data]

    def test_other_text_between_and_before(self) -> None:
        console = Console(384)
        first, second = framed(bytes(100)).splitlines(keepends=True)
        assert fed(console, b"uart:~$ ", first, b"\r\n[00:01] <inf> sensor: late\r\n", second) == [bytes(100)]
        assert console.heard() == b"uart:~$ \r\n[00:01] <inf> sensor: late\r\n"
        assert console.heard() == b""

    @pytest.mark.parametrize(
        "spoiled",
        [
            CHECK.replace(b"ww==", b"xA=="),  # The CRC.
            CHECK.replace(b"AAs", b"AAo"),  # The length: too short.
            CHECK.replace(b"AAs", b"A*s"),
            b"\x04\x14" + CHECK[2:],  # A further line without a first one.
            b"\x06\x09AA==\n",
            b"\x06\x09\n",
            CHECK[:9],  # Half a line: the next one's start is part of it.
            b"\x06\x09" + b"A" * 200 + b"\n",
        ],
    )
    def test_spoiled_lines_are_dropped(self, spoiled: bytes) -> None:
        console = Console(384)
        assert fed(console, spoiled) == []
        fed(console, b"\n")
        assert fed(console, CHECK) == [b"123456789"]

    def test_what_is_longer_than_the_buffer(self) -> None:
        """Length and CRC take room in it."""
        assert fed(Console(100), framed(bytes(96))) == [bytes(96)]
        assert fed(Console(100), framed(bytes(97)), CHECK) == [b"123456789"]

    @given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([b"\x06\x09", b"\x04\x14", b"\n", b"AAs"]))))
    @settings(max_examples=300, deadline=None)
    def test_anything_may_come(self, pieces: list[bytes]) -> None:
        console = Console(384)
        fed(console, *pieces)
        assert len(console.heard()) <= 384
        fed(console, b"\n")
        assert fed(console, CHECK) == [b"123456789"]


class TestRaw:
    ECHO = packet(2, 0, 0, b"\xa1\x61d\x62hi")

    def test_packets_follow_each_other(self) -> None:
        raw = Raw(384)
        assert fed(raw, self.ECHO + self.ECHO[:5], self.ECHO[5:]) == [self.ECHO, self.ECHO]
        assert list(raw.lines(self.ECHO)) == [self.ECHO]

    def test_half_a_packet_is_given_up(self) -> None:
        raw = Raw(384)
        assert fed(raw, self.ECHO[:10]) == []
        raw.silence()
        assert fed(raw, self.ECHO) == [self.ECHO]

    @pytest.mark.parametrize("spoiled", [b"\x03" + bytes(7), packet(2, 0, 0, bytes(400))])
    def test_no_request(self, spoiled: bytes) -> None:
        raw = Raw(384)
        assert fed(raw, spoiled[:8]) == []
        assert fed(raw, self.ECHO) == [self.ECHO]

    @given(st.lists(st.binary(max_size=40)))
    @settings(max_examples=200, deadline=None)
    def test_anything_may_come(self, pieces: list[bytes]) -> None:
        raw = Raw(100)
        for found in fed(raw, *pieces):
            assert len(found) <= 100
        raw.silence()
        assert fed(raw, self.ECHO) == [self.ECHO]


@given(st.binary(max_size=60), st.integers(0, 255), st.integers(0, 2), st.integers(0, 8))
@settings(max_examples=300, deadline=None)
def test_a_server_answers_anything(body: bytes, first: int, group: int, command: int) -> None:
    def handler(arguments: object) -> dict[str, int]:
        return {"seen": 1}

    handlers: dict[tuple[int, int, bool], Handler] = {(0, 0, True): handler, (1, 1, True): handler}
    server = Server(handlers, room=380, newest=1, told=False)
    answer = server.answer(packet(first & 7, group, command, body, version=first >> 3))
    if answer is not None:
        found = Packet.parse(answer)
        assert found is not None
        assert (found.op, found.group, found.command, found.sequence) == ((first & 7) + 1, group, command, 7)
    server.answer(body)
