"""Firmware as Debian ships it and as gcc-arm-none-eabi builds it, held against programs that nobody here wrote."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import bincopy
import pytest
from proxyflash.flashers.errors import ImageOverlap
from proxyflash.flashers.formats import load, save
from proxyflash.flashers.image import FirmwareImage

MICROBIT = "/usr/share/firmware-microbit-micropython/firmware.hex"
UBERTOOTH = "/usr/share/ubertooth/firmware"
HACKRF = "/usr/share/hackrf"
ARDUINO = "/usr/share/arduino/hardware/arduino/avr/bootloaders"
PACKAGES = {
    MICROBIT: "firmware-microbit-micropython",
    UBERTOOTH: "ubertooth-firmware",
    HACKRF: "hackrf-firmware",
    ARDUINO: "arduino-core-avr",
}


def shipped(path: str, pattern: str = "") -> list[Path]:
    """A package's file, or its files of a pattern."""
    there = Path(path)
    if not there.exists():
        pytest.skip(f"{PACKAGES[path]} is not installed")
    found = sorted(there.rglob(pattern)) if pattern else [there]
    assert found
    return found


def tool(*arguments: str | Path, package: str) -> str:
    if shutil.which(str(arguments[0])) is None:
        pytest.skip(f"{package} is not installed")
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(image: FirmwareImage) -> list[tuple[int, bytes]]:
    return [(segment.address, bytes(segment.data)) for segment in image.segments]


def by_bincopy(path: Path) -> list[tuple[int, bytes]]:
    oracle = bincopy.BinFile()
    oracle.add_ihex_file(path)
    return [(segment.address, bytes(segment.data)) for segment in oracle.segments]


def test_micropython_for_the_microbit() -> None:
    (path,) = shipped(MICROBIT)
    image = load(path)
    assert contents(image) == by_bincopy(path)
    # Its vector table is at 0; UICR, the chip's configuration, is far away (nRF51 reference manual: 0x10001000).
    flash, uicr = image.segments
    assert flash.address == 0
    assert 0x10001000 <= uicr.address < uicr.end <= 0x10001100
    stack, reset = struct.unpack_from("<II", flash.data)
    assert 0x20000000 < stack <= 0x20004000
    assert reset & 1
    assert reset < flash.end


@pytest.mark.parametrize("ending", [".hex", ".s19", ".dfu"])
def test_micropython_in_another_format_is_the_same_image(ending: str, tmp_path: Path) -> None:
    image = load(shipped(MICROBIT)[0])
    save(image, tmp_path / f"fw{ending}")
    again = load(tmp_path / f"fw{ending}")
    assert again.segments == image.segments
    assert again.sha256 == image.sha256


def test_arduino_boot_loaders() -> None:
    seen = 0
    for path in shipped(ARDUINO, "*.hex"):
        if path.parent.name == "optiboot" and path.stem != "optiboot_atmega8":
            continue
        image = load(path)
        assert contents(image) == by_bincopy(path), path.name
        # They start where they begin, which objcopy writes as a start segment address.
        assert image.entry == image.start, path.name
        seen += 1
    assert seen > 10


@pytest.mark.parametrize("name", ["optiboot_atmega328", "optiboot_atmega168"])
def test_optiboot_as_debian_builds_it_overwrites_itself(name: str) -> None:
    # The code of this build is longer than its 512 bytes, and its version word lies in the midst of it.
    (path,) = shipped(ARDUINO, f"{name}.hex")
    lines = path.read_text().split()
    with pytest.raises(ImageOverlap) as raised:
        load(path)
    version = next(number for number, line in enumerate(lines, 1) if line.startswith(":02"))
    assert f"by lines {version - 3} and {version}" in raised.value.cause
    assert raised.value.address == int(lines[version - 1][3:7], 16)
    with pytest.raises(bincopy.AddDataError):
        by_bincopy(path)


def test_ubertooth_firmware_is_dfu_with_a_suffix(tmp_path: Path) -> None:
    for path in shipped(UBERTOOTH, "*.dfu"):
        image = load(path)
        assert (image.format, image.relocatable) == ("dfu", True)
        # README and udev rules of the project: 1d50:6003 is the bootloader.
        assert (image.target["vendor_id"], image.target["product_id"]) == (0x1D50, 0x6003)
        copy = tmp_path / path.name
        shutil.copy(path, copy)
        tool("dfu-suffix", "-D", copy, package="dfu-util")
        assert contents(image) == [(0, copy.read_bytes())]


def test_ubertooth_firmware_is_written_as_it_was(tmp_path: Path) -> None:
    for path in shipped(UBERTOOTH, "*.dfu"):
        save(load(path), tmp_path / path.name)
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_ubertooths_boot_loader_is_a_raw_binary() -> None:
    (path,) = shipped(UBERTOOTH, "bootloader.bin")
    assert contents(load(path, address=0)) == [(0, path.read_bytes())]


def test_hackrf_firmware_begins_with_a_header_that_its_crc_leaves_out() -> None:
    for path in shipped(HACKRF, "*.dfu"):
        image = load(path)
        assert (image.target["vendor_id"], image.target["product_id"]) == (0x1FC9, 0x000C)
        ((_, data),) = contents(image)
        assert data == path.read_bytes()[:-16]
        assert "NXP unencrypted LPC DFU prefix" in tool("dfu-prefix", "-c", path, package="dfu-util")
        # The header counts what follows it in blocks of 512 bytes.
        assert int.from_bytes(data[2:4], "little") == -(-(len(data) - 16) // 512)


def test_hackrf_firmware_for_the_flash_is_a_raw_binary() -> None:
    for path in shipped(HACKRF, "*.bin"):
        assert contents(load(path, address=0x14000000)) == [(0x14000000, path.read_bytes())]


# One program in every format.

LINKER_SCRIPT = """
    MEMORY { FLASH (rx) : ORIGIN = 0x08000000, LENGTH = 64K  RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 8K }
    SECTIONS {
      .vectors : { LONG(0x20002000) LONG(ABSOLUTE(start) | 1) } > FLASH
      .text : { *(.text*) *(.rodata*) } > FLASH
      .data : { *(.data*) } > RAM AT > FLASH
      .settings 0x08004000 : { KEEP(*(.settings)) } > FLASH
      .bss : { *(.bss*) *(COMMON) } > RAM
    }
"""
PROGRAM = """
    int table[300] = {1, 2, 3};
    const char text[] = "firmware";
    const int settings[5] __attribute__((section(".settings"), used)) = {5, 4, 3, 2, 1};
    int start(void) { return table[1] + text[2]; }
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    (folder / "fw.c").write_text(PROGRAM)
    (folder / "fw.ld").write_text(LINKER_SCRIPT)
    gcc = ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-Os", "-g", "-ffreestanding", "-nostdlib", "-Wl,-estart"]
    tool(*gcc, f"-Wl,-T{folder / 'fw.ld'}", "-Wl,--no-warn-rwx-segments", "-o", folder / "fw.elf", folder / "fw.c",
         package="gcc-arm-none-eabi")  # fmt: skip
    for form, ending in (("ihex", "hex"), ("srec", "s19"), ("binary", "bin")):
        tool("arm-none-eabi-objcopy", "-O", form, folder / "fw.elf", folder / f"fw.{ending}",
             package="binutils-arm-none-eabi")  # fmt: skip
    # DfuSe by hand from UM0391, from the pieces that objcopy dumps; the suffix by dfu-suffix.
    elements = b""
    oracle = bincopy.BinFile()
    oracle.add_srec_file(folder / "fw.s19")
    for address, data in oracle.segments:
        elements += struct.pack("<II", address, len(data)) + data
    target = b"Target" + struct.pack("<BI255sII", 0, 0, b"", len(elements), len(list(oracle.segments)))
    prefix = b"DfuSe" + struct.pack("<BIB", 1, 11 + len(target + elements), 1)
    (folder / "fw.dfu").write_bytes(prefix + target + elements)
    tool("dfu-suffix", "-v", "0x0483", "-p", "0xdf11", "-S", "0x011a", "-a", folder / "fw.dfu", package="dfu-util")
    return folder


def test_elf_hex_srecord_and_dfuse_of_one_program_are_one_image(built: Path) -> None:
    images = {kind: load(built / f"fw.{kind}") for kind in ("elf", "hex", "s19", "dfu")}
    assert [image.format for image in images.values()] == ["elf", "ihex", "srec", "dfuse"]
    assert len({image.sha256 for image in images.values()}) == 1
    assert len(images["elf"].segments) == 2
    assert contents(images["elf"]) == contents(images["dfu"])
    # objcopy fills the hole with zeros.
    raw = built / "fw.bin"
    assert images["hex"].read(0x08000000, raw.stat().st_size, fill=0) == raw.read_bytes()
    entries = {kind: image.entry for kind, image in images.items()}
    assert entries["elf"] == entries["hex"] == entries["s19"] != 0
    assert images["elf"].target["machine"] == "EM_ARM"


@pytest.mark.parametrize(("ending", "form"), [(".hex", "ihex"), (".s19", "srec")])
def test_objcopy_reads_what_was_written(ending: str, form: str, built: Path, tmp_path: Path) -> None:
    save(load(built / "fw.elf"), tmp_path / f"fw{ending}")
    tool("arm-none-eabi-objcopy", "-I", form, "-O", "binary", tmp_path / f"fw{ending}", tmp_path / "fw.bin",
         package="binutils-arm-none-eabi")  # fmt: skip
    assert (tmp_path / "fw.bin").read_bytes() == (built / "fw.bin").read_bytes()


def test_converting_to_raw_fills_holes_as_erased_flash(built: Path, tmp_path: Path) -> None:
    tool("arm-none-eabi-objcopy", "-O", "binary", "--gap-fill", "0xff", built / "fw.elf", tmp_path / "oracle.bin",
         package="binutils-arm-none-eabi")  # fmt: skip
    save(load(built / "fw.elf"), tmp_path / "fw.bin")
    assert (tmp_path / "fw.bin").read_bytes() == (tmp_path / "oracle.bin").read_bytes()
