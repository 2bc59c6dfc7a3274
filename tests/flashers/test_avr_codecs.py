"""The three AVR protocols byte for byte: vectors by hand from AVR061, AVR068 and AVR109, and anything at all to the decoders."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers.avr import avr109_codec, stk500v1_codec, stk500v2_codec
from proxyflash.flashers.errors import OperationFailed, PartError, PartRefused, ProtocolError

FUZZ = settings(max_examples=300, deadline=None)


class TestStk500v1:
    @pytest.mark.parametrize(
        ("made", "wire"),
        [
            (stk500v1_codec.command(stk500v1_codec.Command.GET_SYNC), "30 20"),
            (stk500v1_codec.command(stk500v1_codec.Command.GET_PARAMETER, b"\x81"), "41 81 20"),
            (stk500v1_codec.load_address(0x1F00), "55 80 0f 20"),
            (stk500v1_codec.load_address(0x2_0100), "55 80 00 20"),
            (stk500v1_codec.extended_address(0x3_FF00), "56 4d 00 01 00 20"),
            (stk500v1_codec.prog_page(b"F", b"\x01\x02"), "64 00 02 46 01 02 20"),
            (stk500v1_codec.read_page(b"E", 256), "74 01 00 45 20"),
            (stk500v1_codec.command(stk500v1_codec.Command.LEAVE_PROGMODE), "51 20"),
        ],
    )
    def test_requests(self, made: bytes, wire: str) -> None:
        assert made == bytes.fromhex(wire)

    def test_an_answer_s_payload(self) -> None:
        assert stk500v1_codec.payload(bytes.fromhex("14 1e 95 0f 10"), "it") == bytes.fromhex("1e 95 0f")
        assert stk500v1_codec.payload(bytes.fromhex("14 10"), "it") == b""

    @pytest.mark.parametrize("wire", ["14 11", "14 12", "14 13"])
    def test_a_refusal(self, wire: str) -> None:
        with pytest.raises(PartRefused):
            stk500v1_codec.payload(bytes.fromhex(wire), "it")

    @pytest.mark.parametrize("wire", ["", "15", "14", "10 14", "14 1e 15", "68 65 6c"])
    def test_what_is_no_answer(self, wire: str) -> None:
        with pytest.raises(ProtocolError):
            stk500v1_codec.payload(bytes.fromhex(wire), "it")

    @FUZZ
    @given(st.binary(max_size=300))
    def test_anything(self, heard: bytes) -> None:
        try:
            found = stk500v1_codec.payload(heard, "it")
        except PartError:
            return
        assert heard == b"\x14" + found + b"\x10"


class TestStk500v2:
    def test_sign_on_and_its_answer(self) -> None:
        """XOR by hand: 1B^01^00^01^0E^01 = 14; 1B^01^00^0B^0E^01^00^08^"AVRISP_2" = 74."""
        assert stk500v2_codec.message(1, b"\x01") == bytes.fromhex("1b 01 00 01 0e 01 14")
        heard = bytearray(bytes.fromhex("1b 01 00 0b 0e 01 00 08") + b"AVRISP_2" + b"\x74")
        body = stk500v2_codec.take(heard, 1)
        assert body is not None
        assert not heard
        assert stk500v2_codec.result(body, stk500v2_codec.Command.SIGN_ON, 9, "it") == b"\x08AVRISP_2"

    @pytest.mark.parametrize(
        ("made", "wire"),
        [
            (stk500v2_codec.load_address(0x8001_F000), "06 80 01 f0 00"),
            (stk500v2_codec.read(stk500v2_codec.Command.READ_FLASH_ISP, 256), "14 01 00 20"),
            (stk500v2_codec.read(stk500v2_codec.Command.READ_EEPROM_ISP, 16), "16 00 10 a0"),
            (stk500v2_codec.leave_progmode(), "11 01 01"),
            (
                stk500v2_codec.read_byte(stk500v2_codec.Command.READ_SIGNATURE_ISP, bytes([0x30, 0, 2, 0])),
                "1b 04 30 00 02 00",
            ),
        ],
    )
    def test_bodies(self, made: bytes, wire: str) -> None:
        assert made == bytes.fromhex(wire)

    def test_a_page_has_ten_bytes_before_its_data(self) -> None:
        body = stk500v2_codec.program(stk500v2_codec.Command.PROGRAM_FLASH_ISP, b"\xaa\xbb")
        assert body[:3] == b"\x13\x00\x02"
        assert body[10:] == b"\xaa\xbb"

    def test_what_is_before_and_between_is_passed_over(self) -> None:
        late = stk500v2_codec.message(6, b"\x06\x00")
        wanted = stk500v2_codec.message(7, b"\x13\x00")
        torn = stk500v2_codec.message(7, b"\x13\xc0")[:-1] + b"\x00"
        heard = bytearray(b"log \x1b text" + torn + late + wanted + b"\x1b")
        assert stk500v2_codec.take(heard, 7) == b"\x13\x00"
        assert heard == b"\x1b"

    @FUZZ
    @given(st.binary(max_size=40), st.binary(min_size=2, max_size=275), st.integers(0, 255), st.integers(1, 40))
    def test_a_message_comes_whole_in_any_pieces(self, before: bytes, body: bytes, number: int, step: int) -> None:
        stream = before.replace(b"\x1b", b"") + stk500v2_codec.message(number, body)
        heard = bytearray()
        found = None
        for at in range(0, len(stream), step):
            assert found is None
            heard += stream[at : at + step]
            found = stk500v2_codec.take(heard, number)
        assert found == body

    @FUZZ
    @given(st.lists(st.binary(max_size=400) | st.just(b"\x1b\x01\x00\x08\x0e"), max_size=8))
    def test_anything(self, pieces: list[bytes]) -> None:
        heard = bytearray()
        for piece in pieces:
            heard += piece
            while (body := stk500v2_codec.take(heard, 1)) is not None:
                assert 2 <= len(body) <= stk500v2_codec.LONGEST
            assert len(heard) <= stk500v2_codec.LONGEST + 6

    @FUZZ
    @given(st.binary(max_size=300))
    def test_any_body(self, body: bytes) -> None:
        try:
            rest = stk500v2_codec.result(body, stk500v2_codec.Command.READ_FLASH_ISP, 4, "it")
        except PartError:
            return
        assert body == b"\x14\x00" + rest
        assert len(rest) >= 4

    @pytest.mark.parametrize(
        ("status", "error"), [(0x80, OperationFailed), (0x81, OperationFailed), (0xC0, PartRefused), (0x7, PartRefused)]
    )
    def test_statuses(self, status: int, error: type[PartError]) -> None:
        with pytest.raises(error):
            stk500v2_codec.result(bytes([0x13, status]), stk500v2_codec.Command.PROGRAM_FLASH_ISP, 0, "it")


class TestAvr109:
    @pytest.mark.parametrize(
        ("made", "wire"),
        [
            (avr109_codec.command(avr109_codec.Command.SOFTWARE_IDENTIFIER), b"S"),
            (avr109_codec.set_address(0x3800), b"A\x38\x00"),
            (avr109_codec.set_extended_address(0x1_F000), b"H\x01\xf0\x00"),
            (avr109_codec.block_load(b"F", b"\x0c\x94"), b"B\x00\x02F\x0c\x94"),
            (avr109_codec.block_read(b"E", 0x80), b"g\x00\x80E"),
        ],
    )
    def test_requests(self, made: bytes, wire: bytes) -> None:
        assert made == wire

    def test_answers(self) -> None:
        avr109_codec.done(b"\r", "it")
        assert avr109_codec.signature(b"\x87\x95\x1e") == 0x1E9587
        assert avr109_codec.block_size(b"Y\x00\x80") == 128
        assert avr109_codec.identifier(b"CATERIN") == "CATERIN"

    def test_a_refusal(self) -> None:
        with pytest.raises(PartRefused):
            avr109_codec.done(b"?", "it")

    @pytest.mark.parametrize("heard", [b"UUU", b"\xff\xff\xff", b"???", b"\x1e\x95\x87"])
    def test_no_signature_of_atmels(self, heard: bytes) -> None:
        """The manufacturer's byte, 0x1E, comes last."""
        with pytest.raises(ProtocolError, match="signature"):
            avr109_codec.signature(heard)

    @FUZZ
    @given(st.binary(max_size=12))
    def test_anything(self, heard: bytes) -> None:
        for decode in (avr109_codec.signature, avr109_codec.block_size, avr109_codec.identifier):
            with suppress(ProtocolError):
                decode(heard)
        if heard != b"\r":
            with pytest.raises((ProtocolError, PartRefused)):
                avr109_codec.done(heard, "it")
