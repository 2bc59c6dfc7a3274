"""MCUboot's log of its start, as it is printed, and the images that it can't have started."""

from __future__ import annotations

import struct

import pytest
from proxyflash.emulators.mcuboot import image as mcuboot_image
from proxyflash.flashers.formats.mcuboot import parse
from proxyflash.flashers.smp.boot_log import missed

LOG = (
    b"*** Booting MCUboot v2.3.0-dev-fce4dac2e629 ***\r\nI: Starting bootloader\r\n"
    b"I: Image index: 0, Swap type: test\r\nI: Bootloader chainload address offset: 0x%x\r\nI: Image version: v0.4.0\r\n"
    b"I: Jumping to the first image slot\r\n"
)
"""As parts print it (boot/zephyr/main.c)."""
STACK = 0x20001000


def made(stack: int, reset: int) -> bytes:
    return mcuboot_image.make(struct.pack("<II", stack, reset) + bytes(4000), (1, 0, 0, 0), header_size=0x200)


@pytest.mark.parametrize(
    ("stack", "reset", "offset", "misses"),
    [
        (STACK, 0xC0F5 + 0x200, 0xC000, False),
        (STACK, 0x0800_C0F5 + 0x200, 0xC000, False),
        (STACK, 0x6002_0301, 0x2_0000, False),
        (STACK, 0x0301, 0xC000, True),
        (STACK, 0x0802_0301, 0xC000, True),
        (STACK, 0xBFFF, 0xC000, True),
        (0x0000_006F, 0x0301, 0xC000, False),
        (STACK, 0x0300, 0xC000, False),
    ],
    ids=["nRF", "STM32", "i.MX RT", "for no bootloader", "for another slot", "before", "RISC-V", "no Thumb"],
)
def test_an_image_that_is_linked_for_elsewhere(stack: int, reset: int, offset: int, misses: bool) -> None:
    said = missed(LOG % offset, parse(made(stack, reset)))
    assert bool(said) is misses
    if misses:
        assert f"at 0x{offset:X} of its flash" in said


def test_the_last_start_counts() -> None:
    image = parse(made(STACK, 0x2_0301))
    assert missed(LOG % 0x2_0000 + LOG % 0xC000, image)
    assert not missed(LOG % 0xC000 + LOG % 0x2_0000, image)


@pytest.mark.parametrize("log", [b"", LOG[:90], b"I: Bootloader chainload address offset: 0xC0"])
def test_a_log_that_does_not_say_it(log: bytes) -> None:
    assert missed(log, parse(made(STACK, 0x301))) == ""
