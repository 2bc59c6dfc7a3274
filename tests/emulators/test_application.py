"""What an emulated part boots, and what it doesn't."""

from __future__ import annotations

import struct

import pytest
from proxyflash.emulators import application
from proxyflash.emulators.flash import NorFlash
from proxyflash.emulators.supply import Supply

START = 0x08000000


def holding(data: bytes) -> NorFlash:
    flash = NorFlash(START, [(16, 1024)], Supply())
    flash.load(START, data)
    return flash


def test_a_described_firmware_tells_its_version() -> None:
    made = application.make("1.5.0", "IMU-6", "Contoso", 5000)
    found = application.find(holding(made), START)
    assert found == application.Application("1.5.0", "IMU-6", "Contoso", 5000)


@pytest.mark.parametrize("offset", [0, 200, 0x108, 0x110, 4999])
def test_one_wrong_bit_anywhere_and_it_is_not_booted(offset: int) -> None:
    made = bytearray(application.make("1.5.0", "IMU-6", "Contoso", 5000))
    made[offset] ^= 0x04
    assert application.find(holding(bytes(made)), START) is None


def test_a_blank_part_boots_nothing() -> None:
    assert application.find(holding(b""), START) is None


def test_a_stock_firmware_boots_by_its_vector_table() -> None:
    stock = struct.pack("<II", 0x20005000, START + 0x101) + bytes(1000)
    assert application.find(holding(stock), START) == application.Application("", "", "", 0)
    for stack, reset in ((0xFFFFFFFF, START + 0x101), (0x20005000, START + 0x100), (0x20005000, 0x101)):
        assert application.find(holding(struct.pack("<II", stack, reset) + bytes(1000)), START) is None
