"""Memory maps: which erase units a range touches, which region an address is in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers.memory import EraseRun, MemoryMap, Range, Region, uniform

KIB = 1024
F4 = Region("flash", 0x08000000, 512 * KIB, (EraseRun(4, 16 * KIB), EraseRun(1, 64 * KIB), EraseRun(3, 128 * KIB)))
"""STM32F401xE, RM0368, table 5: sectors 0 to 3 of 16 KiB, 4 of 64, 5 to 7 of 128."""


def sectors(start: int, end: int) -> list[tuple[int, int]]:
    return [(unit.start - F4.start, unit.size // KIB) for unit in F4.erase_units(F4.start + start, F4.start + end)]


def test_all_units_of_a_part_with_several_sizes() -> None:
    # RM0368, table 5: the offset of each sector and its size.
    assert sectors(0, 512 * KIB) == [
        (0x0000, 16),
        (0x4000, 16),
        (0x8000, 16),
        (0xC000, 16),
        (0x10000, 64),
        (0x20000, 128),
        (0x40000, 128),
        (0x60000, 128),
    ]


@pytest.mark.parametrize(
    ("start", "end", "touched"),
    [
        (0x0000, 0x0001, [(0, 16)]),
        (0x3FFF, 0x4001, [(0, 16), (0x4000, 16)]),
        (0x4000, 0x8000, [(0x4000, 16)]),
        (0xFFFF, 0x10001, [(0xC000, 16), (0x10000, 64)]),
        (0x1FFFF, 0x20001, [(0x10000, 64), (0x20000, 128)]),
        (0x7FFFF, 0x80000, [(0x60000, 128)]),
        (0x80000, 0x90000, []),
        (-0x100, 0, []),
        (-0x100, 1, [(0, 16)]),
        (0x5000, 0x5000, []),
        (0x5000, 0x4000, []),
    ],
)
def test_the_units_that_a_range_touches(start: int, end: int, touched: list[tuple[int, int]]) -> None:
    assert sectors(start, end) == touched


runs = st.lists(st.builds(EraseRun, st.integers(1, 5), st.integers(1, 9)), min_size=1, max_size=4)


@given(runs, st.integers(-5, 120), st.integers(-5, 120))
@settings(max_examples=300, deadline=None)
def test_units_are_those_that_share_an_address_with_the_range(units: list[EraseRun], start: int, end: int) -> None:
    region = Region("flash", 3, sum(run.count * run.size for run in units), tuple(units))
    every, address = [], region.start
    for run in units:
        for _ in range(run.count):
            every.append(Range(address, run.size))
            address += run.size
    assert address == region.end
    wanted = range(start, end)
    assert list(region.erase_units(start, end)) == [
        unit for unit in every if any(address in wanted for address in range(unit.start, unit.end))
    ]


def test_a_million_units_cost_what_is_touched() -> None:
    # Would take for ever if each unit were looked at.
    huge = Region("flash", 0, 1 << 50, (EraseRun(1 << 49, 1), EraseRun(1 << 20, 1 << 29)))
    assert list(huge.erase_units((1 << 48) + 5, (1 << 48) + 6)) == [Range((1 << 48) + 5, 1)]
    assert list(huge.erase_units((1 << 50) - 1, 1 << 50)) == [Range((1 << 50) - (1 << 29), 1 << 29)]


def test_a_region_of_equal_units() -> None:
    region = uniform("flash", 0x1000, 4 * KIB, KIB, write_alignment=8, readable=False)
    assert (region.end, region.units, region.write_alignment) == (0x2000, (EraseRun(4, KIB),), 8)
    assert not region.readable
    assert region.writable


@pytest.mark.parametrize(("size", "unit"), [(1000, 512), (512, 1024), (0, 512)])
def test_units_that_do_not_cover_their_region_are_a_mistake(size: int, unit: int) -> None:
    with pytest.raises(ValueError, match=f"'flash' has {size:,} bytes, and its erase units {size // unit * unit:,}"):
        uniform("flash", 0, size, unit)


def test_a_range_prints_its_last_address() -> None:
    assert str(Range(0x08000000, 0x400)) == "0x08000000..0x080003FF"


def test_ranges_sort_by_address() -> None:
    assert sorted([Range(4, 1), Range(0, 9), Range(2, 2)]) == [Range(0, 9), Range(2, 2), Range(4, 1)]


def test_the_region_of_an_address() -> None:
    low, high = uniform("low", 0, 16, 16), uniform("high", 32, 16, 16)
    memory = MemoryMap((low, high))
    assert [memory.region_of(address) for address in (-1, 0, 15, 16, 31, 32, 47, 48)] == [
        None, low, low, None, None, high, high, None,
    ]  # fmt: skip


def test_neighbouring_runs_of_one_size_are_one_run() -> None:
    units = (EraseRun(1, 2 * KIB), EraseRun(3, 2 * KIB), EraseRun(1, 4 * KIB), EraseRun(1, 2 * KIB))
    region = Region("flash", 0x0800_2000, 14 * KIB, units)
    assert region.units == (EraseRun(4, 2 * KIB), EraseRun(1, 4 * KIB), EraseRun(1, 2 * KIB))
