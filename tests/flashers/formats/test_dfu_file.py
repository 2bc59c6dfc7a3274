"""DFU files with a suffix and DfuSe files, against dfu-suffix, dfu-prefix, fwupd and the documents' layouts."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers.errors import ImageEmpty, ImageError, ImageFormat, ImageNotWritten, ImageOverlap
from proxyflash.flashers.formats import dfu, load, save
from proxyflash.flashers.image import FirmwareImage, Segment, join

FWUPD = (
    b"DfuSe\x01" + b"\x3d\x01\x00\x00" + b"\x01"
    + b"Target" + b"\x00" + b"\x01\x00\x00\x00" + b"Internal".ljust(255, b"\0") + b"\x20\x00\x00\x00" + b"\x02\x00\x00\x00"
    + b"\x00\x00\x00\x08" + b"\x0b\x00\x00\x00" + b"hello world"
    + b"\x00\x40\x00\x08" + b"\x05\x00\x00\x00" + b"hello"
    + b"\x00\x02" + b"\x11\xdf" + b"\x83\x04" + b"\x1a\x01" + b"UFD\x10" + b"\x8e\x87\xc4\xdb"
)  # fmt: skip
"""What `fwupdtool firmware-build` (fwupd 2.0.20, FuDfuseFirmware) makes of two chunks, at 0x08000000 and 0x08004000, for
0483:DF11, release 0x0200, in a target named Internal."""


def suffixed(body: bytes, spec: int = 0x0100, length: int = 16) -> bytes:
    """A suffix as DFU 1.1, appendix B.1 lays it out: bcdDevice, idProduct, idVendor, bcdDFU, "UFD", bLength, dwCRC.

    The CRC is zlib's without the inversion at its end, over all bytes before it.
    """
    body += b"\xff" * 6 + struct.pack("<H", spec) + b"UFD" + bytes([length])
    return body + struct.pack("<I", zlib.crc32(body) ^ 0xFFFFFFFF)


def element(address: int, data: bytes) -> bytes:
    """UM0391, section 2.3.3."""
    return struct.pack("<II", address, len(data)) + data


def target(*elements: bytes, alt: int = 0, name: bytes = b"") -> bytes:
    """UM0391, section 2.3.2."""
    body = b"".join(elements)
    return b"Target" + bytes([alt]) + struct.pack("<I255sII", bool(name), name, len(body), len(elements)) + body


def dfuse(*targets: bytes) -> bytes:
    """UM0391, section 2.1, without the suffix."""
    body = b"".join(targets)
    return b"DfuSe\x01" + struct.pack("<IB", 11 + len(body), len(targets)) + body


def read_dfuse(data: bytes) -> FirmwareImage:
    return dfu.read_dfuse(BytesIO(data), "fw.dfu")


def contents(image: FirmwareImage) -> list[tuple[int, bytes]]:
    return [(segment.address, bytes(segment.data)) for segment in image.segments]


def run(*arguments: str | Path) -> str:
    """One of dfu-util's tools."""
    if shutil.which(str(arguments[0])) is None:
        pytest.skip("dfu-util is not installed")
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


# The suffix.


def test_a_suffix_made_by_dfu_suffix(tmp_path: Path) -> None:
    file = tmp_path / "fw.dfu"
    file.write_bytes(b"123456789")
    run("dfu-suffix", "-v", "0x0483", "-p", "0xdf11", "-d", "0x1203", "-a", file)
    image = load(file)
    assert contents(image) == [(0, b"123456789")]
    assert (image.format, image.relocatable) == ("dfu", True)
    assert dict(image.target) == {"vendor_id": 0x0483, "product_id": 0xDF11, "device": 0x1203}
    assert image.version == "12.0.3"


def test_ids_of_ffff_fit_every_part(tmp_path: Path) -> None:
    file = tmp_path / "fw.dfu"
    file.write_bytes(b"123456789")
    run("dfu-suffix", "-a", file)
    image = load(file)
    assert (dict(image.target), image.version) == ({}, "")


def test_dfu_suffix_accepts_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "fw.dfu"
    told = {"vendor_id": 0x1D50, "product_id": 0x6003, "device": 0x0104}
    save(FirmwareImage((Segment(0, b"firmware" * 99),), "bin", target=told, relocatable=True), file)
    said = run("dfu-suffix", "-c", file)
    for line in (
        "BCD device:\t0x0104",
        "Product ID:\t0x6003",
        "Vendor ID:\t0x1D50",
        "BCD DFU:\t0x0100",
        "Length:\t\t16",
    ):
        assert line in said
    run("dfu-suffix", "-D", file)
    assert file.read_bytes() == b"firmware" * 99


def test_dfu_suffix_accepts_what_was_written_as_dfuse(tmp_path: Path) -> None:
    file = tmp_path / "fw.dfu"
    save(FirmwareImage((Segment(0x08000000, b"firmware"),), "bin"), file)
    assert "BCD DFU:\t0x011A" in run("dfu-suffix", "-c", file)
    # Without the suffix it is the layout of UM0391.
    run("dfu-suffix", "-D", file)
    assert file.read_bytes() == dfuse(target(element(0x08000000, b"firmware")))


def test_a_longer_suffix_is_left_out_whole() -> None:
    # DFU 1.1, appendix B: new fields of later versions come before the others, and bLength counts them.
    data = suffixed(b"firmware" + b"new!", length=20)
    assert contents(dfu.read(BytesIO(data), "fw.dfu")) == [(0, b"firmware")]


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"firmware without one", "offset 0x4: no DFU suffix"),
        (b"UFD", "offset 0x0: no DFU suffix"),
        (suffixed(b"firmware")[:-1], "offset 0x7: no DFU suffix"),
        (suffixed(b"firmware", length=15), "offset 0x8: no DFU suffix"),
        (suffixed(b"firmware") + b"\0\0", "offset 0x18: 2 bytes after the DFU suffix"),
        (suffixed(b"firmware")[:-1] + b"\0\0\0", "offset 0xA: no DFU suffix"),
        (suffixed(b"firmware", length=25), "offset 0x13: the DFU suffix announces 25 bytes, and the file has 24"),
        (b"F" + suffixed(b"firmware")[1:], "offset 0x14: the DFU suffix has the CRC 0x"),
        (suffixed(b"firmware")[:-1] + b"\0", "offset 0x14: the DFU suffix has the CRC 0x00"),
    ],
    ids=[
        "none",
        "short",
        "cut",
        "too short",
        "more behind",
        "another CRC, and more behind",
        "too long",
        "another byte",
        "another CRC",
    ],
)
def test_what_is_wrong_with_a_suffix_is_said_with_its_offset(data: bytes, cause: str) -> None:
    with pytest.raises(ImageFormat) as raised:
        dfu.read(BytesIO(data), "fw.dfu")
    assert raised.value.cause.startswith(f"fw.dfu: {cause}")
    assert raised.value.exit_status == 12


def test_a_suffix_and_nothing_else_is_empty(tmp_path: Path) -> None:
    (tmp_path / "fw.dfu").write_bytes(suffixed(b""))
    with pytest.raises(ImageEmpty):
        load(tmp_path / "fw.dfu")


# NXP's boot header, which belongs to what is sent.


def test_a_vendor_header_is_content(tmp_path: Path) -> None:
    file = tmp_path / "fw.dfu"
    file.write_bytes(b"firmware" * 9)
    run("dfu-prefix", "-L", "-a", file)
    run("dfu-suffix", "-a", file)
    ((address, data),) = contents(load(file))
    assert address == 0
    assert (len(data), data[:2], data[16:]) == (16 + 72, b"\x1a\x3f", b"firmware" * 9)


def test_a_vendor_header_may_have_come_after_the_suffix(tmp_path: Path) -> None:
    plain, header = tmp_path / "plain", tmp_path / "header"
    for file in (plain, header):
        file.write_bytes(b"firmware" * 9)
    run("dfu-prefix", "-L", "-a", header)
    run("dfu-suffix", "-a", plain)
    prefix = header.read_bytes()[:16]
    data = prefix + plain.read_bytes()
    assert contents(dfu.read(BytesIO(data), "fw.dfu")) == [(0, prefix + b"firmware" * 9)]
    for place in (16, 50, len(data) - 12):
        broken = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(ImageFormat, match="CRC"):
            dfu.read(BytesIO(broken), "fw.dfu")
    # Any other 16 bytes in front of it are no header.
    with pytest.raises(ImageFormat, match="CRC"):
        dfu.read(BytesIO(b"x" * 16 + plain.read_bytes()), "fw.dfu")


# DfuSe.


def test_a_dfuse_file_made_by_fwupd(tmp_path: Path) -> None:
    (tmp_path / "fw.dfu").write_bytes(FWUPD)
    image = load(tmp_path / "fw.dfu")
    assert contents(image) == [(0x08000000, b"hello world"), (0x08004000, b"hello")]
    assert (image.format, image.relocatable, image.version) == ("dfuse", False, "2.0.0")
    assert dict(image.target) == {
        "vendor_id": 0x0483,
        "product_id": 0xDF11,
        "device": 0x0200,
        "alt_setting": 0,
        "name": "Internal",
    }


def test_the_same_image_is_written_byte_for_byte() -> None:
    stream = BytesIO()
    dfu.write_dfuse(read_dfuse(FWUPD), stream)
    assert stream.getvalue() == FWUPD


def test_the_prefix_may_count_the_suffix_too() -> None:
    # "The total DFU file length", says UM0391, section 2.1.
    data = bytearray(dfuse(target(element(0x08000000, b"x"))))
    struct.pack_into("<I", data, 6, len(data) + 16)
    assert contents(read_dfuse(suffixed(bytes(data)))) == [(0x08000000, b"x")]


def test_targets_are_one_image() -> None:
    data = dfuse(target(element(0x08000000, b"in"), name=b"Internal"), target(element(0x90000000, b"out"), alt=1))
    image = read_dfuse(suffixed(data, 0x011A))
    assert contents(image) == [(0x08000000, b"in"), (0x90000000, b"out")]
    assert dict(image.target) == {}


def test_a_targets_alternate_setting_and_name_are_kept() -> None:
    image = read_dfuse(suffixed(dfuse(target(element(0, b"x"), alt=3, name=b"@Option Bytes"))))
    assert dict(image.target) == {"alt_setting": 3, "name": "@Option Bytes"}


def test_elements_in_any_order_are_joined() -> None:
    image = read_dfuse(suffixed(dfuse(target(element(4, b"ef"), element(0, b"abcd"), element(9, b"")))))
    assert contents(image) == [(0, b"abcdef")]


def test_elements_that_overlap_are_refused() -> None:
    with pytest.raises(ImageOverlap, match="0x00000003 is given twice"):
        read_dfuse(suffixed(dfuse(target(element(0, b"abcd"), element(3, b"x")))))


ONE = dfuse(target(element(0x08000000, b"abcd")))
"""Prefix 0..10, target prefix 11..284, element 285..292, data 293..296."""


def patched(offset: int, new: bytes) -> bytes:
    return ONE[:offset] + new + ONE[offset + len(new) :]


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (patched(5, b"\2"), "offset 0x0: no DfuSe prefix of version 1"),
        (patched(6, b"\x28"), "offset 0x6: the prefix announces 296 bytes before the suffix, and there are 297"),
        (patched(10, b"\2"), "offset 0x129: no room for the target prefix of 274 bytes"),
        (patched(10, b"\0"), "offset 0xB: 286 bytes after the last target"),
        (patched(11, b"Garget"), "offset 0xB: no target prefix"),
        (patched(277, b"\x0d"), "offset 0x115: the target announces 13 bytes, 1 too many"),
        (patched(277, b"\x0b"), "offset 0x121: the element announces 4 bytes, 1 too many"),
        (patched(281, b"\0"), "offset 0x11D: 12 bytes after the target's last element"),
        (patched(281, b"\2"), "offset 0x129: no room for the element of 8 bytes"),
        (patched(281, b"\xff\xff\xff\xff"), "offset 0x129: no room for the element of 8 bytes"),
        (patched(289, b"\5"), "offset 0x121: the element announces 5 bytes, 1 too many"),
        (patched(289, b"\3"), "offset 0x128: 1 bytes after the target's last element"),
        (patched(285, b"\xfd\xff\xff\xff"), "offset 0x11D: the element at 0xFFFFFFFD goes beyond 32-bit addresses"),
        (ONE[:8], "offset 0x0: no room for the DfuSe prefix of 11 bytes"),
    ],
)
def test_what_is_wrong_with_a_dfuse_file_is_said_with_its_offset(data: bytes, cause: str) -> None:
    with pytest.raises(ImageFormat) as raised:
        read_dfuse(suffixed(data))
    assert raised.value.cause == f"fw.dfu: {cause}"


@pytest.mark.parametrize(("data", "advice"), [(ONE, "dfu-suffix --spec 0x011A --add"), (ONE[:-1], "Is it cut short?")])
def test_a_dfuse_file_without_its_suffix_is_cut_short_if_its_contents_are(
    tmp_path: Path, data: bytes, advice: str
) -> None:
    (tmp_path / "fw.dfu").write_bytes(data)
    with pytest.raises(ImageFormat, match="no DFU suffix") as raised:
        load(tmp_path / "fw.dfu")
    assert advice in raised.value.remedy


# Writing.


def test_what_the_fields_cannot_hold_is_refused() -> None:
    def write(**told: int | str) -> None:
        dfu.write_dfuse(FirmwareImage((Segment(0, b"x"),), "bin", target=told), BytesIO())

    for wrong in ({"vendor_id": 0x10000}, {"product_id": -1}, {"device": "1.5"}, {"alt_setting": 256}):
        with pytest.raises(ImageNotWritten, match=next(iter(wrong))):
            write(**wrong)
    with pytest.raises(ImageNotWritten, match="4 GiB"):
        dfu.write_dfuse(FirmwareImage((Segment(0xFFFFFFFF, b"xy"),), "bin"), BytesIO())


ids = st.integers(0, 0xFFFE)
targets = st.fixed_dictionaries({}, optional={"vendor_id": ids, "product_id": ids, "device": ids})
segments = st.lists(st.tuples(st.integers(1, 0x1000_0000), st.binary(min_size=1, max_size=50)), min_size=1, max_size=4)


@given(segments, targets, st.integers(0, 255), st.text("@/ abc*01Kg", max_size=60).filter(str.strip))
@settings(max_examples=100, deadline=None)
def test_reading_dfuse_that_was_written_gives_the_same(
    parts: list[tuple[int, bytes]], told: dict[str, int | str], alt: int, name: str
) -> None:
    end, chunks = 0, []
    for gap, data in parts:
        chunks.append(Segment(end + gap, data))
        end = chunks[-1].end
    told = {**told, "alt_setting": alt, "name": name}
    image = FirmwareImage(join(chunks), "dfuse", "fw.dfu", target=told)
    stream = BytesIO()
    dfu.write_dfuse(image, stream)
    again = read_dfuse(stream.getvalue())
    assert (again.segments, dict(again.target), again.sha256) == (image.segments, told, image.sha256)


@given(st.binary(min_size=1, max_size=100), targets)
@settings(max_examples=100, deadline=None)
def test_reading_dfu_that_was_written_gives_the_same(data: bytes, told: dict[str, int | str]) -> None:
    image = FirmwareImage((Segment(0, data),), "dfu", "fw.dfu", target=told, relocatable=True)
    stream = BytesIO()
    dfu.write(image, stream)
    again = dfu.read(BytesIO(stream.getvalue()), "fw.dfu")
    assert (contents(again), dict(again.target), again.relocatable) == ([(0, data)], told, True)


# Whatever comes in.


@given(st.binary(max_size=400), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_an_image_or_an_image_error(data: bytes, with_suffix: bool) -> None:
    for read in (dfu.read, dfu.read_dfuse):
        with suppress(ImageError):
            read(BytesIO(suffixed(data) if with_suffix else data), "fw.dfu")


@given(st.lists(st.tuples(st.integers(0, len(FWUPD) - 17), st.binary(min_size=1, max_size=4)), max_size=4), st.data())
@settings(max_examples=300, deadline=None)
def test_a_dfuse_file_whose_fields_lie_gives_an_image_or_an_image_error(
    patches: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    body = bytearray(FWUPD[:-16])
    for offset, new in patches:
        body[offset : offset + len(new)] = new
    del body[data.draw(st.integers(0, len(body))) :]
    with suppress(ImageError):
        # No element can say that it is more than the file has.
        assert read_dfuse(suffixed(bytes(body))).size <= len(body)


@given(st.integers(0, len(FWUPD) - 1), st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_no_changed_byte_passes_the_crc(offset: int, flip: int) -> None:
    broken = bytearray(FWUPD)
    broken[offset] ^= flip
    with pytest.raises(ImageError):
        read_dfuse(bytes(broken))
