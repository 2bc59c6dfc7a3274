"""The NOR flash refuses what real flash refuses, counts, and tears what a cut falls into."""

from __future__ import annotations

from pathlib import Path

import pytest
from proxyflash.emulators.flash import FlashRefused, NorFlash
from proxyflash.emulators.supply import PowerLost, Supply

BASE = 0x08000000
UNITS = [(4, 1024), (1, 4096)]


def flash(**options: object) -> NorFlash:
    return NorFlash(BASE, UNITS, Supply(), **options)  # type: ignore[arg-type]


def test_units_of_mixed_sizes() -> None:
    memory = flash()
    assert memory.size == 8192
    assert memory.unit_of(BASE + 4095) == (BASE + 3072, 1024)
    assert memory.unit_of(BASE + 4096) == (BASE + 4096, 4096)
    assert memory.unit(4) == (BASE + 4096, 4096)
    for address in (BASE - 1, BASE + 8192):
        with pytest.raises(FlashRefused, match="range"):
            memory.unit_of(address)


def test_programming_needs_erased_cells_and_erasing_brings_them_back() -> None:
    memory = flash()
    memory.program(BASE, b"abcd")
    with pytest.raises(FlashRefused, match="not erased"):
        memory.program(BASE + 3, b"e")
    assert memory.read(BASE, 5) == b"abcd\xff"
    memory.erase(BASE + 500)
    memory.program(BASE, b"ABCD")
    assert memory.read(BASE, 4) == b"ABCD"
    assert (memory.erases, memory.programs) == (1, 8)


def test_without_an_ecc_programming_only_clears_bits() -> None:
    memory = flash(strict=False)
    memory.program(BASE, b"\xf0")
    memory.program(BASE, b"\x3c")
    assert memory.read(BASE, 1) == b"\x30"


def test_misaligned_and_out_of_range_writes_change_nothing() -> None:
    memory = flash(program_unit=8)
    for address, data in ((BASE + 4, bytes(8)), (BASE, bytes(7)), (BASE + 8192, bytes(8)), (BASE - 8, bytes(8))):
        with pytest.raises(FlashRefused):
            memory.program(address, data)
    assert memory.read(BASE, 8192) == b"\xff" * 8192
    assert memory.supply.operations == 0


def test_a_cut_during_an_erase_leaves_part_of_the_unit() -> None:
    memory = flash()
    memory.program(BASE, b"\x00" * 1024)
    memory.supply.cut_at(1)
    with pytest.raises(PowerLost):
        memory.erase(BASE)
    torn = memory.read(BASE, 1024)
    assert torn not in (b"\x00" * 1024, b"\xff" * 1024)
    assert not memory.supply.is_on


def test_a_cut_during_a_program_tears_one_unit_and_stops_there() -> None:
    memory = flash(program_unit=2)
    memory.supply.cut_at(3)
    with pytest.raises(PowerLost):
        memory.program(BASE, b"\x00" * 10)
    assert memory.read(BASE, 4) == b"\x00" * 4
    assert memory.read(BASE + 4, 2) not in (b"\x00\x00", b"\xff\xff")
    assert memory.read(BASE + 6, 4) == b"\xff" * 4


def test_operations_take_their_time() -> None:
    waits: list[float] = []
    memory = flash(program_unit=4, erase_seconds=lambda size: size / 1024, program_seconds=0.5, busy=waits.append)
    memory.erase(BASE + 4096)
    memory.program(BASE, b"x" * 12)
    assert waits == [4.0, 1.5]


def test_contents_are_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "part" / "imu.flash"
    memory = flash(path=path)
    memory.program(BASE, b"kept")
    memory.close()
    again = flash(path=path)
    assert again.read(BASE, 6) == b"kept\xff\xff"
    assert path.stat().st_size == 8192
    again.close()


def test_an_erased_value_of_zero() -> None:
    memory = flash(erased=0)
    assert memory.read(BASE, 2) == b"\0\0"
    memory.program(BASE, b"\xff")
    memory.erase(BASE)
    assert memory.read(BASE, 1) == b"\0"
