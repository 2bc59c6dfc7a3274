"""Files that are no program for a part: archives, web pages, documents, encrypted files, other bootloaders' containers.

A raw binary has no mark of its own, so that whatever ends in .bin would be written. What begins as one of these is
refused instead, by its name, unless the user names the format. Only marks of four bytes and more count, or shorter ones
together with fields beside them: firmware begins with a stack pointer, a jump or a header of its own.
"""

from __future__ import annotations

import re
import struct
import zlib
from codecs import getincrementaldecoder
from collections.abc import Callable
from typing import NamedTuple

HEAD_SIZE = 2048
"""Bytes of a file's start that are looked at."""
MEANT = "If it is meant to be written as it is, name the format: --format bin"
ANOTHER = f"Is it the right file? {MEANT}"
UNPACK = f"Unpack it, and give the firmware file that is in it. {MEANT}"
DECRYPT = f"Decrypt it first. {MEANT}"
PROGRAM = f"Give the program itself: the .hex, .elf or .bin of the build. {MEANT}"
DOWNLOAD = f"Download the file itself. {MEANT}"
EXPORT = f"Give the flash data that it names, as a file of its own. {MEANT}"
APPLY = f"Apply it to the old file, and give the new one. {MEANT}"
DECODE = f"Decode it first. {MEANT}"
CONVERT = f"Convert it to Intel HEX. {MEANT}"


def _has_pe_header(head: bytes) -> bool:
    (place,) = struct.unpack_from("<I", head, 60)
    return head[place : place + 4] == b"PE\0\0"


def _has_tar_checksum(head: bytes) -> bool:
    """POSIX.1, "ustar Interchange Format": the sum of the header's bytes, its own eight taken for spaces."""
    found = re.match(rb" *([0-7]+)[\x00 ]", head[148:156])
    return found is not None and int(found[1], 8) == sum(head[:148]) + 8 * 0x20 + sum(head[156:512])


def _is_utf_8(text: bytes) -> bool:
    """The last character may be cut."""
    try:
        getincrementaldecoder("utf-8")().decode(text)
    except UnicodeDecodeError:
        return False
    return True


def _has_partitions(head: bytes) -> bool:
    """A master boot record's four entries: the first byte of each is 0x80 where it is active, and one is in use."""
    entries = [head[place : place + 16] for place in range(446, 510, 16)]
    return all(entry[0] in (0, 0x80) for entry in entries) and any(entry[4] and any(entry[12:]) for entry in entries)


def _is_zlib(head: bytes) -> bool:
    """RFC 1950, 2.2: the first two bytes are a multiple of 31; what follows must unpack."""
    try:
        return (head[0] << 8 | head[1]) % 31 == 0 and bool(zlib.decompressobj().decompress(head))
    except zlib.error:
        return False


class Kind(NamedTuple):
    """`mark`: a regular expression for how such a file begins; of a text, in small letters and without blanks before it.
    `check`: what else must hold. `container`: for a bootloader that takes a file whole and judges it itself, which is
    given such files as they are. `unknown`: nothing more is known than that it is a text, as files of other formats are."""

    mark: bytes
    what: str
    remedy: str = ANOTHER
    check: Callable[[bytes], bool] | None = None
    text: bool = False
    container: bool = False
    unknown: bool = False

    def begins(self, head: bytes) -> bool:
        return re.match(self.mark, head, re.DOTALL) is not None and (self.check is None or self.check(head))


KINDS = (
    Kind(rb"PK\x03\x04", "a zip archive", UNPACK),
    Kind(rb"PK\x05\x06", "an empty zip archive", UNPACK),
    Kind(rb"PK\x07\x08", "a zip archive in several parts", UNPACK),
    Kind(rb"\xfd7zXZ\x00", "compressed by xz", UNPACK),
    Kind(rb"\x28\xb5\x2f\xfd", "compressed by zstd", UNPACK),
    Kind(rb"\x04\x22\x4d\x18|\x02\x21\x4c\x18", "compressed by lz4", UNPACK),
    Kind(rb"\xff\x06\x00\x00sNaPpY", "compressed by snappy", UNPACK),
    Kind(rb"bvx[12n]", "compressed by lzfse", UNPACK),
    Kind(rb"\x89LZO\x00\r\n\x1a\n", "compressed by lzop", UNPACK),
    Kind(rb"LZIP\x01", "compressed by lzip", UNPACK),
    Kind(rb"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    Kind(rb"Rar!\x1a\x07", "a RAR archive", UNPACK),
    Kind(rb"MSCF\x00{4}", "a cabinet archive", UNPACK),
    Kind(rb"MSWIM\x00{3}", "a Windows image archive", UNPACK),
    Kind(rb"!<arch>\n", "an ar archive, as static libraries and .deb packages are", UNPACK),
    Kind(rb"\xed\xab\xee\xdb", "an RPM package", UNPACK),
    Kind(rb"07070[127]", "a cpio archive", UNPACK),
    Kind(rb"hsqs", "a SquashFS file system", UNPACK),
    Kind(rb"[^\x00].{511}", "a tar archive", UNPACK, _has_tar_checksum),
    Kind(rb"..-lh[0-7d]-", "an LHA archive", UNPACK),
    Kind(rb"\x45\x3d\xcd\x28", "a CramFS file system", UNPACK),
    Kind(rb"UBI#\x01", "an image of a UBI device"),
    # Linux's jffs2.h and ubifs-media.h, littlefs' SPEC.md, "Superblock".
    Kind(rb"\x85\x19[\x01-\x03][\x20\xe0]|\x31\x18\x10\x06|.{8}littlefs", "an image of a flash file system"),
    # Linux's ext4.h, from byte 1024 on: s_magic, s_state, s_errors; erofs_fs.h: EROFS_SUPER_MAGIC_V1.
    Kind(rb".{1080}\x53\xef[\x01-\x07]\x00[\x01-\x03]\x00|.{1024}\xe2\xe1\xf5\xe0", "an image of a file system"),
    Kind(rb"\xeb.\x90(.{51}|.{79})FAT", "an image of a file system (FAT)"),
    Kind(rb"QFI\xfb|conectix|vhdxfile|KDMV|\x3a\xff\x26\xed", "an image of a disk"),
    Kind(rb".{510}\x55\xaa", "an image of a disk", check=_has_partitions),
    # RFC 1952, 2.3.1: deflate, no reserved flags, extra flags, known system.
    Kind(rb"\x1f\x8b\x08[\x00-\x1f].{5}[\x00-\x0d\xff]", "compressed by gzip", UNPACK),
    Kind(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", "compressed by bzip2", UNPACK),
    # The .lzma file format: properties, dictionary size, uncompressed size or all ones.
    Kind(rb"\x5d\x00\x00..(\xff{8}|.{4}\x00{5})", "compressed by lzma", UNPACK),
    Kind(rb"\x78[\x01\x5e\x9c\xda]", "compressed by zlib", UNPACK, _is_zlib),
    Kind(rb"BSDIFF4|BSDIFN|ENDSLEY/BSDIFF", "a difference between two files, made by bsdiff", APPLY),
    Kind(rb"\xd6\xc3\xc4[\x00S]", "a difference between two files (VCDIFF)", APPLY),
    # RFC 1740, "AppleDouble": 0x00051607, version 2.
    Kind(rb"\x00\x05\x16\x07\x00\x02\x00\x00", "what macOS keeps beside a file", "Give the file whose name has no ._ before it."),
    Kind(rb"L\x00{3}\x01\x14\x02\x00", "a shortcut of Windows", "Give the file that it points to."),
    Kind(rb"RIFF.{4}(WAVE|AVI |WEBP)|OggS\x00|.{4}ftyp", "a sound, a picture or a film"),
    # X.690: a sequence that begins with a version and a modulus (PKCS #1), a certificate (X.509) or signed data (PKCS #7).
    Kind(
        rb"\x30\x82..(\x02\x01\x00\x02\x82|\x30\x82..\xa0\x03\x02\x01\x02|\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02)",
        "a key, a certificate or a signature (DER)",
    ),
    Kind(rb"%PDF-", "a PDF document"),
    Kind(rb".\r\r\n[\x00-\x03]\x00{3}", "a compiled Python module"),
    Kind(rb"MDF {5}[34]\.|LOGG.\x00{3}", "a recording of vehicle buses (MDF, BLF)"),
    Kind(rb"\x89HDF\r\n\x1a\n|MATLAB 5\.0 MAT-file|\x93NUMPY", "a file of measured data"),
    Kind(rb"\x89PNG\r\n\x1a\n", "a PNG picture"),
    Kind(rb"GIF8", "a GIF picture"),
    Kind(rb"\xff\xd8\xff[\xe0\xe1\xdb\xee]", "a JPEG picture"),
    Kind(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document"),
    Kind(rb"SQLite format 3\x00", "an SQLite database"),
    Kind(rb"MZ.{62}", "a program for Windows", check=_has_pe_header),
    Kind(rb"[\xce\xcf]\xfa\xed\xfe", "a program for macOS"),
    Kind(rb"\xca\xfe\xba\xbe", "a Java class or a program for macOS"),
    Kind(rb"\x00asm\x01\x00{3}", "a WebAssembly module"),
    Kind(rb"\xd4\xc3\xb2\xa1|\x0a\x0d\x0d\x0a", "a network capture"),
    Kind(rb"Salted__", "encrypted by openssl enc", DECRYPT),
    Kind(rb"age-encryption\.org/", "encrypted by age", DECRYPT),
    # RFC 4880: a session key for a passphrase (5.3; S2K of 3.7), or for an RSA key of 2048 or 4096 bits (5.1).
    Kind(rb"\x8c\x0d\x04[\x01-\x0d]\x03[\x01-\x0b]|\x85[\x01\x02]\x0c\x03", "encrypted by PGP", DECRYPT),
    # RFC 5652, 6.1: EnvelopedData.
    Kind(rb"\x30(\x80|\x82..|\x83...)\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03", "encrypted by CMS (S/MIME)", DECRYPT),
    Kind(rb"LUKS\xba\xbe", "an encrypted disk (LUKS)", DECRYPT),
    Kind(rb"-----BEGIN PGP MESSAGE", "encrypted by PGP", DECRYPT),
    # UG266, table "Header tag": 0x03A617EB, its length, version 0x03000000.
    Kind(rb"\xeb\x17\xa6\x03\x08\x00{3}", "a GBL file, for Silicon Labs' Gecko Bootloader", PROGRAM, container=True),
    # Ember's .ebl: tag 0x0000, its length, version, signature 0xE350; all big endian.
    Kind(rb"\x00\x00\x00\x8c..\xe3\x50", "an EBL file, for Ember's bootloader", PROGRAM, container=True),
    # Zigbee Cluster Library, "OTA File Format": 0x0BEEF11E.
    Kind(rb"\x1e\xf1\xee\x0b", "a Zigbee OTA file", PROGRAM, container=True),
    # UF2's specification: 0x0A324655, 0x9E5D5157.
    Kind(rb"UF2\n\x57\x51\x5d\x9e", "a UF2 file, for a bootloader that is a USB drive", PROGRAM, container=True),
    # UM2262, the header of ST's SBSFU.
    Kind(rb"SFU1", "an encrypted image for ST's SBSFU", PROGRAM, container=True),
    Kind(rb".{20}STMP", "an SB file, for NXP's boot ROM", PROGRAM, container=True),
    Kind(rb"sbv3", "an SB3 file, for NXP's boot ROM", PROGRAM, container=True),
    Kind(rb"ANDROID!", "a boot image for Android's bootloader", PROGRAM, container=True),
    # U-Boot's image.h (IH_MAGIC), and the Devicetree Specification, "Header": both big endian.
    Kind(rb"\x27\x05\x19\x56", "an image for U-Boot (uImage)", PROGRAM, container=True),
    Kind(rb"\xd0\x0d\xfe\xed", "a FIT image for U-Boot, or a device tree", PROGRAM, container=True),
    Kind(rb"STM2", "an image for the boot ROM of an STM32MP", PROGRAM, container=True),
    Kind(rb"HDR0", "a TRX image, for a router's bootloader", PROGRAM, container=True),
    Kind(rb"(RELFWV2|Renesas)", "an RSU file, for Renesas' firmware update module", PROGRAM, container=True),
    Kind(rb"CFF-TRANSLATOR-VERSION", "a CFF file, for a vehicle maker's tester", PROGRAM, container=True),
    Kind(rb"SGML Object File", "an SGO file, for a vehicle maker's tester", PROGRAM, container=True),
    # TI's SPRAAO8: version, 28 bytes of optional header, which begins with 0x0108.
    Kind(rb"[\xc1\xc2]\x00.{14}\x1c\x00.{4}\x08\x01", "a COFF file of TI's linker", CONVERT),
    Kind(
        rb"(\s|//[^\n]*\n|/\*([^*]|\*(?!/))*\*/)*vbf_version", "a VBF file, for a vehicle maker's tester", PROGRAM,
        container=True,
    ),
    # Espressif's image header: magic, segments, flash mode, size and speed, an entry point in the internal memory.
    Kind(
        rb"\xe9[\x01-\x10][\x00-\x05].{4}[\x40-\x4f]", "an image for Espressif's ESP bootloader", PROGRAM,
        container=True,
    ),
    # Infineon's AN60317 and AN213924: a line of silicon ID, revision and checksum type, with .cyacd2 also of versions and ids.
    Kind(
        rb"([0-9a-f]{12}|[0-9a-f]{24})\r?\n[:@]", "a .cyacd file, for Infineon's PSoC bootloader", PROGRAM,
        text=True, container=True,
    ),
    Kind(rb"(<!--.*?-->\s*)?(<!doctype html|<html|<head|<body)", "a web page (HTML)", DOWNLOAD, text=True),
    Kind(rb"(<\?xml[^>]*>\s*)?(<!--([^-]|-(?!->))*-->\s*)*<odx\b", "an ODX document", EXPORT, text=True),
    Kind(rb"<\?xml|<!--|<[a-z][\w:.-]*[\s/>]", "an XML document", text=True),
    Kind(
        rb"version https://git-lfs\.github\.com", "a pointer of Git LFS, not the file itself",
        f"Fetch the file: git lfs pull. {MEANT}", text=True,
    ),
    Kind(rb"-----begin ", "a key, a certificate or another PEM file", text=True),
    Kind(rb"\{\s*[\"}]|\[\s*[\"{\[\]\d]", "a JSON document", text=True),
    Kind(rb"(http/[\d.]+ )?([45]\d\d[: ]+)?(not found|forbidden|unauthorized|access denied|bad gateway|bad request|"
         rb"internal server error|service unavailable|too many requests)\b",
         "an error message of a web server", DOWNLOAD, text=True),
    Kind(rb"(//[^\n]*\n\s*)*@[0-9a-f]{2,8}\s", "hex digits in TI-TXT's or Verilog's format", CONVERT, text=True),
    Kind(rb"%[0-9a-f]{2}[68]", "hex digits in Tektronix's format", CONVERT, text=True),
    Kind(rb"0{7,8}:?\s+([0-9a-f]{2,4}\s+){4}", "a hex dump", PROGRAM, text=True),
    Kind(rb"([0-9a-f]{2}|[0-9a-f]{4}|[0-9a-f]{8})(\s+[0-9a-f]{2,8}){2}\s", "hex digits without addresses", PROGRAM, text=True),
    Kind(rb"[0-9a-f]{32}", "hex digits without addresses", PROGRAM, text=True),
    Kind(rb"[0-9a-z+/]{60,76}={0,2}\r?\n|[0-9a-z+/]{64,}={0,2}$", "a text in base64", DECODE, text=True),
    Kind(rb"\{\\rtf", "an RTF document", text=True),
    Kind(rb"#!", "a script", text=True),
    Kind(rb"(?=.{5}).*[\r\n]|.{16}", "a text", check=_is_utf_8, text=True, unknown=True),
)  # fmt: skip
"""In the order in which they are looked for."""


def kind(head: bytes) -> Kind | None:
    """What a file is that begins with these HEAD_SIZE bytes; None where it may be a raw binary."""
    text = _as_text(head)
    return next((one for one in KINDS if (not one.text or text) and one.begins(text if one.text else head)), None)


def _as_text(head: bytes) -> bytes:
    """In small letters and without blanks before it; b"" where there are control characters, which no text has."""
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8")):
        if head.startswith(mark):
            head = head[len(mark) :].decode(encoding, "ignore").encode()
    if re.search(rb"[^\t\n\r\f\x1b\x20-\x7e\x80-\xff]", head):
        return b""
    return head.lstrip().lower()
