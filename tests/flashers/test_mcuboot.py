"""MCUboot images: made by MCUboot's own imgtool (PyPI), and by hand after "Bootloader design", "Image format"."""

from __future__ import annotations

import hashlib
import io
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers.errors import ImageFormat
from proxyflash.flashers.formats import load, mcuboot
from proxyflash.flashers.formats.mcuboot import Dependency, Flag, Version, parse, parse_dependencies
from proxyflash.tests.peers import environment

PAYLOAD = struct.pack("<II", 0x2000_4000, 0x0000_C1F5) + bytes(range(256)) * 3
"""A Cortex-M vector table (initial stack pointer, reset vector), and something."""


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("<HH", kind, len(value)) + value


def listed(magic: int, *tlvs: bytes) -> bytes:
    body = b"".join(tlvs)
    return struct.pack("<HH", magic, 4 + len(body)) + body


def made(
    payload: bytes = PAYLOAD,
    *,
    version: tuple[int, int, int, int] = (1, 2, 3, 0),
    flags: int = 0,
    header_size: int = 0x200,
    load_address: int = 0,
    protected: bytes = b"",
    more: bytes = b"",
    digest: bytes | None = None,
) -> bytes:
    header = struct.pack(
        "<IIHHIIBBHII", 0x96F3B83D, load_address, header_size, len(protected), len(payload), flags, *version, 0
    )
    hashed = header.ljust(header_size, b"\0") + payload + protected
    wanted = hashlib.sha256(hashed).digest() if digest is None else digest
    return hashed + listed(0x6907, tlv(0x10, wanted), more)


ALIGNED = bytes.fromhex("2de15d29410b8d77679c110f1f8a")


class TestByHand:
    def test_the_header_s_fields(self) -> None:
        image = parse(made(version=(2, 1, 0x0304, 0x05060708)))
        assert image.version == Version(2, 1, 0x0304, 0x05060708)
        assert str(image.version) == "2.1.772.84281096"
        assert image.size == 0x200 + len(PAYLOAD) + 4 + 4 + 32
        assert image.hash == hashlib.sha256(made(version=(2, 1, 0x0304, 0x05060708))[: 0x200 + len(PAYLOAD)]).digest()
        assert image.reset_vector == 0xC1F5
        assert image.load_address is None
        assert image.dependencies == ()

    def test_a_fixed_address_counts_with_its_flag_alone(self) -> None:
        assert parse(made(load_address=0x2000)).load_address is None
        assert parse(made(load_address=0x2000, flags=0x100)).load_address == 0x2000
        assert parse(made(load_address=0x2000, flags=0x20)).load_address == 0x2000

    def test_dependencies_are_protected(self) -> None:
        needs = struct.pack("<BBHBBHI", 1, 0, 0, 2, 5, 6, 7)
        image = parse(made(protected=listed(0x6908, tlv(0x40, needs))))
        assert image.dependencies == (Dependency(1, Version(2, 5, 6, 7)),)

    def test_the_protected_tlvs_are_hashed(self) -> None:
        protected = listed(0x6908, tlv(0x50, b"\x01\0\0\0"))
        whole = bytearray(made(protected=protected))
        parse(bytes(whole))
        whole[0x200 + len(PAYLOAD) + 8] ^= 1
        with pytest.raises(ImageFormat, match="SHA256"):
            parse(bytes(whole))

    @pytest.mark.parametrize("position", [20, 0x1FF, 0x200, 0x200 + len(PAYLOAD) - 1])
    def test_one_bit_of_what_is_hashed_is_seen(self, position: int) -> None:
        data = bytearray(made())
        data[position] ^= 0x10
        with pytest.raises(ImageFormat, match="its SHA256 is"):
            parse(bytes(data))

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"", "no room for an MCUboot header"),
            (b"\x7fELF" + bytes(60), "it begins with 0x464C457F"),
            (made(header_size=0x20)[:31], "no room"),
            (made(header_size=8), "8 bytes for itself"),
            (made()[:600], "the header announces"),
            (made()[: 0x200 + len(PAYLOAD) + 3], "ends before its TLVs"),
            (made()[:-1], "TLVs tell of"),
            (made()[: 0x200 + len(PAYLOAD)] + listed(0x6906), "0x6906 where"),
            (made()[: 0x200 + len(PAYLOAD)] + listed(0x6907), "0 hashes"),
            (made(more=tlv(0x10, bytes(32))), "2 hashes"),
            (made(digest=bytes(31)), "SHA256 of 31 bytes"),
            (made(more=b"\x10\0"), "2 bytes after the last TLV"),
            (made(more=b"\x22\0\x09\0"), "a TLV announces 9 bytes"),
            (made(protected=listed(0x6907, tlv(0x50, bytes(4)))), "0x6907 where"),
            (made(protected=listed(0x6908, tlv(0x40, bytes(11)))), "a dependency of 11 bytes"),
            (made() + b"appendix", "8 bytes follow the image"),
            (made() + b"\xff" * 16 + b"\x0c\0" + ALIGNED, "neither blank nor the end of a slot"),
            (made(b""), "the header announces"),
        ],
    )
    def test_what_is_broken_is_named(self, data: bytes, said: str) -> None:
        with pytest.raises(ImageFormat, match=said):
            parse(data)

    def test_padding_and_the_trailer_are_left_away(self, tmp_path: Path) -> None:
        image = made()
        # bootutil_public.h, boot_img_magic: the number of bytes that are written at once, where they are more than 8.
        trailers = [bytes.fromhex("77c295f360d2ef7f3552500f2cb67980"), b"\x10\0" + ALIGNED, b"\x20\0" + ALIGNED]
        for padding in (b"\xff" * 100, *(b"\xff" * 77 + trailer for trailer in trailers)):
            file = tmp_path / "padded.bin"
            file.write_bytes(image + padding)
            assert bytes(load(file).segments[0].data) == image

    def test_an_encrypted_image_s_hash_is_that_of_other_bytes(self) -> None:
        image = parse(made(flags=0x4, digest=bytes(32)))
        assert image.flags == Flag.ENCRYPTED_AES128
        assert image.reset_vector is None


class TestVersions:
    @pytest.mark.parametrize(
        ("text", "version"),
        [
            ("1.2.3", Version(1, 2, 3)),
            ("1.2.3.4", Version(1, 2, 3, 4)),
            ("1.2.3+4", Version(1, 2, 3, 4)),
            ("0.0", Version(0, 0)),
            ("", None),
            ("1", None),
            ("1.2.3-rc1", None),
            ("v1.2.3", None),
            ("1.2.3.4.5", None),
            ("\u0661.2.3", None),
            ("1." + "9" * 400, None),
        ],
    )
    def test_parsed(self, text: str, version: Version | None) -> None:
        assert Version.parse(text) == version

    def test_ordered_by_number(self) -> None:
        assert Version(1, 10) > Version(1, 9, 99) > Version(1, 9, 98, 5)

    def test_dependencies_as_text_and_back(self) -> None:
        needed = [Dependency(1, Version(2, 0)), Dependency(2, Version(1, 2, 3, 4))]
        assert parse_dependencies(" ".join(map(str, needed))) == needed
        assert parse_dependencies("") == []


@pytest.mark.real_time("a peer program")
class TestImgtool:
    """MCUboot's own tool."""

    @pytest.fixture
    def imgtool(self) -> Path:
        return environment("imgtool==2.2.0").with_name("imgtool")

    def sign(self, imgtool: Path, folder: Path, *options: str, slot: int = 0x4000) -> Path:
        program, signed = folder / "program.bin", folder / "signed.bin"
        program.write_bytes(PAYLOAD)
        about = ["--header-size", "0x200", "--pad-header", "--align", "8", "--slot-size", hex(slot)]
        subprocess.run([imgtool, "sign", *about, *options, program, signed], check=True, capture_output=True)
        return signed

    def test_what_it_signs_is_read(self, imgtool: Path, tmp_path: Path) -> None:
        signed = self.sign(imgtool, tmp_path, "--version", "3.4.5+6", "-d", "(1, 2.0.0+0)")
        image = load(signed)
        assert image.format == "mcuboot"
        assert image.relocatable
        assert image.version == "3.4.5.6"
        assert image.target["dependencies"] == "1>=2.0.0"
        assert image.target["reset_vector"] == 0xC1F5
        assert bytes(image.segments[0].data) == signed.read_bytes()
        told = subprocess.run([imgtool, "verify", signed], capture_output=True, text=True, check=True).stdout
        assert str(image.target["image_hash"]) in told

    def test_what_it_pads_for_the_slot_is_the_image_alone(self, imgtool: Path, tmp_path: Path) -> None:
        plain = self.sign(imgtool, tmp_path, "--version", "1.0.0").read_bytes()
        padded = self.sign(imgtool, tmp_path, "--version", "1.0.0", "--pad", "--confirm")
        assert len(padded.read_bytes()) == 0x4000
        assert bytes(load(padded).segments[0].data) == plain

    def test_another_hash(self, imgtool: Path, tmp_path: Path) -> None:
        signed = self.sign(imgtool, tmp_path, "--version", "1.0.0", "--sha", "512")
        assert len(parse(signed.read_bytes()).hash) == 64

    def test_a_fixed_address(self, imgtool: Path, tmp_path: Path) -> None:
        signed = self.sign(imgtool, tmp_path, "--version", "1.0.0", "--rom-fixed", "0xC000")
        assert load(signed).target["load_address"] == 0xC000


WHOLE = made(protected=listed(0x6908, tlv(0x40, struct.pack("<BBHBBHI", 1, 0, 0, 2, 0, 0, 0))))


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=700), st.binary(max_size=200).map(lambda tail: mcuboot.MAGIC_BYTES + tail)))
def test_whatever_comes_is_an_image_or_an_error(data: bytes) -> None:
    with suppress(ImageFormat):
        mcuboot.read(io.BytesIO(data), "fuzz")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, len(WHOLE)),
)
def test_a_damaged_image_is_never_taken_for_another(changes: list[tuple[int, int]], end: int) -> None:
    data = bytearray(WHOLE)
    for position, value in changes:
        data[position] = value
    try:
        image = parse(bytes(data[:end]))
    except ImageFormat:
        return
    # An image that holds is the made image, or has its hash over other bytes on purpose.
    assert image.hash == parse(WHOLE).hash or image.flags
