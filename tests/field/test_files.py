"""Files that people gave to parts, reduced to small ones made here: each goes to its memory, or is refused by what it is."""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import io
import lzma
import shutil
import struct
import tarfile
import tomllib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from proxyflash.emulators import application
from proxyflash.flashers.formats import formats, keeps_addresses
from proxyflash.tests.tools.conftest import Desk
from proxyflash.transports import plugins
from proxyflash.transports.recording import formats as recording

OK, USAGE, BAD_FILE = 0, 2, 12


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    shutil.copy(Path(__file__).with_name("files.toml"), tmp_path / "bench.toml")
    return Desk(tmp_path, capsys)


def hexed(*runs: tuple[int, str]) -> bytes:
    """Intel HEX of addresses and hex digits, as Intel's specification puts records together."""
    lines = []
    for address, digits in runs:
        for head, data in ((b"\x02\0\0\4", (address >> 16).to_bytes(2, "big")), (None, bytes.fromhex(digits))):
            record = (head or bytes([len(data)]) + (address & 0xFFFF).to_bytes(2, "big") + b"\0") + data
            lines.append(f":{record.hex()}{-sum(record) & 0xFF:02x}".upper())
    return "\n".join([*lines, ":00000001FF", ""]).encode()


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("firmware.bin", bytes(3000))
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("firmware.bin"))
    return stream.getvalue()


def old_tar() -> bytes:
    """As `tar --format=v7` writes a header: nothing in it but the checksum marks a tar archive."""
    names = b"firmware.bin".ljust(100, b"\0") + b"0000644\0" + b"0001750\0" * 2 + b"00000000000\0" * 2
    total = sum(names) + 8 * 0x20 + 0x30
    return (names + b"%06o\0 0" % total).ljust(10240, b"\0")


def partitioned() -> bytes:
    """A master boot record with one active FAT32 partition, from sector 2048 on."""
    return bytes(446) + struct.pack("<B3xB3xII", 0x80, 0x0C, 2048, 65536).ljust(64, b"\0") + b"\x55\xaa" + bytes(512)


def gbl() -> bytes:
    """UG266, "GBL file format": header, application, program data and end, each a tag, a size and content."""
    body = b"".join(
        struct.pack("<II", tag, len(data)) + data
        for tag, data in (
            (0x03A617EB, struct.pack("<II", 0x03000000, 0)),
            (0xF40A0AF4, struct.pack("<III16s", 0x20, 1, 0, bytes(16))),
            (0xFE0101FE, struct.pack("<I", 0x4000) + bytes(range(256)) * 8),
        )
    )
    body += struct.pack("<II", 0xFC0404FC, 4)
    return body + struct.pack("<I", zlib.crc32(body))


def mcuboot() -> bytes:
    """An image as `imgtool sign` makes it, with a header, a program and a SHA-256."""
    body = struct.pack("<II", 0x2001_0000, 0x0800_C201) + bytes(i & 255 for i in range(504))
    head = struct.pack("<IIHHIIBBHII", 0x96F3B83D, 0, 0x20, 0, len(body), 0, 1, 2, 3, 0, 0)
    return head + body + struct.pack("<HHHH", 0x6907, 40, 0x10, 32) + hashlib.sha256(head + body).digest()


def padded(align: int) -> bytes:
    """The image as `imgtool sign --pad --slot-size 0x2000 --max-align ALIGN` pads it (imgtool, image.py, pad_to)."""
    magic = "77c295f360d2ef7f3552500f2cb67980"
    if align > 8:
        magic = f"{align:02x}002de15d29410b8d77679c110f1f8a"
    return mcuboot().ljust(0x2000 - 16, b"\xff") + bytes.fromhex(magic)


def dfu(content: bytes, product: int, bcd_dfu: int = 0x0100) -> bytes:
    """USB-IF, DFU 1.1, appendix B: the suffix, whose CRC is that of Ethernet without its final inversion."""
    content += struct.pack("<4H3sB", 0xFFFF, product, 0x1209, bcd_dfu, b"UFD", 16)
    return content + (zlib.crc32(content) ^ 0xFFFFFFFF).to_bytes(4, "little")


def dfuse(*elements: tuple[int, int, bytes]) -> bytes:
    """ST's UM0391: a target for each element of an alternate setting, an address and content."""
    targets = b"".join(
        struct.pack("<6sBI255sIIII", b"Target", alt, 0, b"", 8 + len(data), 1, address, len(data)) + data
        for alt, address, data in elements
    )
    return dfu(struct.pack("<5sBIB", b"DfuSe", 1, 11 + len(targets), len(elements)) + targets, 0xDF03, 0x011A)


def elf(*runs: tuple[int, bytes], machine: int = 83, order: str = "<") -> bytes:
    """A program with a PT_LOAD segment for each run; avr-ld makes one for each of .text, .eeprom, .fuse, .lock, .signature."""
    offset = 52 + 32 * len(runs)
    headers, content = b"", b""
    for address, data in runs:
        headers += struct.pack(f"{order}8I", 1, offset + len(content), address, address, len(data), len(data), 5, 1)
        content += data
    ident = (b"\x7fELF\1\1\1" if order == "<" else b"\x7fELF\1\2\1").ljust(16, b"\0")
    return (
        ident
        + struct.pack(f"{order}HHIIIIIHHHHHH", 2, machine, 1, 0, 52, 0, 0x85, 52, 32, len(runs), 0, 0, 0)
        + headers
        + content
    )


CODE = "0C9434000C9434000C9434000C943400"
CONTENT = bytes(range(256))
WITH_FUSES = [(0, CODE), (0x820000, "FFDEFD"), (0x830000, "CF")]
EEPROM = (0x810000, "01020304")
UF2 = (
    struct.pack("<8I", 0x0A324655, 0x9E5D5157, 0x2000, 0x10000000, 256, 0, 1, 0xE48BFF56).ljust(508)
    + b"\x30\x6f\xb1\x0a"
)
ESP = bytes.fromhex("E9020020 0C044040 EE000000 00000000 00000000 00000001").ljust(4096, b"\0")
CORE = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 0, 0, 0, 0)


@dataclass(frozen=True)
class Case:
    """`said`: in what the command prints, in this order. `options`: of `flash`, which is run with --dry-run."""

    component: str
    file: str
    content: bytes
    status: int
    said: tuple[str, ...]
    options: tuple[str, ...] = ()


CASES = {
    "an EEPROM file for a loader without EEPROM": Case(
        "sonar", "settings.eep", hexed((0, "01020304")), BAD_FILE, ("0x00810000..0x00810003", "eeprom"),
    ),
    "an EEPROM file for a loader with EEPROM": Case(
        "panel", "settings.eep", hexed((0, "01020304")), OK, ("plan    4 bytes",),
    ),
    "a raw EEPROM file": Case("panel", "settings.eep", bytes(range(64)), OK, ("plan    64 bytes",)),
    "an EEPROM file for a part that has none": Case(
        "imu", "settings.eep", hexed((0, "01020304")), BAD_FILE, ("0x00810000", "an AVR's EEPROM"),
    ),
    # What Microchip Studio, MPLAB X and makefiles call what avr-objcopy cuts out of an ELF file, each from 0 on.
    **{
        f"{name}: one memory alone": Case("sonar", name, hexed((0, digits)), BAD_FILE, (f"0x{start:08X}", said))
        for name, digits, start, said in (
            ("app.fuse", "FFDEFD", 0x820000, "fuses"),
            ("app_fuses.hex", "FFDEFD", 0x820000, "fuses"),
            ("hfuse.hex", "DE", 0x820001, "fuses"),
            ("app.LCK", "FF", 0x830000, "lock bits"),
            ("app.usersignatures", "41636D65", 0x850000, "an AVR's user signatures"),
            ("app.eeprom.hex", CODE * 2, 0x810000, "eeprom"),
        )
    },
    "another part's signature alone": Case(
        "sonar", "app.sig", hexed((0, "01981E")), BAD_FILE, ("E-IMAGE-WRONG-PART", "01 98 1E"),
    ),
    "its own signature alone": Case("sonar", "app.sig", hexed((0, "0F951E")), OK, ("nothing to write",)),
    **{
        f"a program that is called {name}": Case("sonar", name, hexed((0, CODE * 2)), OK, ("plan    32 bytes",))
        for name in ("door-lock.hex", "smart_fuse.hex", "test_eeprom.hex")
    },
    "code and EEPROM": Case("panel", "all.hex", hexed((0, CODE), EEPROM), OK, ("plan    20 bytes",)),
    "code and an EEPROM out of reach": Case(
        "sonar", "all.hex", hexed((0, CODE), EEPROM), BAD_FILE, ("E-IMAGE-MISPLACED", "eeprom", "--only flash"),
    ),
    "only the code": Case(
        "sonar", "all.hex", hexed((0, CODE), EEPROM), OK, ("plan    16 bytes", "left out: 0x00810000"),
        ("--only", "flash"),
    ),
    "only what isn't in the file": Case(
        "panel", "all.hex", hexed(EEPROM), BAD_FILE, ("E-IMAGE-EMPTY", "nothing for flash"), ("--only", "flash"),
    ),
    "only a memory that isn't there": Case(
        "sonar", "all.hex", hexed((0, CODE)), BAD_FILE, ("called 'rom'", "flash"), ("--only", "rom"),
    ),
    "fuses": Case("sonar", "all.hex", hexed(*WITH_FUSES), BAD_FILE, ("E-IMAGE-MISPLACED", "fuses", "--only flash")),
    "only the code, not the fuses": Case(
        "sonar", "all.hex", hexed(*WITH_FUSES), OK, ("left out: 0x00820000..0x00820002, fuses", "lock bits"),
        ("--only", "flash"),
    ),
    "an ELF file with fuses": Case(
        "sonar", "app.elf", elf((0, bytes(16)), (0x820000, b"\xff\xde\xfd")), BAD_FILE, ("fuses", "--only flash"),
    ),
    "only the code of an ELF file": Case(
        "sonar", "app.elf", elf((0, bytes(16)), (0x820000, b"\xff\xde\xfd"), (0x850000, b"user")), OK,
        ("left out: 0x00820000..0x00820002, fuses", "left out: 0x00850000..0x00850003"), ("--only", "flash"),
    ),
    "an ELF file with user signatures": Case(
        "panel", "app.elf", elf((0, bytes(16)), (0x850000, b"user")), BAD_FILE, ("an AVR's user signatures", "--only flash"),
    ),
    "another part's signature": Case(
        "panel", "all.hex", hexed(*WITH_FUSES, (0x840000, "0F951E")), BAD_FILE,
        ("E-IMAGE-WRONG-PART", "signature 0F 95 1E", "01 98 1E"),
    ),
    "its own signature": Case(
        "sonar", "all.hex", hexed((0, CODE), (0x840000, "0F951E")), OK, ("plan    16 bytes", "the part holds it already"),
    ),
    "its own signature, as avrdude writes it": Case(
        "sonar", "all.hex", hexed((0, CODE), (0x840000, "1E950F")), OK, ("plan    16 bytes", "the part holds it already"),
    ),
    "a bootloader's section with other bytes": Case(
        "sonar", "all.hex", hexed((0, CODE), (0x7E00, CODE)), BAD_FILE, ("boot section", "other bytes", "--only flash"),
    ),
    "only the code, not the bootloader": Case(
        "sonar", "all.hex", hexed((0, CODE), (0x7E00, CODE)), OK, ("left out: 0x00007E00",), ("--only", "flash"),
    ),
    "Nordic's UICR": Case(
        "imu", "app.hex", hexed((0x08001000, CODE), (0x10001014, "00F00700")), BAD_FILE, ("UICR", "--only flash"),
    ),
    "option bytes": Case(
        "imu", "app.hex", hexed((0x08001000, CODE), (0x1FFFF800, "5AA500FF")), BAD_FILE, ("option bytes", "--only flash"),
    ),
    "option bytes, another alternate setting": Case(
        "resident", "app.hex", hexed((0x08010000, CODE), (0x1FFFC000, "01020304")), BAD_FILE, ("E-IMAGE-MISPLACED",),
    ),
    "a text after each record": Case(
        "sonar", "app.hex", hexed((0, CODE)).replace(b"\n", b" // 00000> .4...4..\n"), OK, ("plan    16 bytes",),
    ),
    "zeros behind the end": Case("sonar", "app.hex", hexed((0, CODE)) + bytes(100), OK, ("plan    16 bytes",)),
    "the end of a text file of DOS": Case(
        "sonar", "app.hex", hexed((0, CODE)).replace(b"\n", b"\r\n") + b"\x1a\x1a\0\0", OK, ("plan    16 bytes",),
    ),
    # micropython-microbit-fs, test of a Universal Hex.
    "a program for each of several boards": Case(
        "sonar", "app.hex", b":020000040000FA\n:0400000A9900C0DEBB\n", BAD_FILE, ("line 2", "0x0A", "a Universal Hex"),
    ),
    "no end-of-file record": Case(
        "sonar", "app.hex", b"\n".join(hexed((0, CODE)).split(b"\n")[:-2]), BAD_FILE, ("add the line :00000001FF",),
    ),
    "S-records without an end": Case(
        "imu", "app.s19", b"S315080010000C9434000C9434000C9434000C94340082\n", BAD_FILE, ("add the line S9030000FC",),
    ),
    **{
        f"a raw binary called {name}": Case("imu", name, CONTENT * 2, BAD_FILE, ("not a file of records", "--format bin"))
        for name in ("app.hex", "app.s19")
    },
    "lower-case digits": Case("sonar", "app.hex", hexed((0, CODE)).lower(), OK, ("plan    16 bytes",)),
    "the same bytes twice": Case(
        "sonar", "app.hex", hexed((0, CODE), (0, CODE)), BAD_FILE, ("E-IMAGE-OVERLAP", "by lines 2 and 4"),
    ),
    "the highest addresses": Case("imu", "app.hex", hexed((0xFFFFFFF0, CODE)), BAD_FILE, ("0xFFFFFFF0..0xFFFFFFFF",)),
    "addresses, for a slot that has none": Case(
        "cam", "app.elf", elf((0x08000000, bytes(64))), BAD_FILE, ("E-IMAGE-MISPLACED", "0x08000000", "--to FILE.bin"),
    ),
    "a suffix for another device": Case(
        "cam", "app.dfu", dfu(bytes(64), 0x5555), BAD_FILE, ("E-IMAGE-WRONG-PART", "1209:5555", "1209:df01"),
    ),
    "DfuSe with two targets of one alternate setting": Case(
        "resident", "app.dfu", dfuse((0, 0x08010000, bytes(64)), (0, 0x08020000, bytes(64))), OK, ("plan    128 bytes",),
    ),
    "DfuSe with another alternate setting": Case(
        "resident", "app.dfu", dfuse((0, 0x08010000, bytes(64)), (1, 0x1FFFC000, bytes(16))), BAD_FILE,
        ("E-IMAGE-MISPLACED", "option bytes"),
    ),
    "an MCUboot image followed by zeros": Case("soil", "app.bin", mcuboot() + bytes(99), OK, ("plan    584 bytes",)),
    "an MCUboot image in Intel HEX": Case(
        "soil", "app.hex", hexed((0x0800C000, mcuboot()[:64].hex())), BAD_FILE,
        ("not a signed image in binary form", "zephyr.signed.bin"),
    ),
    "an MCUboot image for a part without MCUboot": Case(
        "imu", "app.bin", mcuboot(), BAD_FILE, ("E-IMAGE-WRONG-PART", "an image for MCUboot", "--address"),
    ),
    "Intel HEX that is called .bin": Case("sonar", "app.bin", hexed((0, CODE)), OK, ("plan    16 bytes",)),
    **{
        f"an MCUboot image padded for {align} bytes": Case("soil", "app.bin", padded(align), OK, ("plan    584 bytes",))
        for align in (8, 16, 32)
    },
    "GBL": Case("radio", "app.gbl", gbl(), OK, (f"plan    {len(gbl()):,} bytes",)),
    "a U-Boot image": Case("radio", "u-boot.img", b"\x27\x05\x19\x56" + bytes(100), OK, ("plan    104 bytes",)),
    "a zip archive for a loader of files": Case("radio", "app.gbl", zipped(), BAD_FILE, ("a zip archive",)),
    **{
        f"{what} as {name} for {component}": Case(component, name, content, BAD_FILE, ("E-IMAGE-FORMAT", what, "--format bin"))
        for component, name, content, what in (
            ("cam", "app.bin", zipped(), "a zip archive"),
            ("sonar", "app.hex", zipped(), "a zip archive"),
            ("sonar", "app.bin", gzip.compress(bytes(3000)), "compressed by gzip"),
            ("imu", "app.bin", bz2.compress(bytes(3000)), "compressed by bzip2"),
            ("cam", "app.bin", lzma.compress(bytes(3000)), "compressed by xz"),
            ("cam", "app.bin", lzma.compress(bytes(3000), lzma.FORMAT_ALONE), "compressed by lzma"),
            ("radar", "app.bin", tarred(), "a tar archive"),
            ("cam", "app.bin", b"7z\xbc\xaf\x27\x1c\0\4" + bytes(99), "a 7z archive"),
            ("sonar", "app.bin", b"\n<!DOCTYPE html>\n<html><title>404</title></html>", "a web page"),
            ("cam", "app.hex", b"<html><head></head></html>", "a web page"),
            ("sonar", "app.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS"),
            ("cam", "app.bin", b'{"message": "Not Found"}\n', "a JSON document"),
            ("cam", "app.bin", b"Salted__" + bytes(range(200, 250)), "encrypted by openssl"),
            ("radio", "app.gbl", b'{"message":"Not Found"}', "a JSON document"),
            ("radio", "app.gbl", b"404: Not Found", "an error message of a web server"),
            ("cam", "app.bin", "<html><title>Zugriff für Sie verweigert</title>".encode("latin-1"), "a web page"),
            ("imu", "app.bin", b"\xff\xfe" + "<!DOCTYPE html>".encode("utf-16-le"), "a web page"),
            ("cam", "app.bin", old_tar(), "a tar archive"),
            ("cam", "app.bin", b"\x1f\x1f-lh5-" + bytes(99), "an LHA archive"),
            ("cam", "app.img", partitioned(), "an image of a disk"),
            ("radar", "app.bin", bytes.fromhex("27051956") + bytes(99), "an image for U-Boot"),
            ("radar", "app.itb", bytes.fromhex("D00DFEED") + bytes(99), "a FIT image for U-Boot"),
            ("imu", "app.stm32", b"STM2" + bytes(999), "an STM32MP"),
            ("radar", "app.rsu", b"RELFWV2" + bytes(999), "an RSU file"),
            ("radar", "app.bin", b"SGML Object File\0\2" + bytes(999), "an SGO file"),
            ("radar", "app.odx-f", b'<?xml version="1.0"?>\n<!-- a - b --><ODX MODEL-VERSION="2.2.0">', "an ODX document"),
            ("radar", "app.out", bytes.fromhex("C200 0500 00000000 00000000 00000000 1C00 0301 9D00 0801"), "a COFF file"),
            ("radar", "app.bin", b"0C9434000C943400" * 20, "hex digits without addresses"),
            ("cam", "app.bin", base64.b64encode(CONTENT), "a text in base64"),
            ("sonar", "app.bin", base64.encodebytes(CONTENT), "a text in base64"),
            ("radar", "app.bin", b"The firmware is on drive F", "a text"),
            ("cam", "app.bin", b"TODO\n", "a text"),
            ("options", "app.bin", rb"{\rtf1\ansi", "an RTF document"),
            ("radar", "app.bin", bytes.fromhex("8C0D040903020A9E") + CONTENT, "encrypted by PGP"),
            ("radar", "app.bin", bytes.fromhex("85020C03") + CONTENT, "encrypted by PGP"),
            ("radar", "app.bin", bytes.fromhex("308204A406092A864886F70D010703A0") + CONTENT, "encrypted by CMS"),
            ("cam", "app.bin", b"\xff\x06\0\0sNaPpY" + CONTENT, "compressed by snappy"),
            ("cam", "app.bin", b"bvx2" + CONTENT, "compressed by lzfse"),
            ("cam", "app.bin", b"MSWIM\0\0\0\xd0\0\0\0" + CONTENT, "a Windows image archive"),
            ("radar", "app.bin", bytes.fromhex("851903200C00000046C1E1A4") + CONTENT, "a flash file system"),
            ("radar", "app.bin", bytes.fromhex("01000000F00FFFF7") + b"littlefs" + CONTENT, "a flash file system"),
            ("cam", "app.bin", bytes(1080) + bytes.fromhex("53EF01000100") + bytes(900), "a file system"),
            ("cam", "app.bin", bytes(1024) + bytes.fromhex("E2E1F5E0") + bytes(900), "a file system"),
            ("cam", "app.bin", b"\xeb\x3c\x90mkfs.fat".ljust(54, b"\0") + b"FAT12   " + bytes(448), "a file system (FAT)"),
            ("cam", "app.bin", b"KDMV\1\0\0\0" + CONTENT, "an image of a disk"),
            ("radar", "app.bin", b"MDF     4.10    " + CONTENT, "a recording of vehicle buses"),
            ("radar", "app.bin", b"LOGG\x90\0\0\0" + CONTENT, "a recording of vehicle buses"),
            ("radar", "app.bin", b"\x89HDF\r\n\x1a\n" + CONTENT, "a file of measured data"),
            ("sonar", "app.bin", bytes.fromhex("A70D0D0A00000000") + CONTENT, "a compiled Python module"),
            ("radar", "app.cff", b"CFF-TRANSLATOR-VERSION:02.00\0" + CONTENT, "a CFF file"),
            ("imu", "app.hex", b"00000000: 0050 0020 0901 0008 0b01 0008  .P. ....\n", "a hex dump"),
            ("imu", "app.hex", b"20005000\n08000109\n0800010B\n0800010D\n", "hex digits without addresses"),
            ("imu", "app.mem", b"// made by us\n@00000000\n00 50 00 20\n", "Verilog's format"),
            ("cam", "app.bin", "Prüfsumme falsch, falsche Größe\n".encode(), "a text"),
            ("cam", "app.bin", b"\x02\x21\x4c\x18" + bytes(99), "compressed by lz4"),
            *(
                ("cam", f"{level}.bin", zlib.compress(bytes(range(256)) * 16, level), "compressed by zlib")
                for level in (1, 5, 6, 9)
            ),
            ("cam", "app.bin", b"BSDIFF40" + bytes(99), "made by bsdiff"),
            ("cam", "app.bin", b"\xd6\xc3\xc4\0\0" + bytes(99), "VCDIFF"),
            ("cam", "app.bin", b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), "a sound"),
            ("cam", "app.bin", bytes.fromhex("308204A40201000282010100") + bytes(99), "(DER)"),
            ("cam", "app.cer", bytes.fromhex("308203753082025DA003020102") + bytes(99), "(DER)"),
            ("imu", "app.map", b"Archive member included\n\nMemory Configuration\n", "a text"),
            ("imu", "app.lst", b"app.elf: file format elf32-littlearm\n", "a text"),
            ("radio", "fw.deb", b"!<arch>\ndebian-binary   ", "an ar archive"),
            ("sonar", "app.hex", gzip.compress(hexed((0, CODE))), "compressed by gzip"),
            ("radar", "app.bin", b"%PDF-1.7\n", "a PDF document"),
            ("imu", "app.ebl", bytes.fromhex("0000 008C 0201 E350") + bytes(200), "an EBL file"),
            ("imu", "app.ota", bytes.fromhex("1EF1EE0B 0001 3800") + bytes(99), "a Zigbee OTA file"),
            ("imu", "app.cyacd", b"04C811931100\n" + b":000020008000\n", "a .cyacd file"),
            ("imu", "app.hex", b"01E206200021000001020304\n@APPINFO:0x10000000,0x20\n", "a .cyacd file"),
            ("radar", "app.vbf", b"// made by us\nvbf_version = 2.6;\nheader {\n}\0", "a VBF file"),
            ("imu", "app.bin", gbl(), "a GBL file"),
            ("sonar", "app.bin", UF2, "a UF2 file"),
            ("radar", "app.bin", ESP, "Espressif's"),
        )
    },
    **{
        f"{what}, in the place of a file": Case("cam", name, content, BAD_FILE, ("E-IMAGE-FORMAT", what, "Give the file"))
        for name, content, what in (
            ("._app.bin", bytes.fromhex("0005160700020000") + b"Mac OS X        " + bytes(99), "what macOS keeps beside a file"),
            ("app.bin", bytes.fromhex("4C0000000114020000000000C000000000000046") + bytes(99), "a shortcut of Windows"),
        )
    },
    "a zip archive that is meant": Case("cam", "app.bin", zipped(), OK, ("plan ",), ("--format", "bin")),
    "a program for another processor, elsewhere": Case(
        "imu", "app.elf", elf((0, bytes(16))), BAD_FILE, ("E-IMAGE-WRONG-PART", "built for EM_AVR"),
    ),
    "a program for the host": Case(
        "imu", "a.out", elf((0x400000, bytes(16)), machine=62), BAD_FILE, ("E-IMAGE-WRONG-PART", "EM_X86_64"),
    ),
    "a program of the other byte order": Case(
        "imu", "app.elf", elf((0x08000000, struct.pack("<II", 0x20005000, 0x08000009) * 8), machine=40, order=">"),
        BAD_FILE, ("E-IMAGE-WRONG-PART", "EM_ARM (big endian)"),
    ),
    # Where Nordic's SoftDevices end; the slot is larger, so that the addresses would become a gap at its start.
    "low addresses, for a slot that has none": Case(
        "cam", "app.hex", hexed((0x26000, CODE)), BAD_FILE, ("E-IMAGE-MISPLACED", "0x00026000", "--to FILE.bin"),
    ),
    "S-records for a loader of files": Case(
        "radio", "app.s37", b"S315000040000C9434000C9434000C9434000C9434005A\n" + b"S70500000000FA\n", BAD_FILE,
        ("E-IMAGE-MISPLACED", "0x00004000"),
    ),
    "lines of three kinds": Case(
        "sonar", "app.hex", b"\r\n;\r;\n" + hexed((0, CODE), (0x100, CODE)).replace(b"\n", b"\r", 2), OK, ("plan    32 bytes",),
    ),
    "Intel HEX in UTF-16 of no mark": Case(
        "sonar", "app.hex", hexed((0, CODE)).decode().encode("utf-16-le"), BAD_FILE, ("UTF-16 without a byte order mark",),
    ),
    "a core file": Case("sonar", "core.elf", CORE, BAD_FILE, ("E-IMAGE-FORMAT", "core file")),
    "a raw binary one byte off": Case(
        "imu", "app.bin", bytes(range(256)) * 8, BAD_FILE, ("E-IMAGE-MISPLACED", "would be lost"),
        ("--address", "0x08000001"),
    ),
    # With `--only flash` each byte of the rest would go to a wrong place.
    **{
        f"a raw binary that begins before the memory of {component}": Case(
            component, "app.bin", bytes(range(256)) * 8, BAD_FILE, ("E-IMAGE-MISPLACED", "Is the address right? What can be"),
            ("--address", address),
        )
        for component, address in (("imu", "0x07FFFFFF"), ("radar", "0x0001FFF0"))
    },
    "data elsewhere": Case(
        "imu", "data.bin", bytes(range(64)), OK, ("plan    64 bytes",), ("--address", "0x08001000"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_file(name: str, desk: Desk) -> None:
    """EEPROM, fuses and signatures of AVRs: https://github.com/avrdudes/avrdude/issues/986, /1508, /1204, /1195.
    A bootloader in the file: https://github.com/twinearthsoftware/ArduinoSketchUploader/issues/36.
    Trailers of MCUboot: https://github.com/mcu-tools/mcuboot/issues/1217, /1955.
    Files for a bootloader that judges them: https://github.com/NabuCasa/universal-silabs-flasher/issues/9.
    Text after a record: https://github.com/avrdudes/avrdude/issues/1030.
    An archive that is called firmware: https://github.com/IntelRealSense/librealsense/issues/6635.
    """
    case = CASES[name]
    (desk.folder / case.file).write_bytes(case.content)
    done = desk.run("flash", case.component, desk.folder / case.file, "--dry-run", *case.options)
    text = done.out + done.err
    assert done.status == case.status, text
    place = 0
    for said in case.said:
        place = text.find(said, place)
        assert place >= 0, (said, text)
    assert "copied whole" not in text


def test_data_do_not_cost_the_vector_table(desk: Desk) -> None:
    table = struct.pack("<II", 0x20005000, 0x08000009).ljust(64, b"\0")
    for file, content in (("app.bin", table), ("data.bin", bytes(range(64)))):
        (desk.folder / file).write_bytes(content)
    data = ("flash", "imu", desk.folder / "data.bin", "--address", "0x08000200")
    assert desk.run(*data, "--dry-run").status == OK
    assert desk.run("flash", "imu", desk.folder / "app.bin", "--no-boot").status == OK
    done = desk.run(*data)
    assert (done.status, "E-IMAGE-MISPLACED" in done.err, "would be lost" in done.err) == (BAD_FILE, True, True)


READ = {
    "sonar": (0, ".bin", 0),
    "knob": (0, ".hex", 0),
    "panel": (0, ".hex", 0),
    "imu": (0x0800_0000, ".s19", 0x0800_0000),
    "resident": (0x0801_0000, ".dfu", 0x0801_0000),
    "options": (None, ".dfu", 0x1FFF_C000),
    "cam": (None, "", 0),
    "radar": (0x2_0000, "", 0x2_0000),
    "hotend": (0x0800_2000, "", 0x0800_2000),
    "board": (0x0800_2000, "", 0x0800_2000),
    "drive": (0x0800_0000, ".hex", 0x0800_0000),
    "lift": (0x0800_0000, ".hex", 0x0800_0000),
    "pump": (0xA000, ".hex", 0xA000),
    "throttle": (0x0800_6000, ".hex", 0x0800_6000),
    "blower": (0x0800_6000, ".hex", 0x0800_6000),
    "fan": (0xA000, ".hex", 0xA000),
}
"""Where a part's firmware begins, None where it keeps what it has; the format that all of its memory is read into; from where
16 bytes are read into each other format."""


@pytest.mark.parametrize("component", READ)
def test_what_read_wrote_flash_takes_back(component: str, desk: Desk) -> None:
    """https://github.com/twinearthsoftware/ArduinoSketchUploader/issues/36"""
    firmware, whole, start = READ[component]
    if firmware is not None:
        (desk.folder / "old.bin").write_bytes(application.make("1.0", "part", "Acme", 700, start=firmware))
        done = desk.run("flash", component, desk.folder / "old.bin", "--address", hex(firmware), "--no-boot")
        assert done.status == OK, done.err
    for ending in sorted({kind.endings[0] for kind in formats() if kind.is_written}):
        out = desk.folder / f"own{ending}"
        where = () if ending == whole else ("--start", hex(start), "--size", "16")
        read = desk.run("read", component, out, *where)
        assert read.status == OK, read.err
        done = desk.run(
            "flash", component, out, "--dry-run", *() if keeps_addresses(out) else ("--address", hex(start))
        )
        assert done.status == OK, done.err
        # A slot's old content is known after an upload alone.
        assert component == "cam" or "nothing to write" in done.out, done.out


def test_a_file_without_addresses_says_where_its_bytes_belong(desk: Desk) -> None:
    out = desk.folder / "own.bin"
    read = desk.run("read", "knob", out, "--start", "0x810000", "--size", "16")
    assert (read.status, "--address 0x00810000" in read.err) == (OK, True), read.err
    assert "nothing to write" in desk.run("flash", "knob", out, "--address", "0x00810000", "--dry-run").out


UNREADABLE = {"soil": ("smp", "smp-udp"), "radio": ("xmodem", "ymodem"), "encoder": ("canopen",)}
"""Of protocols that read nothing back, by the component that speaks the first of them."""


@pytest.mark.parametrize("component", UNREADABLE)
def test_what_can_not_be_read_is_refused(component: str, desk: Desk) -> None:
    done = desk.run("read", component, desk.folder / "own.bin")
    assert (done.status, "E-UNSUPPORTED" in done.err) == (USAGE, True), done.err
    assert not (desk.folder / "own.bin").exists()


def test_each_protocol_is_read_or_said_not_to_be() -> None:
    bench = tomllib.loads(Path(__file__).with_name("files.toml").read_text())
    by_name = {item["name"]: item["protocol"] for item in bench["component"]}
    read = {by_name[component] for component in READ}
    unread = {protocol for protocols in UNREADABLE.values() for protocol in protocols}
    assert read | unread == set(plugins.names(plugins.FLASHERS))
    assert not read & unread


def test_a_slot_is_read_up_to_where_its_upload_ends(desk: Desk) -> None:
    """Without `slot_size` nobody knows how large the slot is; DFU 1.1, 6.2: a short frame ends the upload."""
    image = application.make("1.0", "cam", "Acme", 700)
    (desk.folder / "old.bin").write_bytes(image)
    assert desk.run("flash", "cam", desk.folder / "old.bin").status == OK
    for name in ("own.bin", "own.hex", "own.dfu"):
        read = desk.run("read", "cam", desk.folder / name)
        assert read.status == OK, read.err
        assert desk.run("flash", "cam", desk.folder / name, "--dry-run").status == OK
    assert (desk.folder / "own.bin").read_bytes().startswith(image)
    assert desk.run("read", "cam", desk.folder / "x.bin", "--start", "0", "--size", "0x800000").status != OK


@pytest.mark.parametrize("ending", [".elf", ".uf2", ".txt", ""])
def test_an_ending_that_is_not_written_is_refused_before_the_part_is_asked(ending: str, desk: Desk) -> None:
    done = desk.run("record", desk.folder / "asked.jsonl", "--", "read", "imu", desk.folder / f"own{ending}")
    assert (done.status, "E-IMAGE-WRITE" in done.err) == (1, True), done.err
    assert recording.load(desk.folder / "asked.jsonl").records == ()


def test_several_memories_are_not_read_into_one_without_addresses(desk: Desk) -> None:
    done = desk.run("read", "knob", desk.folder / "own.bin")
    assert (done.status, "E-IMAGE-WRITE" in done.err, ".hex" in done.err) == (1, True, True)
