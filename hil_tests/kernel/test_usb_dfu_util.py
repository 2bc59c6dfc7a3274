"""Debian's dfu-util on emulated parts through the kernel's USB: lists, writes, reads back, leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
from proxyflash.hil_tests.kernel.usb_lab import SIZE, SLOT, ST, Kind, Part, run

NEW, LATER = "1.5.0", "1.6.0"
DELAY = "5"
"""Seconds that dfu-util waits for a part to come back after a detach; it always waits all of them."""
LEFT = 251
"""dfu-util's exit status after -R with a part that leaves on a reset, as it should: LIBUSB_ERROR_NOT_FOUND (-5), cut."""


@pytest.fixture
def st(usb_parts: dict[Kind, Part]) -> Part:
    return usb_parts[ST]


@pytest.fixture
def slot(usb_parts: dict[Kind, Part]) -> Part:
    return usb_parts[SLOT]


def dfu_util(part: Part, *words: str, status: int = 0) -> str:
    return run("dfu-util", "-E", DELAY, "-d", part.kind.both_ids, "-p", part.place, *words, status=status)


def found(part: Part) -> list[str]:
    return [line for line in run("dfu-util", "-l").splitlines() if f'path="{part.place}"' in line]


def bcd(version: str) -> str:
    """bcdDevice in hexadecimal: 0xJJMN (USB 2.0, 9.6.1)."""
    major, minor, step = version.split(".")
    return f"{int(major):02d}{minor}{step}"


def test_dfu_1_1(slot: Part, tmp_path: Path) -> None:
    (line,) = found(slot)
    assert f"Found Runtime: [1209:0002] ver={bcd(slot.running())}" in line
    assert f'name="Firmware update", serial="{slot.serial}"' in line

    dfu_util(slot, "-e")
    slot.wait_dfu()
    (line,) = found(slot)
    assert "Found DFU: [1209:df01] ver=0100" in line
    assert 'alt=0, name="Slot"' in line

    assert "Download done." in dfu_util(slot, "-D", str(slot.file(NEW, "dfu")))
    back = tmp_path / "back.bin"
    dfu_util(slot, "-R", "-U", str(back), status=LEFT)
    # The whole slot: the firmware, and what is erased behind it.
    data = back.read_bytes()
    assert data[:SIZE] == slot.kind.firmware(NEW)
    assert data[SIZE:] == b"\xff" * (0x20000 - SIZE)
    slot.wait_running(NEW)


def test_dfu_1_1_from_the_running_application(slot: Part) -> None:
    """It detaches unasked, and lets it run again."""
    dfu_util(slot, "-R", "-D", str(slot.file(LATER, "dfu")), status=LEFT)
    slot.wait_running(LATER)


def test_dfuse(st: Part, tmp_path: Path) -> None:
    (line,) = found(st)
    assert f"Found Runtime: [1209:0001] ver={bcd(st.running())}" in line
    dfu_util(st, "-e")
    st.wait_dfu()
    options, flash = sorted(found(st), key=lambda line: "alt=0" in line)
    assert 'alt=1, name="@Option Bytes  /0x1FFFF800/01*016 g"' in options
    assert 'alt=0, name="@Internal Flash  /0x08000000/128*002Kg"' in flash

    raw = st.file(NEW)
    said = dfu_util(st, "-a", "0", "-s", "0x08000000:mass-erase:force", "-D", str(raw))
    assert "Performing mass erase" in said
    back = tmp_path / "back.bin"
    dfu_util(st, "-a", "0", "-s", f"0x08000000:{SIZE + 2048}", "-U", str(back))
    assert back.read_bytes() == st.kind.firmware(NEW) + b"\xff" * 2048
    # Elsewhere, and no whole block.
    middle = tmp_path / "middle.bin"
    dfu_util(st, "-a", "0", "-s", "0x08001234:3000", "-U", str(middle))
    assert middle.read_bytes() == st.kind.firmware(NEW)[0x1234 : 0x1234 + 3000]
    # A DfuSe file: it has its addresses, and what it touches is erased. ":leave" starts it.
    dfu_util(st, "-a", "0", "-s", ":leave", "-D", str(st.file(LATER, "dfuse")))
    st.wait_running(LATER)
