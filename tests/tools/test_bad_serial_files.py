"""Files that aren't for a part which boots without help, one a row: what `image` says of each, and `flash`, dry or not.

Each has its own code, cause and remedy, and exit status 12; the part holds what it held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators import application
from proxyflash.tests.emulators.avr_lab import firmware
from proxyflash.tests.emulators.smp_lab import image

from .conftest import Desk

LINE = """
[bus.{name}-uart]
kind = "serial"
baudrate = 115_200
emulated = true
pace = 0.0

[[component]]
name = "{name}"
bus = "{name}-uart"
protocol = "{protocol}"
profile = {{{profile}}}
emulated = {{firmware = "{name}.bin", {emulated}}}
"""
PUMP = 'loader = "st-iap", entry = {reset = "dtr", select = "rts"}'
PARTS = {
    "soil": ("smp", "quiet = 0.02, run_address = 0x1000", 'part = "acme-s1"', image("1.0.0")),
    "strict": ("smp", "quiet = 0.02", 'part = "acme-s1", no_downgrade = true', image("1.0.0")),
    "motor": ("stk500v1", "entry = {discharge = 0.001}", 'part = "atmega328p-optiboot"', firmware("1.0.0", 3000)),
    "pump": (
        "ymodem",
        f"{PUMP}, slot_size = 0x6_0000",
        'part = "stm32l4-iap", wiring = "dtr-reset,!rts-boot"',
        application.make("1.0.0", "pump", "Acme", 3000, start=0x0800_5000),
    ),
}
"""By the component: its protocol, its profile, its `emulated` table, and what it holds."""

GOOD = image("2.0.0")
BOOT_SECTION = 0x7E00
"""Of Optiboot on an ATmega328P (boards.txt of Debian's arduino-core-avr: 32256 bytes for the application)."""


def record(kind: int, address: int, data: bytes) -> str:
    """A record of Intel's hexadecimal object file format, revision A."""
    body = bytes([len(data), address >> 8, address & 0xFF, kind]) + data
    return f":{body.hex().upper()}{-sum(body) & 0xFF:02X}\n"


def hex_file(*chunks: tuple[int, bytes]) -> bytes:
    lines = [
        record(0, start + offset, data[offset : offset + 16])
        for start, data in chunks
        for offset in range(0, len(data), 16)
    ]
    return "".join([*lines, record(1, 0, b"")]).encode()


def changed(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]


def arm_elf(code: bytes) -> bytes:
    """One segment at 0x1000 for a Cortex-M (System V ABI, gABI 4.1, "ELF Header" and "Program Header")."""
    header = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    header += (2).to_bytes(2, "little") + (40).to_bytes(2, "little")
    for word in (1, 0x1001, 52, 0, 0):
        header += word.to_bytes(4, "little")
    for half in (52, 32, 1, 40, 0, 0):
        header += half.to_bytes(2, "little")
    words = (1, 84, 0x1000, 0x1000, len(code), len(code), 5, 4)
    return header + b"".join(word.to_bytes(4, "little") for word in words) + code


@dataclass(frozen=True, slots=True)
class Case:
    """`words`: of the cause; `remedy`: of it. `itself`: whether the file alone shows what is wrong."""

    name: str
    component: str
    file: str
    data: bytes
    code: str
    words: str
    remedy: str
    itself: bool = False


CASES = [
    Case(
        "a wrong hash", "soil", "x.bin", changed(GOOD, 200),
        "E-IMAGE-FORMAT", "its SHA256 is", "copied whole", itself=True,
    ),
    Case(
        "a broken header", "soil", "x.bin", changed(GOOD, 14),
        "E-IMAGE-FORMAT", "the header announces", "copied whole", itself=True,
    ),
    Case("cut short", "soil", "x.bin", GOOD[:-5], "E-IMAGE-FORMAT", "TLVs", "copied whole", itself=True),
    Case(
        "linked for another part", "soil", "x.bin", image("2.0.0", start=0x40000),
        "E-IMAGE-WRONG-PART", "this part runs its image at 0x00001000", "linked for this part",
    ),
    Case("larger than its slot", "soil", "x.bin", image("2.0.0", size=8000), "E-IMAGE-TOO-LARGE", "short", "built for"),
    Case(
        "the unsigned program", "soil", "x.hex", hex_file((0x1000, bytes(64))),
        "E-IMAGE-WRONG-PART", "not a signed image in binary form", "zephyr.signed.bin",
    ),
    Case(
        "an older version", "strict", "x.bin", image("0.9.0"),
        "E-IMAGE-WRONG-PART", "takes none below 1.0.0", "a higher version",
    ),
    Case(
        "into the boot section", "motor", "x.bin", firmware("2.0.0", BOOT_SECTION + 100),
        "E-IMAGE-TOO-LARGE", "from 0x00007E00 on is the boot section", "built for",
    ),
    Case(
        "a loader beside the program", "motor", "x.hex",
        hex_file((0, firmware("2.0.0", 2000)), (BOOT_SECTION, bytes(range(32)))),
        "E-IMAGE-MISPLACED", "0x00007E00..0x00007E1F, the part's boot section, which may not be written", "--only flash",
    ),
    Case("an MCUboot image", "motor", "x.bin", GOOD, "E-IMAGE-WRONG-PART", "is an MCUboot image", ".hex or .elf"),
    Case(
        "an ARM's program", "motor", "x.elf", arm_elf(bytes(64)),
        "E-IMAGE-WRONG-PART", "built for EM_ARM, and the part is an AVR", "right file",
    ),
    Case(
        "2 MB for a slot of 384 KiB", "pump", "x.bin", bytes(range(256)) * 8192,
        "E-IMAGE-TOO-LARGE", "0x0005FFFF, 1,703,936 bytes short", "built for",
    ),
]  # fmt: skip


@pytest.fixture
def desk_for(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a bench of one of PARTS, with a file beside it."""

    def make(component: str, file: str, data: bytes) -> Desk:
        protocol, profile, emulated, holds = PARTS[component]
        monkeypatch.chdir(tmp_path)
        Path(f"{component}.bin").write_bytes(holds)
        Path(file).write_bytes(data)
        Path("bench.toml").write_text(
            LINE.format(name=component, protocol=protocol, profile=profile, emulated=emulated)
        )
        return Desk(tmp_path, capsys)

    return make


@pytest.mark.parametrize("dry", [True, False], ids=["dry", "not dry"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_wrong_file_is_refused(desk_for: Callable[[str, str, bytes], Desk], case: Case, dry: bool) -> None:
    desk = desk_for(case.component, case.file, case.data)
    desk.run("scan")
    before = desk.memory()
    done = desk.run("flash", case.component, case.file, *(["--dry-run"] if dry else []), "--json")
    error = done.document["error"]
    assert (done.status, error["code"], error["exit_status"]) == (12, case.code, 12), error
    assert case.words in error["cause"]
    assert case.remedy in error["remedy"]
    assert desk.memory() == before
    assert before


@pytest.mark.parametrize("case", [case for case in CASES if case.itself], ids=lambda case: case.name)
def test_a_broken_file_is_told_without_a_part(desk_for: Callable[[str, str, bytes], Desk], case: Case) -> None:
    desk = desk_for(case.component, case.file, case.data)
    done = desk.run("image", case.file)
    assert (done.status, done.out) == (12, "")
    assert done.err.startswith(f"{case.code} {case.file}: offset 0x")
    assert case.words in done.err
    assert case.remedy in done.err


@pytest.mark.parametrize("component", PARTS)
def test_the_right_file_goes_in(desk_for: Callable[[str, str, bytes], Desk], component: str) -> None:
    """The benches above refuse nothing else."""
    right = {
        "motor": firmware("2.0.0", 2000),
        "pump": application.make("2.0.0", "pump", "Acme", 3000, start=0x0800_5000),
    }
    desk = desk_for(component, "x.bin", right.get(component, GOOD))
    done = desk.run("flash", component, "x.bin", "--dry-run")
    assert (done.status, done.err) == (0, "")
    assert done.out.endswith("dry run: nothing was written\n")


def test_what_the_profile_does_not_tell_the_loader_does(desk_for: Callable[[str, str, bytes], Desk]) -> None:
    """Without a slot's size in the profile it is the loader that refuses the file, by its name and size."""
    desk = desk_for("pump", "x.bin", bytes(range(256)) * 8192)
    desk.edit((", slot_size = 0x6_0000", ""))
    desk.run("scan")
    before = desk.memory()
    error = desk.run("flash", "pump", "x.bin", "--json").document["error"]
    assert (error["code"], error["exit_status"]) == ("E-IMAGE-WRONG-PART", 12)
    assert "image size is higher than the allowed space memory" in error["cause"]
    assert desk.memory() == before


@pytest.mark.parametrize("component", ["soil", "pump"])
def test_a_slot_that_is_erased_by_what_comes_is_not_erased_alone(
    desk_for: Callable[[str, str, bytes], Desk], component: str
) -> None:
    desk = desk_for(component, "x.bin", GOOD)
    desk.run("scan")
    before = desk.memory()
    done = desk.run("erase", component)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"E-UNSUPPORTED {component}: this part erases its memory for what is written to it")
    assert desk.memory() == before
