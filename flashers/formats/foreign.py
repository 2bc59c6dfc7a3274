"""Files that are no program for a part: archives, web pages, documents, encrypted files, other bootloaders' containers.

A raw binary has no mark of its own, so that whatever ends in .bin would be written. What begins as one of these is
refused instead, by its name, unless the user names the format. Only marks of four bytes and more count, or shorter ones
together with fields beside them: firmware begins with a stack pointer, a jump or a header of its own.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

HEAD_SIZE = 1024
"""Bytes of a file's start that are looked at."""
MEANT = "If it is meant to be written as it is, name the format: --format bin"
ANOTHER = f"Is it the right file? {MEANT}"
UNPACK = f"Unpack it, and give the firmware file that is in it. {MEANT}"
DECRYPT = f"Decrypt it first. {MEANT}"
PROGRAM = f"Give the program itself: the .hex, .elf or .bin of the build. {MEANT}"


@dataclass(frozen=True, slots=True)
class Kind:
    """`container`: for a bootloader that takes a file whole and judges it itself, which is given such files as they are.
    `text`: nothing more is known than that it is a text, as files of other formats are."""

    what: str
    remedy: str = ANOTHER
    container: bool = False
    text: bool = False


MARKS: tuple[tuple[int, bytes, Kind], ...] = (
    *(
        (0, mark, Kind(what, UNPACK))
        for mark, what in (
            (b"PK\3\4", "a zip archive"),
            (b"PK\5\6", "an empty zip archive"),
            (b"PK\7\x08", "a zip archive in several parts"),
            (b"\xfd7zXZ\0", "compressed by xz"),
            (b"\x28\xb5\x2f\xfd", "compressed by zstd"),
            (b"\x04\x22\x4d\x18", "compressed by lz4"),
            (b"\x89LZO\0\r\n\x1a\n", "compressed by lzop"),
            (b"LZIP\1", "compressed by lzip"),
            (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
            (b"Rar!\x1a\x07", "a RAR archive"),
            (b"MSCF\0\0\0\0", "a cabinet archive"),
            (b"!<arch>\n", "an ar archive, as static libraries and .deb packages are"),
            (b"\xed\xab\xee\xdb", "an RPM package"),
            (b"070701", "a cpio archive"),
            (b"070702", "a cpio archive"),
            (b"070707", "a cpio archive"),
            (b"hsqs", "a SquashFS file system"),
        )
    ),
    (257, b"ustar", Kind("a tar archive", UNPACK)),
    *(
        (0, mark, Kind(what))
        for mark, what in (
            (b"%PDF-", "a PDF document"),
            (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
            (b"GIF8", "a GIF picture"),
            (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document"),
            (b"SQLite format 3\0", "an SQLite database"),
            (b"\xcf\xfa\xed\xfe", "a program for macOS"),
            (b"\xca\xfe\xba\xbe", "a Java class or a program for macOS"),
            (b"\0asm\1\0\0\0", "a WebAssembly module"),
            (b"\xd4\xc3\xb2\xa1", "a network capture"),
            (b"\x0a\x0d\x0d\x0a", "a network capture"),
        )
    ),
    *(
        (0, mark, Kind(what, DECRYPT))
        for mark, what in (
            (b"Salted__", "encrypted by openssl enc"),
            (b"age-encryption.org/", "encrypted by age"),
            (b"LUKS\xba\xbe", "an encrypted disk (LUKS)"),
            (b"-----BEGIN PGP MESSAGE", "encrypted by PGP"),
        )
    ),
    *(
        (offset, mark, Kind(what, PROGRAM, container=True))
        for offset, mark, what in (
            # UG266, table "Header tag": 0x03A617EB, its length, version 0x03000000.
            (0, b"\xeb\x17\xa6\x03\x08\0\0\0", "a GBL file, for Silicon Labs' Gecko Bootloader"),
            # UF2's specification: 0x0A324655, 0x9E5D5157.
            (0, b"UF2\n\x57\x51\x5d\x9e", "a UF2 file, for a bootloader that is a USB drive"),
            # UM2262, the header of ST's SBSFU.
            (0, b"SFU1", "an encrypted image for ST's SBSFU"),
            (20, b"STMP", "an SB file, for NXP's boot ROM"),
            (0, b"sbv3", "an SB3 file, for NXP's boot ROM"),
            (0, b"ANDROID!", "a boot image for Android's bootloader"),
            (0, b"vbf_version", "a VBF file, for a vehicle maker's tester"),
        )
    ),
)

TEXTS: tuple[tuple[bytes, Kind], ...] = (
    (rb"<!doctype html|<html|<head|<body", Kind("a web page (HTML)", f"Download the file itself. {MEANT}")),
    (rb"<\?xml|<[a-z][\w:.-]*[\s/>]", Kind("an XML document")),
    (
        rb"version https://git-lfs\.github\.com",
        Kind("a pointer of Git LFS, not the file itself", f"Fetch the file: git lfs pull. {MEANT}"),
    ),
    (rb"-----begin ", Kind("a key, a certificate or another PEM file")),
    (rb'\{\s*["}]|\[\s*["{\[\d]', Kind("a JSON document")),
    (rb"@[0-9a-f]{2,8}\s", Kind("hex digits in TI-TXT's or Verilog's format", f"Convert it to Intel HEX. {MEANT}")),
    (rb"%[0-9a-f]{2}[68]", Kind("hex digits in Tektronix's format", f"Convert it to Intel HEX. {MEANT}")),
    (rb"#!", Kind("a script")),
    (rb"", Kind("a text", text=True)),
)
"""By how a text begins, in small letters and without blanks before it."""


def kind(head: bytes) -> Kind | None:
    """What a file is that begins with these HEAD_SIZE bytes; None where it may be a raw binary."""
    for offset, mark, found in MARKS:
        if head.startswith(mark, offset):
            return found
    return _with_fields(head) or _text(head)


def _with_fields(head: bytes) -> Kind | None:
    """Marks that are short, with the fields beside them."""
    # RFC 1952, 2.3.1: deflate, no reserved flags, known extra flags and system.
    if head[:3] == b"\x1f\x8b\x08" and len(head) > 9 and not head[3] & 0xE0 and (head[9] < 14 or head[9] == 255):
        return Kind("compressed by gzip", UNPACK)
    if re.match(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", head):
        return Kind("compressed by bzip2", UNPACK)
    # The .lzma file format: properties, dictionary size, uncompressed size or all ones.
    if head[:3] == b"\x5d\0\0" and (head[5:13] == b"\xff" * 8 or (len(head) > 13 and head[9:14] == bytes(5))):
        return Kind("compressed by lzma", UNPACK)
    if head[:2] == b"MZ" and len(head) >= 64:
        (place,) = struct.unpack_from("<I", head, 60)
        if head[place : place + 4] == b"PE\0\0":
            return Kind("a program for Windows")
    if head[:3] == b"\xff\xd8\xff" and head[3:4] in (b"\xe0", b"\xe1", b"\xdb", b"\xee"):
        return Kind("a JPEG picture")
    # Espressif's image header: magic, segments, flash mode, size and speed, an entry point in the internal memory.
    if len(head) >= 8 and head[0] == 0xE9 and 1 <= head[1] <= 16 and head[2] <= 5 and head[7] >> 4 == 4:
        return Kind("an image for Espressif's ESP bootloader", PROGRAM, container=True)
    return None


def _text(head: bytes) -> Kind | None:
    """A text has line ends or markup, and no control characters."""
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8")):
        if head.startswith(mark):
            head = head[len(mark) :].decode(encoding, "ignore").encode()
            break
    else:
        try:
            head[:-3].decode()
        except UnicodeDecodeError:
            return None
    if re.search(rb"[^\t\n\r\f\x1b\x20-\x7e\x80-\xff]", head):
        return None
    start = head.lstrip().lower()
    if len(start) < 8 or not (b"\n" in start or b"\r" in start or start.startswith(b"<")):
        return None
    return next(found for pattern, found in TEXTS if re.match(pattern, start))
