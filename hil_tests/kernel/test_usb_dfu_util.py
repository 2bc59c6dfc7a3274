"""Debian's dfu-util on emulated parts through the kernel's USB: lists, writes, reads back, leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from proxyflash.hil_tests.kernel.usb_lab import NEW, OLD, SIZE, SLOT, ST, Emulation, emulations, run

LATER = "1.6.0"
DELAY = "5"
"""Seconds that dfu-util waits for a part to come back after a detach; it always waits all of them."""
LEFT = 251
"""dfu-util's exit status after -R with a part that leaves on a reset, as it should: LIBUSB_ERROR_NOT_FOUND (-5), cut."""
NO_MATCH = 64
"""EX_USAGE."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Emulation]]:
    with emulations(tmp_path_factory.mktemp("usb"), ST, SLOT) as made:
        yield made


@pytest.fixture
def st(parts: list[Emulation]) -> Emulation:
    return parts[0]


@pytest.fixture
def slot(parts: list[Emulation]) -> Emulation:
    return parts[1]


def dfu_util(part: Emulation, *words: str, status: int = 0) -> str:
    return run("dfu-util", "-E", DELAY, "-d", part.kind.both_ids, "-p", part.place, *words, status=status)


def found(part: Emulation) -> list[str]:
    return [line for line in run("dfu-util", "-l").splitlines() if f'path="{part.place}"' in line]


def test_dfu_1_1(slot: Emulation, tmp_path: Path) -> None:
    slot.wait_running(OLD)
    (line,) = found(slot)
    assert "Found Runtime: [1209:0002] ver=0142" in line
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


def test_dfu_1_1_from_the_running_application(slot: Emulation) -> None:
    """It detaches by itself, and lets it run again."""
    dfu_util(slot, "-R", "-D", str(slot.file(LATER, "dfu")), status=LEFT)
    slot.wait_running(LATER)


def test_a_file_for_another_device_is_refused(slot: Emulation, st: Emulation) -> None:
    said = dfu_util(slot, "-D", str(st.file(NEW, "dfu")), status=NO_MATCH)
    assert "File ID 0483:df11 does not match device (1209:0002 or 1209:df01)" in said


def test_dfuse(st: Emulation, tmp_path: Path) -> None:
    st.wait_running(OLD)
    (line,) = found(st)
    assert "Found Runtime: [1209:0001] ver=0142" in line
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
    dfu_util(st, "-a", "0", "-s", "0x08000000:leave")
    st.wait_running(NEW)


def test_a_dfuse_file_from_the_running_application(st: Emulation) -> None:
    """What it touches is erased; ":leave" starts it."""
    dfu_util(st, "-a", "0", "-s", ":leave", "-D", str(st.file(LATER, "dfuse")))
    st.wait_running(LATER)
