"""What is seen of an erase that took more than its unit, or less, on flash whose real units are others than the planned ones."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from proxyflash.flashers.errors import PartRefused, WrongLayout
from proxyflash.flashers.lookout import Lookout
from proxyflash.flashers.memory import Erase, MemoryMap, Range, Region, Watch, uniform

START, SIZE = 0x1000, 0x1_0000


class Flash:
    """`real`: bytes of its erase units, which are numbered from 0."""

    def __init__(self, real: int, filled: Sequence[tuple[int, int]] = ((0, SIZE),)) -> None:
        self.real = real
        self.data = bytearray(b"\xff" * SIZE)
        for start, end in filled:
            self.data[start:end] = b"\x5a" * (end - start)
        self.reads = 0

    def read(self, start: int, size: int) -> bytes:
        assert START <= start <= START + SIZE - size
        self.reads += 1
        return bytes(self.data[start - START : start - START + size])

    def erase(self, number: int) -> None:
        self.data[number * self.real : (number + 1) * self.real] = b"\xff" * self.real


def region(unit: int, watch: Watch, **facts: Erase) -> Region:
    return uniform("flash", START, SIZE, unit, watch=watch, **facts)


def erased(flash: Flash, area: Region, first: int, last: int) -> int:
    """How many units were erased before it was seen; raises what was seen."""
    units = [*area.erase_units(START + first * area.units[0].size, START + (last + 1) * area.units[0].size)]
    lookout = Lookout(flash.read, MemoryMap((area,)), units)
    done = 0
    for number, unit in enumerate(units, first):
        flash.erase(number)
        done += unit.size
        lookout.after(done)
    return len(units)


@pytest.mark.parametrize("watch", [Watch.FIRST, Watch.EACH])
@pytest.mark.parametrize("unit", [0x100, 0x1000, 0x4000, SIZE])
def test_as_planned(watch: Watch, unit: int) -> None:
    assert erased(Flash(unit), region(unit, watch), 0, SIZE // unit - 1) == SIZE // unit


@pytest.mark.parametrize("watch", [Watch.FIRST, Watch.EACH])
@pytest.mark.parametrize(
    ("planned", "real", "first", "why"),
    [
        (0x400, 0x800, 0, "has also erased what lay at 0x00001400"),
        (0x400, 0x4000, 0, "has also erased what lay at 0x00001400"),
        (0x400, 0x4000, 2, "erasing 0x00001800..0x00001BFF has"),
        (0x1000, 0x400, 0, "has left a part of it"),
        (0x4000, 0x1000, 1, "erasing 0x00005000..0x00008FFF has"),
        (0x1000, 0x4000, 3, "has also erased"),
    ],
)
def test_other_units(watch: Watch, planned: int, real: int, first: int, why: str) -> None:
    with pytest.raises(WrongLayout, match=why):
        erased(Flash(real), region(planned, watch), first, first + 1)


def test_a_little_beyond_the_unit_is_seen() -> None:
    """16 bytes in the middle of the unit behind, and nothing else there."""
    flash = Flash(0x2000, [(0, 0x1000), (0x1800, 0x1810)])
    with pytest.raises(WrongLayout, match="what lay at 0x00002800"):
        erased(flash, region(0x1000, Watch.FIRST), 0, 0)


def test_each_is_looked_at_where_a_person_described_them() -> None:
    """Units 0 to 3 are right; the unit that is described as 4 is four times as large, as in an STM32F4."""

    class Mixed(Flash):
        def erase(self, number: int) -> None:
            start, size = (number * 0x1000, 0x1000) if number < 4 else (0x4000 * (number - 3), 0x4000)
            self.data[start : start + size] = b"\xff" * size

    with pytest.raises(WrongLayout, match=r"erasing 0x00005000\.\.0x00005FFF has also erased"):
        erased(Mixed(0x1000), region(0x1000, Watch.EACH), 0, 15)
    assert erased(Mixed(0x1000), region(0x1000, Watch.FIRST), 0, 5) == 6


def test_where_all_is_blank_nothing_is_lost_and_nothing_said() -> None:
    assert erased(Flash(0x4000, [(0, 0x400)]), region(0x400, Watch.EACH), 0, 0) == 1


def test_what_the_part_says_of_itself_is_believed() -> None:
    flash = Flash(0x4000)
    assert erased(flash, region(0x400, Watch.NO), 0, 3) == 4
    assert flash.reads == 0


def test_a_table_of_parts_costs_few_reads() -> None:
    flash = Flash(0x400)
    erased(flash, region(0x400, Watch.FIRST), 0, 40)
    assert flash.reads < 40


def test_pages_that_writing_erases_need_not_be_blank() -> None:
    """An AVR's first page holds a jump into the loader, until the others are written."""
    area = region(0x400, Watch.FIRST, erase=Erase.BY_WRITE)
    unit = Range(START, 0x400)
    Lookout(Flash(0x400).read, MemoryMap((area,)), [unit]).after(unit.size)
    larger = Flash(0x800)
    lookout = Lookout(larger.read, MemoryMap((area,)), [unit])
    larger.erase(0)
    with pytest.raises(WrongLayout, match="also erased"):
        lookout.after(unit.size)


def test_a_bank_that_goes_at_once() -> None:
    """Its units are not the first ones of the plan, which are erased by pages afterwards."""
    flash, area = Flash(0x1000), region(0x1000, Watch.FIRST)
    units = [*area.erase_units(START, START + SIZE)]
    planned = [units[8], *units[:2], *units[9:]]
    lookout = Lookout(flash.read, MemoryMap((area,)), planned)
    flash.data[0x8000:] = b"\xff" * 0x8000
    lookout.after(0x8000)
    lookout = Lookout(flash.read, MemoryMap((area,)), planned)
    flash.data[0x7000:] = b"\xff" * 0x9000
    with pytest.raises(WrongLayout, match="what lay at 0x00008000"):
        lookout.after(0x8000)


def test_a_refusal_that_is_another_place() -> None:
    flash, area = Flash(0x1000), region(0x1000, Watch.FIRST)
    lookout = Lookout(flash.read, MemoryMap((area,)), [Range(START, 0x1000)])
    flash.erase(15)
    with pytest.raises(WrongLayout, match="what lay at 0x00010FF0"):
        lookout.after_refusal()


@pytest.mark.parametrize("watch", [Watch.FIRST, Watch.EACH])
def test_a_refusal_after_erases_that_were_planned(watch: Watch) -> None:
    """Unit 0 alone, then 1 to 8 by one command; the next command is refused between its units; nothing else is gone."""
    flash, area = Flash(0x400), region(0x400, watch)
    lookout = Lookout(flash.read, MemoryMap((area,)), [*area.erase_units(START, START + 17 * 0x400)])
    flash.erase(0)
    lookout.after(0x400)
    for number in range(1, 12):
        flash.erase(number)
        if number == 8:
            lookout.after(9 * 0x400)
    lookout.after_refusal()
    flash.erase(63)
    with pytest.raises(WrongLayout, match=r"erasing 0x00003400\.\.0x000037FF has also erased .*0x00010FF0"):
        lookout.after_refusal()


def test_what_can_not_be_read_says_nothing() -> None:
    def refuse(address: int, size: int) -> bytes:
        raise PartRefused("no")

    lookout = Lookout(refuse, MemoryMap((region(0x1000, Watch.EACH),)), [Range(START, 0x1000)])
    lookout.after(0x1000)
    lookout.after_refusal()
